"""Every kind of matrix times tokens, against the same sum in float64; and attention's exponential by way of softmax."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lessonlib.engine.compiled import pack
from lessonlib.engine.quantize.int4 import Int4Linear
from lessonlib.engine.quantize.int8 import Int8Linear
from lessonlib.engine.quantize.linear import QuantizedLinear

from ..conftest import QUIET
from ..quantize.conftest import some_weight

FORMATS = {
    "float32": lambda linear: linear,
    "bfloat16": lambda linear: linear.bfloat16(),
    "int8": Int8Linear.from_linear,
    "int4 g32": lambda linear: Int4Linear.from_linear(linear, group_size=32),
    "int4 g128": lambda linear: Int4Linear.from_linear(linear, group_size=128),
    "int4 g64 symmetric": lambda linear: Int4Linear.from_linear(linear, group_size=64, symmetric=True),
}


def some_linear(rows: int, columns: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(columns, rows, bias=bias)
    linear.weight.data = some_weight(rows, columns)
    return linear.requires_grad_(False)


def multiply(kernels: ctypes.CDLL, modules: list[nn.Module], x: Tensor, interleaved: bool = False) -> Tensor:
    packer = pack.Packer()
    matrix = packer.matrix(*modules, interleaved=interleaved)
    y = torch.full((len(x), matrix.rows), torch.nan)
    kernels.multiply(ctypes.byref(matrix), x.contiguous().data_ptr(), len(x), y.data_ptr())
    return y


def as_int8(x: Tensor) -> Tensor:
    """What the kernels make of tokens that meet quantized weights: int8 codes with one scale for 128 numbers."""
    blocks = nn.functional.pad(x, (0, -x.shape[1] % 128)).unflatten(1, (-1, 128))
    top = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-20)
    return ((blocks * (127 / top)).round() * (top / 127)).flatten(1)[:, : x.shape[1]]


def exact(module: nn.Module, x: Tensor) -> Tensor:
    """x Wᵀ + bias in float64, after the rounding that each format promises and no other."""
    if isinstance(module, QuantizedLinear):
        weight, x = module.dequantize(), as_int8(x)
    else:
        assert isinstance(module, nn.Linear)
        weight, x = module.weight, x.to(module.weight.dtype)
    bias = 0 if module.bias is None else module.bias.double()
    return x.double() @ weight.double().t() + bias


def assert_close(y: Tensor, right: Tensor, x: Tensor) -> None:
    """Sums in float32 may be off by some units in the last place of the largest terms, and no more."""
    assert y.shape == right.shape and y.isfinite().all()
    assert (y - right).norm() <= 2e-6 * right.norm() + 1e-6 * x.norm()


@settings(QUIET, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(list(FORMATS)),
    rows=st.integers(1, 70),
    columns=st.integers(1, 300),
    tokens=st.integers(1, 40),
    bias=st.booleans(),
)
def test_a_product_is_that_of_the_stored_weights(kernels, kind, rows, columns, tokens, bias) -> None:
    module = FORMATS[kind](some_linear(rows, columns, bias))
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(rows + columns))
    x[:, ::7] *= 30
    assert_close(multiply(kernels, [module], x), exact(module, x), x)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 13, 16, 17, 63])
def test_every_tile_gives_every_token_the_same(kernels, kind, tokens) -> None:
    """However many tokens run together, none of them changes another by a single bit."""
    module = FORMATS[kind](some_linear(48, 200, bias=True))
    x = torch.randn(tokens, 200, generator=torch.Generator().manual_seed(tokens))
    together = multiply(kernels, [module], x)
    for i in range(tokens):
        assert torch.equal(together[i], multiply(kernels, [module], x[i : i + 1])[0])


@pytest.mark.parametrize("kind", FORMATS)
def test_layers_with_the_same_input_become_one(kernels, kind) -> None:
    parts = [FORMATS[kind](some_linear(rows, 96, bias)) for rows, bias in ((40, True), (7, False), (9, True))]
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))
    assert_close(multiply(kernels, parts, x), torch.cat([exact(part, x) for part in parts], 1), x)
    pair = [FORMATS[kind](some_linear(40, 96, False)) for _ in range(2)]
    y = multiply(kernels, pair, x, interleaved=True).unflatten(1, (-1, 2, 16))
    for i, part in enumerate(pair):  # panel by panel in turns, each filled up to 16 rows
        assert_close(y[:, :, i].flatten(1)[:, :40], exact(part, x), x)


@pytest.mark.parametrize("kind", FORMATS)
def test_tokens_of_zeros_and_extremes(kernels, kind) -> None:
    module = FORMATS[kind](some_linear(20, 256, bias=True))
    x = torch.zeros(4, 256)
    x[1], x[2, 3], x[3, 200] = 1e4, -3e4, 1e-30
    assert_close(multiply(kernels, [module], x), exact(module, x), x)
