"""The KV cache in fewer bits: every token's key and value, head by head, with a scale and a zero of their own.

x ≈ code × scale + zero over the head_dim numbers of one token and one head, so that a token can be stored as soon as
it is there and nothing stored before it changes. With float16 scales and zeros and a head of 64, INT8 costs 8.5 bits
a number and INT4 4.5. Source: Sheng et al. 2023 (FlexGen, arXiv:2303.06865 §5); why keys suffer more than values:
Liu et al. 2024 (KIVI, arXiv:2402.02750 §3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadParameter

BITS = (8, 4)
TINY = torch.finfo(torch.float16).tiny


def quantize_kv(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """codes uint8 (..., head_dim × bits / 8) and scales float16 (..., 2) of keys or values x (..., head_dim).

    At 4 bits, numbers i and i + head_dim / 2 share a byte. Raises BadParameter for other bits than 8 and 4.
    """
    if bits not in BITS:
        raise BadParameter(f"A KV cache of {bits!r} bits is not supported; choose 8 or 4.")
    x = x.float()
    low, high = x.aminmax(dim=-1, keepdim=True)
    scales = torch.cat([((high - low) / (2**bits - 1)).clamp(min=TINY), low], dim=-1).half()
    scale, zero = scales.float().split(1, dim=-1)
    codes = ((x - zero) / scale).round().clamp(0, 2**bits - 1).to(torch.uint8)
    if bits == 4:
        first, second = codes.chunk(2, dim=-1)
        codes = first | second << 4
    return codes, scales


def dequantize_kv(codes: Tensor, scales: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """The inverse of ``quantize_kv``: (..., head_dim) in ``dtype``."""
    if codes.shape[-1] < head_dim:
        codes = torch.cat([codes & 15, codes >> 4], dim=-1)
    scale, zero = scales.to(dtype).split(1, dim=-1)
    return torch.addcmul(zero, codes.to(dtype), scale)
