"""02.visible: which places may each new token look at, when others are held already?"""

from __future__ import annotations

import random
from typing import Any

from ...cases import values
from ...exercises import Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import TYPE, must_be

FORGETS_HELD = "the staircase starts at the left edge"
SEES_ALL = "every token sees the tokens after it"
NOT_ITSELF = "a token does not see itself"
ONE_AHEAD = "every token sees one token too many"
ONLY_NEW = "leaves out the held tokens"
HELD_HIDDEN = "the held tokens are hidden"
INVERTED = "True and False are swapped"
ACROSS = "rows and columns are swapped"
NUMBERS = "returns numbers, not True and False"

Mask = list[list[bool]]


def mask(held: int, new: int, ahead: int = 0) -> Mask:
    """Row i, the i-th new token, sees places 0 … held + i (+ ahead)."""
    return [[place <= held + i + ahead for place in range(held + new)] for i in range(new)]


def expected(inputs: Inputs) -> Mask:
    return mask(inputs["held"], inputs["new"])


def wrong(mistake: str) -> Any:
    """What a mistake leads to."""

    def gives(inputs: Inputs) -> Mask:
        held, new = inputs["held"], inputs["new"]
        right = mask(held, new)
        if mistake == FORGETS_HELD:
            return mask(held, new, -held)
        if mistake == SEES_ALL:
            return mask(held, new, new)
        if mistake in (NOT_ITSELF, ONE_AHEAD):
            return mask(held, new, 1 if mistake == ONE_AHEAD else -1)
        if mistake == ONLY_NEW:
            return mask(0, new)
        if mistake == HELD_HIDDEN:
            return [[seen and place >= held for place, seen in enumerate(row)] for row in right]
        if mistake == INVERTED:
            return [[not seen for seen in row] for row in right]
        return [list(column) for column in zip(*right, strict=True)]

    return gives


def read(value: Any, inputs: Inputs) -> Mask:
    import torch

    wanted = "a torch.Tensor of bool with shape (new, held + new)"
    if isinstance(value, torch.Tensor) and value.dtype != torch.bool:
        raise must_be(wanted, value, NUMBERS)
    if not isinstance(value, torch.Tensor):
        raise must_be(wanted, value, TYPE)
    if value.dim() != 2:
        raise WrongForm(
            "returns the wrong shape", f"It must return {wanted}; it has {value.dim()} dimensions."
        )
    rows: Mask = value.tolist()
    return rows


def returned_numbers(_: Inputs, seen: Observation) -> bool:
    return seen.wrong_form is not None and seen.wrong_form.name == NUMBERS


MISCONCEPTIONS = (
    Misconception(
        NUMBERS,
        "A mask of yes and no is a tensor of bool. A comparison such as `a <= b` makes one; `.bool()` turns "
        "ones and zeros into one.",
        sees=returned_numbers,
    ),
    Misconception(
        FORGETS_HELD,
        "Row 0 is the first *new* token, and `held` tokens stand before it: it sees all of them and itself. "
        "Where does the step of row 0 have to be?",
        wrong(FORGETS_HELD),
    ),
    Misconception(
        SEES_ALL,
        "Of the new tokens, the first must not see the second: when it was written, that one did not exist.",
        wrong(SEES_ALL),
    ),
    Misconception(
        NOT_ITSELF,
        "A token looks back *and at itself*. The very first one would otherwise have nothing to look at.",
        wrong(NOT_ITSELF),
    ),
    Misconception(
        ONE_AHEAD,
        "Each row goes one place too far: new token i stands at place `held + i`, and that is its last one.",
        wrong(ONE_AHEAD),
    ),
    Misconception(
        ONLY_NEW,
        "The columns are all places a token could look at: the held ones first, then the new ones. Yours are "
        "only the new.",
        wrong(ONLY_NEW),
    ),
    Misconception(
        HELD_HIDDEN,
        "Everything held came before, so every new token sees all of it. That is what it is kept for.",
        wrong(HELD_HIDDEN),
    ),
    Misconception(INVERTED, "True means *may be seen*. Here it marks what must be hidden.", wrong(INVERTED)),
    Misconception(
        ACROSS,
        "A row is a token that looks, a column a place it looks at. Yours has them the other way round.",
        wrong(ACROSS),
    ),
)


def valid(inputs: Inputs) -> bool:
    return inputs["held"] >= 0 and inputs["new"] >= 1


def making(held: int = 9, new: int = 6) -> Any:
    def make(rng: random.Random) -> Inputs:
        return {"held": rng.randint(1, held), "new": rng.randint(2, new)}

    return make


def mask_case(title: str, *examples: tuple[int, int], **case: Any) -> Case:
    inputs = [{"held": held, "new": new} for held, new in examples]
    return values(title, expected, read, examples=inputs, valid=valid, **case)


CASES = (
    mask_case("Nothing held: a plain staircase, each token sees itself and those before it.", (0, 1), (0, 3)),
    mask_case("One new token sees everything held, and itself.", (4, 1)),
    mask_case(
        "Several new tokens: all see what is held, and of the new ones those that are not after them.",
        (2, 3),
        (3, 2),
        make=making(),
        count=5,
    ),
)

VISIBLE = Exercise(
    id="02.visible",
    title="Who sees whom",
    signature="visible(held, new)",
    prepare=lambda inputs: dict(inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Draw it on paper for `held=2, new=3`: five columns (places 0 to 4) and three rows. Row 0 is the "
        "token at place 2. Which of the five may it see? And row 1?",
        "Each new token has a place of its own: row i stands at `held + i`. It may see a place exactly if "
        "that place is not larger than its own.",
        "Make two lists of numbers with `torch.arange`: the places 0, 1, 2 … of all columns, and the places "
        "of the rows. Compare them with `<=`. A row of shape (5,) against a column of shape (3, 1) gives a "
        "table (3, 5): `x[:, None]` turns a row into a column.",
    ),
    analogue="""
Three friends of 7, 12 and 16 want to go to the cinema. Each of five films has an age from which one may see it. Who
may see what is one comparison of a column with a row:

```python
age = torch.tensor([7, 12, 16])                 # a number for each friend
from_age = torch.tensor([0, 6, 12, 16, 18])     # a number for each film

from_age <= age[:, None]                        # (5,) against (3, 1) gives a table (3, 5)
# tensor([[ True,  True, False, False, False],
#         [ True,  True,  True, False, False],
#         [ True,  True,  True,  True, False]])
```

PyTorch repeats the row downwards and the column to the right until both are tables of the same size. This is called
*broadcasting*.
""",
)
