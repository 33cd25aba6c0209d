"""`lesson report`: reads a graded class from its folder, runs nothing again, and writes a page and tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from lessonlib import course as contents
from lessonlib import files
from lessonlib.classroom import checking, feedback, workbook
from lessonlib.classroom.bank import BadAnswer, Bank, BankError
from lessonlib.classroom.bank import load as load_bank
from lessonlib.classroom.checking import Failure
from lessonlib.classroom.exercises import Exercise, Observation, find
from lessonlib.classroom.quiz import ANSWER, answered
from lessonlib.classroom.store import Event, Log
from lessonlib.commands import INSTRUCTORS
from lessonlib.course import CourseError

from . import fleet, guard, keys, report, similarity
from .grade_command import COURSE, Course, console, slug_of
from .marks import plain
from .report import Class, Item, Person, Work
from .similarity import Pair
from .writing import TAKEN

Row = list[Any]


def register(app: typer.Typer) -> None:
    """Add `lesson report` to the `lesson` application."""

    @app.command("report", rich_help_panel=INSTRUCTORS, epilog="Example: lesson report 02 --anonymous")
    def report_(
        lesson: Annotated[str, typer.Argument(help="Number or name of a graded lesson.")],
        course: Course = COURSE,
        output: Annotated[
            Path | None,
            typer.Option(help="A folder for the page and the tables; reports/ in the course if left out."),
        ] = None,
        anonymous: Annotated[
            bool, typer.Option("--anonymous", help="Numbers instead of the students' names.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    ) -> None:
        """What a class got right and what it misunderstood: one page, and tables (CSV)."""
        slug = slug_of(lesson, course)
        folder = output or course / "reports" / slug
        names = ["report.html", "scores.csv", "exercises.csv", "misconceptions.csv", "quiz.csv", "pairs.csv"]
        if dry_run:
            console().print(
                f"{len(fleet.submissions(course, slug))} submissions; {', '.join(names)} in {folder}."
            )
            return
        of, alike = read(course, slug, anonymous)
        for name, data in written(of, alike).items():
            _write(folder / name, data)
        told = f"{len(of.graded)} of {len(of.people)} submissions of {slug}"
        console().print(
            f"✓ {told}: {folder / 'report.html'}, and {len(names) - 1} tables beside it.", style="green"
        )


def written(of: Class, alike: Sequence[Pair]) -> dict[str, bytes]:
    """The files of a report by name."""
    from .report_page import page

    made = {"report.html": page(of, alike).encode("utf-8", "replace")}
    for name, rows in tables(of, alike).items():
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
        made[name] = buffer.getvalue().encode("utf-8", "replace")
    return made


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

    find_alembic()
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        try:
            book.find_assignment(slug)
        except MissingEntry:
            raise CourseError(
                f"{slug} is not in the gradebook; grade it first: lesson grade {slug[:2]}"
            ) from None
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


def tables(of: Class, pairs: Sequence[Pair]) -> dict[str, list[Row]]:
    """The CSV files by name, each with its heading. No text in them is a formula to a spreadsheet."""
    ids = [item.id for item in of.items]
    scores: list[Row] = [
        [
            "student",
            *ids,
            "quiz",
            "manual",
            "late penalty",
            "total",
            "out of",
            "to be marked by hand",
            "flags",
        ]
    ]
    for p in of.people:
        points = [p.works[name].points if name in p.works else None for name in ids]
        if not p.has(report.UNGRADED):
            points += [p.quiz, p.manual, p.penalty, p.total, of.out_of]
        points += [None] * (len(ids) + 5 - len(points))
        scores.append([p.name, *points, p.open, ", ".join(dict.fromkeys(kind for kind, _ in p.flags))])
    figures: list[Row] = [
        ["exercise", "title", "points", "n", "difficulty", "discrimination", "began", "blank", "never ran"]
    ]
    figures[0] += ["full points", "checked", "median attempts", "most attempts", "took hints", "hints"]
    for f in report.items(of):
        row = [f.item.id, f.item.title, f.item.out_of, f.n, f.difficulty, f.discrimination, f.began, f.blank]
        figures.append([*row, f.never_ran, f.full, f.checked, f.attempts, f.most_attempts, f.hinted, f.hints])
    named: list[Row] = [["exercise", "name", "count", "students", "met on the way"]]
    named += [
        [m.exercise, m.name, len(m.students), ", ".join(m.students), len(m.met)] for m in report.mistakes(of)
    ]
    quiz: list[Row] = [["question", "mode", "choice or answer", "count", "right", "mistake", "answered", "n"]]
    for q in report.questions(of):
        about, ends = [q.question.id, q.question.mode], [q.n, q.asked]
        quiz += [
            [*about, row.answer, row.count, "yes" if row.right else "no", row.mistake, *ends]
            for row in q.rows
        ]
    alike: list[Row] = [["exercise", "student", "other student", "similarity", "tokens", "other tokens"]]
    alike += [[p.exercise, p.first, p.second, p.similarity, *p.tokens] for p in pairs]
    names = ("scores.csv", "exercises.csv", "misconceptions.csv", "quiz.csv", "pairs.csv")
    made = dict(zip(names, (scores, figures, named, quiz, alike), strict=True))
    return {name: [list(map(_cell, row)) for row in rows] for name, rows in made.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        short = round(value, 4)
        return int(short) if short.is_integer() else short
    return "" if value is None else plain(value) if isinstance(value, str) else value


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data)
    except OSError as error:
        raise CourseError(f"{path} cannot be written ({error.strerror}); choose another --output.") from None
