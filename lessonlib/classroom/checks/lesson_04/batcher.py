"""04.ContinuousBatcher: admit, one forward pass, retire, admit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import Call, Case, Exercise, Inputs, WrongForm
from ...forms import TYPE, describe, must_be
from .. import server_day
from ..server_day import STEP
from . import batcher_mistakes as mistakes
from .batcher_mistakes import MISCONCEPTIONS, answers

NAME = "batcher"
WANTED = "a dict with the new token of every request that ran, {name: token}"


def played(call: Call, inputs: Inputs) -> list[Any]:
    """All steps on one object; each ``step`` with the passes it took and who is in the batch afterwards."""

    def told(made: Any) -> dict[str, Any]:
        model = call.arguments["model"]
        before = model.forward_calls
        tokens = read(play_step(call, made, STEP))
        passes, batch = model.forward_calls - before, play_step(call, made, ["batch"])
        if not isinstance(batch, list) or not all(isinstance(name, str) for name in batch):
            raise WrongForm(TYPE, f"batch must return a list of names; it returned {describe(batch)}.")
        return {"tokens": tokens, "passes": passes, "batch": sorted(batch)}

    return server_day.played(call, inputs, told)


def read(value: Any) -> dict[str, int]:
    """The new tokens by request. Raises WrongForm."""
    if not isinstance(value, dict):
        raise must_be(WANTED, value)
    plain: dict[str, int] = {}
    for name, token in value.items():
        shape = getattr(token, "shape", None)
        whole = isinstance(token, int) if shape is None else tuple(shape) == ()
        if isinstance(token, bool) or not whole:
            raise WrongForm(TYPE, f"step must return {WANTED}; the token of {name!r} is {describe(token)}.")
        plain[name] = int(token)
    return plain


def write(name: str, step: Sequence[Any]) -> str:
    return server_day.added(name, step) if step[0] == "add" else f"{name}.step(), {name}.batch()"


def show(inputs: Inputs) -> str:
    making = f"ContinuousBatcher(ToyModel(64), size={inputs['size']}, eos_id={inputs['eos_id']})"
    return script_text(NAME, making, inputs, write)


def prepare(inputs: Inputs) -> dict[str, Any]:
    from ...toys import ToyModel

    return {"model": ToyModel(64), "size": inputs["size"], "eos_id": inputs["eos_id"]}


def valid(inputs: Inputs) -> bool:
    return server_day.valid(inputs, "size")


def making(
    tells_apart: Sequence[str],
    sizes: tuple[int, int] = (2, 3),
    requests: tuple[int, int] = (4, 6),
    late: bool = True,
    ends_early: bool = False,
) -> Callable[[random.Random], Inputs | None]:
    """A generator of days on which each of these mistakes changes an answer. ends_early: the end token ends some."""

    def make(rng: random.Random) -> Inputs | None:
        inputs = server_day.draw(rng, "size", rng.randint(*sizes), rng.randint(*requests), late, answers)
        right = answers(inputs)
        early = right != answers(inputs, mistakes.NO_EOS)
        apart = all(answers(inputs, mistake) != right for mistake in tells_apart)
        return inputs if apart and early == ends_early else None

    return make


def batch_case(title: str, *examples: tuple[int, int, Sequence[Any]], **case: Any) -> Case:
    inputs = [{"size": size, "eos_id": eos, "steps": list(steps)} for size, eos, steps in examples]
    return script(title, answers, name=NAME, write=write, trial=played, examples=inputs, valid=valid, **case)


CASES = (
    batch_case(
        "One request: it is let in, gets a token a step, and leaves.",
        (2, 9, [["add", "a", [1, 2], 1], STEP]),
        (2, 9, [["add", "a", [1, 2], 2], STEP, STEP, STEP]),
    ),
    batch_case(
        "Those who fit share one forward pass; the others wait in the order in which they came.",
        (2, 9, [["add", "a", [1, 2], 3], ["add", "b", [2, 2], 3], STEP]),
        (2, 9, [["add", "a", [1, 2], 3], ["add", "b", [2, 2], 3], ["add", "c", [3], 3], ["add", "d", [4], 3], STEP]),
        make=making([mistakes.PASS_EACH, mistakes.TOO_MANY, mistakes.ONE_OVER, mistakes.NEWEST], late=False),
        count=2,
    ),
    batch_case(
        "Rows of different lengths each go on from their own last token.",
        (2, 9, [["add", "a", [4], 3], ["add", "b", [1, 2, 3], 3], STEP, STEP]),
        make=making([mistakes.READS_PADDING, mistakes.NOT_APPENDED], late=False),
        count=2,
    ),
    batch_case(
        "A place that becomes free goes to the next one at once, while the others go on.",
        (2, 9, [["add", "a", [1], 1], ["add", "b", [2], 3], ["add", "c", [3], 2], STEP, STEP]),
        make=making([mistakes.STATIC, mistakes.STAYS_FREE, mistakes.ENDS_ALL, mistakes.ONE_IN]),
        count=3,
    ),
    batch_case(
        "Two neighbours may end in the same step.",
        (3, 9, [["add", "a", [1], 2], ["add", "b", [2], 1], ["add", "c", [5], 1], ["add", "d", [3], 2], STEP, STEP]),
        make=making([mistakes.SKIPS, mistakes.SKIPS_PASS], sizes=(3, 3)),
        count=2,
    ),
    batch_case(
        "The end token ends a request early.",
        (2, 6, [["add", "a", [2, 1], 5], ["add", "b", [2], 5], STEP, STEP]),
        make=making([mistakes.NO_EOS, mistakes.DROPS_EOS], ends_early=True),
        count=3,
    ),
    batch_case(
        "With nobody there, a step does nothing.",
        (2, 9, [STEP, ["add", "a", [1, 2], 1], STEP, STEP, ["add", "b", [3], 1], STEP]),
    ),
)  # fmt: skip

CONTINUOUS_BATCHER = Exercise(
    id="04.ContinuousBatcher",
    title="A continuous batch",
    signature="ContinuousBatcher(model, size, eos_id)",
    prepare=prepare,
    show=show,
    about=(
        "The toy model of lesson 01: the next token is the sum of the tokens, plus how many there are, plus the last "
        "one again, of that the last digit. (`from lessonlib.classroom.toys import ToyModel`.) On the card, "
        "`passes` is how often `step` called the model, and `batch` what `batch()` says afterwards."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Letting in happens twice in a step, so give it a method of its own: *while* there is room and somebody waits, "
        "move the first of `waiting` to the end of `running`. Does `step` work for one request now?",
        "The forward pass is that of lesson 01's `generate`: fill short rows up on the right, call the model *once*, "
        "and read row i at `len(ids) - 1`. Leave before it when `running` is empty.",
        "Do the three things one after the other, each in its own loop: first every running request gets its token; "
        "then `self.running = [r for r in self.running if …]` keeps those that go on; then let in again. Never "
        "`remove` inside the loop.",
    ),
    analogue="""
A big wheel with four seats turns all day. Each turn: whoever waits gets on while there are seats, the wheel goes round
*once* with everybody in it, those who have had their rounds get off, and the next get on.

```python
def round(self):
    self.let_in()                               # somebody may have come since
    if not self.seats:
        return []
    self.engine.turn()                          # once, however many sit in it
    for passenger in self.seats:
        passenger.rounds_left -= 1
    served = [p.name for p in self.seats]
    self.seats = [p for p in self.seats if p.rounds_left > 0]     # a new list: nobody is jumped over
    self.let_in()                               # so that the board at the door tells the truth
    return served

def let_in(self):
    while self.queue and len(self.seats) < 4:
        self.seats.append(self.queue.pop(0))
```
""",
)
