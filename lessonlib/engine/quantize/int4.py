"""INT4: sixteen levels for each group of neighbours in a row: weight ≈ (code − 8) × scale + zero, code in 0 … 15.

Symmetric: zero is 0 and need not be stored. Asymmetric: scale and zero fit the group's smallest and largest weight.
With 16 bits for each scale and each zero, groups of 32 / 64 / 128 cost 4.5 / 4.25 / 4.125 bits a weight symmetric and
5 / 4.5 / 4.25 asymmetric. Source: Dettmers & Zettlemoyer 2023 (arXiv:2212.09720 §3: why small groups).
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadParameter
from .int4_layout import BLOCK, kernel_block, pack, unpack
from .linear import QuantizedLinear, workspace

GROUP_SIZES = (32, 64, 128)
TINY = torch.finfo(torch.bfloat16).tiny


def as_groups(weight: Tensor, group_size: int) -> Tensor:
    """A weight (out, in) as float32 (out, groups, group_size), the last group filled up with zeros."""
    if group_size not in GROUP_SIZES:
        raise BadParameter(
            f"group_size={group_size!r} is not supported; choose one of {', '.join(map(str, GROUP_SIZES))}."
        )
    return F.pad(weight.detach().float(), (0, -weight.shape[1] % group_size)).unflatten(1, (-1, group_size))


def fit_int4(groups: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    """scale and zero, bfloat16 (..., 1), for groups of weights (..., group_size)."""
    low, high = groups.aminmax(dim=-1, keepdim=True)
    if symmetric:
        # The weight of largest magnitude becomes −8 times a scale of either sign: all sixteen codes are of use.
        scale = torch.where(-low > high, low, high) / -8
        zero = torch.zeros_like(scale)
    else:
        scale = (high - low) / 15
        zero = low + 8 * scale
    return torch.where(scale == 0, TINY, scale).bfloat16(), zero.bfloat16()


def round_int4(weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The nearest codes 0 … 15, uint8, for the scale and zero that are stored."""
    return ((weight - zero.float()) / scale.float() + 8).round().clamp(0, 15).to(torch.uint8)


def quantize_int4(weight: Tensor, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``codes`` uint8 (out, in), ``scales`` and ``zeros`` bfloat16 (out, groups) of a weight (out, in).

    With ``in`` filled up to whole groups. Raises BadParameter.
    """
    groups = as_groups(weight, group_size)
    scale, zero = fit_int4(groups, symmetric)
    return round_int4(groups, scale, zero).flatten(1), scale.squeeze(-1), zero.squeeze(-1)


class Int4Linear(QuantizedLinear):
    """Weight-only INT4: ``packed`` codes in a kernel's order, ``affine`` bfloat16 (groups, out, 1 or 2).

    ``affine`` holds scales and, unless symmetric, zeros. Rows and columns are padded to whole blocks and groups.
    """

    OPTIONS = ("group_size", "symmetric")
    FEW = 64  # see Int8Linear: here, unpacking costs more
    packed: Tensor
    affine: Tensor

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None = None, **tensors: Any):
        super().__init__(in_features, out_features, bias, **tensors)
        self.width = self.packed.shape[1]  # columns, padding included
        self.block = 2 * self.packed.shape[2]  # output rows that are interleaved
        self.group_size = self.width // self.affine.shape[0]
        self.symmetric = self.affine.shape[2] == 1

    @classmethod
    def from_weight(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        group_size: int = 64,
        symmetric: bool = False,
        **options: Any,
    ) -> Self:
        codes, scales, zeros = quantize_int4(weight, group_size, symmetric)
        return cls.from_codes(codes, scales, None if symmetric else zeros, bias, tuple(weight.shape))

    @classmethod
    def from_codes(
        cls, codes: Tensor, scales: Tensor, zeros: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]
    ) -> Self:
        """Store codes uint8 (out, in), scales and zeros (out, groups); ``shape`` is that of W without padding."""
        affine = torch.stack([scales] if zeros is None else [scales, zeros], dim=-1).transpose(0, 1)
        padding = -len(codes) % BLOCK
        affine = F.pad(affine.bfloat16(), (0, 0, 0, padding)).contiguous()
        packed = pack(F.pad(codes, (0, 0, 0, padding)), kernel_block() or BLOCK)
        return cls(shape[1], shape[0], bias, packed=packed, affine=affine)

    def unpack(self) -> Tensor:
        """All codes 0 … 15, uint8 (out, in)."""
        return unpack(self.packed)[: self.out_features, : self.in_features]

    @property
    def scales(self) -> Tensor:
        """bfloat16 (out, groups)."""
        return self.affine[:, : self.out_features, 0].t()

    @property
    def zeros(self) -> Tensor:
        """bfloat16 (out, groups): the weight that code 8 stands for."""
        return self._pairs[:, : self.out_features, 1].t()

    @property
    def has_kernel(self) -> bool:
        return self.block == kernel_block() and self.packed.device.type == "cpu"

    def fused(self, x: Tensor) -> Tensor:
        if self.width > self.in_features:
            x = F.pad(x, (0, self.width - self.in_features))
        packed = self.packed.view(-1, self.width // 2)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, self.group_size, self._pairs)
        return y[:, : self.out_features]

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        blocks = self.packed[start // self.block : -(-stop // self.block)]
        count, width, half = blocks.shape
        codes = workspace((width, count, 2, half), dtype, self.device)  # (in, out), as the bytes lie
        for i, part in enumerate((blocks & 15, blocks >> 4)):
            codes[:, :, i] = part.view(torch.int8).sub_(8).transpose(0, 1)
        weights = codes.view(len(self.affine), self.group_size, -1)
        affine = self.affine[:, start : start + weights.shape[2]].to(dtype)[:, None]
        if self.symmetric:
            weights.mul_(affine[..., 0])
        else:
            scale, zero = (part.contiguous() for part in affine.unbind(-1))
            torch.addcmul(zero, weights, scale, out=weights)
        return weights.flatten(0, 1).t()[: stop - start, : self.in_features]

    @property
    def _pairs(self) -> Tensor:
        """What the kernel wants: (groups, out, 2), with zeros of 0 where none are stored."""
        if not self.symmetric:
            return self.affine
        # The kernel wants pairs: sixteen zero bits behind a scale's are a zero of 0.0, without a copy loop.
        widened = self.affine.view(torch.uint16).to(torch.int32)  # 32 bits: the scale's, and sixteen zeros
        return widened.view(torch.bfloat16).view(*self.affine.shape[:2], 2)
