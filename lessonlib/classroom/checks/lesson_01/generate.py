"""01.generate: the greedy loop over a ragged batch, with an end for every row."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import show as as_python
from ...cases import values
from ...exercises import Call, Case, Exercise, Inputs
from ...forms import rows_of_ids
from . import generate_mistakes as mistakes
from .generate_mistakes import MISCONCEPTIONS, context_of, grow


def prepare(inputs: Inputs) -> dict[str, Any]:
    from ...toys import ToyModel

    a, b, c = inputs.get("_rule", (1, 1, 1))
    return {
        "model": ToyModel(context_of(inputs), inputs.get("_vocab", 10), (a, b, c)),
        "prompts": [list(prompt) for prompt in inputs["prompts"]],
        "max_tokens": inputs["max_tokens"],
        "eos_id": inputs["eos_id"],
    }


def show(inputs: Inputs) -> str:
    options = [f"context={context_of(inputs)}"]
    options += [f"{key[1:]}={inputs[key]!r}" for key in ("_vocab", "_rule") if key in inputs]
    call = f"generate(ToyModel({', '.join(options)}), {as_python(inputs['prompts'])}, "
    return f"{call}max_tokens={inputs['max_tokens']}, eos_id={inputs['eos_id']})"


def read(value: Any, inputs: Inputs) -> list[list[int]]:
    return rows_of_ids(value, len(inputs["prompts"]))


def work_trial(call: Call, inputs: Inputs) -> dict[str, Any]:
    """The answer, and how often the model was run for it."""
    rows = read(call(inputs), inputs)
    return {"answer": rows, "forward passes": call.arguments["model"].forward_calls}


def expected_work(inputs: Inputs) -> dict[str, Any]:
    rows = grow(inputs)
    return {"answer": rows, "forward passes": len(rows[0]) - len(inputs["prompts"][0])}


def valid(inputs: Inputs) -> bool:
    """Whether every prompt has a token, all are in the vocabulary and there is room for one more."""
    vocab, prompts = inputs.get("_vocab", 10), inputs["prompts"]
    tokens = [token for prompt in prompts for token in prompt]
    return (
        bool(prompts)
        and all(0 < len(prompt) < context_of(inputs) for prompt in prompts)
        and all(0 <= token < vocab for token in [*tokens, inputs["eos_id"]])
        and inputs["max_tokens"] >= 1
    )


def making(
    tells_apart: Sequence[str] = (), rows: tuple[int, int] = (2, 3), ragged: bool = True, tight: bool = False
) -> Callable[[random.Random], Inputs | None]:
    """A generator of batches on which each of these mistakes would change the answer.

    tight: a context so small that it, and not max_tokens, ends some rows.
    """

    def make(rng: random.Random) -> Inputs | None:
        vocab = rng.randint(7, 30)
        lengths = [rng.randint(1, 6) for _ in range(rng.randint(*rows))]
        if not ragged:
            lengths = lengths[:1] * len(lengths)
        inputs: Inputs = {
            "prompts": [[rng.randrange(vocab) for _ in range(length)] for length in lengths],
            "max_tokens": rng.randint(5, 9) if tight else rng.randint(2, 8),
            "eos_id": rng.randrange(vocab),
            "_vocab": vocab,
            "_rule": [rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 5)],
            "_context": max(lengths) + rng.randint(1, 3) if tight else 40,
        }
        right = grow(inputs)
        return inputs if valid(inputs) and all(grow(inputs, m) != right for m in tells_apart) else None

    return make


def loop_case(title: str, examples: Sequence[Inputs] = (), **case: Any) -> Case:
    return values(title, expected=grow, read=read, examples=examples, valid=valid, **case)


def work_case(examples: Sequence[Inputs] = (), **case: Any) -> Case:
    return values(
        "Each new token costs one forward pass of the model, and nothing more is run.",
        expected=expected_work,
        trial=work_trial,
        examples=examples,
        valid=valid,
        **case,
    )


CASES = (
    loop_case(
        "One prompt: the most likely token is appended again and again, `max_tokens` times.",
        [
            {"prompts": [[1, 2]], "max_tokens": 1, "eos_id": 9},
            {"prompts": [[1, 2]], "max_tokens": 3, "eos_id": 9},
        ],
        make=making([mistakes.TOO_MANY, mistakes.TOO_FEW], rows=(1, 1)),
        count=3,
    ),
    loop_case(
        "A row ends with the end-of-text token.",
        [
            {"prompts": [[1, 2]], "max_tokens": 6, "eos_id": 3},
            {"prompts": [[3, 2]], "max_tokens": 4, "eos_id": 3},
        ],
        make=making([mistakes.KEEPS_GROWING], rows=(1, 1)),
        count=3,
    ),
    loop_case(
        "In a batch every row ends on its own.",
        [
            {"prompts": [[1, 2], [1, 1]], "max_tokens": 4, "eos_id": 5},
            {"prompts": [[1, 1], [1, 2]], "max_tokens": 4, "eos_id": 5},
        ],
        make=making([mistakes.KEEPS_GROWING, mistakes.STOPS_ALL, mistakes.FIRST_ROW], ragged=False),
        count=3,
    ),
    loop_case(
        "Prompts of one batch may have different lengths.",
        [{"prompts": [[1], [2, 3, 4]], "max_tokens": 2, "eos_id": 8}],
        make=making([mistakes.READS_PADDING, mistakes.PADS_LEFT]),
        count=4,
    ),
    loop_case(
        "Prompt and new tokens together never exceed the model's context.",
        [
            {"prompts": [[1, 2]], "max_tokens": 9, "eos_id": 8, "_context": 5},
            {"prompts": [[4], [1, 2, 3]], "max_tokens": 9, "eos_id": 8, "_context": 5},
        ],
        make=making([mistakes.CONTEXT_PLUS, mistakes.CONTEXT_MINUS, mistakes.CONTEXT_ALL], tight=True),
        count=3,
    ),
    work_case(
        [
            {"prompts": [[1, 2]], "max_tokens": 3, "eos_id": 9},
            {"prompts": [[1, 2]], "max_tokens": 6, "eos_id": 3},
            {"prompts": [[1, 2]], "max_tokens": 9, "eos_id": 8, "_context": 5},
        ],
    ),
)

GENERATE = Exercise(
    id="01.generate",
    title="The autoregressive loop",
    signature="generate(model, prompts, max_tokens, eos_id)",
    prepare=prepare,
    show=show,
    about=(
        "`ToyModel`'s next token: the sum of the tokens, plus how many there are, plus the last one again, "
        "of that the last digit. After `[1, 2]`: 3 + 2 + 2 = 7. (A `rule` weighs the "
        "three; with a `vocab`, the remainder by it is meant instead of the last digit.) To try it yourself, `from "
        "lessonlib.classroom.toys import ToyModel` and paste the call into a cell."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Write it for *one* prompt first: a list that grows by one token per turn of the loop. What are the "
        "three reasons to stop? (Enough new tokens, end-of-text, context full.) Test them before the model "
        "runs.",
        "For a batch, keep one list per row and remember which rows are finished. A row that is finished is "
        "left alone; the loop ends when no row is left. Do not decide for the batch what each row must "
        "decide.",
        "Short rows: either call the model with one row at a time, or fill up on the right and read row i "
        "at position `len(row_i) - 1`, not at `-1`. In both cases the text of a row is its own list, "
        "without padding.",
    ),
    analogue="""
Some number games also run in rows that end at different times. Take the rule *halve even numbers; triple odd
ones and add 1* (the Collatz sequence), and let each row stop at 1, after at most `most` steps:

```python
def collatz(starts, most):
    rows = [[n] for n in starts]
    for _ in range(most):
        going = [row for row in rows if row[-1] != 1]     # asked of each row, every turn
        if not going:
            break
        for row in going:                                  # finished rows are left alone
            n = row[-1]
            row.append(n // 2 if n % 2 == 0 else 3 * n + 1)
    return rows

collatz([4, 3], most=20)   # [[4, 2, 1], [3, 10, 5, 16, 8, 4, 2, 1]]
```

Row 0 ends after two steps and keeps its length; row 1 goes on. The final 1 belongs to its row. (Unlike a
language model, this rule looks at the last number only; and a start of 1 ends at once, which a prompt does
not.) """,
)
