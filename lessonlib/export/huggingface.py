"""A folder in Hugging Face format: a model as transformers and vLLM load it.

Casts are plain checkpoints. int8 and int4 follow the compressed-tensors convention (format "pack-quantized"), which
transformers reads with the `compressed-tensors` package and vLLM by itself: the codes and scales are the engine's own,
so both compute with exactly the weights that the engine computes with. Embeddings and output layer stay as they are:
the convention has no tied, quantized pair.
"""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lessonlib.engine import Transformer, load_config, load_model, load_tokenizer, save_model
from lessonlib.engine.checkpoint import DTYPES, WEIGHTS, read_json, resolve, write_tensors
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize.int4 import Int4Linear
from lessonlib.engine.quantize.int8 import Int8Linear

from . import FORMATS, Exported, check_range

GROUP = 32  # int4 weights that share a scale
BITS = {"int8": 8, "int4": 4}
# What makes a folder complete beside the weights; whichever of these the model has.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "README.md",
    "LICENSE",
)


def export_folder(name: str | Path, output: str | Path, quantization: str | None = None) -> Exported:
    """Write a model, by name or folder, as a folder of its own.

    quantization: "float32", "float16" or "bfloat16" cast all weights; "int8" (one scale a row) and "int4" (symmetric,
    one scale for 32 weights: 4.5 bits) quantize the layers' matrices. None: as the checkpoint stores them.

    Raises UnknownModel, BrokenCheckpoint, and BadParameter when ``output`` holds something already.
    """
    folder, output = resolve(name), Path(output)
    stored = read_json(folder / "config.json")
    stored_dtype = str(stored.get("dtype") or stored.get("torch_dtype"))
    stored_dtype = stored_dtype if stored_dtype in DTYPES else "float32"
    chosen = quantization or stored_dtype
    if chosen not in FORMATS["hf"]:
        raise BadParameter(f"{quantization!r} is not offered here; choose one of {', '.join(FORMATS['hf'])}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BadParameter(
            f"{output} is there already, and a mixture of two models is none; give a new folder."
        )
    load_tokenizer(folder, load_config(folder).vocab_size)  # a folder without one would be of no use
    model = load_model(folder, stored_dtype)

    # A reader never meets half a folder.
    fresh = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    try:
        if chosen in BITS:
            _save_quantized(model, fresh, chosen)
        else:
            check_range(model.state_dict().values(), DTYPES[chosen])
            save_model(model.to(DTYPES[chosen]), fresh)
        for companion in COMPANIONS:
            if (folder / companion).is_file():
                shutil.copyfile(folder / companion, fresh / companion)
        if output.is_dir():
            output.rmdir()
        fresh.rename(output)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    size = sum(file.stat().st_size for file in output.iterdir())
    notes = (
        ("On a CPU, vLLM 0.32 has no kernel for int8 weights; it runs int4 there.",)
        if chosen == "int8"
        else ()
    )
    return Exported(output, size, chosen, notes)


def _save_quantized(model: Transformer, folder: Path, kind: str) -> None:
    """The model's tensors and config as compressed-tensors spells them."""
    bits = BITS[kind]
    tensors: dict[str, Tensor] = {}
    quantized: set[str] = set()
    for name, module in model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, nn.Linear):
            quantized.add(f"{name}.weight")
            codes, scales = _codes(module, kind)
            tensors[f"{name}.weight_packed"] = pack_int32(codes, bits)
            tensors[f"{name}.weight_scale"] = scales.contiguous()
            tensors[f"{name}.weight_shape"] = torch.tensor(module.weight.shape)
    for name, tensor in model.state_dict().items():
        theirs = name if name.startswith("lm_head.") else f"model.{name}"
        tied = name == "lm_head.weight" and model.config.tie_word_embeddings
        if theirs not in quantized and not tied:
            tensors[theirs] = tensor.detach().cpu().contiguous()
    folder.mkdir(parents=True)
    config = model.config.to_hf() | {
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "quantization_config": _scheme(bits),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tensors(tensors, folder / WEIGHTS)


def _codes(linear: nn.Linear, kind: str) -> tuple[Tensor, Tensor]:
    """Codes without sign (out, in) and scales (out, groups) of a layer, as the engine quantizes it."""
    if kind == "int8":
        eight = Int8Linear.from_linear(linear)
        return eight.codes.int() + 128, eight.scales[:, None]
    if linear.in_features % GROUP:
        raise BadParameter(
            f"int4 shares a scale among {GROUP} weights of a row, but a layer here has rows of {linear.in_features}; "
            "choose int8."
        )
    four = Int4Linear.from_linear(linear, group_size=GROUP, symmetric=True)
    return four.unpack().int(), four.scales


def pack_int32(codes: Tensor, bits: int) -> Tensor:
    """Codes 0 … 2^bits - 1 (out, in), packed 32 / bits to an int32, the first in the lowest bits."""
    each = 32 // bits
    groups = F.pad(codes.long(), (0, -codes.shape[1] % each)).unflatten(1, (-1, each))
    packed = (groups << (bits * torch.arange(each))).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def _scheme(bits: int) -> dict[str, Any]:
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "channel" if bits == 8 else "group",
        "group_size": None if bits == 8 else GROUP,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
            }
        },
    }
