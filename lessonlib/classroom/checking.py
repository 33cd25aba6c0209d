"""Runs an exercise's cases on the student's function and finds the mistake's name by simulating mistakes."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import forms
from .exercises import FAR, AnyOf, Case, Comparison, Exercise, Inputs, Misconception, Observation, Skip
from .observing import Student, fixed_luck, is_untouched, one_thread
from .shrinking import shrink

SHRINKING_RUNS = 120  # of the student's function, at most
# Mistakes that need no simulation, by name.
NOT_STARTED = "not started yet"
CHANGES_INPUT = "changes its input"
RAISES = "raises an error"
TOO_LONG = "does not finish in time"
DIED = "ends the whole process"
NEVER_RAN = "its code does not run"

WHY = {
    **forms.WHY,
    CHANGES_INPUT: (
        "The caller's `{argument}` is different after the call. Work on a copy, or build a new value: "
        "whoever calls your function may still need the old one."
    ),
    TOO_LONG: "The function was stopped after the time limit. Look at the condition of your loop: "
    "which line makes it false in the end?",
    NEVER_RAN: "Only your exercise's cell and what it needs are run, in a fresh Python. *Restart Kernel and Run All "
    "Cells* in the Kernel menu shows you the same.",
    DIED: "A function gives its answer with `return`, or raises an error; it must not end Python, or use up "
    "the memory that there is.",
    NOT_STARTED: (
        "Replace the line `raise NotImplementedError()` in the exercise's cell by your own code, run that "
        "cell, then run this one again."
    ),
}


class CheckFailed(AssertionError):
    """A check that did not pass. In a notebook it shows as one line; the card above says the rest."""

    def __init__(self, text: str, report: Report | None = None):
        super().__init__(text)
        self.report = report

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Failure:
    """The smallest failing input found, what happened on it, and the mistake's name if one fits."""

    case: Case | None
    inputs: Inputs | None
    observation: Observation
    name: str | None
    why: str
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Report:
    """The outcome of a check. ``trials``: inputs tried; ``failure`` is None when all of them were right."""

    exercise: Exercise
    trials: int
    failure: Failure | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None

    @property
    def name(self) -> str | None:
        """The mistake's name; None when passed, and when no known mistake explains the failure."""
        return self.failure.name if self.failure else None


@dataclass(frozen=True)
class Trial:
    """One played input."""

    case: Case
    inputs: Inputs
    observation: Observation

    @property
    def right(self) -> bool:
        seen = self.observation
        return not seen.changed and seems_to_give(self, self.case.expected(self.inputs)) <= 1

    @property
    def stuck(self) -> bool:
        """Whether there is no point in playing more inputs."""
        return self.observation.error is not None and self.observation.error.kind != "raised"


def run(
    exercise: Exercise,
    function: Callable[..., Any],
    cases: Sequence[Case] | None = None,
    seed: int | None = None,
    seconds: float | None = None,
) -> Report:
    """Try ``function`` on the cases (the visible ones by default) and stop at the first failing case.

    seed: decides the generated inputs; by default the same for everybody. seconds: for the whole check.
    """
    if is_untouched(function):
        return not_started(exercise)
    exercise.arguments(first_inputs(cases or exercise.cases))  # imports what it needs before luck is fixed
    with one_thread():
        return judge(Student(exercise, function, seconds), cases or exercise.cases, seed)


def not_started(exercise: Exercise) -> Report:
    """The report on a cell that is as it was handed out."""
    return Report(exercise, 0, Failure(None, None, Observation(), NOT_STARTED, WHY[NOT_STARTED]))


def judge(student: Student, cases: Sequence[Case], seed: int | None = None) -> Report:
    """As ``run``, for a student's function that is behind the glass already, wherever it runs."""
    exercise = student.exercise
    rng = random.Random(zlib.crc32(exercise.id.encode()) if seed is None else seed)
    trials: list[Trial] = []
    failed: Trial | None = None
    for case in cases:
        for inputs in (*case.examples, *case.generated(rng)):
            trial = play(student, case, inputs)
            if failed and trial.observation.error and trial.observation.error.kind == "too long":
                return Report(exercise, len(trials), _explain(exercise, student, failed, trials))
            trials.append(trial)
            failed = failed or (None if trial.right else trial)
            if failed and failed.stuck:
                return Report(exercise, len(trials), _explain(exercise, student, failed, trials))
    # After a failure the rest is still played: what happens there tells similar mistakes apart.
    return Report(exercise, len(trials), _explain(exercise, student, failed, trials) if failed else None)


