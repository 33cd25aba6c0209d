"""02.CachedAttention: attention that keeps keys and values, at the right positions, for any number of new tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import close, script, script_text
from ...exercises import Call, Case, Exercise, Inputs, WrongForm
from ...forms import METHOD, SHAPE, describe, must_be
from . import attention_mistakes as mistakes
from .attention_mistakes import MISCONCEPTIONS, answers

CLEARLY = 0.02  # how far apart answers must be to tell a mistake from rounding
NAME = "attention"


def act(call: Call, made: Any, step: Sequence[Any]) -> Any:
    """One step: reset(), or attend on the toy vectors of these tokens; the answer as lists of rounded floats."""
    import torch

    from .toys import qkv

    method = getattr(made, step[0], None)
    if not callable(method):
        raise WrongForm(METHOD, f"The exercise asks for a method {step[0]}(…); there is none.")
    if step[0] == "reset":
        call.then(method)
        return None
    named = {} if len(step) == 2 else {"use_cache": step[2]}
    value = call.then(method, *qkv(step[1]), **named)
    wanted = f"a torch.Tensor of float32 with shape {(len(step[1]), 4)}, a row for each new token"
    if not isinstance(value, torch.Tensor):
        raise must_be(wanted, value)
    if value.shape != (len(step[1]), 4):
        raise WrongForm(SHAPE, f"attend must return {wanted}; it returned {describe(value)}.")
    return [[round(x, 4) for x in row] for row in value.tolist()]


def write(name: str, step: Sequence[Any]) -> str:
    """A step as it can be pasted into a cell."""
    if step[0] == "reset":
        return f"{name}.reset()"
    return f"{name}.attend(*qkv({list(step[1])}){'' if len(step) == 2 else f', use_cache={step[2]}'})"


def rounded(inputs: Inputs) -> list[Any]:
    return [a if a is None else [[round(x, 4) for x in row] for row in a] for a in answers(inputs)]


def valid(inputs: Inputs) -> bool:
    return bool(inputs["steps"]) and all(
        step in (["reset"], ("reset",))
        or (
            step
            and step[0] == "attend"
            and 2 <= len(step) <= 3
            and isinstance(step[1], (list, tuple))
            and len(step[1]) > 0
            and all(isinstance(t, int) and 0 <= t < 100 for t in step[1])
            and (len(step) == 2 or isinstance(step[2], bool))
        )
        for step in inputs["steps"]
    )


def shows(mistake: str, inputs: Inputs) -> bool:
    """Whether these steps tell the mistake from the right answer."""
    return not close(answers(inputs), answers(inputs, mistake), CLEARLY)


def making(
    tells_apart: Sequence[str], lengths: Sequence[tuple[int, int]], other: str = ""
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scripts: calls with that many tokens (least, most), between them reset or a call without "
    "cache."""

    def make(rng: random.Random) -> Inputs | None:
        steps: list[Any] = []
        for i, (least, most) in enumerate(lengths):
            if i and other == "reset":
                steps.append(["reset"])
            elif i and other:
                steps.append(["attend", _tokens(rng, 1, 3), False])
            steps.append(["attend", _tokens(rng, least, most)])
        inputs = {"steps": steps}
        return inputs if all(shows(mistake, inputs) for mistake in tells_apart) else None

    return make


def _tokens(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(10) for _ in range(rng.randint(least, most))]


def attention_case(title: str, *examples: Sequence[Any], **case: Any) -> Case:
    inputs = [{"steps": list(steps)} for steps in examples]
    return script(
        title, rounded, act, tolerance=2e-3, name=NAME, write=write, examples=inputs, valid=valid, **case
    )


CASES = (
    attention_case(
        "A prompt in one call: each token sees itself and those before it.",
        [["attend", [3]]],
        [["attend", [3, 1, 4]]],
        make=making([mistakes.NO_MASK, mistakes.NO_TURN, mistakes.ZERO_MASK], [(3, 5)]),
        count=2,
    ),
    attention_case(
        "Then one token at a time: it sees all that is held, and stands behind it.",
        [["attend", [3]], ["attend", [1]]],
        [["attend", [3, 1, 4]], ["attend", [1]], ["attend", [5]]],
        make=making([mistakes.NO_OFFSET, mistakes.FORGETS, mistakes.PLAIN_KEYS], [(2, 4), (1, 1), (1, 1)]),
        count=3,
    ),
    attention_case(
        "Several new tokens after others: the mask has to know how many are held.",
        [["attend", [3, 1]], ["attend", [4, 1, 5]]],
        make=making([mistakes.CORNER, mistakes.NO_MASK, mistakes.COUNTS_CALLS], [(2, 4), (2, 3), (1, 2)]),
        count=3,
    ),
    attention_case(
        "After `reset` a new text begins.",
        [["attend", [3, 1]], ["reset"], ["attend", [4, 1]]],
        make=making([mistakes.STALE], [(2, 4), (1, 3)], "reset"),
        count=2,
    ),
    attention_case(
        "`use_cache=False` is a text of its own, and leaves what is kept alone.",
        [["attend", [3, 1, 4], False]],
        [["attend", [3, 1, 4]], ["attend", [2, 6], False], ["attend", [1]]],
        make=making([mistakes.OVERWRITES, mistakes.ADDS, mistakes.READS], [(2, 4), (1, 2)], "without"),
        count=2,
    ),
)

CACHED_ATTENTION = Exercise(
    id="02.CachedAttention",
    title="Attention with a KV cache",
    signature="CachedAttention()",
    prepare=lambda inputs: {},
    show=lambda inputs: script_text(NAME, "CachedAttention()", inputs, write),
    about=(
        "`qkv([3, 1])` makes the vectors of two toy tokens, `(2, 4)` each; the same token always has the "
        "same. Paste the lines into a cell to look at them."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Begin with the first call alone: nothing is held, so the positions are 0, 1, 2 …, the mask is a "
        "staircase, and the rest is the five-line attention of the lesson. The first two inputs of the check "
        "ask for no more.",
        "What is different in the second call? `held` tokens are there. Positions begin at `held`, the mask's "
        "staircase does too, and the keys are the held ones followed by the new (`torch.cat([old, new])` "
        "joins tables one below the other; a preallocated table does as well). Keep the *turned* keys.",
        "For `use_cache=False`, decide at the beginning what counts as held: nothing. And decide at the end "
        "whether to write to `self`: no. The lines between are the same for both. `reset` sets `self` back to "
        "what `__init__` made it.",
    ),
    analogue="""
A running average has a memory too, and the same three traps. It is told new measurements in any number of pieces, and
for each new number it answers the average of everything up to that one:

```python
class RunningMean:
    def __init__(self):
        self.reset()

    def reset(self):
        self.count, self.total = 0, 0.0            # all that must survive until the next call

    def add(self, numbers, keep=True):
        count, total = (self.count, self.total) if keep else (0, 0.0)     # what came before
        place = count + torch.arange(1, len(numbers) + 1)                 # not 1, 2, 3 … again
        sums = total + numbers.cumsum(0)           # the first does not know of the second
        if keep:
            self.count, self.total = int(place[-1]), float(sums[-1])
        return sums / place

mean = RunningMean()
mean.add(torch.tensor([2.0, 4.0]))    # tensor([2., 3.])
mean.add(torch.tensor([9.0]))         # tensor([5.])
```

`[2, 4, 9]` in one piece gives `[2, 3, 5]`: the same, however it is cut. That is the test your class has to pass.
""",
)
