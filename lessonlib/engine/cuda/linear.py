"""Weights side by side: what multiplies the same x becomes one matrix, and its fastest product is chosen by rows.

The model's own modules keep their names and become views into the merged matrix: nothing is stored twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import RMSNorm, Transformer
from ..quantize import Int4Linear, Int8Linear, QuantizedLinear
from . import matmul


class PackedLinear(QuantizedLinear):
    """An Int8Linear or Int4Linear in the order of ``matmul.py``: ``words`` int32 (out, words), ``scales`` as there.

    A symmetric INT4 one stores its zeros all the same: 16 bits a group more.
    """

    FEW = matmul.FEW
    words: Tensor
    scales: Tensor

    @classmethod
    def from_quantized(cls, module: Int8Linear | Int4Linear) -> PackedLinear:
        scales: Tensor = module.scales
        if isinstance(module, Int4Linear):
            words = matmul.pack(module.unpack(), 4, module.group_size)
            zeros = torch.zeros_like(scales) if module.symmetric else module.zeros
            scales = torch.stack([scales, zeros], -1).bfloat16().contiguous().view(torch.int32).squeeze(-1)
        else:
            words = matmul.pack(module.codes.int() + 128, 8, matmul.INT8_UNIT)
        return cls(module.in_features, module.out_features, module.bias, words=words, scales=scales)

    @property
    def has_kernel(self) -> bool:
        return True

    def fused(self, x: Tensor) -> Tensor:
        return matmul.few(x, self.words, self.scales)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return matmul.unpack(self.words[start:stop], self.scales[start:stop], self.in_features, dtype)

    def lookup(self, ids: Tensor) -> Tensor:
        flat = ids.flatten()
        found = matmul.unpack(self.words[flat], self.scales[flat], self.in_features, torch.float32)
        return found.view(*ids.shape, -1)


def repack(model: Transformer) -> None:
    """Put a PackedLinear wherever the model has an Int8Linear or an Int4Linear."""
    made: dict[nn.Module, PackedLinear] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, Int8Linear | Int4Linear):
            if module not in made:  # an embedding and an output layer may share one
                made[module] = PackedLinear.from_quantized(module)
            model.set_submodule(name, made[module])


# What a product reads, by kind of module: weights, and scales where there are any.
STORED: dict[type[nn.Module], tuple[str, ...]] = {nn.Linear: ("weight",), PackedLinear: ("words", "scales")}


class Projection:
    """The linear layers ``names`` of a module as one: y = residual + act(norm(x) Wᵀ + bias).

    ``following`` is the matrix that the model multiplies by next.
    """

    following: Tensor | None = None

    def __init__(self, owner: nn.Module, *names: str):
        self.modules = [getattr(owner, name) for name in names]
        kinds = {_kind(module) for module in self.modules}
        self.stored = STORED.get(type(self.modules[0]), ()) if len(kinds) == 1 else ()
        self.bias = self._merge("bias") if self.modules[0].bias is not None else None
        merged = [self._merge(name) for name in self.stored]
        self.weight, self.scales = (*merged, None, None)[:2]

    def _merge(self, name: str) -> Tensor:
        parts = [getattr(module, name) for module in self.modules]
        if len(parts) == 1:
            return parts[0].detach()
        merged = torch.cat([part.detach() for part in parts])
        views = merged.split([len(part) for part in parts])
        for module, part, view in zip(self.modules, parts, views, strict=True):
            is_weight = isinstance(part, nn.Parameter)
            setattr(module, name, nn.Parameter(view, requires_grad=False) if is_weight else view)
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
                x, self.weight, self.scales, self.bias, scale, eps, residual, gated, dtype, self.following
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
        else:
            dense = matmul.unpack(self.weight, self.scales, x.shape[1], torch.bfloat16)
            y = F.linear(x.bfloat16(), dense)
        return y.to(x.dtype) if self.bias is None else y.to(x.dtype) + self.bias.to(x.dtype)


def _kind(module: nn.Module) -> tuple[object, ...]:
    """Only what is stored alike can be merged."""
    return (type(module), *((*t.shape[1:], t.dtype) for t in module.buffers(recurse=False)))
