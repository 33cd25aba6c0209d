"""Attention over a paged KV cache, read through block tables where it lies: one kernel for decodes, one for the rest.

A decode has one query and a long past, so its past is split among several programs, and the last one to arrive puts
their parts together (flash-decoding). Elsewhere a program takes some neighbouring queries of one sequence. In both,
the query heads that share a KV head stand in one tile, so that each key is fetched once.

Sources: Milakov & Gimelshein 2018 (online softmax, arXiv:1805.02867 §3); Dao 2023 (FlashAttention-2, arXiv:2307.08691
§3); Dao et al. 2023 (Flash-Decoding, the split of the past).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..config import ModelConfig
from ..model import RMSNorm
from .matmul import _request, pdl, request

PROGRAMS = 512  # a decode's past is split until about so many programs share the work: all that run at a time
LOG2E = 1.4426950408889634


@triton.jit
def _turned(source, norm, cos, sin, position, eps, d, D: tl.constexpr):
    """Heads that begin at ``source`` (heads, 1): normed where the model does that, then turned by their position."""
    HALF: tl.constexpr = D // 2
    partner = tl.where(d < HALF, d + HALF, d - HALF)
    own = tl.load(source + d, d < D, other=0).to(tl.float32)
    other = tl.load(source + partner, d < D, other=0).to(tl.float32)
    if norm is not None:
        rms = tl.rsqrt(tl.sum(own * own, 1) / D + eps)[:, None]
        own *= rms * tl.load(norm + d, d < D, other=0).to(tl.float32)
        other *= rms * tl.load(norm + partner, d < D, other=0).to(tl.float32)
    angle = position * HALF + d % HALF
    c = tl.load(cos + angle, d < D, other=0).to(tl.float32)
    s = tl.load(sin + angle, d < D, other=0).to(tl.float32)
    return own * c + tl.where(d < HALF, -other, other) * s


@triton.jit
def _slot(tables, place, there, BLOCK: tl.constexpr):
    return tl.load(tables + place // BLOCK, there, other=0).to(tl.int64) * BLOCK + place % BLOCK


@triton.jit
def _fold(q, k, v, seen, scale, peak, total, mix):
    """One more tile of keys and values in a running softmax (scores are in powers of two)."""
    score = tl.where(seen, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, -1e30)
    top = tl.maximum(peak, tl.max(score, 1))
    share = tl.where(seen, tl.exp2(score - top[:, None]), 0.0)
    fade = tl.exp2(peak - top)
    mix = mix * fade[:, None] + tl.dot(share.to(v.dtype), v, input_precision="ieee")
    return top, total * fade + tl.sum(share, 1), mix


@triton.jit
def _decode(
    qkv, q_norm, k_norm, cos, sin, keys, values, positions, offsets, tables, y, mixes, sums, arrivals,
    following, ahead, scale, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr,
    SPLITS: tl.constexpr, TILE: tl.constexpr, M: tl.constexpr, G: tl.constexpr, PD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    GROUP: tl.constexpr = HEADS // KV_HEADS
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if PDL:
        gdc_launch_dependents()
    if following is not None:
        _request(following, ahead, (row * KV_HEADS + head) * SPLITS + split, 1024)
    if PDL:
        gdc_wait()
    position = tl.load(positions + row)
    begin = tl.maximum(position - WINDOW + 1, 0) if WINDOW else 0
    first = begin // TILE
    tiles = tl.cdiv(tl.maximum(position, 0), TILE) - first
    each = tl.maximum(tl.cdiv(tiles, SPLITS), 1)
    parts = tl.maximum(tl.cdiv(tiles, each), 1)
    if (position < 0) | (split >= parts):  # a row that only fills the batch, or nothing left to do
        return
    tables += tl.load(offsets + row)
    g, d = tl.arange(0, M), tl.arange(0, PD)[None, :]
    qkv += row.to(tl.int64) * (HEADS + 2 * KV_HEADS) * D
    q = _turned(qkv + (head * GROUP + g % GROUP)[:, None] * D, q_norm, cos, sin, position, eps, d, D)
    q = q.to(keys.dtype.element_ty)
    place = (g * 0)[:, None]
    peak = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    mix = tl.zeros((M, PD), tl.float32)
    if (
        split == 0
    ):  # the new token's own key and value: nobody else reads them, so nobody has to wait for them
        k = _turned(qkv + (HEADS + head) * D + place, k_norm, cos, sin, position, eps, d, D).to(q.dtype)
        v = tl.load(qkv + (HEADS + KV_HEADS + head) * D + place + d, d < D, other=0)
        slot = (_slot(tables, position, True, BLOCK) * KV_HEADS + head) * D
        once = (g == 0)[:, None] & (d < D)
        tl.store(keys + slot + place + d, k, once)
        tl.store(values + slot + place + d, v, once)
        peak = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale
        total += 1.0
        mix += v.to(tl.float32)
    for tile in range(first + split * each, tl.minimum(first + (split + 1) * each, first + tiles)):
        p = tile * TILE + tl.arange(0, TILE)
        seen = (p >= begin) & (p < position)
        at = ((_slot(tables, p, seen, BLOCK) * KV_HEADS + head) * D)[:, None] + d
        there = seen[:, None] & (d < D)
        k, v = tl.load(keys + at, there, other=0), tl.load(values + at, there, other=0)
        peak, total, mix = _fold(q, k, v, seen[None, :], scale, peak, total, mix)
    y += (row * HEADS + head * GROUP) * D
    if parts == 1:
        tl.store(y + g[:, None] * D + d, mix / total[:, None], (g < GROUP)[:, None] & (d < D))
    else:
        pair = row * KV_HEADS + head
        part = (pair * SPLITS + split) * GROUP
        tl.store(mixes + (part + g)[:, None] * D + d, mix, (g < GROUP)[:, None] & (d < D))
        tl.store(sums + (part + g) * 2, peak, g < GROUP)
        tl.store(sums + (part + g) * 2 + 1, total, g < GROUP)
        tl.debug_barrier()  # all of this program's part is written before it counts itself in
        if tl.atomic_add(arrivals + pair, 1, sem="acq_rel") == parts - 1:
            tl.store(arrivals + pair, 0)
            _join(y, mixes, sums, pair, parts, d, GROUP, SPLITS, D, G)


@triton.jit
def _join(
    y,
    mixes,
    sums,
    pair,
    parts,
    d,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
):
    """Put the parts of one KV head's queries together, each weighted by its share of the whole softmax."""
    part, g = tl.arange(0, SPLITS)[:, None], tl.arange(0, G)[None, :]
    there = (part < parts) & (g < GROUP)
    at = (pair * SPLITS + part) * GROUP + g
    # Past the L1 cache: the other programs wrote these just now.
    peak = tl.load(sums + at * 2, there, other=-1e30, cache_modifier=".cg")
    total = tl.load(sums + at * 2 + 1, there, other=0, cache_modifier=".cg")
    wide = there[:, :, None] & (d < D)[None, :, :]
    mix = tl.load(mixes + at[:, :, None] * D + d[None, :, :], wide, other=0, cache_modifier=".cg")
    weight = tl.exp2(peak - tl.max(peak, 0)[None, :])
    out = tl.sum(mix * weight[:, :, None], 0) / tl.sum(total * weight, 0)[:, None]
    g = tl.arange(0, G)[:, None]
    tl.store(y + g * D + d, out, (g < GROUP) & (d < D))


