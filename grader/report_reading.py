"""A graded class as the report needs it: from the gradebook, the graded notebooks and the students' logs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lessonlib import course as contents
from lessonlib.classroom import checking, feedback, workbook
from lessonlib.classroom.bank import BadAnswer, Bank, BankError
from lessonlib.classroom.bank import load as load_bank
from lessonlib.classroom.checking import Failure
from lessonlib.classroom.exercises import Exercise, Observation, find
from lessonlib.classroom.quiz import ANSWER, answered
from lessonlib.classroom.store import Event, Log
from lessonlib.course import CourseError

from . import fleet, guard, keys, report, similarity
from .report import Class, Item, Person, Work
from .similarity import Pair
from .writing import TAKEN


def read(course: Path, slug: str, anonymous: bool = False) -> tuple[Class, list[Pair]]:
    """A graded class and its similar solutions. Raises CourseError where nothing is graded."""
    release = guard.load(course / "source" / slug / f"{slug}.ipynb")
    bank = _bank(slug)
    grades = _grades(course, slug)
    submissions = fleet.submissions(course, slug)
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder, f"{slug}.log.jsonl"))  # a copy of each student's in turn
        people = [_person(course, release, bank, submission, grades, log) for submission in submissions]
    if anonymous:
        seed = fleet.seed_of(course, slug)
        order = sorted(people, key=lambda p: hashlib.sha256(f"{seed} {p.name}".encode()).digest())
        width = len(str(len(order)))
        people = [replace(person, name=f"student {n:0{width}}") for n, person in enumerate(order, 1)]
    items = [Item(task.exercise, find(task.exercise).title, task.points) for task in release.tasks]
    of = Class(
        slug,
        contents.lesson(slug).title,
        items,
        people,
        sum(float((c["metadata"].get("nbgrader") or {}).get("points") or 0) for c in release.cells),
        bank.questions if bank else (),
        keys.load_key(slug) if bank else {},
    )
    if not of.graded:
        raise CourseError(f"No submission of {slug} is graded yet; grade them first: lesson grade {slug[:2]}")
    base = [workbook.text(cell) for cell in release.cells if cell["cell_type"] == "code"]
    alike = [
        pair
        for task in release.tasks
        for pair in similarity.similar(
            task.exercise,
            {p.name: p.works[task.exercise].source for p in of.readable if not p.works[task.exercise].blank},
            [*base, *release.stubs.values()],
        )
    ]
    return of, sorted(
        alike, key=lambda pair: (-pair.similarity, -min(pair.tokens), pair.exercise, pair.first)
    )


@dataclass(frozen=True)
class _Grade:
    """A cell in the gradebook. open: a person has yet to mark it."""

    score: float
    open: bool


Grades = Mapping[str, tuple[Mapping[str, _Grade], float]]


def _grades(course: Path, slug: str) -> Grades:
    """Of each student nbgrader's grades by cell, and the late penalty. Raises CourseError where it knows no lesson."""
    from nbgrader.api import Gradebook, MissingEntry

    from .desk import find_alembic

    missing = CourseError(f"{slug} is not in the gradebook; grade it first: lesson grade {slug[:2]}")
    path = course / "gradebook.db"
    if not path.exists():  # opening it would make one
        raise missing
    find_alembic()
    with Gradebook(f"sqlite:///{path}") as book:
        try:
            book.find_assignment(slug)
        except MissingEntry:
            raise missing from None
        return {
            submission.student_id: (
                {
                    grade.name: _Grade(
                        grade.score or 0.0, bool(grade.needs_manual_grade and grade.manual_score is None)
                    )
                    for notebook in submission.notebooks
                    for grade in notebook.grades
                },
                sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks),
            )
            for submission in book.assignment_submissions(slug)
        }


