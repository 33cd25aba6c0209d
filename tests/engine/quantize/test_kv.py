"""The quantized KV cache's numbers: what they cost and how far off they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize.kv import dequantize_kv, quantize_kv

from ..conftest import QUIET, refuses


def some_keys(*shape: int, seed: int = 0) -> torch.Tensor:
    """Keys with one channel far larger than the others, as real ones have, and a token of zeros."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x[..., 3] *= 20
    x[0, 0, 0] = 0
    return x


@pytest.mark.parametrize("bits", [8, 4])
@QUIET
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    tokens=st.integers(1, 9),
    head_dim=st.sampled_from([16, 64, 80, 128]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_every_number_is_within_half_a_step(bits, batch, heads, tokens, head_dim, dtype):
    x = some_keys(batch, heads, tokens, head_dim, seed=tokens).to(dtype)
    codes, scales = quantize_kv(x, bits)
    assert (codes.dtype, codes.shape) == (torch.uint8, (*x.shape[:-1], head_dim * bits // 8))
    assert (scales.dtype, scales.shape) == (torch.float16, (*x.shape[:-1], 2))
    y = dequantize_kv(codes, scales, head_dim, torch.float32)
    x = x.float()
    step = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)) / (2**bits - 1)
    largest = x.abs().amax(-1, keepdim=True)
    assert ((y - x).abs() <= step / 2 + 2**-9 * largest).all()  # and float16's rounding of scale and zero
    low = dequantize_kv(codes, scales, head_dim, dtype)
    assert low.dtype == dtype
    assert torch.allclose(low.float(), y, rtol=0, atol=(2**-7 * largest.max()).item())


@pytest.mark.parametrize("bits", [8, 4])
def test_tokens_and_heads_do_not_know_of_each_other(bits):
    """So a token can be stored when it comes, and what was stored before stays as it is."""
    x = some_keys(2, 3, 5, 64)
    codes, scales = quantize_kv(x, bits)
    for index in [(0, 1, 4), (1, 2, 0)]:
        one_codes, one_scales = quantize_kv(x[index], bits)
        assert torch.equal(one_codes, codes[index])
        assert torch.equal(one_scales, scales[index])


@pytest.mark.parametrize("bits", [8, 4])
def test_true_bits_a_number(bits):
    x = some_keys(1, 2, 10, 64)
    codes, scales = quantize_kv(x, bits)
    assert 8 * (codes.nbytes + scales.nbytes) / x.numel() == bits + 0.5  # the scale and the zero


@pytest.mark.parametrize("bits", [8, 4])
def test_equal_numbers_and_zeros_come_back(bits):
    for value in (0.0, 1.0, -3.5):
        x = torch.full((2, 64), value)
        codes, scales = quantize_kv(x, bits)
        assert torch.equal(dequantize_kv(codes, scales, 64, torch.float32), x)


def test_other_bits_are_refused():
    for bits in (2, 16, "8"):
        with refuses(BadParameter, match="choose 8 or 4"):
            quantize_kv(torch.zeros(1, 64), bits)
