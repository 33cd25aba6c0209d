"""Kernels that multiply by weights which have to be fetched from memory first: matrix × one vector, or × a few.

At batch 1 a decode step is as fast as the weights arrive, so everything small rides along with a product: the norm
before it, the activation and the residual behind it. And since memory must never idle, each kernel already asks for
the first megabytes of the *next* matrix: they travel into the L2 cache while this kernel ends and that one starts.

Codes are *packed* into 32-bit words, eight INT4 or four INT8 ones, unsigned. Word w of a unit of U columns holds its
columns w, w + U/8, w + 2U/8 … (INT8: U/4), so that neighbouring threads read neighbouring numbers of x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

FEW = 64  # rows of x up to which packed codes are multiplied as they are; beyond, they are unpacked first
INT8_UNIT = 32  # INT4: a group of columns with one scale
PROGRAMS = 640  # of a product with a few rows, if a row of W has to be divided for that
AHEAD = 6 << 20  # bytes of the next matrix to ask for
MAGIC = 0x43800000  # the bits of 256.0
PDL = True


@triton.jit
def _code(words, j: tl.constexpr, BITS: tl.constexpr, FIELDS: tl.constexpr):
    """Code j of each word, times 2**(BITS * (j % FIELDS) - 149): its bits are read as a (subnormal) float where they
    stand, which saves a conversion. FIELDS codes have room in the 23 bits of a float's fraction."""
    words = words.to(tl.uint32, bitcast=True)
    if j >= FIELDS:
        words = words >> (BITS * FIELDS)
    return (words & (((1 << BITS) - 1) << (BITS * (j % FIELDS)))).to(tl.float32, bitcast=True)


@triton.jit
def _column(at, j: tl.constexpr, UNIT: tl.constexpr, BITS: tl.constexpr):
    """The column of W that code j of word ``at`` belongs to."""
    WORDS: tl.constexpr = UNIT * BITS // 32
    return at // WORDS * UNIT + j * WORDS + at % WORDS


@triton.jit
def _request(following, size, program, LINES: tl.constexpr):
    """Ask for LINES lines of the next matrix (``size`` bytes of it) to be brought into the L2 cache."""
    if program * LINES * 128 < size:
        at = tl.minimum((program * LINES + tl.arange(0, LINES)).to(tl.int64) * 128, size - 128)
        address = following.to(tl.int64, bitcast=True) + at
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], tl.int32, is_pure=False, pack=1
        )