def _person(
    course: Path,
    release: guard.Release,
    bank: Bank | None,
    handed: fleet.Submission,
    grades: Grades,
    log: Log,
) -> Person:
    rebuilt = guard.rebuild(release, handed.notebook(), handed.log())
    cells = _graded_cells(course / "autograded" / handed.student / release.slug / f"{release.slug}.ipynb")
    log.path.write_bytes(rebuilt.log)
    events = log.events()
    flags = list(_flags(rebuilt, log.complaint()))
    marks, penalty = grades.get(handed.student, ({}, 0.0))
    if not cells or not marks:
        return Person(handed.student, {}, flags=[(report.UNGRADED, "It is not graded yet."), *flags])
    works = {}
    for task in release.tasks:
        cell = cells.get(task.check, {})
        mistake = mistaken(find(task.exercise), cell)
        flags += [(report.LIMITS, f"{task.exercise}: {why}.") for why in _stopped(cell, mistake)]
        works[task.exercise] = Work(
            marks[task.check].score if task.check in marks else 0.0,
            mistake,
            task.cell in rebuilt.blank,
            *_on_the_way(task.exercise, events),
            source=rebuilt.sources[task.cell],
        )
    if any(workbook.text(cells.get(name, {"source": ""})) != text for name, text in rebuilt.sources.items()):
        flags.append((report.NEWER, "What was handed in is no longer what was graded; grade it again."))
    quiz = str(workbook.grade_id(release.quiz)) if release.quiz else ""
    by_hand = [
        mark for name, mark in marks.items() if name != quiz and name not in {t.check for t in release.tasks}
    ]
    return Person(
        handed.student,
        works,
        marks[quiz].score if quiz in marks else None,
        sum(mark.score for mark in by_hand) if by_hand else None,
        sum(mark.open for mark in marks.values()),
        penalty,
        _answers(bank, log, events) if bank else {},
        bool(events),
        flags,
    )


def _graded_cells(path: Path) -> dict[str, dict[str, Any]]:
    """The cells of a graded notebook by grade_id; none where there is no graded notebook."""
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): cell for cell in book["cells"] if (name := workbook.grade_id(cell))}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def mistaken(exercise: Exercise, check: Mapping[str, Any]) -> str | None:
    """The mistake's name in a graded check cell, None where it passed: the grader's own sentence read backwards."""
    lines = [str(o.get("evalue")) for o in check.get("outputs", ()) if o.get("output_type") == "error"]
    if not lines:
        return None
    if lines[0] == feedback.headline(checking.not_started(exercise)):
        return checking.NOT_STARTED
    for secret in (False, True):  # the longer ending first: the other one ends it too
        before, after = _headline(exercise, "\0", secret).split("\0")
        if lines[0] == _headline(exercise, None, secret):
            break
        if lines[0].startswith(before) and lines[0].endswith(after):
            return lines[0][len(before) : -len(after)]
    return report.UNNAMED


def _headline(exercise: Exercise, name: str | None, secret: bool) -> str:
    failure = Failure(None, None, Observation(), name, "")
    return feedback.headline(checking.Report(exercise, 0, failure), secret)


def _stopped(check: Mapping[str, Any], mistake: str | None) -> Iterator[str]:
    """Why an exercise came to a limit, if it did."""
    ended = str((check.get("metadata", {}).get(TAKEN) or {}).get("ended") or "")
    if ended and ("stops with" not in ended or ended.endswith("out of memory")):
        yield ended
    elif mistake in (checking.TOO_LONG, checking.DIED):
        yield mistake


def _flags(rebuilt: guard.Rebuilt, complaint: str | None) -> Iterator[tuple[str, str]]:
    if rebuilt.unreadable:
        yield report.UNREADABLE, rebuilt.unreadable
    for note in rebuilt.notes:
        if note.endswith("is missing."):
            if not rebuilt.unreadable:
                yield report.MISSING, note
        else:
            yield report.TWICE if "more than once" in note else report.LIMITS, note
    if complaint:
        yield report.LOG, complaint


def _answers(bank: Bank, log: Log, events: Sequence[Event]) -> dict[str, Any]:
    """By question id: of graded questions the last answer, of practice questions the first."""
    first: dict[str, Any] = {}
    by_id = {f"{bank.name}.{question.id}": question for question in bank.questions if question.practice}
    for event in events:
        question = by_id.get(event.id) if event.kind == ANSWER else None
        if question and question.id not in first:
            with suppress(BadAnswer):
                first[question.id] = question.read(event.data.get("answer"))
    return {**answered(log, bank), **first}


def _on_the_way(exercise_id: str, events: Sequence[Event]) -> tuple[int, int, frozenset[str]]:
    """Checks of a started function, hints taken, and the mistakes that the checks found. What a log calls a mistake
    counts only where the exercise knows it: students can write anything there."""
    mine = [event for event in events if event.id == exercise_id]
    checks = [e.data for e in mine if e.kind == "check" and e.data.get("name") != checking.NOT_STARTED]
    named = {str(data.get("name")) for data in checks if data.get("passed") is False}
    met = {name if name in _known(exercise_id) else report.UNNAMED for name in named}
    return len(checks), sum(event.kind == "hint" for event in mine), frozenset(met)


@cache
def _known(exercise_id: str) -> frozenset[str]:
    return frozenset({*(m.name for m in find(exercise_id).misconceptions), *checking.WHY, checking.RAISES})


def _bank(slug: str) -> Bank | None:
    try:
        return load_bank(slug)
    except BankError:
        return None