@triton.jit
def _place(
    qkv, q_norm, k_norm, cos, sin, keys, values, positions, slots, queries, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, M: tl.constexpr, PD: tl.constexpr,
):  # fmt: skip
    """Turn the queries and keys of one token, and store its keys and values in their slot."""
    token = tl.program_id(0).to(tl.int64)
    qkv += token * (HEADS + 2 * KV_HEADS) * D
    position, slot = tl.load(positions + token), tl.load(slots + token).to(tl.int64)
    h, d = tl.arange(0, M)[:, None], tl.arange(0, PD)[None, :]
    q = _turned(qkv + tl.minimum(h, HEADS - 1) * D, q_norm, cos, sin, position, eps, d, D)
    tl.store(queries + (token * HEADS + h) * D + d, q, (h < HEADS) & (d < D))
    last = tl.minimum(h, KV_HEADS - 1)
    k = _turned(qkv + (HEADS + last) * D, k_norm, cos, sin, position, eps, d, D)
    v = tl.load(qkv + (HEADS + KV_HEADS + last) * D + d, d < D, other=0)
    at = (slot * KV_HEADS + h) * D + d
    tl.store(keys + at, k, (h < KV_HEADS) & (d < D))
    tl.store(values + at, v, (h < KV_HEADS) & (d < D))


