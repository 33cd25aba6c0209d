"""Weights and KV cache in fewer bits.

Read in this order: linear, int8, int4 (int4_layout), nf4, gguf_blocks, kv, calibrate.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..checkpoint import DTYPES
from ..errors import BadParameter
from ..model import Transformer
from .calibrate import calibrate
from .gguf_blocks import Q4_0Linear, Q8_0Linear
from .int4 import Int4Linear
from .int8 import Int8Linear
from .linear import QuantizedEmbedding, QuantizedLinear
from .nf4 import NF4Linear

# Format of the layers, and of the embedding and output layer. These two stay in 8 bits: they are small in a large
# model, and every prediction passes through them.
SCHEMES: dict[str, tuple[type[QuantizedLinear], type[QuantizedLinear]]] = {
    "int8": (Int8Linear, Int8Linear),
    "int4": (Int4Linear, Int8Linear),
    "nf4": (NF4Linear, Int8Linear),
    "q8_0": (Q8_0Linear, Q8_0Linear),
    "q4_0": (Q4_0Linear, Q8_0Linear),
}


def quantize_model(
    model: Transformer, scheme: str, calibration: Tensor | None = None, **options: Any
) -> Transformer:
    """Store the model's weight matrices in fewer bits, in place, and return the model.

    scheme: "int8"; "int4" (options group_size = 64, or 32 or 128, symmetric = False); "nf4" (double = False); GGUF's
    "q8_0" and "q4_0"; or a cast of everything: "float32", "bfloat16", "float16". A tied embedding and output layer
    stay one matrix. Norms, biases and outputs keep the model's dtype; products may run in bfloat16 (always in the fused
    kernels of a CPU, elsewhere where the hardware multiplies it), so the last bits depend on the machine.
    calibration: token ids (rows, length) of typical text; "int4" then chooses its codes by GPTQ instead of rounding.

    Raises BadParameter.
    """
    if model.quantization:
        raise BadParameter(f"This model is quantized already ({model.quantization}); load it again first.")
    if scheme not in SCHEMES and scheme not in DTYPES:
        known = ", ".join([*SCHEMES, *DTYPES])
        raise BadParameter(f"The scheme {scheme!r} is not known; choose one of {known}.")
    layer, head = SCHEMES.get(scheme, (QuantizedLinear, QuantizedLinear))
    if unknown := sorted(set(options) - set(layer.OPTIONS)):
        raise BadParameter(
            f"{scheme} has no option {unknown[0]}; it has {', '.join(layer.OPTIONS) or 'none'}."
        )
    if calibration is not None and scheme != "int4":
        raise BadParameter(f"Only int4 can be calibrated, not {scheme}; leave calibration out.")
    if scheme in DTYPES:
        return model.to(DTYPES[scheme])
    linears = [
        (block, name, linear)
        for block in model.layers
        for name, linear in block.named_modules()
        if isinstance(linear, nn.Linear)
    ]
    for _, _, linear in linears:  # before anything is replaced: a model is quantized as a whole or not at all
        layer.check(linear.in_features)
    head.check(model.config.hidden_size)
    if calibration is not None:
        calibrate(model, calibration, **options)
    else:
        for block, name, linear in linears:
            block.set_submodule(name, layer.from_linear(linear, **options))
    output = head.from_linear(model.lm_head)
    embedding = model.embed_tokens.weight
    shared = output if model.config.tie_word_embeddings else head.from_weight(embedding)
    model.set_submodule("lm_head", output)
    model.set_submodule("embed_tokens", QuantizedEmbedding(shared, embedding.dtype))
    model.quantization = scheme
    return model
