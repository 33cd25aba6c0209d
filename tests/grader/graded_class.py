"""A small graded class for the tests of pages: graded in this process, written by the grader's own writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from grader import authoring, desk, guard, writing
from grader.build import COURSE_SHIM
from grader.exercises import define
from grader.grading import Graded, hidden_checks, quiz_scores
from grader.keys import points_available
from grader.writer import Outcome, Writer
from lessonlib.classroom import checking
from lessonlib.classroom.exercises import find

from .releases import as_bytes, solutions

SLUG = "02_kv_cache"
EXERCISE, CELL, ANSWER = "02.kv_bytes", "02-kv_bytes", "02-report"
QUIZ = points_available(SLUG)
BY_MACHINE, OUT_OF = (
    f"{2 + QUIZ:g}",
    f"{2 + 6 + QUIZ:g}",
)  # without and with what a person marks, as pages write it
RIGHT = solutions("02")[CELL]
WRONG = RIGHT.replace("bits // 8", "16 // 8")
LESSON = f"""# %% [markdown]
# # Caches
#
# A cache of $2 L n d$ numbers, and <b>raw HTML</b>:
#
# $$P + (P+1) + \\dots \\;=\\; N\\,P + \\frac{{N(N-1)}}{{2}}.$$

# %%
from lessonlib.classroom import check, quiz

# %% nbgrader={{"solution": true, "grade_id": "{CELL}"}}
{RIGHT}

# %% nbgrader={{"grade": true, "grade_id": "{CELL}-check", "points": 2}} tags=["raises-exception"]
check("02.kv_bytes", kv_bytes)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import kv_bytes as hidden

hidden(kv_bytes)
### END HIDDEN TESTS

# %% [markdown] nbgrader={{"grade": true, "solution": true, "grade_id": "{ANSWER}", "points": 6}}
# What did you find?
#
# ### BEGIN SOLUTION
# That it helps.
# ### END SOLUTION

# %% nbgrader={{"grade": true, "grade_id": "02-quiz", "points": {QUIZ:g}}}
quiz("02_kv_cache")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("02_kv_cache")
### END HIDDEN TESTS
"""


@dataclass(frozen=True)
class HandedIn:
    """A submission. ``shown``: what its solution cell put out, as it came from the kernel."""

    code: str | None = None
    answer: str | None = None
    shown: Sequence[dict[str, Any]] = ()
    log: bytes = b""
    why: str = ""
    notes: tuple[str, ...] = ()
    cell: Mapping[str, Any] = field(default_factory=dict)  # what else the student's cells have


def make(folder: Path, handed_in: Mapping[str, HandedIn]) -> Path:
    """A course folder in which these have been graded."""
    course = folder / "course"
    source = folder / f"{SLUG}.py"
    source.write_text(LESSON, encoding="utf-8")
    instructors = course / "source" / SLUG / f"{SLUG}.ipynb"
    instructors.parent.mkdir(parents=True)
    nbformat.write(authoring.read_lesson(source), instructors)
    (course / "nbgrader_config.py").write_text(COURSE_SHIM, encoding="utf-8")
    desk.release(course, SLUG)
    release = guard.load(instructors)
    with Writer(course, release) as writer:
        for student, what in handed_in.items():
            writer.write(_outcome(release, student, what))
    return course


def _outcome(release: guard.Release, student: str, what: HandedIn) -> Outcome:
    book = nbformat.from_dict(release.handed_out)
    sources = {CELL: what.code, ANSWER: what.answer}
    for cell in book.cells:
        cell.update(nbformat.from_dict(what.cell))
        if text := sources.get(guard.solution_id(cell) or ""):
            cell.source = text
    rebuilt = guard.rebuild(release, as_bytes(book), what.log)
    rebuilt = guard.again(
        release, rebuilt.book, {"others": (), "notes": what.notes, "unreadable": None}, what.log
    )
    [task] = release.tasks
    exercise = find(EXERCISE)
    if task.cell in rebuilt.blank:
        report = checking.not_started(exercise)
    else:
        function = define(exercise, rebuilt.sources[CELL])
        report = hidden_checks(EXERCISE).run(function, seed=3)
    graded = Graded(task, report, tuple(what.shown), what.why, seconds=1.25)
    quiz = tuple(quiz_scores(release, rebuilt))
    return Outcome(student, rebuilt, {EXERCISE: writing.record(graded)}, quiz, None)
