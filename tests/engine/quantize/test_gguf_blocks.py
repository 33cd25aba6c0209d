"""GGUF blocks: the bytes are those the gguf package writes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize.gguf_blocks import (
    Q4_0Linear,
    Q8_0Linear,
    dequantize_q4_0,
    dequantize_q8_0,
    quantize_q4_0,
    quantize_q8_0,
)

from ..conftest import QUIET, refuses

quants = pytest.importorskip("gguf.quants")
FORMATS = {
    "Q8_0": (quants.Q8_0, quantize_q8_0, dequantize_q8_0, Q8_0Linear, 8.5),
    "Q4_0": (quants.Q4_0, quantize_q4_0, dequantize_q4_0, Q4_0Linear, 4.5),
}


@st.composite
def matrices(draw) -> torch.Tensor:
    """Also zeros, ties, halves exactly between two codes, and scales that float16 can only hold as denormals."""
    rows, blocks = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["normal", "ties", "halves", "sparse"]))
    x = torch.randn(rows, 32 * blocks, generator=generator)
    if kind == "ties":
        x = x.round()
    if kind == "halves":
        x = (x * 254).round() / 2
        x[:, ::32] = 127.0
    if kind == "sparse":
        x *= torch.rand(rows, 1, generator=generator) < 0.7
        x *= torch.rand(x.shape, generator=generator) < 0.2
    return x * 10.0 ** draw(st.integers(-7, 3)) if kind != "halves" else x


@pytest.mark.parametrize("name", FORMATS)
@QUIET
@given(x=matrices())
def test_bytes_and_values_are_those_of_the_gguf_package(name, x):
    theirs, quantize, dequantize, _, _ = FORMATS[name]
    data = quantize(x)
    assert data.dtype == torch.uint8
    assert torch.equal(data, torch.from_numpy(theirs.quantize(x.numpy())))
    assert torch.equal(dequantize(data), torch.from_numpy(theirs.dequantize(data.numpy())))


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_too_small_for_a_scale_become_zero(name):
    """There the gguf package divides by a denormal, and what NumPy makes of infinity is anybody's guess."""
    _, quantize, dequantize, _, _ = FORMATS[name]
    for tiny in (1e-40, 1e-45, 0.0):
        assert not dequantize(quantize(torch.full((2, 64), tiny))).any()


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_holds_nothing_else(name):
    theirs, _, _, layer, bits = FORMATS[name]
    weight = torch.randn(130, 96)
    linear = layer.from_weight(weight)
    assert linear.nbytes == theirs.quantize(weight.numpy()).nbytes
    assert linear.bits_per_weight == bits
    assert torch.equal(linear.dequantize(), torch.from_numpy(theirs.dequantize(linear.data.numpy())))


@pytest.mark.parametrize("name", FORMATS)
def test_rows_that_do_not_fit_are_refused(name):
    with refuses(BadParameter, match="hold 32 weights, but the rows have 40"):
        FORMATS[name][1](torch.ones(2, 40))
