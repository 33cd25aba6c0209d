"""GGUF's Q8_0 and Q4_0: blocks of 32 weights of a row, each with its float16 scale in front of its codes.

Q8_0: 34 bytes (8.5 bits a weight); Q4_0: 18 bytes (4.5). The bytes are those llama.cpp reads from a file, equal to
the ``gguf`` package's to the last bit. Source: llama.cpp, ggml-quants.c (quantize_row_q8_0_ref, …_q4_0_ref).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from ..errors import BadParameter
from .linear import QuantizedLinear

BLOCK = 32


def quantize_q8_0(x: Tensor) -> Tensor:
    """Bytes of x (..., n), uint8 (..., n / 32 * 34): scale = largest magnitude / 127, codes −127 … 127."""
    blocks = _blocks(x)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    scaled = blocks * _reciprocal(scale)
    size = scaled.abs()
    codes = scaled.sign() * (size.floor() + (2 * size.frac()).floor())  # halves away from zero, as C's roundf
    return _bytes(scale, codes.to(torch.int8).view(torch.uint8))


def quantize_q4_0(x: Tensor) -> Tensor:
    """Bytes of x (..., n), uint8 (..., n / 32 * 18): the number of largest magnitude becomes exactly −8 × scale."""
    blocks = _blocks(x)
    scale = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) / -8
    codes = (blocks * _reciprocal(scale) + 8.5).trunc().clamp(0, 15).to(torch.uint8)
    low, high = codes.chunk(2, dim=-1)  # weights i and i + 16 share a byte
    return _bytes(scale, low | high << 4)


def dequantize_q8_0(data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The inverse of ``quantize_q8_0``, (..., n)."""
    scale, codes = _parts(data, BLOCK)
    return (codes.view(torch.int8).to(dtype) * scale.to(dtype)).flatten(-2)


def dequantize_q4_0(data: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The inverse of ``quantize_q4_0``, (..., n)."""
    scale, pairs = _parts(data, BLOCK // 2)
    codes = torch.cat([pairs & 15, pairs >> 4], dim=-1).view(torch.int8) - 8
    return (codes.to(dtype) * scale.to(dtype)).flatten(-2)


def check_row(length: int) -> None:
    """Raise BadParameter unless rows of that length are whole blocks."""
    if length % BLOCK:
        raise BadParameter(
            f"GGUF blocks hold {BLOCK} weights, but the rows have {length}; keep this tensor in another format."
        )


def _blocks(x: Tensor) -> Tensor:
    check_row(x.shape[-1])
    return x.detach().float().unflatten(-1, (-1, BLOCK))


def _reciprocal(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _bytes(scale: Tensor, codes: Tensor) -> Tensor:
    return torch.cat([scale.half().view(torch.uint8), codes], dim=-1).flatten(-2)


def _parts(data: Tensor, code_bytes: int) -> tuple[Tensor, Tensor]:
    """float16 scales (..., blocks, 1) and code bytes (..., blocks, code_bytes)."""
    blocks = data.unflatten(-1, (-1, 2 + code_bytes))
    return blocks[..., :2].contiguous().view(torch.float16), blocks[..., 2:]


class Q8_0Linear(QuantizedLinear):
    """Weights in Q8_0 blocks; ``data`` uint8 (out, bytes a row)."""

    data: Tensor
    quantize, dequantize_rows = staticmethod(quantize_q8_0), staticmethod(dequantize_q8_0)

    @classmethod
    def check(cls, in_features: int) -> None:
        check_row(in_features)

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Self:
        return cls(weight.shape[1], weight.shape[0], bias, data=cls.quantize(weight))

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.dequantize_rows(self.data[start:stop], dtype)

    def lookup(self, ids: Tensor) -> Tensor:
        return self.dequantize_rows(self.data[ids])


class Q4_0Linear(Q8_0Linear):
    """Weights in Q4_0 blocks; ``data`` uint8 (out, bytes a row)."""

    quantize, dequantize_rows = staticmethod(quantize_q4_0), staticmethod(dequantize_q4_0)
