"""03.dequantize_nf4: codes are places in a table, and each block has its own largest magnitude."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import SHAPE, describe, must_be
from . import grid

AS_NUMBER = "computes with the code instead of looking it up"
LOW_FIRST = "the low bits come first"
HALVES = "all high codes first, then all low ones"
NO_MASK = "takes the whole byte for a code"
AS_MASK = "indexes with uint8"
NO_MAXIMUM = "forgets the maximum of the block"
DIVIDES = "divides by the maximum of the block"
BLOCK_OF_BYTES = "counts the block in bytes"
IN_TURN = "deals the maxima out in turn"
FIRST_MAXIMUM = "one maximum for all blocks"
NOT_FLAT = "returns more than one dimension"


def codes_of(packed: Sequence[int]) -> list[int]:
    return [code for byte in packed for code in (byte >> 4, byte & 15)]


def dequantize(
    inputs: Inputs,
    codes: Callable[[Sequence[int]], list[int]] = codes_of,
    level: Callable[[Inputs, int], float] = lambda inputs, code: levels_of(inputs)[code],
    block: Callable[[Inputs, int], int] = lambda inputs, i: i // int(inputs["_block_size"]),
    undo: Callable[[float, float], float] = lambda level, maximum: level * maximum,
) -> list[float]:
    """The numbers, from the parts of which a mistake replaces one."""
    return [
        grid.significant(undo(level(inputs, code), inputs["absmax"][block(inputs, i)]))
        for i, code in enumerate(codes(inputs["packed"]))
    ]


def expected(inputs: Inputs) -> list[float]:
    return dequantize(inputs)


def _with(**parts: Any) -> Callable[[Inputs], list[float]]:
    return lambda inputs: dequantize(inputs, **parts)


def _as_number(inputs: Inputs) -> AnyOf:
    """The ways in which a code becomes a number where it is none."""
    ways: tuple[Callable[[int], float], ...] = (
        lambda code: code,
        lambda code: code - 8,
        lambda code: code - 7,
        lambda code: (code - 8) / 7,
        lambda code: (code - 8) / 8,
        lambda code: (code - 7) / 7,
        lambda code: (code - 7) / 8,
        lambda code: (code - 7.5) / 7.5,
        lambda code: code / 15,
        lambda code: 2 * code / 15 - 1,
    )
    return AnyOf(dequantize(inputs, level=partial(_by, way)) for way in ways)


def _by(way: Callable[[int], float], _: Inputs, code: int) -> float:
    return way(code)


def _said(*parts: str) -> Callable[[Inputs, Observation], bool]:
    return lambda _, seen: bool(seen.error and any(part in seen.error.message for part in parts))


MISCONCEPTIONS = (
    Misconception(
        AS_MASK,
        "PyTorch takes a `uint8` between square brackets for a *mask* (keep or drop), not for places in a table. "
        "Places are `torch.int64`: convert the codes with `.long()`.",
        sees=_said("The shape of the mask", "only support long, byte and bool"),
    ),
    Misconception(
        NO_MASK,
        "A byte holds two codes. Shifted down by four, only the high one is left; the low one is what `& 15` keeps. "
        "Nothing above 15 is a place in a table of sixteen.",
        sees=_said("out of bounds", "out of range"),
    ),
    Misconception(
        AS_NUMBER,
        "A code of NF4 is a *place* in the table of levels, not a number to compute with: the levels do not lie at "
        "equal distances. Look it up.",
        _as_number,
    ),
    Misconception(
        LOW_FIRST,
        "Here the *first* of two neighbours is in the high four bits, the other way round than in the exercise "
        "before. Both orders exist; this is the one of bitsandbytes.",
        _with(codes=lambda packed: [code for byte in packed for code in (byte & 15, byte >> 4)]),
    ),
    Misconception(
        HALVES,
        "Two codes of a byte are neighbours: high, low, high, low. Put side by side (`torch.stack(…, dim=1)`) and "
        "flattened, they come in that order; one behind the other (`cat`), they do not.",
        _with(codes=lambda packed: [byte >> 4 for byte in packed] + [byte & 15 for byte in packed]),
    ),
    Misconception(
        NO_MAXIMUM,
        "The levels lie between −1 and 1: the block was divided by its largest magnitude when it was stored. That "
        "must be undone.",
        _with(undo=lambda level, _: level),
    ),
    Misconception(
        DIVIDES,
        "The block was *divided* by its largest magnitude when it was stored. What undoes a division?",
        _with(undo=lambda level, maximum: level / maximum if maximum else 0.0),
    ),
    Misconception(
        BLOCK_OF_BYTES,
        "`block_size` counts numbers, and a byte holds two of them: a block of 64 numbers is 32 bytes long.",
        _with(block=lambda inputs, i: i // (2 * inputs["_block_size"])),
    ),
    Misconception(
        IN_TURN,
        "Each maximum belongs to `block_size` neighbours: a, a, a, b, b, b. `repeat` gives a, b, a, b; "
        "`repeat_interleave` is the other one.",
        _with(block=lambda inputs, i: i % len(inputs["absmax"])),
    ),
    Misconception(
        FIRST_MAXIMUM,
        "The blocks were stored with different maxima; all came back with the same one.",
        lambda inputs: AnyOf(
            dequantize({**inputs, "absmax": [one] * len(inputs["absmax"])})
            for one in (inputs["absmax"][0], max(inputs["absmax"]))
        ),
    ),
    grid.formal(
        NOT_FLAT,
        "The numbers are to come back in one dimension, as they were before they were cut into blocks and pairs: "
        "`flatten()`.",
    ),
)


def read(value: Any, inputs: Inputs) -> list[float]:
    import torch

    numbers = 2 * len(inputs["packed"])
    wanted = f"a torch.Tensor of float32 with shape ({numbers},)"
    if not isinstance(value, torch.Tensor):
        raise must_be(wanted, value)
    if value.numel() == numbers and value.dim() != 1:
        raise WrongForm(NOT_FLAT, f"It must return {wanted}; it returned {describe(value)}.")
    if tuple(value.shape) != (numbers,):
        raise must_be(wanted, value, SHAPE)
    if value.dtype not in (torch.float32, torch.float64):
        raise must_be(wanted, value)
    return [grid.significant(number) for number in value.double().tolist()]


def levels_of(inputs: Inputs) -> list[float]:
    """The table of the inputs: NF4's, unless they bring one of their own."""
    from ....engine.quantize.nf4 import LEVELS

    return inputs.get("_levels") or list(LEVELS)