@triton.jit
def _matvec(
    x, norm, weight, scales, bias, residual, y, following, ahead, rows, eps,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, UNIT: tl.constexpr,
    GATED: tl.constexpr, PDL: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tile, pair = _fetch(weight, scales, row, rows, 0, WIDTH, BITS, UNIT, TILE)
    if GATED:  # the up rows stand behind the gate rows
        tile_up, pair_up = _fetch(weight, scales, row + rows, 2 * rows, 0, WIDTH, BITS, UNIT, TILE)
    if following is not None:
        _request(following, ahead, tl.program_id(0), 128)
    if PDL:
        gdc_wait()  # weights may be fetched early; x is what the kernel before this one makes
    # Floats: fetch the next tile before this one is multiplied. Codes need the registers for themselves.
    EARLY: tl.constexpr = BITS >= 16
    CODES: tl.constexpr = 32 // BITS if BITS < 16 else 1
    FIELDS: tl.constexpr = 23 // BITS
    # Neighbours that one thread fetches, and adds up itself.
    RUN: tl.constexpr = 4 if BITS < 16 else 128 // BITS
    total = tl.zeros((ROWS, TILE // RUN), tl.float32)
    total_up = tl.zeros((ROWS, TILE // RUN), tl.float32)
    squares = tl.zeros((TILE,), tl.float32)
    for start in range(0, WIDTH, TILE):
        if EARLY:
            coming, coming_pair = _fetch(weight, scales, row, rows, start + TILE, WIDTH, BITS, UNIT, TILE)
            if GATED:
                coming_up, coming_pair_up = _fetch(
                    weight, scales, row + rows, 2 * rows, start + TILE, WIDTH, BITS, UNIT, TILE
                )
        at = start + tl.arange(0, TILE)
        whole = tl.zeros((TILE,), tl.float32)
        product = 0.0
        product_up = 0.0
        for j in tl.static_range(CODES):
            column = _column(at, j, UNIT, BITS) if BITS < 16 else at
            v = tl.load(x + column, column < COLUMNS, other=0).to(tl.float32)
            if norm is not None:
                squares += v * v
                v *= tl.load(norm + column, column < COLUMNS, other=0).to(tl.float32)
            if BITS < 16:
                whole += v
                v *= 2.0 ** (100 - BITS * (j % FIELDS))
            term = (_code(tile, j, BITS, FIELDS) if BITS < 16 else tile.to(tl.float32)) * v[None, :]
            product = term if j == 0 else product + term
            if GATED:
                term = (_code(tile_up, j, BITS, FIELDS) if BITS < 16 else tile_up.to(tl.float32)) * v[None, :]
                product_up = term if j == 0 else product_up + term
        whole = tl.sum(tl.reshape(whole, (TILE // RUN, RUN)), 1)[None, :]
        total += _scaled(tl.sum(tl.reshape(product, (ROWS, TILE // RUN, RUN)), 2), pair, whole, BITS)
        if GATED:
            total_up += _scaled(
                tl.sum(tl.reshape(product_up, (ROWS, TILE // RUN, RUN)), 2), pair_up, whole, BITS
            )
        if EARLY:
            tile, pair = coming, coming_pair
            if GATED:
                tile_up, pair_up = coming_up, coming_pair_up
        elif WIDTH > TILE:
            tile, pair = _fetch(weight, scales, row, rows, start + TILE, WIDTH, BITS, UNIT, TILE)
            if GATED:
                tile_up, pair_up = _fetch(
                    weight, scales, row + rows, 2 * rows, start + TILE, WIDTH, BITS, UNIT, TILE
                )
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
    WIDTH: tl.constexpr, BITS: tl.constexpr, UNIT: tl.constexpr, TILE: tl.constexpr,
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
        place = scales + row * (WIDTH * 8 // UNIT) + at // (UNIT // 32)
        pair = tl.load(place, (row < rows) & (at < WIDTH // 4), other=0)
    return tile, pair


@triton.jit
def _scaled(product, pair, whole, BITS: tl.constexpr):
    """Σ ((code - 8) scale + zero) x, or for INT8 Σ (code - 128) x, from Σ code x · 2**-49 and Σ x."""
    if BITS == 4:  # a pair is two bfloat16: scale below, zero above
        scale = (pair << 16).to(tl.float32, bitcast=True)
        zero = (pair & -65536).to(tl.float32, bitcast=True)
        product = product * (scale * 2.0**49) + (zero - 8 * scale) * whole
    elif BITS == 8:
        product = product * 2.0**49 - 128 * whole
    return product


@triton.jit
def _finished(y, row, scales, bias, rows, BITS: tl.constexpr):
    if BITS == 8:
        y *= tl.load(scales + row, row < rows, other=0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + row, row < rows, other=0).to(tl.float32)
    return y


@triton.jit
def _weight(words, pair, magic, j: tl.constexpr, BITS: tl.constexpr):
    """Weight j of each word, float32; INT8: without its scale."""
    words = words.to(tl.uint32, bitcast=True)
    # Put into the right bits of the float 256, a code makes it 256 + code: again no conversion. ``magic``
    # is that float; as an argument, not a constant, it and the mask fit into one instruction.
    words = words >> (BITS * j - 15) if BITS * j > 15 else words << (15 - BITS * j)
    code = ((words & (((1 << BITS) - 1) << 15)) | magic).to(tl.float32, bitcast=True)
    if BITS == 8:
        code -= 384
    else:
        scale = (pair << 16).to(tl.float32, bitcast=True)
        code = code * scale + ((pair & -65536).to(tl.float32, bitcast=True) - 264 * scale)
    return code


@triton.jit
def _weights(words, pair, magic, dtype: tl.constexpr, BITS: tl.constexpr):
    """All weights of a tile of words (rows, tile), one word after the other: (rows, tile * 32 / BITS)."""
    if BITS == 8:
        even = _pair(words, pair, magic, 0, dtype, BITS)
        odd = _pair(words, pair, magic, 1, dtype, BITS)
    else:
        even = tl.join(_pair(words, pair, magic, 0, dtype, BITS), _pair(words, pair, magic, 2, dtype, BITS))
        odd = tl.join(_pair(words, pair, magic, 1, dtype, BITS), _pair(words, pair, magic, 3, dtype, BITS))
    return tl.reshape(tl.join(even, odd), (words.shape[0], words.shape[1] * (32 // BITS)))


@triton.jit
def _pair(words, pair, magic, j: tl.constexpr, dtype: tl.constexpr, BITS: tl.constexpr):
    """Weights j and j + half a word, in a new last dimension."""
    far = _weight(words, pair, magic, j + 16 // BITS, BITS).to(dtype)
    return tl.join(_weight(words, pair, magic, j, BITS).to(dtype), far)


@triton.jit
def _few(
    x, words, scales, y, count, rows, magic,
    WIDTH: tl.constexpr, BITS: tl.constexpr, UNIT: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    CODES: tl.constexpr = 32 // BITS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    m = tl.arange(0, M)[None, :]
    total = tl.zeros((ROWS, M), tl.float32)
    begin = tl.program_id(1) * PART
    for start in range(begin, tl.minimum(begin + PART, WIDTH), TILE):
        at = start + tl.arange(0, TILE)
        there = (row < rows) & (at < WIDTH)[None, :]
        tile = tl.load(words + row.to(tl.int64) * WIDTH + at[None, :], there, other=0)
        pair = tile
        if BITS == 4:
            place = scales + row.to(tl.int64) * (WIDTH * 8 // UNIT) + (at // (UNIT // 8))[None, :]
            pair = tl.load(place, there, other=0)
        at = (start * CODES + tl.arange(0, TILE * CODES))[:, None]
        v = tl.load(x + m * (WIDTH * CODES) + at, (m < count) & (at < WIDTH * CODES), other=0)
        total = tl.dot(_weights(tile, pair, magic, v.dtype, BITS), v, total)
    if BITS == 8:
        total *= tl.load(scales + row, row < rows, other=0).to(tl.float32)
    y += tl.program_id(1).to(tl.int64) * count * rows
    tl.store(y + m * rows + row, total, (m < count) & (row < rows))


@triton.jit
def _unpack(
    words, scales, out, rows, magic,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr, UNIT: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)[None, :]
    there = (row < rows) & (at < WIDTH)
    word = tl.load(words + row * WIDTH + at, there, other=0)
    place = row * (WIDTH * 8 // UNIT) + at // (UNIT // 8) if BITS == 4 else row + 0 * at
    scale = tl.load(scales + place, there, other=0)
    for j in tl.static_range(32 // BITS):
        column = _column(at, j, UNIT, BITS)
        weight = _weight(word, scale, magic, j, BITS)
        if BITS == 8:
            weight *= scale.to(tl.float32)
        tl.store(out + row * COLUMNS + column, weight, there & (column < COLUMNS))


def pdl(device: torch.device) -> bool:
    """Can a kernel start here before the one in front of it has ended (Hopper's programmatic dependent launch)?"""
    return PDL and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


def request(following: Tensor | None) -> tuple[Tensor | None, int]:
    """For a kernel: which matrix comes next, and how many bytes of it to ask for."""
    if following is None or not following.is_cuda or AHEAD == 0:
        return None, 0
    return following, min(AHEAD, following.nbytes)


def matvec(
    x: Tensor,
    weight: Tensor,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    gated: bool = False,
    dtype: torch.dtype | None = None,
    following: Tensor | None = None,
) -> Tensor:
    """y (1, out) = residual + act(rms_norm(x) Wᵀ + bias) for x (1, in), all in one kernel; sums in float32.

    weight: floats (out, in), or int32 words of codes. scales: INT8 (out,); INT4 int32 (out, groups), a pair of
    bfloat16 each. gated: the rows of W are gate and up, and y is silu(gate) · up. following: the next matrix.
    """
    bits = packed_bits(weight, scales)
    rows = len(weight) // 2 if gated else len(weight)
    y = torch.empty(1, rows, dtype=dtype or x.dtype, device=x.device)
    height, tile, warps = tiles(bits, rows, weight.shape[1], gated)
    _matvec[(triton.cdiv(rows, height),)](
        x, norm, weight, scales, bias, residual, y, *request(following), rows, eps,
        COLUMNS=x.shape[1], WIDTH=weight.shape[1], BITS=bits, UNIT=_unit(weight, scales), GATED=gated,
        PDL=pdl(x.device), ROWS=height, TILE=tile, num_warps=warps, launch_pdl=pdl(x.device),
    )  # fmt: skip
    return y


def few(x: Tensor, words: Tensor, scales: Tensor) -> Tensor:
    """x Wᵀ (count, out) for up to FEW rows of x (count, in), from codes as in ``matvec``; products in bfloat16."""
    (count, columns), (rows, width), bits = x.shape, words.shape, packed_bits(words, scales)
    height, tile, warps, stages, splits = few_tiles(bits, rows)
    part = -(-width // (splits * tile)) * tile
    splits = -(-width // part)
    y = torch.empty(
        splits, count, rows, dtype=torch.bfloat16 if splits == 1 else torch.float32, device=x.device
    )
    unit = _unit(words, scales)
    x = F.pad(x.bfloat16(), (0, width * 32 // bits - columns)).view(count, -1, 32 // bits, unit * bits // 32)
    _few[(triton.cdiv(rows, height), splits)](
        x.transpose(2, 3).contiguous(), words, scales, y, count, rows, MAGIC, WIDTH=width, BITS=bits, UNIT=unit,
        M=max(16, triton.next_power_of_2(count)), ROWS=height, TILE=tile, PART=part, num_warps=warps,
        num_stages=stages,
    )  # fmt: skip
    return y[0] if splits == 1 else y.sum(0, dtype=torch.float32).bfloat16()


def few_tiles(bits: int, rows: int) -> tuple[int, int, int, int, int]:
    """Rows of W and words that one program takes at a time, warps, stages, and among how many a row is divided."""
    height, tile, warps, stages = (128, 16, 8, 1) if bits == 4 else (64, 32, 4, 3)  # measured on an H200
    wanted = PROGRAMS * height // rows
    return height, tile, warps, stages, min(8, 1 << max(0, wanted.bit_length() - 1))


def tiles(bits: int, rows: int, width: int, gated: bool) -> tuple[int, int, int]:
    """Rows of W that one program takes, stored numbers of each at a time, and warps: measured on an H200."""
    if bits < 16:
        return (8 if gated else 16) if bits == 4 else (4 if gated else 8), 512, 4
    if bits == 32 or gated:
        return 4, 512 if bits == 32 else 1024, 4
    return (8, 512, 4) if rows > width else (8, 1024, 4) if rows == width else (8, 2048, 8)


def unpack(words: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """W (out, columns) from its words and their scales."""
    out = torch.empty(len(words), columns, dtype=dtype, device=words.device)
    grid = triton.cdiv(len(words), 8), triton.cdiv(words.shape[1], 128)
    _unpack[grid](
        words, scales, out, len(words), MAGIC, COLUMNS=columns, WIDTH=words.shape[1], BITS=packed_bits(words, scales),
        UNIT=_unit(words, scales), ROWS=8, TILE=128,
    )  # fmt: skip
    return out


def pack(codes: Tensor, bits: int, unit: int) -> Tensor:
    """Words int32 (out, words) of unsigned codes (out, in); columns are filled up to whole units."""
    codes = F.pad(codes, (0, -codes.shape[1] % unit)).unflatten(1, (-1, 32 // bits, unit * bits // 32))
    shifted = [codes[:, :, j].int() << (bits * j) for j in range(32 // bits)]
    return torch.stack(shifted).sum(0, dtype=torch.int32).flatten(1).contiguous()


def packed_bits(weight: Tensor, scales: Tensor | None) -> int:
    """Bits of one stored weight."""
    if scales is None:
        return 8 * weight.element_size()
    return 4 if scales.dtype == torch.int32 else 8


def _unit(weight: Tensor, scales: Tensor | None) -> int:
    return 8 * weight.shape[1] // scales.shape[1] if scales is not None and scales.dim() == 2 else INT8_UNIT
