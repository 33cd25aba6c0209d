"""04.pad_left: prompts of different lengths in one rectangle, with the positions and the mask that undo it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import DTYPE, SHAPE, describe, must_be

PARTS = ("ids", "positions", "mask")

RIGHT = "pads on the right"
BY_ID = "takes a real token for padding"
COLUMNS = "takes the column for the position"
NEGATIVE = "padding gets negative positions"
SEES_PADDING = "real tokens see the padding"
SEES_LATER = "tokens see those after them"
SEES_NOTHING = "padding sees nothing at all"
INVERTED = "the mask is the wrong way round"
QUERIES = "the mask hides the padding's rows, not its columns"
NUMBERS = "the mask is not made of True and False"

Grid = list[list[int]]


def padded(inputs: Inputs, mistake: str = "") -> dict[str, Any]:
    """The three parts as lists; a row of the mask is a text, "1" for each token that is seen and "0" for the others."""
    prompts, pad = inputs["prompts"], inputs["pad_id"]
    longest = max(map(len, prompts))
    ids = [
        [*p, *[pad] * (longest - len(p))] if mistake == RIGHT else [pad] * (longest - len(p)) + list(p)
        for p in prompts
    ]
    real = [[column >= longest - len(p) for column in range(longest)] for p in prompts]
    if mistake == RIGHT:
        real = [row[::-1] for row in real]
    if mistake == BY_ID:
        real = [[token != pad for token in row] for row in ids]
    return {
        "ids": ids,
        "positions": [_positions(row, mistake) for row in real],
        "mask": [
            ["".join(str(int(_sees(row, i, j, mistake))) for j in range(longest)) for i in range(longest)]
            for row in real
        ],
    }


def _positions(real: Sequence[bool], mistake: str) -> list[int]:
    if mistake == COLUMNS:
        return list(range(len(real)))
    if mistake == NEGATIVE:
        return [sum(real[: i + 1]) - 1 for i in range(len(real))]
    return [sum(real[:i]) if own else 0 for i, own in enumerate(real)]


def _sees(real: Sequence[bool], i: int, j: int, mistake: str) -> bool:
    """Whether token i sees token j."""
    causal = j <= i
    if mistake == SEES_PADDING:
        return causal
    if mistake == SEES_LATER:
        return real[j] or i == j
    if mistake == SEES_NOTHING:
        return causal and real[j] and real[i]
    if mistake == INVERTED:
        return not ((causal and real[j]) or i == j)
    if mistake == QUERIES:
        return (causal and real[i]) or i == j
    return (causal and real[j]) or i == j


def expected(inputs: Inputs) -> Any:
    return padded(inputs)[inputs["_part"]]


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(
        [
            *(padded(inputs, name)[inputs["_part"]] for name in names),
            *(_otherwise(inputs, name) for name in names if inputs["_part"] == "positions"),
        ]
    )


def _otherwise(inputs: Inputs, mistake: str) -> list[list[int]] | None:
    """Other positions that the same mistake leads to: columns for the real tokens only; a running sum."""
    longest = max(map(len, inputs["prompts"]))
    if mistake == COLUMNS:
        return [[c if c >= longest - len(p) else 0 for c in range(longest)] for p in inputs["prompts"]]
    if mistake == BY_ID:
        real = [[token != inputs["pad_id"] for token in row] for row in padded(inputs)["ids"]]
        return [[max(0, sum(row[: i + 1]) - 1) for i in range(longest)] for row in real]
    return None


def read(value: Any, inputs: Inputs) -> Any:
    """The part that the case is about, as plain data. Raises WrongForm."""
    import torch

    batch, longest = len(inputs["prompts"]), max(map(len, inputs["prompts"]))
    wanted = "three torch.Tensors: ids, positions and mask"
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise must_be(wanted, value)
    part = inputs["_part"]
    table = value[PARTS.index(part)]
    if not isinstance(table, torch.Tensor):
        raise must_be(wanted, table)
    shape = (batch, longest, longest) if part == "mask" else (batch, longest)
    if table.shape != shape:
        raise WrongForm(SHAPE, f"{part} must have the shape {shape}; it is {describe(table)}.")
    if part == "mask":
        if table.dtype != torch.bool:
            raise WrongForm(NUMBERS, f"mask must be a tensor of torch.bool; it is {describe(table)}.")
        return [["".join(str(int(x)) for x in row) for row in rows] for rows in table.tolist()]
    if table.dtype != torch.int64:
        raise WrongForm(DTYPE, f"{part} must be a tensor of torch.int64; it is {describe(table)}.")
    return table.tolist()


def numbers_for_truth(inputs: Inputs, seen: Observation) -> bool:
    return seen.wrong_form is not None and seen.wrong_form.name == NUMBERS


MISCONCEPTIONS = (
    Misconception(
        RIGHT,
        "Here the padding goes in *front*: then the last column is everybody's last token, and the next one can be "
        "appended to all rows alike.",
        mistaken(RIGHT),
    ),
    Misconception(
        BY_ID,
        "A prompt may well hold a token with the id `pad_id` (many models pad with the end token). What is padding is "
        "told by the *length* of the prompt, not by the ids.",
        mistaken(BY_ID),
    ),
    Misconception(
        COLUMNS,
        "A token's position is its place in its *own* text. The first real token of every row stands at position 0, "
        "whatever its column.",
        mistaken(COLUMNS),
    ),
    Misconception(
        NEGATIVE,
        "A running sum minus 1 gives -1 for the padding, which no table of positions has. Give padding the position 0.",
        mistaken(NEGATIVE),
    ),
    Misconception(
        SEES_PADDING,
        "Causal is not enough: with padding in front, the padding comes *before* the real tokens, so it would be seen. "
        "Its columns must be False for them.",
        mistaken(SEES_PADDING),
    ),
    Misconception(
        SEES_LATER,
        "A token may see only itself and what stands before it: the triangle of lesson 02 is needed as well.",
        mistaken(SEES_LATER),
    ),
    Misconception(
        SEES_NOTHING,
        "In a row of the mask without a single True, softmax divides 0 by 0: NaN, unless the attention code guards "
        "against it. And NaN spreads, since even 0 times NaN is NaN. Let every token see at least itself.",
        mistaken(SEES_NOTHING),
    ),
    Misconception(
        INVERTED,
        "True means *may be seen* here (as in `scaled_dot_product_attention`). Some libraries mean the opposite.",
        mistaken(INVERTED),
    ),
    Misconception(
        QUERIES,
        "`mask[row, i, j]`: token i looks, token j is looked at. Nobody may look *at* padding, so it is j that has to "
        "be real.",
        mistaken(QUERIES),
    ),
    Misconception(
        NUMBERS,
        "Attention reads a float mask as numbers to *add* to the scores, and a mask of 0 and 1 hides nothing then. "
        "Comparisons such as `a <= b` give True and False by themselves.",
        sees=numbers_for_truth,
    ),
)


def valid(inputs: Inputs) -> bool:
    return bool(inputs["prompts"]) and all(
        isinstance(p, list) and p and all(0 <= t < 50 for t in p) for p in inputs["prompts"]
    )


def making(
    part: str, tells_apart: Sequence[str] = (), rows: tuple[int, int] = (2, 3), most: int = 5
) -> Callable[[random.Random], Inputs | None]:
    """A generator of ragged prompts on which each of these mistakes changes this part."""

    def make(rng: random.Random) -> Inputs | None:
        inputs: Inputs = {
            "prompts": [
                [rng.randrange(10) for _ in range(rng.randint(1, most))] for _ in range(rng.randint(*rows))
            ],
            "pad_id": rng.randrange(10),
            "_part": part,
        }
        right = expected(inputs)
        return inputs if all(padded(inputs, m)[part] != right for m in tells_apart) else None

    return make


def padding_case(title: str, part: str, *examples: tuple[list[list[int]], int], **case: Any) -> Case:
    inputs = [{"prompts": prompts, "pad_id": pad, "_part": part} for prompts, pad in examples]
    return values(title, expected=expected, read=read, examples=inputs, valid=valid, **case)


RAGGED = [[5], [6, 7, 8]], 0
CASES = (
    padding_case(
        "ids: short prompts are filled up in front.",
        "ids",
        RAGGED,
        make=making("ids", [RIGHT]),
        count=2,
    ),
    padding_case(
        "positions: each row counts its own tokens from 0; padding has position 0.",
        "positions",
        RAGGED,
        make=making("positions", [COLUMNS, NEGATIVE]),
        count=3,
    ),
    padding_case(
        'mask: a token sees itself and the real tokens before it ("1" is True).',
        "mask",
        ([[5, 6]], 0),
        RAGGED,
        make=making("mask", [SEES_PADDING, SEES_LATER, SEES_NOTHING, QUERIES]),
        count=3,
    ),
    padding_case(
        "A prompt may hold the padding's id as a real token.",
        "positions",
        ([[3, 0, 4], [1]], 0),
        make=making("positions", [BY_ID]),
        count=2,
    ),
)

PAD_LEFT = Exercise(
    id="04.pad_left",
    title="Padding, positions and mask",
    signature="pad_left(prompts, pad_id)",
    prepare=lambda inputs: {
        "prompts": [list(prompt) for prompt in inputs["prompts"]],
        "pad_id": inputs["pad_id"],
    },
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Draw `[[5], [6, 7, 8]]` as two rows of three boxes, padding in front. Write the position under every box. "
        "Which boxes may each box of row 0 look at?",
        "Everything follows from one table: `real`, (batch, longest), True where a real token stands. The row of a "
        "prompt of n tokens is `[False] * (longest - n) + [True] * n`. Positions: a running sum (`cumsum(-1)`) of it, "
        "minus 1, and never below 0 (`clamp(min=0)`).",
        "The mask is three tables put together with `&` and `|`: the triangle `torch.ones(longest, longest).tril()"
        ".bool()`, the columns that are real, `real[:, None, :]`, and the diagonal `torch.eye(longest).bool()`, which "
        "everybody may see.",
    ),
    analogue="""
Three people of different heights stand against a wall and are measured *from the ceiling down*. Where does each begin,
and which marks of the wall are theirs?

```python
heights, ceiling = [2, 4, 3], 4
body = torch.tensor([[False] * (ceiling - h) + [True] * h for h in heights])
from_the_head = (body.cumsum(-1) - 1).clamp(min=0)      # 0 at each head, and in the air above it
```

`body` is a table of who is where; everything else is computed from it, and nothing from what the wall looks like. To
say which pairs of marks belong to one body, two views of the table are put together:
`body[:, :, None] & body[:, None, :]` has the shape (people, marks, marks).
""",
)