def first_inputs(cases: Iterable[Case]) -> Inputs:
    for case in cases:
        for inputs in (*case.examples, *case.generated(random.Random(0))):
            return inputs
    raise ValueError("an exercise needs at least one input")


def play(student: Student, case: Case, inputs: Inputs) -> Trial:
    with fixed_luck(20_240_101):
        return Trial(case, inputs, student.observe(case, inputs))


def seems_to_give(trial: Trial, prediction: Any) -> float:
    """Distance between what the function did and a predicted value; FAR if nothing usable came."""
    seen = trial.observation
    if seen.error or seen.wrong_form:
        return FAR
    options = prediction if isinstance(prediction, AnyOf) else (prediction,)
    return min((trial.case.distance(trial.inputs, seen.value, option) for option in options), default=FAR)


def fits(mistake: Misconception, trial: Trial) -> float | None:
    """Distance between a trial and a mistake: at most 1 means that the mistake would look exactly like this.

    None where the mistake has nothing to say about these inputs.
    """
    if mistake.sees is not None and mistake.sees(trial.inputs, trial.observation):
        return 0.0
    if mistake.gives is None or not trial.case.simulated:
        return None if trial.right else FAR
    try:
        return seems_to_give(trial, mistake.gives(trial.inputs))
    except Skip:
        return None


def diagnose(exercise: Exercise, failed: Trial, trials: Sequence[Trial]) -> Misconception | None:
    """The mistake that explains the failing trial and contradicts the fewest others, those up to the end of
    its case first: later cases ask for things that may be missing for other reasons."""
    last = max(i for i, trial in enumerate(trials) if trial.case is failed.case)
    candidates = []
    for order, mistake in enumerate(exercise.misconceptions):
        distance = fits(mistake, failed)
        if distance is not None and distance <= 1:
            against = [(fits(mistake, trial) or 0) > 1 for trial in trials]
            candidates.append((sum(against[: last + 1]), sum(against), distance, order))
    return exercise.misconceptions[min(candidates)[-1]] if candidates else None


def _explain(exercise: Exercise, student: Student, failed: Trial, trials: Sequence[Trial]) -> Failure:
    mistake = diagnose(exercise, failed, trials)
    if failed.inputs not in list(failed.case.examples) and not failed.stuck:
        failed = _smallest(exercise, student, failed, mistake)
    seen = failed.observation
    name, why = _name(mistake, seen)
    comparison = None
    if not (seen.error or seen.wrong_form or seen.changed):
        comparison = failed.case.compare(failed.inputs, seen.value, failed.case.expected(failed.inputs))
    return Failure(failed.case, failed.inputs, seen, name, why, comparison)


def _smallest(exercise: Exercise, student: Student, failed: Trial, mistake: Misconception | None) -> Trial:
    """A failing trial on simpler inputs, with the same kind of failure and the same mistake behind it."""
    found, runs = failed, 0

    def still_fails(inputs: Inputs) -> bool:
        nonlocal found, runs
        try:
            if runs >= SHRINKING_RUNS or not failed.case.valid(inputs):
                return False
            runs += 1
            trial = play(student, failed.case, inputs)
            if not _same_failure(failed, trial) or (mistake and (fits(mistake, trial) or 0) > 1):
                return False
        except (ArithmeticError, LookupError, ValueError, TypeError):
            return False  # the shrunk input means nothing to the case
        found = trial
        return True

    shrink(failed.inputs, exercise.optional, still_fails)
    return found


def _same_failure(first: Trial, other: Trial) -> bool:
    a, b = first.observation, other.observation
    if (
        other.right
        or (a.error is None) != (b.error is None)
        or (a.wrong_form is None) != (b.wrong_form is None)
    ):
        return False
    if a.error and b.error and (a.error.kind, a.error.type) != (b.error.kind, b.error.type):
        return False
    return (a.changed is None) == (b.changed is None)


def _name(mistake: Misconception | None, seen: Observation) -> tuple[str | None, str]:
    """What to call the failure: a known mistake first, then the kinds that every exercise shares."""
    if seen.error and seen.error.kind != "raised":
        name = {"not started": NOT_STARTED, "died": DIED, "never ran": NEVER_RAN}.get(
            seen.error.kind, TOO_LONG
        )
        return name, WHY[name]
    if seen.changed and not seen.error:
        return CHANGES_INPUT, WHY[CHANGES_INPUT].replace("{argument}", seen.changed.argument)
    if mistake:
        return mistake.name, mistake.why
    if seen.error:
        return RAISES, ""
    if seen.wrong_form:
        return seen.wrong_form.name, WHY.get(seen.wrong_form.name, "")
    return None, ""
