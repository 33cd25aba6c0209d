"""quantize_model: a whole model in fewer bits, smaller in truth, and still the same model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lessonlib.engine import (
    DenseCache,
    ModelConfig,
    SamplingParams,
    Transformer,
    costs,
    generate,
    load_model,
    save_model,
)
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize import SCHEMES, QuantizedLinear, quantize_model

from ..conftest import random_model, refuses, some_ids, tiny_config

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
ALL = [(scheme, {}) for scheme in SCHEMES] + [
    ("int4", {"group_size": 64, "symmetric": False}),
    ("int4", {"group_size": 128, "symmetric": True}),
    ("nf4", {"double": True}),
]
each = pytest.mark.parametrize(("scheme", "options"), ALL, ids=str)


def model_of(tied: bool = True, **changes) -> Transformer:
    return random_model(tiny_config(**SIZES, tie_word_embeddings=tied, attention_bias=True, **changes))


def bytes_held(model: Transformer) -> int:
    """Bytes of all tensors of the model, each counted once however often it is used."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def spelled_out(model: Transformer, quantized: Transformer) -> Transformer:
    """A plain float32 model with the weights that the quantized one stands for."""
    plain = copy.deepcopy(model).float()
    for name, module in quantized.named_modules():
        if isinstance(module, QuantizedLinear) and not name.startswith("embed_tokens"):
            plain.get_submodule(name).weight = nn.Parameter(module.dequantize())
    plain.embed_tokens.weight = nn.Parameter(quantized.embed_tokens.linear.dequantize())
    return plain.requires_grad_(False)


@each
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_its_weights_say(scheme, options, tied, dtype):
    model = model_of(tied).to(dtype)
    quantized = quantize_model(copy.deepcopy(model), scheme, **options)
    expected = spelled_out(model, quantized)(some_ids(30)).logits
    logits = quantized(some_ids(30)).logits
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() / expected.norm() < 0.04
    assert quantized.dtype == quantized.embed_tokens(some_ids(1)).dtype == dtype


@each
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_in_place_and_every_matrix_is_replaced_and_stored_once(scheme, options, tied):
    model = model_of(tied)
    before = bytes_held(model)
    assert quantize_model(model, scheme, **options) is model
    assert not any(isinstance(m, (nn.Linear, nn.Embedding)) for m in model.modules())
    assert (model.embed_tokens.linear is model.lm_head) == tied
    layers = [m for m in model.modules() if isinstance(m, QuantizedLinear)]
    assert len(layers) == 2 * 7 + 1 + (not tied)
    rest = sum(p.nbytes for p in model.parameters()) + sum(
        m.bias.nbytes for m in layers if m.bias is not None
    )
    assert bytes_held(model) == sum(m.nbytes for m in layers) + rest  # nothing but codes, norms and biases
    assert bytes_held(model) < before / 2


@pytest.mark.parametrize(
    ("scheme", "largest"), [("int8", 0.254), ("int4", 0.154), ("nf4", 0.154), ("q4_0", 0.156)]
)
def test_pico_becomes_as_small_as_promised(scheme, largest):
    model = load_model("pico")
    before = bytes_held(model)
    assert bytes_held(quantize_model(model, scheme)) < largest * before


@each
def test_costs_are_counted_in_true_bytes(scheme, options):
    model = quantize_model(model_of(), scheme, **options)
    layers = {m for m in model.modules() if isinstance(m, QuantizedLinear)}
    stored = sum(m.nbytes + (0 if m.bias is None else m.bias.nbytes) for m in layers)
    plain = model_of()
    with costs.count(model) as work, costs.count(plain) as other:
        for each_model in (model, plain):
            each_model(some_ids(5), cache=DenseCache(model.config))
    assert work.weight_bytes == stored
    assert work.linear_flops == other.linear_flops
    assert work.kv_bytes_read == other.kv_bytes_read


@each
def test_it_generates_and_can_be_copied_and_cast(scheme, options):
    model = quantize_model(model_of(), scheme, **options)
    params = SamplingParams(temperature=0, ignore_eos=True)
    first = generate(model, [5, 6, 7], 8, params=params)
    twin = copy.deepcopy(model)
    assert generate(twin, [5, 6, 7], 8, params=params) == first
    assert twin.embed_tokens.linear is twin.lm_head
    half = twin.bfloat16()
    assert bytes_held(half) < bytes_held(model)  # the norms
    assert half(some_ids(4)).logits.isfinite().all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_cast_is_a_scheme_too(dtype):
    model = quantize_model(model_of(), dtype)
    assert model.dtype == getattr(torch, dtype)
    assert isinstance(model.lm_head, nn.Linear)


def test_what_it_refuses():
    model = model_of()
    with refuses(BadParameter, match="'int3' is not known"):
        quantize_model(model, "int3")
    with refuses(BadParameter, match="int8 has no option group_size"):
        quantize_model(model, "int8", group_size=32)
    with refuses(BadParameter, match="bfloat16 has no option"):
        quantize_model(model, "bfloat16", double=True)
    with refuses(BadParameter, match="group_size=48"):
        quantize_model(model, "int4", group_size=48)
    assert isinstance(model.layers[0].mlp.up_proj, nn.Linear)  # nothing was half done
    quantize_model(model, "int8")
    with refuses(BadParameter, match=r"quantized already \(int8\)"):
        quantize_model(model, "int4")
    with refuses(BadParameter, match=r"quantized \(int8\).*save it before"):
        save_model(model, "never-made")


def test_rows_that_gguf_blocks_cannot_hold_are_refused_before_anything_is_changed():
    model = random_model(tiny_config(hidden_size=40, head_dim=16))
    with refuses(BadParameter, match="hold 32 weights"):
        quantize_model(model, "q8_0")
    assert isinstance(model.layers[0].self_attn.q_proj, nn.Linear)
    config: ModelConfig = model.config
    assert quantize_model(random_model(config), "int4")(some_ids(3)).logits.isfinite().all()


def test_a_model_that_cannot_be_quantized_as_a_whole_stays_as_it_is():
    ids = some_ids(6)
    narrow = random_model(tiny_config(intermediate_size=40))
    before = narrow(ids).logits
    with refuses(BadParameter, match="rows have 40"):
        quantize_model(narrow, "q8_0")
    broken = random_model(tiny_config())
    broken.layers[1].mlp.up_proj.weight[:] = torch.nan
    for model, scheme, options in ((narrow, "q8_0", {}), (broken, "int4", {"calibration": some_ids(32)})):
        with refuses(BadParameter):
            quantize_model(model, scheme, **options)
        assert model.quantization is None
        assert not any(isinstance(module, QuantizedLinear) for module in model.modules())
    assert torch.equal(narrow(ids).logits, before)
    assert quantize_model(narrow, "int8").quantization == "int8"
