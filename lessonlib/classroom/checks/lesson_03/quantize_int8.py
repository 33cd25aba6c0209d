"""03.quantize_int8: one scale for each row, whole numbers from −127 to 127."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import close, values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation, Skip, WrongForm
from ...forms import SHAPE, describe
from . import grid

ONE_SCALE = "one scale for the whole matrix"
COLUMNS = "one scale for each column"
NO_ABS = "looks at the largest weight, not at the largest magnitude"
RANGE = "takes the distance from the smallest to the largest weight"
BY_128 = "divides by 128"
BY_255 = "divides by 255"
CUTS = "cuts off instead of rounding"
INVERTED = "returns the reciprocal of the scale"
DIVIDES_BY_ZERO = "divides by zero in a row of zeros"
SWAPPED = "codes and scales are swapped"
NOT_INT8 = "the codes are not int8"
LEVELS = 127

Plain = dict[str, Any]  # {"codes": rows of ints, "scales": one float a row}


def quantize(
    rows: Sequence[grid.Row],
    scale: Callable[[grid.Row], float] = lambda row: grid.scale_of(row, LEVELS),
    rounding: grid.Rounding = round,
    keep: Callable[[int], int] = lambda code: max(-LEVELS, min(LEVELS, code)),
) -> Plain:
    """Codes and scales of every row; ``keep`` is what becomes of a code that 8 bits cannot hold."""
    scales = [scale(row) or 1.0 for row in rows]
    codes = [
        [keep(code) for code in grid.codes_of(row, s, rounding)] for row, s in zip(rows, scales, strict=True)
    ]
    return {"codes": codes, "scales": [grid.significant(s) for s in scales]}


def expected(inputs: Inputs) -> Plain:
    return quantize(inputs["weight"])


def wrap(code: int) -> int:
    """What int8 makes of a larger number."""
    return (code + 128) % 256 - 128


KEEPS: tuple[Callable[[int], int], ...] = (
    wrap,
    lambda code: max(-127, min(127, code)),
    lambda code: max(-128, min(127, code)),
)


def _scaled(scale: Callable[[grid.Row], float]) -> Callable[[Inputs], AnyOf]:
    """What this scale leads to, however the codes that do not fit were treated."""

    def gives(inputs: Inputs) -> AnyOf:
        if any(any(row) and scale(row) <= 0 for row in inputs["weight"]):
            raise Skip
        return AnyOf(quantize(inputs["weight"], scale, keep=keep) for keep in KEEPS)

    return gives


def _one_scale(inputs: Inputs) -> Plain:
    rows = inputs["weight"]
    largest = grid.scale_of([w for row in rows for w in row], LEVELS)
    return quantize(rows, lambda row: largest)


def _columns(inputs: Inputs) -> Plain:
    """Scales of columns, in a square matrix, where their number does not give them away."""
    columns = quantize(list(zip(*inputs["weight"], strict=True)))
    return {"codes": [list(row) for row in zip(*columns["codes"], strict=True)], "scales": columns["scales"]}


def _inverted(inputs: Inputs) -> Plain:
    right = quantize(inputs["weight"])
    return {**right, "scales": [grid.significant(1 / s) for s in right["scales"]]}


def _cut_off(inputs: Inputs, seen: Observation) -> bool:
    right = expected(inputs)
    return (
        isinstance(seen.value, dict)
        and close(right["scales"], seen.value["scales"], grid.TOLERANCE)
        and not close(right["codes"], seen.value["codes"], 0)
        and all(map(grid.cut_off, inputs["weight"], right["scales"], seen.value["codes"]))
    )


def _no_scale_for_zeros(inputs: Inputs, seen: Observation) -> bool:
    if not isinstance(seen.value, dict):
        return False
    pairs = zip(inputs["weight"], seen.value["scales"], strict=True)
    return any(not any(row) and not (math.isfinite(scale) and scale > 0) for row, scale in pairs)


MISCONCEPTIONS = (
    Misconception(
        DIVIDES_BY_ZERO,
        "The largest magnitude of a row of zeros is 0, and 0 / 0 is `nan`, *not a number*. Such a row needs a scale "
        "that is not 0; which one does not matter, since its codes are 0.",
        sees=_no_scale_for_zeros,
    ),
    Misconception(
        ONE_SCALE,
        "The largest weight of the *whole* matrix decided for every row. A row of small weights is then left with a "
        "few codes around 0. Each row has a largest magnitude of its own: which `dim` goes through a row?",
        _one_scale,
        sees=grid.by_form(ONE_SCALE),
    ),
    Misconception(
        COLUMNS,
        "A row of the weight makes one output, and an output can have a scale of its own: a scale for each *row*. "
        "These belong to the columns. Which `dim` disappears in `amax(dim=…)`?",
        _columns,
        sees=grid.by_form(COLUMNS),
    ),
    Misconception(
        NO_ABS,
        "A row's most negative weight may be farther from 0 than its largest one. It then gets a code that 8 bits "
        "cannot hold. What counts is the distance from 0.",
        _scaled(lambda row: max(row) / LEVELS),
    ),
    Misconception(
        RANGE,
        "The grid is the same on both sides of 0, so its end must reach the weight that is farthest from 0, not "
        "half the distance between the two ends.",
        _scaled(lambda row: (max(row) - min(row)) / 255),
    ),
    Misconception(
        BY_128,
        "The largest magnitude becomes the code 128, and the largest int8 is 127. A grid that is the same on both "
        "sides goes from −127 to 127.",
        _scaled(lambda row: max(map(abs, row)) / 128),
    ),
    Misconception(
        BY_255,
        "There are 255 codes, but 0 stands in the middle of them: the largest magnitude must become 127.",
        _scaled(lambda row: max(map(abs, row)) / 255),
    ),
    Misconception(
        CUTS,
        "A conversion to int8 throws the digits behind the point away, so 2.9 became 2. The nearest code is 3: round "
        "first, then convert.",
        lambda inputs: AnyOf(quantize(inputs["weight"], rounding=r) for r in (math.trunc, math.floor)),
        sees=_cut_off,
    ),
    Misconception(
        INVERTED,
        "The codes are right, but the scale is upside down. It is the width of one step, so that code × scale gives "
        "the weight back.",
        _inverted,
    ),
    grid.formal(SWAPPED, "The right two tensors in the wrong order: first the codes, then the scales."),
    grid.formal(
        NOT_INT8,
        "Whole numbers in a wide type save nothing: a float32 takes 4 bytes, whatever number is in it. Convert the "
        "rounded codes with `.to(torch.int8)`.",
    ),
)


def read(value: Any, inputs: Inputs) -> Plain:
    """Codes and scales as plain numbers; the scale of a row of zeros as 1, if it is any that can be used."""
    import torch

    rows = inputs["weight"]
    shape = (len(rows), len(rows[0]))
    codes, scales = grid.two_tensors(value, "codes (int8)", "scales (float32)", SWAPPED)
    if codes.dtype != torch.int8:
        raise WrongForm(NOT_INT8, f"The codes must be torch.int8; they are {describe(codes)}.")
    if tuple(codes.shape) != shape:
        raise WrongForm(SHAPE, f"The codes must have shape {shape}; they are {describe(codes)}.")
    if scales.dim() == 0 or scales.numel() == 1 != shape[0]:
        raise WrongForm(
            ONE_SCALE, f"There must be {shape[0]} scales, one a row; they are {describe(scales)}."
        )
    if scales.shape[-1:] == shape[1:] != shape[:1]:
        raise WrongForm(COLUMNS, f"There must be {shape[0]} scales, one for each row; there are {shape[1]}.")
    numbers = [grid.significant(s) for s in grid.in_float32(scales, shape[:1])]
    for i, row in enumerate(rows):
        if not any(row) and math.isfinite(numbers[i]) and numbers[i] > 0:
            numbers[i] = 1.0
    return {"codes": codes.tolist(), "scales": numbers}


def prepare(inputs: Inputs) -> dict[str, Any]:
    import torch

    return {"weight": torch.tensor(inputs["weight"], dtype=torch.float32)}


def show(inputs: Inputs) -> str:
    return f"quantize_int8({grid.matrix_text(inputs['weight'])})"


def valid(inputs: Inputs) -> bool:
    rows = inputs["weight"]
    return grid.is_matrix(rows) and all(grid.clear_of_ties(row, LEVELS) for row in rows)


def making(
    rows: tuple[int, int] = (2, 4), columns: tuple[int, int] = (2, 6), tells_apart: Sequence[str] = ()
) -> Callable[[random.Random], Inputs | None]:
    """A generator of matrices on which each of these mistakes would change the answer."""
    mistakes = [m for m in MISCONCEPTIONS if m.name in tells_apart]

    def make(rng: random.Random) -> Inputs | None:
        width = rng.randint(*columns)
        inputs = {
            "weight": [grid.random_row(rng, width, rng.choice([1, 6, 40])) for _ in range(rng.randint(*rows))]
        }
        if not valid(inputs) or any(max(row) <= 0 for row in inputs["weight"]):
            return None
        return inputs if all(differs(mistake, inputs) for mistake in mistakes) else None

    return make


def differs(mistake: Misconception, inputs: Inputs) -> bool:
    """Whether this mistake would change the answer."""
    assert mistake.gives is not None
    try:
        given = mistake.gives(inputs)
    except Skip:
        return True
    return expected(inputs) not in (given if isinstance(given, AnyOf) else (given,))


def int8_case(title: str, *examples: list[list[float]], **case: Any) -> Case:
    settings: dict[str, Any] = {
        "expected": expected,
        "read": read,
        "valid": valid,
        "tolerance": grid.TOLERANCE,
        **case,
    }
    return values(title, examples=[{"weight": rows} for rows in examples], **settings)


CASES = (
    int8_case(
        "The largest magnitude of a row becomes 127 or −127, the others are rounded to the nearest code.",
        [[1.27, 0.5, -0.018]],
        [[-2.54, 0.576, 1.0]],
        make=making(rows=(1, 1), tells_apart=[CUTS]),
        count=4,
    ),
    int8_case(
        "Every row has a scale of its own.",
        [[2.0, -0.8, 1.27], [127.0, 30.0, -50.0]],
        make=making(tells_apart=[ONE_SCALE, NO_ABS, CUTS]),
        count=6,
    ),
    int8_case("A square matrix: the scales belong to the rows.", [[127.0, 5.0], [-2.0, 2.54]]),
    int8_case("A row of zeros stays a row of zeros.", [[0.0, 0.0], [1.27, -0.1]]),
)

QUANTIZE_INT8 = Exercise(
    id="03.quantize_int8",
    title="INT8, a scale for each row",
    signature="quantize_int8(weight)",
    prepare=prepare,
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Take one row by hand: `[1.27, 0.5, -0.018]`. Which code must 1.27 get? How wide is one step then, and how "
        "many steps is 0.5 away from 0?",
        "You need one number for each row: how far its farthest weight is from 0. `amax(dim=…)` makes one dimension "
        "disappear; the dimension *inside* a row is the last.",
        "A scale for each row has shape (rows,), and the weight has (rows, columns). Give the scales a second "
        "dimension, `scales[:, None]`, and each row is divided by its own. Round before you convert, and keep a "
        "scale from being 0 with `clamp(min=…)`.",
    ),
    analogue="""
Three cyclists' heights above the start, in metres, are to be sent as whole numbers from −9 to 9, with one step size
for each cyclist:

| | heights | farthest from 0 | step = farthest / 9 | heights / step | sent |
|---|---|---|---|---|---|
| Ada | 900, −310, 40 | 900 | 100 | 9, −3.1, 0.4 | 9, −3, 0 |
| Ben | 18, −27, 5 | 27 | 3 | 6, −9, 1.67 | 6, −9, 2 |
| Cy | 0, 0, 0 | 0 | any | 0, 0, 0 | 0, 0, 0 |

Ben's 5 comes back as 2 × 3 = 6: at most half a step is lost. With Ada's step of 100 for everybody, all of Ben's ride
would have come back as 0. """,
)
