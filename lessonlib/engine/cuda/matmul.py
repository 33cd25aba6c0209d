"""Kernels that multiply by weights which have to be fetched from memory first: matrix × one vector, or × a few.

At batch 1 a decode step is as fast as the weights arrive, so everything small rides along with a product: the norm
before it, the activation and the residual behind it. INT4 codes lie eight to a 32-bit word; word w of a group holds
its columns w, w + G/8, w + 2G/8 …, so that neighbouring threads read neighbouring numbers of x.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

FEW = 64  # rows of x up to which packed codes are multiplied as they are; beyond, they are unpacked first


@triton.jit
def _code(words, j: tl.constexpr):
    """Code j of each word × 2**(4 field - 149): its bits are read as a (subnormal) float, which costs no conversion."""
    if j >= 5:
        words = words >> 12
    return (words & (15 << (4 * (j - 3 if j >= 5 else j)))).to(tl.float32, bitcast=True)


@triton.jit
def _matvec(
    x, norm, weight, scales, bias, residual, y, rows, eps,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    GATED: tl.constexpr, PDL: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tile, pair = _fetch(weight, scales, row, rows, 0, WIDTH, BITS, GROUP, TILE)
    if GATED:  # the up rows stand behind the gate rows
        tile_up, pair_up = _fetch(weight, scales, row + rows, 2 * rows, 0, WIDTH, BITS, GROUP, TILE)
    if PDL:
        gdc_wait()  # weights may be fetched early; x is what the kernel before this one makes
    RUN: tl.constexpr = 128 // (
        32 if BITS == 4 else BITS
    )  # neighbours that one thread fetches, and adds up itself
    total = tl.zeros((ROWS, TILE // RUN), tl.float32)
    total_up = tl.zeros((ROWS, TILE // RUN), tl.float32)
    squares = tl.zeros((TILE,), tl.float32)
    for start in range(0, WIDTH, TILE):
        coming, coming_pair = _fetch(weight, scales, row, rows, start + TILE, WIDTH, BITS, GROUP, TILE)
        if GATED:
            coming_up, coming_pair_up = _fetch(
                weight, scales, row + rows, 2 * rows, start + TILE, WIDTH, BITS, GROUP, TILE
            )
        at = start + tl.arange(0, TILE)
        whole = tl.zeros((TILE,), tl.float32)
        product = 0.0
        product_up = 0.0
        for j in tl.static_range(8 if BITS == 4 else 1):
            column = at // (GROUP // 8) * GROUP + j * (GROUP // 8) + at % (GROUP // 8) if BITS == 4 else at
            v = tl.load(x + column, column < COLUMNS, other=0).to(tl.float32)
            if norm is not None:
                squares += v * v
                v *= tl.load(norm + column, column < COLUMNS, other=0).to(tl.float32)
            if BITS == 4:
                whole += v
                v *= 2.0 ** (100 - 4 * (j - 3 if j >= 5 else j))
            term = (_code(tile, j) if BITS == 4 else tile.to(tl.float32)) * v[None, :]
            product = term if j == 0 else product + term
            if GATED:
                term = (_code(tile_up, j) if BITS == 4 else tile_up.to(tl.float32)) * v[None, :]
                product_up = term if j == 0 else product_up + term
        whole = tl.sum(tl.reshape(whole, (TILE // RUN, RUN)), 1)[None, :]
        total += _scaled(tl.sum(tl.reshape(product, (ROWS, TILE // RUN, RUN)), 2), pair, whole, BITS)
        tile, pair = coming, coming_pair
        if GATED:
            total_up += _scaled(
                tl.sum(tl.reshape(product_up, (ROWS, TILE // RUN, RUN)), 2), pair_up, whole, BITS
            )
            tile_up, pair_up = coming_up, coming_pair_up
    rms = 1.0
    if norm is not None:
        rms = tl.rsqrt(tl.sum(squares) / COLUMNS + eps)
    out = _finished(tl.sum(total, 1) * rms, row, scales, bias, rows, BITS)
    if GATED:
        out = (
            out
            * tl.sigmoid(out)
            * _finished(tl.sum(total_up, 1) * rms, row + rows, scales, bias, 2 * rows, BITS)
        )
    if residual is not None:
        out += tl.load(residual + row, row < rows, other=0).to(tl.float32)
    tl.store(y + row, out, row < rows)


@triton.jit
def _fetch(
    weight, scales, row, rows, start,
    WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A tile of W, (ROWS, TILE), and for INT4 the pair of each four words."""
    row = row.to(tl.int64)[:, None]
    at = start + tl.arange(0, TILE)[None, :]
    tile = tl.load(
        weight + row * WIDTH + at, (row < rows) & (at < WIDTH), other=0, eviction_policy="evict_first"
    )
    pair = 0
    if BITS == 4:
        at = start // 4 + tl.arange(0, TILE // 4)[None, :]
        place = scales + row * (WIDTH * 8 // GROUP) + at // (GROUP // 32)
        pair = tl.load(place, (row < rows) & (at < WIDTH // 4), other=0)
    return tile, pair


@triton.jit
def _scaled(product, pair, whole, BITS: tl.constexpr):
    """INT4: Σ ((code - 8) scale + zero) x from Σ code x and Σ x; a pair is two bfloat16: scale below, zero above."""
    if BITS == 4:
        scale = (pair << 16).to(tl.float32, bitcast=True)
        zero = (pair & -65536).to(tl.float32, bitcast=True)
        product = product * (scale * 2.0**49) + (zero - 8 * scale) * whole
    return product


@triton.jit
def _finished(y, row, scales, bias, rows, BITS: tl.constexpr):
    if BITS == 8:
        y *= tl.load(scales + row, row < rows, other=0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + row, row < rows, other=0).to(tl.float32)
    return y


@triton.jit
def _weight(words, pair, j: tl.constexpr):
    """Weight j of each word, float32."""
    code = ((words >> (4 * j)) & 15) - 8
    scale = (pair << 16).to(tl.float32, bitcast=True)
    return code.to(tl.float32) * scale + (pair & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _few(
    x, weight, scales, y, count, rows,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    WORDS: tl.constexpr = GROUP // 8
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    m = tl.arange(0, M)[None, :]
    total = tl.zeros((ROWS, M), tl.float32)
    for start in range(0, WIDTH, TILE):
        at = start + tl.arange(0, TILE)
        there = (row < rows) & (at < WIDTH)[None, :]
        tile = tl.load(weight + row.to(tl.int64) * WIDTH + at[None, :], there, other=0)
        if BITS == 4:
            pair = tl.load(
                scales + row.to(tl.int64) * (WIDTH // WORDS) + (at // WORDS)[None, :], there, other=0
            )
            for j in tl.static_range(8):
                column = (at // WORDS * GROUP + j * WORDS + at % WORDS)[:, None]
                v = tl.load(x + m * COLUMNS + column, (m < count) & (column < COLUMNS), other=0)
                total = tl.dot(_weight(tile, pair, j).to(v.dtype), v, total)
        else:
            column = at[:, None]
            v = tl.load(x + m * COLUMNS + column, (m < count) & (column < COLUMNS), other=0)
            total = tl.dot(tile.to(tl.float32).to(v.dtype), v, total)
    if BITS == 8:
        total *= tl.load(scales + row, row < rows, other=0).to(tl.float32)
    tl.store(y + m * rows + row, total, (m < count) & (row < rows))


@triton.jit
def _unpack(
    words, pairs, out, rows,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)[None, :]
    there = (row < rows) & (at < WIDTH)
    word = tl.load(words + row * WIDTH + at, there, other=0)
    pair = tl.load(pairs + row * (WIDTH * 8 // GROUP) + at // (GROUP // 8), there, other=0)
    for j in tl.static_range(8):
        column = at // (GROUP // 8) * GROUP + j * (GROUP // 8) + at % (GROUP // 8)
        tl.store(out + row * COLUMNS + column, _weight(word, pair, j), there & (column < COLUMNS))


def pdl(device: torch.device) -> bool:
    """Can a kernel start here before the one in front of it has ended (Hopper's programmatic dependent launch)?"""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


def matvec(
    x: Tensor,
    weight: Tensor,
    columns: int,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    gated: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """y (1, out) = residual + act(rms_norm(x) Wᵀ + bias) for x (1, in), all in one kernel; sums in float32.

    weight (out, in): floats, int8 codes (with ``scales`` (out,)), or int32 words of INT4 codes (with ``scales`` int32
    (out, groups), a pair of bfloat16 each). gated: the rows of W are gate and up, and y is silu(gate) · up.
    """
    bits = 4 if weight.dtype == torch.int32 else 8 * weight.element_size()
    rows = len(weight) // 2 if gated else len(weight)
    y = torch.empty(1, rows, dtype=dtype or x.dtype, device=x.device)
    height, tile, warps = TILES[bits]
    _matvec[(triton.cdiv(rows, height),)](
        x, norm, weight, scales, bias, residual, y, rows, eps,
        COLUMNS=columns, WIDTH=weight.shape[1], BITS=bits, GROUP=_group(weight, scales),
        GATED=gated, PDL=pdl(x.device), ROWS=height, TILE=tile, num_warps=warps, launch_pdl=pdl(x.device),
    )  # fmt: skip
    return y


# Rows of W that one program takes, stored numbers at a time, warps: measured on an H200.
TILES = {32: (4, 512, 4), 16: (4, 1024, 4), 8: (4, 2048, 4), 4: (4, 512, 4)}


def few(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """x Wᵀ (count, out) for up to FEW rows of x (count, in), from codes as in ``matvec``; products in bfloat16."""
    (count, columns), rows = x.shape, len(weight)
    bits = 4 if weight.dtype == torch.int32 else 8
    y = torch.empty(count, rows, dtype=torch.bfloat16, device=x.device)
    _few[(triton.cdiv(rows, 32),)](
        x.bfloat16().contiguous(), weight, scales, y, count, rows, COLUMNS=columns, WIDTH=weight.shape[1],
        BITS=bits, GROUP=_group(weight, scales), M=max(16, triton.next_power_of_2(count)), ROWS=32,
        TILE=64 if bits == 4 else 256,
    )  # fmt: skip
    return y


def unpack(words: Tensor, pairs: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """W (out, columns) of INT4 words (out, …) and their pairs (out, groups)."""
    out = torch.empty(len(words), columns, dtype=dtype, device=words.device)
    grid = triton.cdiv(len(words), 8), triton.cdiv(words.shape[1], 128)
    _unpack[grid](
        words, pairs, out, len(words), columns, words.shape[1], _group(words, pairs), ROWS=8, TILE=128
    )
    return out


def _group(weight: Tensor, scales: Tensor | None) -> int:
    """Columns that share a scale."""
    return 8 if scales is None or weight.dtype != torch.int32 else 8 * weight.shape[1] // scales.shape[1]
