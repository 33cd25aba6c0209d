"""03.quantize_int4: a scale for each group of neighbours, two codes a byte."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Skip, WrongForm
from ...forms import SHAPE, describe
from . import grid
from . import int4_mistakes as mistakes
from .int4_mistakes import LEVELS, MISCONCEPTIONS, Plain, quantize


def read(value: Any, inputs: Inputs) -> Plain:
    """Bytes and scales as plain numbers; the scale of a group of zeros as 1, if it is any that can be used."""
    import torch

    weight, size = inputs["weight"], inputs["group_size"]
    rows, columns = len(weight), len(weight[0])
    shape = (rows, columns // 2)
    packed, scales = grid.two_tensors(value, "bytes (uint8)", "scales (float32)", mistakes.SWAPPED)
    if tuple(packed.shape) == (rows, columns):
        raise WrongForm(mistakes.NOT_PACKED, f"There must be {shape[1]} bytes a row; there are {columns}.")
    if packed.dtype != torch.uint8:
        raise WrongForm(mistakes.NOT_BYTES, f"The bytes must be torch.uint8; they are {describe(packed)}.")
    if tuple(packed.shape) != shape:
        raise WrongForm(SHAPE, f"The bytes must have shape {shape}; they are {describe(packed)}.")
    groups = columns // size
    told = f"There must be {groups} scales for each of {rows} rows; they are {describe(scales)}."
    if tuple(scales.shape) in ((rows,), (rows, 1)) and groups > 1:
        raise WrongForm(mistakes.WHOLE_ROW, told)
    if tuple(scales.shape) in ((groups,), (1, groups)) and rows > 1:
        raise WrongForm(mistakes.ROWS_SHARE, told)
    numbers = [[grid.significant(s) for s in row] for row in grid.in_float32(scales, (rows, groups))]
    for row, found in zip(weight, numbers, strict=True):
        for g, scale in enumerate(found):
            if not any(row[g * size : (g + 1) * size]) and math.isfinite(scale) and scale > 0:
                found[g] = 1.0
    return {"packed": packed.tolist(), "scales": numbers}


def prepare(inputs: Inputs) -> dict[str, Any]:
    import torch

    return {
        "weight": torch.tensor(inputs["weight"], dtype=torch.float32),
        "group_size": inputs["group_size"],
    }


def show(inputs: Inputs) -> str:
    return f"quantize_int4({grid.matrix_text(inputs['weight'])}, group_size={inputs['group_size']})"


def valid(inputs: Inputs) -> bool:
    weight, size = inputs["weight"], inputs["group_size"]
    if not grid.is_matrix(weight) or size < 2 or size % 2 or len(weight[0]) % size:
        return False
    return all(
        grid.clear_of_ties(row[i : i + size], LEVELS) for row in weight for i in range(0, len(row), size)
    )


def making(
    rows: tuple[int, int] = (1, 3),
    groups: tuple[int, int] = (2, 3),
    sizes: Sequence[int] = (2, 4, 6),
    tells_apart: Sequence[str] = (),
) -> Callable[[random.Random], Inputs | None]:
    """A generator of matrices on which each of these mistakes would change the answer."""
    told = [m for m in MISCONCEPTIONS if m.name in tells_apart]

    def make(rng: random.Random) -> Inputs | None:
        size, count = rng.choice(sizes), rng.randint(*groups)
        weight = []
        for _ in range(rng.randint(*rows)):
            parts = [grid.random_row(rng, size, rng.choice([0.3, 1, 4])) for _ in range(count)]
            if any(max(part) <= 0 for part in parts):
                return None
            weight.append([w for part in parts for w in part])
        inputs = {"weight": weight, "group_size": size}
        return inputs if valid(inputs) and all(differs(m, inputs) for m in told) else None

    return make


def differs(mistake: Misconception, inputs: Inputs) -> bool:
    """Whether this mistake would change the answer."""
    assert mistake.gives is not None
    try:
        given = mistake.gives(inputs)
    except Skip:
        return True
    return quantize(inputs) not in (given if isinstance(given, AnyOf) else (given,))


def int4_case(title: str, *examples: tuple[list[list[float]], int], **case: Any) -> Case:
    inputs = [{"weight": weight, "group_size": size} for weight, size in examples]
    settings: dict[str, Any] = {
        "expected": quantize,
        "read": read,
        "valid": valid,
        "tolerance": grid.TOLERANCE,
        **case,
    }
    return values(title, examples=inputs, **settings)


CASES = (
    int4_case(
        "One group: codes from −7 to 7, plus 8, two neighbours a byte, the first in the low bits.",
        ([[0.7, 0.1]], 2),
        ([[0.7, -0.3, 0.18, -0.6]], 4),
        make=making(
            rows=(1, 1),
            groups=(1, 1),
            sizes=(4, 6),
            tells_apart=[mistakes.HIGH_FIRST, mistakes.HALVES, mistakes.NO_OFFSET, mistakes.CUTS],
        ),
        count=4,
    ),
    int4_case(
        "Every group of neighbours has a scale of its own.",
        ([[0.7, -0.3, 14.0, 6.1]], 2),
        make=making(
            sizes=(4, 6), tells_apart=[mistakes.WHOLE_ROW, mistakes.STRIDED, mistakes.NO_ABS, mistakes.CUTS]
        ),
        count=5,
    ),
    int4_case(
        "Groups never reach across rows.",
        ([[0.7, -0.3], [7.0, 1.2]], 2),
        make=making(rows=(2, 3), tells_apart=[mistakes.ROWS_SHARE]),
        count=4,
    ),
    int4_case("A group of zeros stays a group of zeros.", ([[0.0, 0.0, 0.7, -0.1]], 2)),
)

QUANTIZE_INT4 = Exercise(
    id="03.quantize_int4",
    title="INT4 in groups, two codes a byte",
    signature="quantize_int4(weight, group_size)",
    prepare=prepare,
    show=show,
    about="A byte is shown as a number from 0 to 255; `f'{byte:08b}'` shows its bits, the high four first.",
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Three steps, one after the other: scales, codes, bytes. Give the weight three dimensions, (rows, groups, "
        "group_size); then a group is what the last dimension goes through.",
        "Scales: the largest magnitude along the last dimension, over 7, and never 0. With `keepdim=True` they keep "
        "three dimensions, and each group is divided by its own. Round, add 8, convert to `torch.uint8`, and go back "
        "to two dimensions with `flatten(1)`.",
        "Bytes: every second code from column 0 (`[:, ::2]`) stays in the low bits; every second one from column 1 is "
        "moved up by four (`<< 4`); `|` puts the two together.",
    ),
    analogue="""
A clock shows hours (0 to 23) and quarters (0 to 3). Five bits are enough for the hour, two for the quarter, so both
fit into one byte, the hour in the low bits:

```python
hours, quarters = torch.tensor([[9, 23]]), torch.tensor([[2, 1]])
byte = hours | quarters << 5           # 9 + 2·32 = 73 and 23 + 1·32 = 55
byte & 31, byte >> 5                   # and back: the hours, the quarters
```

`& 31` keeps the five low bits (31 is `11111`), `>> 5` moves the others down. A temperature from −20 to 11 fits into
five bits as well, once 20 has been added: bits have no minus sign. """,
)
