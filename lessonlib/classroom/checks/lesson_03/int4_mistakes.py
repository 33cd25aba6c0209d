"""What goes wrong in 03.quantize_int4, by name: groups, codes and bytes on plain numbers, right or with one mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import close
from ...exercises import AnyOf, Inputs, Misconception, Observation, Skip
from . import grid

HIGH_FIRST = "the first code is in the high bits"
HALVES = "packs the two halves of a row together"
NO_OFFSET = "packs negative codes without adding 8"
WHOLE_ROW = "one scale for the whole row"
ROWS_SHARE = "the rows share their scales"
STRIDED = "the groups are not neighbours"
NO_ABS = "looks at the largest weight, not at the largest magnitude"
BY_8 = "divides by 8"
BY_15 = "divides by 15"
BY_127 = "divides by 127, as for 8 bits"
CUTS = "cuts off instead of rounding"
INVERTED = "returns the reciprocal of the scale"
DIVIDES_BY_ZERO = "divides by zero in a group of zeros"
SWAPPED = "bytes and scales are swapped"
NOT_PACKED = "one code a byte"
NOT_BYTES = "the bytes are not uint8"
LEVELS = 7

Plain = dict[str, Any]  # {"packed": rows of bytes, "scales": rows of one float a group}
Keep = Callable[[int], int]
Pairs = Callable[[list[int]], list[tuple[int, int]]]


def neighbours(codes: list[int]) -> list[tuple[int, int]]:
    return list(zip(codes[::2], codes[1::2], strict=True))


def halves(codes: list[int]) -> list[tuple[int, int]]:
    middle = len(codes) // 2
    return list(zip(codes[:middle], codes[middle:], strict=True))


def with_eight(low: int, high: int) -> int:
    return ((low + 8) | (high + 8) << 4) & 255


def clamped(code: int) -> int:
    return max(-8, min(7, code))


def columns_of(inputs: Inputs, group: int) -> list[int]:
    """The columns of a group: neighbours."""
    size = inputs["group_size"]
    return list(range(group * size, (group + 1) * size))


def quantize(
    inputs: Inputs,
    scale: Callable[[grid.Row], float] = lambda weights: grid.scale_of(weights, LEVELS),
    rounding: grid.Rounding = round,
    columns: Callable[[Inputs, int], list[int]] = columns_of,
    keep: Keep = clamped,
    pairs: Pairs = neighbours,
    byte: Callable[[int, int], int] = with_eight,
) -> Plain:
    """Bytes and scales of every row, from the parts of which a mistake replaces one."""
    packed: list[list[int]] = []
    scales: list[list[float]] = []
    for row in inputs["weight"]:
        groups = len(row) // inputs["group_size"]
        codes = [0] * len(row)
        scales.append([])
        for group in range(groups):
            places = columns(inputs, group)
            weights = [row[i] for i in places]
            width = scale(weights) or 1.0
            scales[-1].append(grid.significant(width))
            for i, code in zip(places, grid.codes_of(weights, width, rounding), strict=True):
                codes[i] = keep(code)
        packed.append([byte(low, high) for low, high in pairs(codes)])
    return {"packed": packed, "scales": scales}


def _with(**parts: Any) -> Callable[[Inputs], Plain]:
    return lambda inputs: quantize(inputs, **parts)


def _scaled(scale: Callable[[grid.Row], float]) -> Callable[[Inputs], AnyOf]:
    """What this scale leads to, however the codes that do not fit were treated."""

    def gives(inputs: Inputs) -> AnyOf:
        size = inputs["group_size"]
        groups = [row[i : i + size] for row in inputs["weight"] for i in range(0, len(row), size)]
        if any(any(group) and scale(group) <= 0 for group in groups):
            raise Skip
        keeps: Sequence[Keep] = (clamped, lambda code: max(-7, min(7, code)), lambda code: code)
        bytes_of = (with_eight, lambda low, high: ((low + 8) & 255 | (high + 8) << 4) & 255)
        return AnyOf(quantize(inputs, scale, keep=k, byte=b) for k in keeps for b in bytes_of)

    return gives


def _no_offset(inputs: Inputs) -> AnyOf:
    """Two's complement, its sign bits cut off or not."""
    bytes_of = (
        lambda low, high: (low & 15) | (high & 15) << 4,
        lambda low, high: (low | high << 4) & 255,
        lambda low, high: (low + high * 16) & 255,
    )
    return AnyOf(quantize(inputs, byte=byte) for byte in bytes_of)


