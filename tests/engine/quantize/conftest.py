"""Weight matrices like a model's, and the rounding that a product in bfloat16 may add."""

from __future__ import annotations

import torch
from torch import Tensor

from lessonlib.engine.quantize.gguf_blocks import Q4_0Linear, Q8_0Linear
from lessonlib.engine.quantize.int4 import Int4Linear
from lessonlib.engine.quantize.int8 import Int8Linear
from lessonlib.engine.quantize.linear import QuantizedLinear
from lessonlib.engine.quantize.nf4 import NF4Linear

FORMATS = {
    "int8": (Int8Linear, {}),
    "int4 g32": (Int4Linear, {"group_size": 32, "symmetric": False}),
    "int4 g64": (Int4Linear, {"group_size": 64, "symmetric": False}),
    "int4 g128": (Int4Linear, {"group_size": 128, "symmetric": False}),
    "int4 g32 symmetric": (Int4Linear, {"group_size": 32, "symmetric": True}),
    "int4 g128 symmetric": (Int4Linear, {"group_size": 128, "symmetric": True}),
    "nf4": (NF4Linear, {}),
    "nf4 double": (NF4Linear, {"double": True}),
    "q8_0": (Q8_0Linear, {}),
    "q4_0": (Q4_0Linear, {}),
}


def some_weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Normal, a few columns ten times larger (as real models have them), one row and one group of zeros."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05
    weight[:, ::17] *= 10
    weight[rows // 2] = 0
    weight[0, :32] = 0
    return weight


def make(name: str, weight: Tensor, bias: Tensor | None = None) -> QuantizedLinear:
    layer, options = FORMATS[name]
    return layer.from_weight(weight, bias, **options)


def assert_product(layer: QuantizedLinear, x: Tensor, y: Tensor) -> None:
    """y is x Wᵀ + bias, up to bfloat16's rounding of x, of W's levels, scales and products, and of the sum.

    A bfloat16 is off by at most 2⁻⁹ of itself. Five such roundings may stand between a term and the truth and three
    between the sum and the result; being independent, they add up as random steps do, to less than one in all; twice
    that is let through, because a few of them can agree by chance.
    """
    weight, expected = layer.dequantize(), layer.reference(x.float())
    error = (y.float() - expected).abs()
    sizes = x.float().abs() @ weight.abs().t()
    steps = (x.float().square() @ weight.square().t()).sqrt()
    assert (error <= 2**-9 * (5 * sizes + 3 * expected.abs()) + 1e-30).all()
    assert error.norm() <= 2**-7 * (steps.norm() + expected.norm())
