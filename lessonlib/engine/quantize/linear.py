"""A linear layer whose weights are kept in fewer bits, and how it multiplies: what every format has in common.

A format says how weights become codes (``from_weight``) and back (``rows``), and may bring a fused kernel that
reads codes while it multiplies. This module decides which of the two ways a product takes. With few rows (decode)
reading the weights is the cost, and the fused kernel reads fewest bytes. With many rows (prefill)
arithmetic is the cost: the weights are unpacked once and multiplied by the dense kernel.

The fused kernels here are PyTorch's for CPUs; on CUDA, ``engine/cuda`` puts a layer with its own in their place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 1 << 21  # weights unpacked at a time: they stay in a CPU's cache until the product has read them
STEP = 64  # a chunk is a multiple of this many output rows
_local = threading.local()


def workspace(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for unpacked weights, the same at every call: it is warm in the CPU's cache. One for each thread."""
    wanted = dtype.itemsize * torch.Size(shape).numel()
    if device.type != "cpu" or wanted > 4 * CHUNK:
        return torch.empty(shape, dtype=dtype, device=device)
    held = getattr(_local, "held", None)
    if held is None or held.numel() < wanted:
        with torch.inference_mode(False):  # it outlives the caller's mode
            held = _local.held = torch.empty(wanted, dtype=torch.uint8)
    return held[:wanted].view(dtype).view(shape)


@cache
def compute_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """The number format of dense products: bfloat16 where the hardware multiplies it, otherwise that of x.

    But float32 for float16, in which sums of codes without their scales would overflow.
    """
    native = device == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32 if dtype == torch.float16 else dtype


class QuantizedLinear(nn.Module):
    """y = x Wᵀ + bias, with W (out_features, in_features) stored as codes and scales. For inference only.

    Formats define ``from_weight`` and ``rows``; those with a fused kernel also ``fused`` and ``FEW``.
    """

    OPTIONS: tuple[str, ...] = ()  # of from_weight
    bias: Tensor | None
    FEW = 0  # up to this many rows of x go through the fused kernel

    def __init__(
        self, in_features: int, out_features: int, bias: Tensor | None = None, **tensors: Tensor | None
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        for name, tensor in {"bias": bias, **tensors}.items():
            self.register_buffer(name, None if tensor is None else tensor.detach())

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Self:
        """Quantize a weight matrix (out_features, in_features), rounding each number to the nearest code."""
        raise NotImplementedError

    @classmethod
    def check(cls, in_features: int) -> None:
        """Raise BadParameter for rows of a length that the format cannot store."""

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> Self:
        return cls.from_weight(linear.weight, linear.bias, **options)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows start … stop of W in ``dtype``, start a multiple of STEP. (INT8: the codes, without their scales.)

        They may lie in the workspace: use them before asking again.
        """
        raise NotImplementedError

    def fused(self, x: Tensor) -> Tensor:
        """x Wᵀ for x (rows, in_features) in bfloat16, by a kernel that reads the codes."""
        raise NotImplementedError

    def dense(self, x: Tensor) -> Tensor:
        """x Wᵀ for x (rows, in_features): a chunk of rows of W at a time is unpacked and multiplied."""
        step = max(STEP, CHUNK // self.in_features // STEP * STEP)
        starts = range(0, self.out_features, step)
        parts = [
            F.linear(x, self.rows(start, min(start + step, self.out_features), x.dtype)) for start in starts
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        if flat.shape[0] <= self.FEW and self.has_kernel:
            y = self.fused(flat.bfloat16())
        else:
            y = self.dense(flat.to(compute_dtype(x.device.type, x.dtype)))
        y = y.to(x.dtype)
        if self.bias is not None:
            y = y + self.bias.to(x.dtype)
        return y.view(*x.shape[:-1], self.out_features)

    def reference(self, x: Tensor) -> Tensor:
        """The same product in the plainest way: all of W in float32. What the fast ways are tested against."""
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self.dequantize(), bias).to(x.dtype)

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows ``ids`` of W, float32 (*ids.shape, in_features): what an embedding needs."""
        return self.dequantize()[ids]

    def dequantize(self) -> Tensor:
        """W as the codes tell it, float32 (out_features, in_features)."""
        return self.rows(0, self.out_features, torch.float32).clone(memory_format=torch.contiguous_format)

    @property
    def has_kernel(self) -> bool:
        """Is there a fused kernel for this format on this device?"""
        return False

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @property
    def nbytes(self) -> int:
        """Bytes stored for W: codes, scales and whatever else is needed to read them. Not the bias."""
        return sum(t.nbytes for name, t in self.named_buffers(recurse=False) if name != "bias")

    @property
    def bits_per_weight(self) -> float:
        """True bits a weight, scales and padding included."""
        return 8 * self.nbytes / (self.in_features * self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """A move to another device moves the codes; a cast leaves them: the number formats are the format's own."""
        device = fn(torch.empty(0, device=self.device)).device
        for name, tensor in self._buffers.items():
            self._buffers[name] = None if tensor is None else tensor.to(device)
        return self

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.bits_per_weight:.2f} bits a weight"


class QuantizedEmbedding(nn.Module):
    """Token embeddings read from a quantized matrix (vocabulary, hidden), which a tied output layer shares."""

    def __init__(self, linear: QuantizedLinear, dtype: torch.dtype):
        super().__init__()
        self.linear, self.dtype = linear, dtype

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear.lookup(ids).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.dtype = fn(
            torch.empty(0, dtype=self.dtype)
        ).dtype  # a cast of the model is one of what comes out
        return super()._apply(fn, recurse)
