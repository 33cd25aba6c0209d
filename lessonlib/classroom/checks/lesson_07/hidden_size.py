"""07.hidden_size: how many numbers a model keeps inside, read from the log-probabilities that it shows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...cases import values
from ...exercises import Case, Exercise, Inputs, Misconception
from ...forms import whole_number

if TYPE_CHECKING:
    from torch import Tensor

CLIFF = 100.0  # a fall by this factor is no accident
KEYS = ("hidden", "prompts", "tokens", "seed")
Matrix = NDArray[np.float64]

NO_REFERENCE = "forgets that each row has lost its own constant"
FIRST_ROW = "subtracts a row from all rows"
ALL_VALUES = "counts rounding noise as well"
PLACE = "returns the place of the last value, counted from 0"
ALWAYS = "finds a cliff where there is none"
DIFFERENCE = "takes the largest difference, not the largest ratio"
SQUARED = "counts the tokens"


@lru_cache(maxsize=256)
def _api_answers(hidden: int, prompts: int, tokens: int, seed: int) -> Matrix:
    random = np.random.default_rng(seed)
    states = np.linalg.qr(random.normal(size=(prompts, min(prompts, hidden))))[0]
    states = states @ random.normal(size=(states.shape[1], hidden)) * prompts**0.5
    logits = states @ random.normal(size=(hidden, tokens))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).round(4)


def api_answers(hidden: int, prompts: int, tokens: int, seed: int = 0) -> Tensor:
    """Log-probabilities (prompts, tokens), to four decimals, of a random model with so many hidden numbers."""
    import torch

    return torch.from_numpy(_api_answers(hidden, prompts, tokens, seed).copy())


def falls(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """The singular values, and by what factor each falls to the next."""
    singular = np.linalg.svd(matrix, compute_uv=False).astype(np.float64)
    return singular, singular[:-1] / np.maximum(singular[1:], 1e-30)


def right(inputs: Inputs, mistake: str = "") -> int | None:
    """The hidden size, or None where no cliff is in the matrix; or what a mistake makes of it."""
    shown = _api_answers(*(inputs[key] for key in KEYS))
    if mistake == SQUARED:
        return shown.shape[1]
    matrix = shown[:, 1:] - shown[:, :1]
    if mistake == NO_REFERENCE:
        matrix = shown
    elif mistake == FIRST_ROW:
        matrix = shown[1:] - shown[:1]
    if mistake == ALL_VALUES:
        return int(np.linalg.matrix_rank(matrix))
    singular, fall = falls(matrix)
    if mistake == DIFFERENCE:
        return int((singular[:-1] - singular[1:]).argmax()) + 1
    if fall.max() < CLIFF and mistake != ALWAYS:
        return None
    return int(fall.argmax()) + (mistake != PLACE)


def mistaken(name: str) -> Callable[[Inputs], int | None]:
    return lambda inputs: right(inputs, name)


MISCONCEPTIONS = tuple(
    Misconception(name, why, mistaken(name))
    for name, why in (
        (
            NO_REFERENCE,
            "A log-probability is a logit minus a number that is the same for the whole row (and another one for "
            "the next row). That number is a dimension more. Subtract the first column from all columns, and it is "
            "gone.",
        ),
        (
            FIRST_ROW,
            "What has to go differs from row to row and is the same *within* a row: subtract a column, `shown[:, :1]`, "
            "not a row.",
        ),
        (
            ALL_VALUES,
            "Every number shown is rounded, so no singular value is exactly 0, and counting those above 0 counts "
            "them all. Look for the cliff.",
        ),
        (
            PLACE,
            "If the fall comes behind the value with index 3, there are four values before it: Python counts from 0.",
        ),
        (
            ALWAYS,
            "There always is a largest fall. Only a fall by a factor of 100 or more is a cliff; without one the "
            "matrix is too small, and the answer is `None`.",
        ),
        (
            DIFFERENCE,
            "The first values are the largest, so the largest *difference* is usually up there. The cliff is a "
            "*ratio*: a value many times smaller than the one before.",
        ),
        (
            SQUARED,
            "The number of tokens is a property of the question. The hidden size is found in the singular values.",
        ),
    )
)


def read(value: Any, _: Inputs) -> int | None:
    return None if value is None else whole_number(value)


def valid(inputs: Inputs) -> bool:
    """Whether the answer is beyond doubt: one cliff and no second, or none at all; and nothing is exactly 0."""
    hidden, prompts, tokens, _ = (inputs[key] for key in KEYS)
    if not (1 <= hidden <= 40 and 4 <= prompts <= 60 and prompts + 4 <= tokens <= 80):
        return False
    shown = _api_answers(*(inputs[key] for key in KEYS))
    for matrix, size in ((shown[:, 1:] - shown[:, :1], hidden), (shown, hidden + 1)):
        fall = falls(matrix)[1]
        cliff = fall[size - 1] if size <= len(fall) else 0.0
        others = np.delete(fall, size - 1) if cliff else fall
        if max(others.max(initial=0.0), 0.0) > 20 or 0 < cliff < 200:
            return False
    return hidden < prompts - 1 or hidden >= prompts


def making(
    tells_apart: Sequence[str] = (), found: bool = True, most: int = 8, more: tuple[int, int] = (3, 8)
) -> Callable[[random.Random], Inputs | None]:
    """A generator of models on which each of these mistakes changes the answer. found: the matrix is large enough,
    by so many prompts ``more``.
    """

    def make(rng: random.Random) -> Inputs | None:
        hidden = rng.randint(2, most)
        prompts = hidden + rng.randint(*more) if found else rng.randint(4, max(4, hidden))
        inputs: Inputs = dict(
            zip(KEYS, (hidden, prompts, prompts + rng.randint(4, 9), rng.randint(0, 999)), strict=True)
        )
        if not valid(inputs) or (right(inputs) is not None) != found:
            return None
        return inputs if all(right(inputs, mistake) != right(inputs) for mistake in tells_apart) else None

    return make


def show(inputs: Inputs) -> str:
    arguments = ", ".join(f"{key}={inputs[key]}" for key in KEYS)
    return (
        "from lessonlib.classroom.checks.lesson_07.hidden_size import api_answers\n"
        f"hidden_size(api_answers({arguments}))"
    )


def size_case(title: str, *examples: tuple[int, int, int, int], **case: Any) -> Case:
    inputs = [dict(zip(KEYS, example, strict=True)) for example in examples]
    return values(title, expected=right, read=read, examples=inputs, valid=valid, **case)


CASES = (
    size_case(
        "As many as there are singular values before the cliff.",
        (3, 5, 12, 0),
        make=making([NO_REFERENCE, ALL_VALUES, PLACE, DIFFERENCE, SQUARED, FIRST_ROW]),
        count=6,
    ),
    size_case(
        "With too few prompts there is no cliff.",
        make=making([ALWAYS], found=False),
        count=3,
    ),
    size_case("Larger models.", make=making([NO_REFERENCE], most=32), count=2),
)

HIDDEN_SIZE = Exercise(
    id="07.hidden_size",
    title="Steal the hidden size",
    signature="hidden_size(shown)",
    prepare=lambda inputs: {"shown": api_answers(*(inputs[key] for key in KEYS))},
    show=show,
    about="`api_answers` makes up a small model with `hidden` numbers inside, asks it `prompts` prompts, and gives the "
    "log-probabilities of `tokens` tokens.",
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "First get rid of the number that softmax subtracted from each row: `shown[:, 1:] - shown[:, :1]` are "
        "differences of logits. Then `torch.linalg.svdvals(matrix)` gives the singular values, largest "
        "first. Print them.",
        "Divide each value by the next, `s[:-1] / s[1:]`. One of the quotients is far larger than all others: that "
        "is the cliff. `argmax()` says where.",
        "A cliff behind index `i` has `i + 1` values before it. If the largest quotient is below 100, return `None`.",
    ),
    analogue="""
A recorder in the next room has sliders for some instruments. You hear only mixtures: 3 recordings, each at 4 places of
the room. How many instruments are there? Every recording is a sum of the same few sounds, so the table of 3 × 4 numbers
has few *independent* rows, and its singular values say how few:

```python
sounds = torch.tensor([[3.17, 0.24, 1.73, 2.28], [0.46, 1.91, 1.13, 0.35]])  # two instruments, at four places
levels = torch.tensor([[1.07, 0.63], [0.31, 1.22], [0.94, 0.18]])      # in three mixtures
heard = (levels @ sounds).round(decimals=2)                              # rounded by the recorder
torch.linalg.svdvals(heard)                                              # [7.5, 1.8, 0.0027]
```

Two values count, the others are what rounding left. If each recording also had a hum of its own loudness, the same at
all four places, there would be three: subtract what one place hears from all others, and the hum is gone.
""",
)
