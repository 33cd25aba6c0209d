"""The hidden checks, one module per lesson: the visible exercises again, on inputs drawn at grading time."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lessonlib.classroom import checking, feedback
from lessonlib.classroom.checking import CheckFailed, Report
from lessonlib.classroom.exercises import Case, Exercise

SEED = "LESSON_GRADER_SEED"  # set it to draw the same inputs again


@dataclass(frozen=True)
class Hidden:
    """An exercise with the grader's own cases. Calling it with a student's function shows the card.

    ``seed`` decides the inputs; without it (and without the environment variable LESSON_GRADER_SEED) they are
    fresh every time. Raises CheckFailed where the function is wrong.
    """

    exercise: Exercise
    cases: Sequence[Case]
    forbid: Sequence[str] = ()  # modules of the course that do what is asked: hollow while this is graded
    secret: bool = False  # students are not even shown the input that failed

    def run(
        self, function: Callable[..., Any], seed: int | None = None, seconds: float | None = None
    ) -> Report:
        return checking.run(
            self.exercise, function, self.cases, fresh_seed() if seed is None else seed, seconds
        )

    def __call__(self, function: Callable[..., Any], seed: int | None = None) -> None:
        report = self.run(function, seed)
        feedback.card(report, hidden=True, secret=self.secret).show()
        if not report.passed:
            raise CheckFailed(feedback.headline(report, self.secret), report)


def fresh_seed() -> int:
    """LESSON_GRADER_SEED if set, otherwise a seed that nobody can foresee."""
    return int(os.environ.get(SEED) or random.SystemRandom().randrange(2**32))