def prepare(inputs: Inputs) -> dict[str, Any]:
    import torch

    return {
        "packed": torch.tensor(inputs["packed"], dtype=torch.uint8),
        "absmax": torch.tensor(inputs["absmax"], dtype=torch.float32),
        "levels": torch.tensor(levels_of(inputs), dtype=torch.float32),
        "block_size": inputs["_block_size"],
    }


def show(inputs: Inputs) -> str:
    bytes_of = " << 4 | ".join  # a byte by its two codes, high | low
    packed = ", ".join(bytes_of((str(byte >> 4), str(byte & 15))) for byte in inputs["packed"])
    levels = repr(inputs["_levels"]) if "_levels" in inputs else "LEVELS"
    return (
        f"dequantize_nf4(torch.tensor([{packed}], dtype=torch.uint8), torch.tensor({inputs['absmax']!r}), "
        f"torch.tensor({levels}), block_size={inputs['_block_size']})"
    )


def valid(inputs: Inputs) -> bool:
    numbers, size = 2 * len(inputs["packed"]), inputs["_block_size"]
    return (
        numbers > 0
        and numbers == size * len(inputs["absmax"])
        and all(0 <= byte < 256 for byte in inputs["packed"])
        and all(0 < maximum < 1000 for maximum in inputs["absmax"])
    )


