"""A day at a server, for the exercises that batch: requests are added, steps are taken.

Inputs of such an exercise: ``steps``, each ["add", name, prompt, most new tokens] or ["step"]; ``eos_id``; and, under
a name that the exercise gives (``places``), how many requests may run at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ..cases import play_step
from ..exercises import Call, Inputs

STEP = ["step"]
Answers = Callable[
    ..., list[Any]
]  # (inputs, mistake) -> what each step returns; that of a ``step`` has its "tokens"


def played(call: Call, inputs: Inputs, told: Callable[[Any], dict[str, Any]]) -> list[Any]:
    """All steps on one object: None for an ``add``, for a ``step`` what ``told(object)`` says, which takes it."""
    made = call(inputs)
    found: list[Any] = []
    for step in inputs["steps"]:
        if step[0] == "add":
            play_step(call, made, ["add", step[1], list(step[2]), step[3]])
        found.append(told(made) if step[0] == "step" else None)
    return found


def added(name: str, step: Sequence[Any]) -> str:
    """An ``add`` as Python."""
    return f"{name}.add({step[1]!r}, {list(step[2])}, {step[3]})"


def valid(inputs: Inputs, places: str) -> bool:
    """Whether the steps are a day at a server: new names, prompts with tokens, one token wanted at least."""
    names: set[str] = set()
    if not inputs["steps"] or not 1 <= inputs[places] <= 8 or not 0 <= inputs["eos_id"] < 10:
        return False
    for step in inputs["steps"]:
        if list(step) == STEP:
            continue
        if not step or step[0] != "add" or len(step) != 4:
            return False
        name, prompt, most = step[1:]
        new = isinstance(name, str) and len(name) == 1 and name not in names
        ids = isinstance(prompt, (list, tuple)) and prompt and all(0 <= t < 10 for t in prompt)
        if not (new and ids and isinstance(most, int) and 1 <= most <= 12):
            return False
        names.add(name)
    return STEP in [list(step) for step in inputs["steps"]]


def draw(
    rng: random.Random, places: str, at_once: int, requests: int, late: bool, answers: Answers
) -> Inputs:
    """A day until everybody is served, and one step more. late: some requests come between the steps."""
    steps: list[list[Any]] = []
    for name in "abcdefgh"[:requests]:
        prompt = [rng.randrange(10) for _ in range(rng.randint(1, 4))]
        steps.append(["add", name, prompt, rng.randint(1, 4)])
        if late and len(steps) >= at_once and rng.random() < 0.4:
            steps.append(list(STEP))
    inputs: Inputs = {places: at_once, "eos_id": rng.randrange(10), "steps": steps}
    for _ in range(4 * requests):
        steps.append(list(STEP))
        if not answers(inputs)[-1]["tokens"]:
            break
    return inputs
