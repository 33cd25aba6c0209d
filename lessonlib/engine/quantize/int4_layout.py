"""Where the two codes of a byte stand: INT4 weights are stored in the order in which a kernel reads them.

Storing them twice, once to look at and once to multiply with, would undo the saving.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BLOCK = 64  # output rows that are interleaved; out_features is padded to a multiple of it


@cache
def kernel_block() -> int | None:
    """Output rows that this CPU's kernel interleaves (64 with AVX-512, 32 with AVX2); None: another order or none."""
    probe = torch.arange(64 * 32).view(64, 32) * 7 % 16
    try:
        theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(probe.int(), 2)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    same = (b for b in (64, 32) if torch.equal(pack(probe.to(torch.uint8), b).flatten(), theirs.flatten()))
    return next(same, None)


def pack(codes: Tensor, block: int) -> Tensor:
    """Codes 0 … 15, uint8 (out, in), to bytes (out / block, in, block / 2).

    Row r and row r + block / 2 share a byte (low bits first), and the bytes of a column lie side by side: one
    vector instruction unpacks the weights of ``block`` outputs that all wait for the same input.
    """
    first, second = codes.view(-1, 2, block // 2, codes.shape[1]).unbind(1)
    return (first | second << 4).transpose(1, 2).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """The inverse of ``pack``."""
    codes = torch.cat([packed & 15, packed >> 4], dim=2)
    return codes.transpose(1, 2).reshape(-1, packed.shape[1])