def _strided(inputs: Inputs, group: int) -> list[int]:
    width = len(inputs["weight"][0])
    return list(range(group, width, width // inputs["group_size"]))


def _shared(inputs: Inputs, groups: Sequence[Sequence[int]]) -> Plain:
    """All rows with the scales of all rows together, one for each of these groups of columns."""
    rows = inputs["weight"]
    widths = [grid.scale_of([row[i] for row in rows for i in group], LEVELS) for group in groups]
    owner = {i: g for g, group in enumerate(groups) for i in group}
    codes = [[clamped(round(w / widths[owner[i]])) for i, w in enumerate(row)] for row in rows]
    scales = [grid.significant(widths[owner[g * inputs["group_size"]]]) for g in range(_groups(inputs))]
    return {
        "packed": [[with_eight(*pair) for pair in neighbours(row)] for row in codes],
        "scales": [scales for _ in rows],
    }


def _groups(inputs: Inputs) -> int:
    return len(inputs["weight"][0]) // inputs["group_size"]


def _whole_row(inputs: Inputs) -> Plain:
    """Scales of rows, repeated for every group."""
    parts = [_shared({**inputs, "weight": [row]}, [range(len(row))]) for row in inputs["weight"]]
    return {name: [part[name][0] for part in parts] for name in ("packed", "scales")}


def _rows_share(inputs: Inputs) -> Plain:
    return _shared(inputs, [columns_of(inputs, group) for group in range(_groups(inputs))])


def _inverted(inputs: Inputs) -> Plain:
    right = quantize(inputs)
    return {**right, "scales": [[grid.significant(1 / s) for s in row] for row in right["scales"]]}


def _cut_off(inputs: Inputs, seen: Observation) -> bool:
    right, size = quantize(inputs), inputs["group_size"]
    if not isinstance(seen.value, dict) or not close(right["scales"], seen.value["scales"], grid.TOLERANCE):
        return False
    codes = [[c - 8 for byte in row for c in (byte & 15, byte >> 4)] for row in seen.value["packed"]]
    return seen.value["packed"] != right["packed"] and all(
        grid.cut_off(row[g * size : (g + 1) * size], scale, found[g * size : (g + 1) * size])
        for row, scales, found in zip(inputs["weight"], right["scales"], codes, strict=True)
        for g, scale in enumerate(scales)
    )


def _no_scale_for_zeros(inputs: Inputs, seen: Observation) -> bool:
    if not isinstance(seen.value, dict):
        return False
    size = inputs["group_size"]
    return any(
        not any(row[g * size : (g + 1) * size]) and not (math.isfinite(scale) and scale > 0)
        for row, scales in zip(inputs["weight"], seen.value["scales"], strict=True)
        for g, scale in enumerate(scales)
    )


MISCONCEPTIONS = (
    Misconception(
        DIVIDES_BY_ZERO,
        "The largest magnitude of a group of zeros is 0, and 0 / 0 is `nan`, *not a number*. Such a group needs a "
        "scale that is not 0; which one does not matter, since its codes are 0 (stored as 8).",
        sees=_no_scale_for_zeros,
    ),
    Misconception(
        HIGH_FIRST,
        "The right codes, the wrong way round in their byte: the *first* of two neighbours is in the low four bits, "
        "the second is moved up by `<< 4`. Both orders exist; reader and writer have to agree on one.",
        _with(byte=lambda low, high: with_eight(high, low)),
    ),
    Misconception(
        HALVES,
        "The codes that share a byte must be neighbours: columns 0 and 1, columns 2 and 3 … These are half a row "
        "apart. (`[:, ::2]` takes every second column.)",
        _with(pairs=halves),
    ),
    Misconception(
        NO_OFFSET,
        "Four bits hold 0 to 15, no sign. A code from −7 to 7 fits once 8 has been added.",
        _no_offset,
    ),
    Misconception(
        WHOLE_ROW,
        "All groups of a row got the same scale. Each `group_size` neighbours have a largest magnitude of their own: "
        "give the weight a dimension that goes through a group.",
        _whole_row,
        sees=grid.by_form(WHOLE_ROW),
    ),
    Misconception(
        ROWS_SHARE,
        "The largest magnitude was taken over all rows. A group lies within *one* row: as many scales as there are "
        "groups, in every row.",
        _rows_share,
        sees=grid.by_form(ROWS_SHARE),
    ),
    Misconception(
        STRIDED,
        "The weights of a group stand side by side. Yours are picked from the whole row at equal distances: in "
        "`view(rows, …, …)` it is the *last* dimension whose numbers are neighbours.",
        _with(columns=_strided),
    ),
    Misconception(
        NO_ABS,
        "A group's most negative weight may be farther from 0 than its largest one. It then gets a code that does not "
        "fit. What counts is the distance from 0.",
        _scaled(lambda weights: max(weights) / LEVELS),
    ),
    Misconception(
        BY_8,
        "The largest magnitude becomes 8 steps, and 8 + 8 = 16 does not fit into four bits. The grid goes from −7 to "
        "7.",
        _scaled(lambda weights: max(map(abs, weights)) / 8),
    ),
    Misconception(
        BY_15,
        "Four bits have sixteen codes, but 0 stands in the middle of them: the largest magnitude must become 7.",
        _scaled(lambda weights: max(map(abs, weights)) / 15),
    ),
    Misconception(
        BY_127,
        "127 is the largest magnitude of 8 bits. The grid of this exercise goes from −7 to 7.",
        _scaled(lambda weights: max(map(abs, weights)) / 127),
    ),
    Misconception(
        CUTS,
        "A conversion to whole numbers throws the digits behind the point away, so 2.9 became 2. Round first, then "
        "convert.",
        lambda inputs: AnyOf(quantize(inputs, rounding=r) for r in (math.trunc, math.floor)),
        sees=_cut_off,
    ),
    Misconception(
        INVERTED,
        "The codes are right, but the scale is upside down. It is the width of one step, so that code × scale gives "
        "the weight back.",
        _inverted,
    ),
    grid.formal(SWAPPED, "The right two tensors in the wrong order: first the bytes, then the scales."),
    grid.formal(
        NOT_PACKED,
        "A byte has room for two codes of four bits. With one in each, four bits take as much memory as eight.",
    ),
    grid.formal(
        NOT_BYTES,
        "A byte from 0 to 255 is a `torch.uint8`. In another type the same number takes more memory, or stands for "
        "something else.",
    ),
)