@triton.jit
def _attend(
    queries, keys, values, pieces, tables, y, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr,
    TILE: tl.constexpr, M: tl.constexpr, PD: tl.constexpr,
):  # fmt: skip
    """Queries of one piece: up to M // GROUP neighbouring tokens of a sequence, with all heads of one KV head."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    pieces += tl.program_id(0) * 4
    first, position, count = tl.load(pieces), tl.load(pieces + 1), tl.load(pieces + 2)
    tables += tl.load(pieces + 3)
    head = tl.program_id(1)
    r, d = tl.arange(0, M), tl.arange(0, PD)[None, :]
    mine = (((first + r // GROUP).to(tl.int64) * HEADS + head * GROUP + r % GROUP) * D)[:, None] + d
    real = (r // GROUP < count)[:, None] & (d < D)
    q = tl.load(queries + mine, real, other=0)
    query = (position + r // GROUP)[:, None]
    peak = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    mix = tl.zeros((M, PD), tl.float32)
    low = tl.maximum(position - WINDOW + 1, 0) // TILE * TILE if WINDOW else 0
    for start in range(low, position + count, TILE):
        p = start + tl.arange(0, TILE)
        there = p < position + count
        at = ((_slot(tables, p, there, BLOCK) * KV_HEADS + head) * D)[:, None] + d
        k = tl.load(keys + at, there[:, None] & (d < D), other=0)
        v = tl.load(values + at, there[:, None] & (d < D), other=0)
        seen = p[None, :] <= query
        if WINDOW:
            seen = seen & (p[None, :] > query - WINDOW)
        peak, total, mix = _fold(q, k, v, seen, scale, peak, total, mix)
    tl.store(y + mine, mix / total[:, None], real)


@dataclass
class Attention:
    """What the kernels need to know of a model, and the memory they work in, for up to ``rows`` decodes at a time.

    ``cos`` and ``sin`` are (positions, head_dim / 2).
    """

    config: ModelConfig
    cos: Tensor
    sin: Tensor
    rows: int

    def __post_init__(self) -> None:
        config, device = self.config, self.cos.device
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.shape = {
            "HEADS": config.num_attention_heads,
            "KV_HEADS": config.num_key_value_heads,
            "D": config.head_dim,
            "PD": triton.next_power_of_2(config.head_dim),
        }
        parts = max(self.splits(rows) * rows for rows in range(1, self.rows + 1)) * config.num_key_value_heads
        self._mixes = torch.empty(parts * self.group * config.head_dim, device=device)
        self._sums = torch.empty(parts * self.group * 2, device=device)
        self._arrivals = torch.zeros(self.rows * config.num_key_value_heads, dtype=torch.int32, device=device)

    def splits(self, rows: int) -> int:
        """Among how many programs the past of one KV head is divided."""
        wanted = PROGRAMS // (rows * self.config.num_key_value_heads)
        # One program joins them all.
        most = min(16, 8192 // (triton.next_power_of_2(self.group) * self.shape["PD"]))
        return max(1, min(most, 1 << max(0, wanted.bit_length() - 1)))

    def decode(
        self,
        layer: int,
        qkv: Tensor,
        norms: tuple[RMSNorm | None, RMSNorm | None],
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        offsets: Tensor,
        tables: Tensor,
        block_size: int,
        following: Tensor | None = None,
    ) -> Tensor:
        """(rows, heads * head_dim) for one new token a row: qkv (rows, (heads + 2 kv_heads) * head_dim) as projected.

        keys, values: this layer's (slots, kv_heads, head_dim); the new token's are stored too. Row r's block table
        begins at ``tables[offsets[r]]``, its token stands at ``positions[r]``, or is not real when that is
        negative. following: as for ``matvec``.
        """
        rows, config = len(qkv), self.config
        y = torch.empty(
            rows, config.num_attention_heads * config.head_dim, dtype=qkv.dtype, device=qkv.device
        )
        splits = self.splits(rows)
        _decode[(rows, config.num_key_value_heads, splits)](
            qkv, *_weights(norms), self.cos, self.sin, keys, values, positions, offsets, tables, y,
            self._mixes, self._sums, self._arrivals, *request(following),
            LOG2E * config.head_dim**-0.5, config.rms_norm_eps,
            **self.shape, BLOCK=block_size, WINDOW=config.window(layer) or 0, SPLITS=splits,
            TILE=self._tile(keys), M=max(16, triton.next_power_of_2(self.group)),
            G=triton.next_power_of_2(self.group), PDL=pdl(qkv.device),
            launch_pdl=pdl(qkv.device),
        )  # fmt: skip
        return y

    @staticmethod
    def _tile(keys: Tensor) -> int:
        """Keys at a time: as many as fit in an SM's shared memory, several times over."""
        return 64 if keys.element_size() < 4 else 32

    @property
    def piece(self) -> int:
        """Tokens that one program of ``attend`` takes."""
        return self._many // self.group

    @property
    def _many(self) -> int:
        return max(64, triton.next_power_of_2(self.group))

    def attend(
        self,
        layer: int,
        qkv: Tensor,
        norms: tuple[RMSNorm | None, RMSNorm | None],
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        slots: Tensor,
        pieces: Tensor,
        tables: Tensor,
        block_size: int,
    ) -> Tensor:
        """The same for any number of new tokens a sequence, with their ``positions`` and ``slots`` (tokens,).

        pieces: int32 (pieces, 4): first token, its position, tokens (up to ``piece``), beginning of its block table.
        """
        config = self.config
        heads = config.num_attention_heads
        queries = torch.empty(len(qkv), heads * config.head_dim, dtype=qkv.dtype, device=qkv.device)
        _place[(len(qkv),)](
            qkv, *_weights(norms), self.cos, self.sin, keys, values, positions, slots, queries, config.rms_norm_eps,
            **self.shape, M=triton.next_power_of_2(heads),
        )  # fmt: skip
        y = torch.empty_like(queries)
        _attend[(len(pieces), config.num_key_value_heads)](
            queries, keys, values, pieces, tables, y, LOG2E * config.head_dim**-0.5,
            **self.shape, BLOCK=block_size, WINDOW=config.window(layer) or 0, M=self._many,
            TILE=self._tile(keys),
        )  # fmt: skip
        return y


def _weights(norms: tuple[RMSNorm | None, RMSNorm | None]) -> list[Tensor | None]:
    return [None if norm is None else norm.weight for norm in norms]
