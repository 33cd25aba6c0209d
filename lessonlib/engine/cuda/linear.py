"""Weights side by side: what multiplies the same x becomes one matrix, and its fastest product is chosen by rows.

The model's own modules keep their names and become views into the merged matrix: nothing is stored twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import RMSNorm
from ..quantize import Int4Linear, Int8Linear, QuantizedLinear
from . import matmul


class CudaInt4Linear(QuantizedLinear):
    """An Int4Linear in the order of ``matmul.py``: ``words`` int32 (out, groups * G / 8) and ``pairs``
    int32 (out, groups).

    A symmetric one stores its zeros all the same: 16 bits a group more.
    """

    FEW = matmul.FEW
    words: Tensor
    pairs: Tensor

    @classmethod
    def from_int4(cls, module: Int4Linear) -> CudaInt4Linear:
        group, codes = module.group_size, module.unpack()
        codes = F.pad(codes, (0, -codes.shape[1] % group)).unflatten(1, (-1, 8, group // 8))
        words = torch.stack([codes[:, :, j].int() << (4 * j) for j in range(8)]).sum(0, dtype=torch.int32)
        zeros = torch.zeros_like(module.scales) if module.symmetric else module.zeros
        pairs = torch.stack([module.scales, zeros], -1).bfloat16().contiguous().view(torch.int32).squeeze(-1)
        words = words.flatten(1).contiguous()
        return cls(module.in_features, module.out_features, module.bias, words=words, pairs=pairs)

    @property
    def has_kernel(self) -> bool:
        return True

    def fused(self, x: Tensor) -> Tensor:
        return matmul.few(x, self.words, self.pairs)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return matmul.unpack(self.words[start:stop], self.pairs[start:stop], self.in_features, dtype)


# What a product reads, by kind of module: weights, and scales where there are any.
STORED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("weight",),
    Int8Linear: ("codes", "scales"),
    CudaInt4Linear: ("words", "pairs"),
}


class Projection:
    """The linear layers ``names`` of a module as one: y = residual + act(norm(x) Wᵀ + bias)."""

    def __init__(self, owner: nn.Module, *names: str):
        for name in names:
            if isinstance(module := getattr(owner, name), Int4Linear):
                setattr(owner, name, CudaInt4Linear.from_int4(module))
        self.modules = [getattr(owner, name) for name in names]
        kinds = {type(module) for module in self.modules}
        self.stored = STORED.get(kinds.pop(), ()) if len(kinds) == 1 else ()
        self.columns = self.modules[0].in_features
        self.bias = self._merge("bias") if self.modules[0].bias is not None else None
        merged = [self._merge(name) for name in self.stored]
        self.weight, self.scales = (*merged, None, None)[:2]

    def _merge(self, name: str) -> Tensor:
        parts = [getattr(module, name) for module in self.modules]
        if len(parts) == 1:
            return parts[0].detach()
        merged = torch.cat([part.detach() for part in parts])
        for module, part, view in zip(
            self.modules, parts, merged.split([len(part) for part in parts]), strict=True
        ):
            setattr(
                module,
                name,
                nn.Parameter(view, requires_grad=False) if isinstance(part, nn.Parameter) else view,
            )
        return merged

    def __call__(
        self,
        x: Tensor,
        norm: RMSNorm | None = None,
        residual: Tensor | None = None,
        gated: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """y (rows, out) in ``dtype`` (default: that of x) for x (rows, in); gated: y is silu(first half) · second."""
        if len(x) == 1 and self.weight is not None:
            scale, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
            return matmul.matvec(
                x, self.weight, self.columns, self.scales, self.bias, scale, eps, residual, gated, dtype
            )
        y = self._product(x if norm is None else norm(x))
        if gated:
            gate, up = y.chunk(2, -1)
            y = F.silu(gate) * up
        return (y if residual is None else residual + y).to(dtype or x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        if self.weight is None:  # a format without kernels of its own here, or a mixture
            return torch.cat([module(x) for module in self.modules], -1)
        if self.scales is None:
            return F.linear(x, self.weight, self.bias)
        if len(x) <= matmul.FEW:
            y = matmul.few(x, self.weight, self.scales)
        elif self.weight.dtype == torch.int32:
            y = F.linear(x.bfloat16(), matmul.unpack(self.weight, self.scales, self.columns, torch.bfloat16))
        else:
            y = F.linear(x.bfloat16(), self.weight.bfloat16()) * self.scales
        return y.to(x.dtype) if self.bias is None else y.to(x.dtype) + self.bias.to(x.dtype)