def making(
    blocks: tuple[int, int] = (2, 3),
    sizes: Sequence[int] = (2, 4, 6),
    own_levels: bool = False,
    tells_apart: Sequence[str] = (),
) -> Callable[[random.Random], Inputs | None]:
    """A generator on which each of these mistakes would change the answer; own_levels: with a codebook of its own."""
    told = [m for m in MISCONCEPTIONS if m.name in tells_apart]

    def make(rng: random.Random) -> Inputs | None:
        size, count = rng.choice(sizes), rng.randint(*blocks)
        inputs: Inputs = {
            "packed": [rng.randrange(256) for _ in range(size * count // 2)],
            "absmax": [round(rng.uniform(0.1, 9), 1) for _ in range(count)],
            "_block_size": size,
        }
        if own_levels:
            inputs["_levels"] = [level / 100 for level in sorted(rng.sample(range(-99, 100), 16))]
        return inputs if valid(inputs) and all(differs(m, inputs) for m in told) else None

    return make


def differs(mistake: Misconception, inputs: Inputs) -> bool:
    """Whether this mistake would change the answer."""
    assert mistake.gives is not None
    given = mistake.gives(inputs)
    return expected(inputs) not in (given if isinstance(given, AnyOf) else (given,))


def nf4_case(title: str, *examples: tuple[list[int], list[float], int], **case: Any) -> Case:
    inputs = [{"packed": p, "absmax": absmax, "_block_size": size} for p, absmax, size in examples]
    settings: dict[str, Any] = {
        "expected": expected,
        "read": read,
        "valid": valid,
        "tolerance": grid.TOLERANCE,
        **case,
    }
    return values(title, examples=inputs, **settings)


CASES = (
    nf4_case(
        "One block: each code is looked up and multiplied by the block's maximum.",
        ([0xF7, 0x0C], [2.0], 4),
        make=making(
            blocks=(1, 1),
            sizes=(4, 6),
            tells_apart=[AS_NUMBER, LOW_FIRST, HALVES, NO_MAXIMUM, DIVIDES],
        ),
        count=4,
    ),
    nf4_case(
        "Every block has its own maximum.",
        ([0xF7, 0x0C, 0xF7, 0x0C], [2.0, 0.5], 4),
        make=making(tells_apart=[BLOCK_OF_BYTES, IN_TURN, FIRST_MAXIMUM]),
        count=5,
    ),
    nf4_case(
        "The table may be any table of sixteen levels.",
        make=making(own_levels=True, tells_apart=[AS_NUMBER]),
        count=2,
    ),
)

DEQUANTIZE_NF4 = Exercise(
    id="03.dequantize_nf4",
    title="NF4: look it up",
    signature="dequantize_nf4(packed, absmax, levels, block_size)",
    prepare=prepare,
    show=show,
    about=(
        "`15 << 4 | 7` is one byte: code 15 in the high four bits, code 7 in the low ones. `LEVELS` is the table above."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Three steps, one after the other: codes, levels, numbers. Take the byte `15 << 4 | 7` apart by hand: what "
        "do `byte >> 4` and `byte & 15` give?",
        "`torch.stack([high, low], dim=1).flatten()` puts two tensors into the order high, low, high, low. A table is "
        "read with `levels[places]`, all places at once; places must be `torch.int64`, which `.long()` makes.",
        "With one row for each block, `view(-1, block_size)`, the maxima need only a second dimension, "
        "`absmax[:, None]`, to be multiplied each with its own row. Flatten at the end.",
    ),
    analogue="""
A box of crayons has four colours, `palette = torch.tensor([0.0, 0.2, 0.5, 1.0])` of brightness. A picture of two rows
keeps two bits a pixel, four pixels a byte, the first in the highest bits; each row was divided by its brightest pixel:

```python
picture = torch.tensor([0b00_01_10_11, 0b11_11_00_01], dtype=torch.uint8)
brightest = torch.tensor([100.0, 10.0])

places = torch.stack([picture >> 6, picture >> 4 & 3, picture >> 2 & 3, picture & 3], dim=1)
palette[places.long()] * brightest[:, None]     # rows 0, 20, 50, 100 and 10, 10, 0, 2
```

Place 2 is 0.5 and place 3 is 1.0: the places are 1 apart, the colours are not. """,
)
