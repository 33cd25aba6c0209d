"""What a worker does: one submission from bytes to records. No database, no file of the class, any machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from lessonlib.classroom.exercises import find

from . import guard, writing
from .grading import Budget, grade, never_ran
from .store import Record


@dataclass(frozen=True)
class Lesson:
    """What all submissions of a lesson have in common, in a form that travels."""

    slug: str
    release: str  # the instructor's notebook
    seed: int
    budget: Budget
    unsafe_local: bool = False

    def open(self) -> guard.Release:
        """The release, read once in each process."""
        if self.release not in _OPEN:
            _OPEN.clear()
            _OPEN[self.release] = guard.Release(self.slug, nbformat.reads(self.release, as_version=4))
        return _OPEN[self.release]


_OPEN: dict[str, guard.Release] = {}


def run(
    lesson: Lesson, notebook: bytes | None, only: Sequence[str], budget: Budget | None = None
) -> dict[str, Record]:
    """The records of these exercises of one submission, by exercise id. budget: a student's own, if not the lesson's.

    Raises SandboxError where nothing can be locked up; never because of what a submission does.
    """
    release = lesson.open()
    rebuilt = guard.rebuild(release, notebook)
    budget = budget or lesson.budget
    result = grade(release, rebuilt, lesson.seed, cache_folder(), budget, lesson.unsafe_local, only)
    return {graded.task.exercise: writing.record(graded) for graded in result.exercises}


def given_up(lesson: Lesson, only: Sequence[str], why: str) -> dict[str, Record]:
    """The records of a submission that could not be graded to its end: zeros with the reason."""
    tasks = [task for task in lesson.open().tasks if task.exercise in only]
    return {t.exercise: writing.record(never_ran(t, find(t.exercise), why)) for t in tasks}


def cache_folder() -> Path:
    """Where this user's workers keep what all submissions share."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "llm-inference-course", "grading")


__all__ = ["Lesson", "cache_folder", "given_up", "run"]
