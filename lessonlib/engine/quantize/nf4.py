"""NF4: sixteen levels placed where normally distributed weights are, times the largest weight of each block.

4-bit NormalFloat is a codebook, not an integer format: a code is a place in ``LEVELS``, not a number to compute with.
Blocks of 64 with a float32 each: 4.5 bits a weight. Double quantization keeps the blocks' maxima in 8 bits: 4.13.
Source: Dettmers et al. 2023 (QLoRA, arXiv:2305.14314 §3); codes, maxima and values equal those of bitsandbytes on a
CPU to the last bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .linear import QuantizedLinear, workspace

BLOCK = 64
OUTER_BLOCK = 256  # maxima that share a scale under double quantization
SMALLEST = 1e-38  # stands for the maximum of a block of zeros
# Quantiles of the normal distribution, scaled to −1 … 1, with an exact zero (QLoRA, appendix E).
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
MIDPOINTS = tuple((torch.tensor(LEVELS[:-1]) + torch.tensor(LEVELS[1:])).div(2).tolist())


class NF4(NamedTuple):
    """A tensor in NF4: two codes a byte (the first in the high bits) and what undoes the scaling of each block."""

    packed: Tensor  # uint8 (ceil(numbers / 2),)
    absmax: Tensor  # (blocks,): float32 maxima, or under double quantization uint8 codes for them
    scales: Tensor | None = None  # double quantization: float32 (ceil(blocks / 256),)
    offset: Tensor | None = None  # double quantization: float32 (), the mean of the maxima


def quantize_nf4(x: Tensor, double: bool = False) -> NF4:
    """Quantize a tensor of any shape, in blocks of 64 numbers in row-major order (the last may be shorter)."""
    flat = x.detach().float().flatten()
    whole = len(flat) // BLOCK * BLOCK
    blocks, rest = flat[:whole].view(-1, BLOCK), flat[whole:]
    absmax = blocks.abs().amax(dim=1)
    scaled = (blocks * (1 / absmax.clamp(min=SMALLEST))[:, None]).flatten()
    if len(rest):
        # bitsandbytes divides in a short block where it multiplies by the reciprocal in the others.
        last = rest.abs().amax(dim=0, keepdim=True).clamp(min=SMALLEST)
        absmax, scaled = torch.cat([absmax, last]), torch.cat([scaled, rest / last])
    scaled = F.pad(scaled.clamp(-1, 1), (0, len(scaled) % 2))  # codes come in pairs
    codes = torch.bucketize(scaled, torch.tensor(MIDPOINTS, device=x.device)).to(torch.uint8)
    packed = codes[::2] << 4 | codes[1::2]
    if not double:
        return NF4(packed, absmax)
    offset = absmax.mean()
    return NF4(packed, *_quantize_maxima(absmax - offset), offset)


def dequantize_nf4(q: NF4, numbers: int) -> Tensor:
    """The first ``numbers`` numbers, float32 and flat."""
    return _decode(q.packed, block_maxima(q))[:numbers].clone()


def block_maxima(q: NF4) -> Tensor:
    """The largest magnitude of each block, float32 (blocks,)."""
    if q.scales is None or q.offset is None:
        return q.absmax
    scales = q.scales.repeat_interleave(OUTER_BLOCK)[: len(q.absmax)]
    return dynamic_map().to(q.absmax.device)[q.absmax.int()] * scales + q.offset


@cache
def dynamic_map() -> Tensor:
    """256 levels from −1 to 1 that lie denser around zero: seven decades, each with twice the levels of the one below.

    Source: Dettmers et al. 2022 (arXiv:2110.02861 §1.3, dynamic tree quantization).
    """
    edges = [torch.linspace(0.1, 1, 2**i + 1) for i in range(7)]
    positive = torch.cat([10.0 ** (i - 6) * (e[:-1] + e[1:]) / 2 for i, e in enumerate(edges)])
    return torch.cat([-positive, positive, torch.tensor([0.0, 1.0])]).sort().values


def _quantize_maxima(x: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest of 256 levels in blocks of 256: codes uint8 (n,) and float32 scales (ceil(n / 256),)."""
    blocks = F.pad(x, (0, -len(x) % OUTER_BLOCK)).view(-1, OUTER_BLOCK)
    scales = blocks.abs().amax(dim=1)
    scaled = (blocks * (1 / scales)[:, None]).nan_to_num(nan=-1.0).clamp(-1, 1)
    # As bitsandbytes on a CPU: first to the nearest of 65,536 even steps, then to the nearest level.
    step = ((scaled + 1).double() * (65535 / 2) + 0.5).float().int()
    levels = dynamic_map().to(x.device)
    codes = torch.bucketize(-1 + (2 * step) / 65535, (levels[:-1] + levels[1:]) / 2).to(torch.uint8)
    return torch.where(scales[:, None] > 0, codes, 0).to(torch.uint8).flatten()[: len(x)].clone(), scales


def _decode(packed: Tensor, maxima: Tensor) -> Tensor:
    """Level × maximum for whole blocks, flat, in the dtype of ``maxima``, in the workspace."""
    out = workspace((len(maxima) * BLOCK,), maxima.dtype, packed.device)
    pairs = _pairs(maxima.dtype, packed.device)
    torch.index_select(pairs, 0, packed.int(), out=out.view(pairs.dtype)[: len(packed)])
    out.view(-1, BLOCK).mul_(maxima[:, None])
    return out


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The two levels that each byte stands for, side by side in one integer: one look-up fetches both. (256,)"""
    levels = torch.tensor(LEVELS, dtype=dtype, device=device)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)
    return pairs.view({2: torch.int32, 4: torch.int64}[dtype.itemsize]).flatten()


class NF4Linear(QuantizedLinear):
    """NF4 weights. There is no fused kernel in PyTorch: NF4 saves memory, but no time."""

    OPTIONS = ("double",)
    packed: Tensor  # as in NF4, for the weights in row-major order
    absmax: Tensor
    scales: Tensor | None
    offset: Tensor | None

    @classmethod
    def from_weight(
        cls, weight: Tensor, bias: Tensor | None = None, double: bool = False, **options: Any
    ) -> Self:
        return cls(weight.shape[1], weight.shape[0], bias, **quantize_nf4(weight, double)._asdict())

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        first, last = start * self.in_features, stop * self.in_features  # a chunk begins where a block does
        maxima = block_maxima(NF4(self.packed, self.absmax, self.scales, self.offset)).to(dtype)
        flat = _decode(self.packed[first // 2 : -(-last // 2)], maxima[first // BLOCK : -(-last // BLOCK)])
        return flat[: last - first].view(stop - start, self.in_features)
