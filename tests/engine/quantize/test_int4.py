"""INT4: which weight gets which code, and the bytes that PyTorch's kernel reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize.int4 import Int4Linear, quantize_int4
from lessonlib.engine.quantize.int4_layout import kernel_block, pack, unpack

from ..conftest import QUIET, refuses
from .conftest import assert_product, some_weight


def some_codes(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + columns)
    return torch.randint(0, 16, (rows, columns), generator=generator, dtype=torch.uint8)


@QUIET
@given(
    rows=st.integers(1, 30),
    groups=st.integers(1, 4),
    size=st.sampled_from([32, 64, 128]),
    symmetric=st.booleans(),
)
def test_every_weight_is_within_half_a_step_of_its_code(rows, groups, size, symmetric):
    weight = some_weight(rows, groups * size, seed=rows)
    codes, scales, zeros = quantize_int4(weight, size, symmetric)
    assert codes.dtype == torch.uint8
    assert codes.max() <= 15
    assert scales.shape == zeros.shape == (rows, groups)
    scale, zero = (t.float().repeat_interleave(size, dim=1) for t in (scales, zeros))
    error = ((codes.float() - 8) * scale + zero - weight).abs()
    # Beyond half a step, only what rounding scale and zero to bfloat16 moves the outermost levels; and symmetric
    # codes end at 7, where 8 would be needed for a weight as large as the extreme on the other side.
    slack = torch.where(codes == 15, 1.0, 0.5) if symmetric else 0.5
    assert (error <= slack * scale.abs() + 2**-7 * weight.abs().amax()).all()
    if symmetric:
        assert not zeros.any()


@pytest.mark.parametrize("symmetric", [True, False])
def test_by_hand(symmetric):
    """Weights 0 … 15 asymmetrically are their own codes; −8 … 7 symmetrically are codes − 8."""
    weight = torch.arange(16.0).repeat(2)[None] - 8 * symmetric
    codes, scales, zeros = quantize_int4(weight, 32, symmetric)
    assert codes.tolist() == [list(range(16)) * 2]
    assert scales.tolist() == [[1.0]]
    assert zeros.tolist() == [[0.0 if symmetric else 8.0]]


def test_a_layer_gives_back_its_codes_scales_and_zeros():
    weight = some_weight(100, 160)  # neither whole blocks of rows nor whole groups of 128
    for symmetric in (True, False):
        for size in (32, 128):
            layer = Int4Linear.from_weight(weight, group_size=size, symmetric=symmetric)
            padded = torch.nn.functional.pad(weight, (0, -160 % size))
            codes, scales, zeros = quantize_int4(padded, size, symmetric)
            assert torch.equal(layer.unpack(), codes[:, :160])
            assert torch.equal(layer.scales, scales)
            assert torch.equal(layer.zeros, zeros)
            assert (layer.group_size, layer.symmetric) == (size, symmetric)


@QUIET
@given(blocks=st.integers(1, 4), columns=st.integers(1, 50), block=st.sampled_from([64, 32]))
def test_unpacking_undoes_packing(blocks, columns, block):
    codes = some_codes(64 * blocks, columns)
    packed = pack(codes, block)
    assert packed.nbytes == codes.numel() / 2
    assert torch.equal(unpack(packed), codes)


def test_the_bytes_are_those_of_pytorch_s_own_conversion():
    if (block := kernel_block()) is None:
        pytest.skip("This processor has no such kernel.")
    codes = some_codes(192, 96)
    theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 2)
    assert torch.equal(pack(codes, block).flatten(), theirs.flatten())


def test_without_a_kernel_the_dense_way_does_it(monkeypatch):
    """A layer packed on one machine works on another whose kernel wants another order, or that has none."""
    layer = Int4Linear.from_weight(some_weight(128, 64))
    x = torch.randn(1, 64)
    expected = layer(x)
    for block in (None, 16):
        monkeypatch.setattr("lessonlib.engine.quantize.int4.kernel_block", lambda block=block: block)
        assert not layer.has_kernel
        assert_product(layer, x, layer(x))
        made_here = Int4Linear.from_weight(some_weight(128, 64)) if block is None else layer
        assert torch.equal(made_here.unpack(), layer.unpack())
        assert torch.allclose(made_here(x), expected, rtol=0.02, atol=0.02)


def test_group_sizes_that_no_kernel_knows_are_refused():
    for size in (0, 16, 100, "32"):
        with refuses(BadParameter, match="group_size"):
            Int4Linear.from_weight(some_weight(64, 64), group_size=size)
