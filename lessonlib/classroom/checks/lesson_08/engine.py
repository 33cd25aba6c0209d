"""08.Engine: caches and continuous batching in one: every token once, one pass a step, slots and queue kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import Call, Case, Exercise, Inputs, WrongForm
from ...forms import TYPE, describe, must_be
from .. import server_day
from ..server_day import STEP
from . import engine_mistakes as mistakes
from .decode import ABOUT, ids
from .engine_mistakes import MISCONCEPTIONS, answers

NAME = "engine"
WANTED = "a dict with a list of new tokens for every request that ran, {name: [token]}"


def played(call: Call, inputs: Inputs) -> list[Any]:
    """All steps on one engine; each ``step`` with the passes and the tokens it took."""

    def told(made: Any) -> dict[str, Any]:
        model = call.arguments["model"]
        passes, run = model.forward_calls, model.tokens
        tokens = read(play_step(call, made, STEP))
        return {"tokens": tokens, "passes": model.forward_calls - passes, "run": model.tokens - run}

    return server_day.played(call, inputs, told)


def read(value: Any) -> dict[str, list[int]]:
    """The new tokens by request. Raises WrongForm."""
    if not isinstance(value, dict):
        raise must_be(WANTED, value)
    for name, tokens in value.items():
        if not isinstance(tokens, list):
            raise WrongForm(TYPE, f"step must return {WANTED}; for {name!r} it holds {describe(tokens)}.")
    return {name: ids(tokens, WANTED) for name, tokens in value.items()}


def write(name: str, step: Sequence[Any]) -> str:
    return server_day.added(name, step) if step[0] == "add" else f"{name}.step()"


def show(inputs: Inputs) -> str:
    making = f"Engine(ToyRunner(), slots={inputs['slots']}, eos_id={inputs['eos_id']})"
    return script_text(NAME, making, inputs, write)


def prepare(inputs: Inputs) -> dict[str, Any]:
    from .runners import ToyRunner

    return {"model": ToyRunner(), "slots": inputs["slots"], "eos_id": inputs["eos_id"]}


def valid(inputs: Inputs) -> bool:
    return server_day.valid(inputs, "slots")


def making(
    tells_apart: Sequence[str],
    slots: tuple[int, int] = (2, 3),
    requests: tuple[int, int] = (4, 6),
    ends_early: bool = False,
) -> Callable[[random.Random], Inputs | None]:
    """A generator of days on which each of these mistakes changes an answer. ends_early: the end token ends some."""

    def make(rng: random.Random) -> Inputs | None:
        inputs = server_day.draw(rng, "slots", rng.randint(*slots), rng.randint(*requests), True, answers)
        right = answers(inputs)
        early = right != answers(inputs, mistakes.NO_EOS)
        apart = all(answers(inputs, mistake) != right for mistake in tells_apart)
        return inputs if apart and early == ends_early else None

    return make


def engine_case(title: str, *examples: tuple[int, int, Sequence[Any]], **case: Any) -> Case:
    inputs = [{"slots": slots, "eos_id": eos, "steps": list(steps)} for slots, eos, steps in examples]
    return script(title, answers, name=NAME, write=write, trial=played, examples=inputs, valid=valid, **case)


CASES = (
    engine_case(
        "One request: first its prompt is run, then one token a step, and then it is gone.",
        (2, 9, [["add", "a", [1, 2], 1], STEP]),
        (2, 9, [["add", "a", [1, 2, 4], 2], STEP, STEP, STEP]),
    ),
    engine_case(
        "Those who fit share one pass; the others wait in the order in which they came.",
        (2, 9, [["add", "a", [1, 2], 3], ["add", "b", [2, 2], 3], STEP, STEP]),
        (2, 9, [["add", "a", [1, 2], 3], ["add", "b", [2, 2], 3], ["add", "c", [3], 3], ["add", "d", [4], 3], STEP]),
        make=making([mistakes.PASS_EACH, mistakes.TOO_MANY, mistakes.ONE_OVER, mistakes.NEWEST]),
        count=2,
    ),
    engine_case(
        "No token is run twice.",
        make=making([mistakes.RECOMPUTES, mistakes.TWICE, mistakes.FIRST_ROW]),
        count=2,
    ),
    engine_case(
        "A free place goes to the next one, whose text begins anew.",
        (2, 9, [["add", "a", [1], 1], ["add", "b", [2], 3], ["add", "c", [3], 2], STEP, STEP, STEP]),
        (1, 9, [["add", "a", [1], 1], ["add", "b", [2], 2], STEP, STEP]),
        make=making([mistakes.STATIC, mistakes.STALE, mistakes.STALE_OLDEST, mistakes.NEVER_IN]),
        count=3,
    ),
    engine_case(
        "Two neighbours may end in the same step.",
        (3, 9, [["add", "a", [1], 2], ["add", "b", [2], 1], ["add", "c", [5], 1], ["add", "d", [3], 2], STEP, STEP]),
        make=making([mistakes.SKIPS, mistakes.SKIPS_PASS], slots=(3, 3)),
        count=2,
    ),
    engine_case(
        "The end token ends a request early.",
        (2, 6, [["add", "a", [2, 1], 5], ["add", "b", [2], 5], STEP, STEP]),
        make=making([mistakes.NO_EOS, mistakes.DROPS_EOS, mistakes.ONE_MORE], ends_early=True),
        count=2,
    ),
    engine_case(
        "With nobody there, a step does nothing.",
        (2, 9, [STEP, ["add", "a", [1, 2], 1], STEP, STEP, ["add", "b", [3], 1], STEP]),
    ),
)  # fmt: skip

ENGINE = Exercise(
    id="08.Engine",
    title="Your engine",
    signature="Engine(model, slots, eos_id)",
    prepare=prepare,
    show=show,
    about=ABOUT,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Begin with your `ContinuousBatcher`. Three things change: a request gets caches when it is let in; padding is "
        "gone; and what is run is no longer the whole text. What should a request remember so that you know what to "
        "run next?",
        'Let each request carry `"todo"`: the prompt at first, after each pass the newest token in a list. The pass is '
        '`model([(r["todo"], r["caches"]) for r in self.running])`, and its answers come in the same order.',
        "One step, each part finished before the next: let in while there is room; leave with `{}` if nobody runs; one "
        "pass; a new token for everybody, from the *last* row of their logits; a new list of those that go on. An "
        "answer is `{name: [token]}`: a list, since drafts will bring several.",
    ),
    analogue="""
A repair shop with a few benches. Whoever gets a bench gets an *empty* drawer with it, and keeps it until the repair is
done; all benches share one delivery a day:

```python
def day(self):
    while self.queue and len(self.benches) < 4:
        job = self.queue.pop(0)
        job.drawer = Drawer()                                  # never the one of the job before
        job.missing = job.all_parts                            # the first delivery is the big one
        self.benches.append(job)
    if not self.benches:
        return {}
    delivered = self.van.fetch([job.missing for job in self.benches])      # one trip
    for job, parts in zip(self.benches, delivered):
        job.drawer.put(parts)
        job.missing = job.what_next()                          # only what is new
    done_today = {job.name: [job.step] for job in self.benches}
    self.benches = [job for job in self.benches if not job.finished]
    return done_today
```
""",
)
