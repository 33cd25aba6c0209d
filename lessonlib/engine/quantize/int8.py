"""INT8: one scale for each output channel, symmetric around zero. weight ≈ code × scale, code in −127 … 127.

8 bits a weight and 16 for each row's scale. Source: Jacob et al. 2018 (arXiv:1712.05877 §2), per channel as in
Krishnamoorthi 2018 (arXiv:1806.08342 §3.1.2).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from .linear import QuantizedLinear


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """codes int8 (out, in) and scales bfloat16 (out,) of a weight (out, in)."""
    weight = weight.detach().float()
    # The scale is rounded first, so that the codes fit the scale that is stored.
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    codes = (weight / scales.float()[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scales


class Int8Linear(QuantizedLinear):
    """``codes`` int8 (out, in), ``scales`` bfloat16 (out,)."""

    FEW = 6  # measured: from there on, unpacking costs less than the kernel's slower arithmetic
    codes: Tensor
    scales: Tensor

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Self:
        codes, scales = quantize_int8(weight)
        return cls(weight.shape[1], weight.shape[0], bias, codes=codes, scales=scales)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.lookup(slice(start, stop)).to(dtype)
