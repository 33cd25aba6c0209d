"""08.Engine: caches and continuous batching in one: every token once, one pass a step, slots and queue kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import Call, Case, Exercise, Inputs, WrongForm
from ...forms import TYPE, describe, must_be
from . import engine_mistakes as mistakes
from .decode import ABOUT, ids
from .engine_mistakes import MISCONCEPTIONS, answers

NAME = "engine"
WANTED = "a dict with a list of new tokens for every request that ran, {name: [token]}"


def played(call: Call, inputs: Inputs) -> list[Any]:
    """All steps on one engine; each ``step`` with the passes and the tokens it took."""
    made = call(inputs)
    model = call.arguments["model"]
    found: list[Any] = []
    for step in inputs["steps"]:
        if step[0] == "add":
            play_step(call, made, ["add", step[1], list(step[2]), step[3]])
            found.append(None)
            continue
        passes, run = model.forward_calls, model.tokens
        tokens = read(play_step(call, made, ["step"]))
        found.append({"tokens": tokens, "passes": model.forward_calls - passes, "run": model.tokens - run})
    return found


def read(value: Any) -> dict[str, list[int]]:
    """The new tokens by request. Raises WrongForm."""
    if not isinstance(value, dict):
        raise must_be(WANTED, value)
    for name, tokens in value.items():
        if not isinstance(tokens, list):
            raise WrongForm(TYPE, f"step must return {WANTED}; for {name!r} it holds {describe(tokens)}.")
    return {name: ids(tokens, WANTED) for name, tokens in value.items()}


def write(name: str, step: Sequence[Any]) -> str:
    return (
        f"{name}.add({step[1]!r}, {list(step[2])}, {step[3]})" if step[0] == "add" else f"{name}.{step[0]}()"
    )


def show(inputs: Inputs) -> str:
    making = f"Engine(ToyRunner(), slots={inputs['slots']}, eos_id={inputs['eos_id']})"
    return script_text(NAME, making, inputs, write)


def prepare(inputs: Inputs) -> dict[str, Any]:
    from .runners import ToyRunner

    return {"model": ToyRunner(), "slots": inputs["slots"], "eos_id": inputs["eos_id"]}


def valid(inputs: Inputs) -> bool:
    """Whether the steps are a day at the server: new names, prompts with tokens, one token wanted at least."""
    names: set[str] = set()
    if not inputs["steps"] or not 1 <= inputs["slots"] <= 8 or not 0 <= inputs["eos_id"] < 10:
        return False
    for step in inputs["steps"]:
        if list(step) == ["step"]:
            continue
        if not step or step[0] != "add" or len(step) != 4:
            return False
        name, prompt, most = step[1:]
        new = isinstance(name, str) and len(name) == 1 and name not in names
        right = isinstance(prompt, (list, tuple)) and prompt and all(0 <= t < 10 for t in prompt)
        if not (new and right and isinstance(most, int) and 1 <= most <= 12):
            return False
        names.add(name)
    return ["step"] in [list(step) for step in inputs["steps"]]


def making(
    tells_apart: Sequence[str],
    slots: tuple[int, int] = (2, 3),
    requests: tuple[int, int] = (4, 6),
    early: bool = False,
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scripts on which each of these mistakes changes an answer. early: the end token ends some."""

    def make(rng: random.Random) -> Inputs | None:
        steps: list[list[Any]] = []
        names = "abcdefgh"[: rng.randint(*requests)]
        size = rng.randint(*slots)
        for name in names:
            prompt = [rng.randrange(10) for _ in range(rng.randint(1, 4))]
            steps.append(["add", name, prompt, rng.randint(1, 4)])
            if len(steps) >= size and rng.random() < 0.4:
                steps.append(["step"])
        inputs: Inputs = {"slots": size, "eos_id": rng.randrange(10), "steps": steps}
        for _ in range(4 * len(names)):  # until everybody is served, and once more
            steps.append(["step"])
            if not answers(inputs)[-1]["tokens"]:
                break
        right = answers(inputs)
        ended = right != answers(inputs, mistakes.NO_EOS)
        apart = all(answers(inputs, mistake) != right for mistake in tells_apart)
        return inputs if apart and ended == early else None

    return make


def engine_case(title: str, *examples: tuple[int, int, Sequence[Any]], **case: Any) -> Case:
    inputs = [{"slots": slots, "eos_id": eos, "steps": list(steps)} for slots, eos, steps in examples]
    return script(title, answers, name=NAME, write=write, trial=played, examples=inputs, valid=valid, **case)


STEP = ["step"]
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
        make=making([mistakes.NO_EOS, mistakes.DROPS_EOS, mistakes.ONE_MORE], early=True),
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
