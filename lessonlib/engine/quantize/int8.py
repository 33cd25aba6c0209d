"""INT8: one scale for each output channel, symmetric around zero: weight ≈ code × scale, code in −127 … 127.

8 bits a weight, and 16 for each row's scale. Sources: Jacob et al. 2018 (arXiv:1712.05877 §2.1); one scale a
channel: Krishnamoorthi 2018 (arXiv:1806.08342 §3.1.3).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from .linear import QuantizedLinear, workspace

TINY = torch.finfo(torch.bfloat16).tiny  # the scale of a row of zeros: any but zero would do


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``codes`` int8 (out, in) and ``scales`` bfloat16 (out,) of a weight (out, in)."""
    weight = weight.detach().float()
    # The scale is rounded first: the codes then fit the scale that is stored.
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=TINY).bfloat16()
    codes = (weight / scales.float()[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scales


class Int8Linear(QuantizedLinear):
    """Weight-only INT8: ``codes`` int8 (out, in), ``scales`` bfloat16 (out,)."""

    FEW = 20  # measured: with more rows, unpacking costs less than the fused kernel's slower arithmetic
    codes: Tensor
    scales: Tensor

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Self:
        codes, scales = quantize_int8(weight)
        return cls(weight.shape[1], weight.shape[0], bias, codes=codes, scales=scales)

    @property
    def has_kernel(self) -> bool:
        # It reads sixteen columns at a time, whether there are sixteen or not.
        return self.in_features % 16 == 0 and self.codes.device.type == "cpu"

    def fused(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x, self.codes, self.scales)

    def dense(self, x: Tensor) -> Tensor:
        # An int8 is exact in bfloat16, code × scale would be rounded: so the scale waits for the sum.
        return super().dense(x) * self.scales.to(x.dtype)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Codes of rows start … stop, without their scales."""
        return workspace((stop - start, self.in_features), dtype, self.device).copy_(self.codes[start:stop])

    def lookup(self, ids: Tensor) -> Tensor:
        return self.codes[ids].float() * self.scales[ids].float()[..., None]

    def dequantize(self) -> Tensor:
        return self.codes.float() * self.scales.float()[:, None]
