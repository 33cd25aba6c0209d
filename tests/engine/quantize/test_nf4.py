"""NF4: codes, maxima and values are those of bitsandbytes, to the last bit."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lessonlib.engine.quantize.nf4 import (
    LEVELS,
    NF4,
    NF4Linear,
    block_maxima,
    dequantize_nf4,
    dynamic_map,
    quantize_nf4,
)

from ..conftest import QUIET


@st.composite
def tensors(draw) -> torch.Tensor:
    """Weights as they are and as they should not be: zeros, denormals, lone giants, ragged ends."""
    length = draw(st.one_of(st.integers(1, 700), st.sampled_from([64, 128, 16_384, 16_384 + 65, 40_000])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(length, generator=generator) * 10.0 ** draw(st.integers(-6, 4))
    if draw(st.booleans()):
        x[torch.rand(length, generator=generator) < 0.3] = 0.0
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, length - 1))
        x[start : start + draw(st.integers(1, 200))] *= draw(st.sampled_from([0.0, 1e-38, 1e-42, 1e10, -1.0]))
    return x


def theirs(x: torch.Tensor, double: bool) -> tuple[NF4, torch.Tensor]:
    packed, state = bnb.quantize_4bit(x, blocksize=64, compress_statistics=double, quant_type="nf4")
    with torch._dynamo.config.patch(disable=True):  # it would compile for every odd length
        values = bnb.dequantize_4bit(packed, state).reshape(x.shape)
    if not double:
        return NF4(packed.flatten(), state.absmax), values
    return NF4(packed.flatten(), state.absmax, state.state2.absmax, state.offset), values


@QUIET
@given(x=tensors(), double=st.booleans())
@example(x=torch.zeros(65), double=True)
@example(x=torch.full((130,), 1e-44), double=False)
@example(x=torch.tensor([-0.0]), double=False)
def test_equal_to_bitsandbytes_bit_for_bit(x, double):
    ours, (expected, values) = quantize_nf4(x, double), theirs(x, double)
    for name, mine, other in zip(NF4._fields, ours, expected, strict=True):
        assert (mine is None) == (other is None), name
        assert mine is None or torch.equal(mine, other), name
    assert torch.equal(dequantize_nf4(ours, x.numel()), values)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (3, 5), (97, 33), (130, 576), (256, 704)])
def test_a_matrix_is_the_one_bitsandbytes_would_multiply_with(shape, double):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.05
    layer = NF4Linear.from_weight(weight, double=double)
    if shape[1] % 2 == 0:
        assert torch.equal(layer.dequantize(), theirs(weight, double)[1])
    else:  # bitsandbytes has another path for odd rows
        assert torch.equal(layer.dequantize().flatten(), theirs(weight.flatten(), double)[1])


def test_the_levels_and_the_map_are_theirs():
    assert torch.equal(torch.tensor(LEVELS), bnb.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(dynamic_map(), bnb.create_dynamic_map())


def test_every_level_comes_back_and_so_does_zero():
    x = torch.tensor(LEVELS).repeat(4) * 3
    assert torch.equal(dequantize_nf4(quantize_nf4(x), 64), x)
    assert torch.equal(dequantize_nf4(quantize_nf4(torch.zeros(100)), 100), torch.zeros(100))


def test_true_bits_a_weight():
    """4 for the code; 32 bits a block of 64, or 8 a block, 32 for each 256 blocks and one offset."""
    weight = torch.randn(1024, 576)
    assert NF4Linear.from_weight(weight).bits_per_weight == 4.5
    blocks = weight.numel() / 64
    expected = 4 + (8 * blocks + 32 * blocks / 256 + 32) / weight.numel()
    assert NF4Linear.from_weight(weight, double=True).bits_per_weight == pytest.approx(expected)
    assert expected == pytest.approx(4.127, abs=1e-3)


def test_double_quantization_changes_the_maxima_a_little():
    x = torch.randn(64 * 1000, generator=torch.Generator().manual_seed(2))
    plain, double = quantize_nf4(x), quantize_nf4(x, double=True)
    assert torch.equal(plain.packed, double.packed)
    error = (block_maxima(double) - plain.absmax).abs() / plain.absmax
    assert 0 < error.mean() < 0.01
