"""The one writer of a class: results into nbgrader's gradebook and its ``autograded`` folder, a submission at a time.

It does what nbgrader's ``SaveAutoGrades`` and ``AssignLatePenalties`` do, with the database opened once and one
commit for each submission (a test holds the two equal). Writing the same twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from traitlets.config import Config

from lessonlib import files
from lessonlib.course import CourseError

from . import guard, writing
from .fingerprint import digest
from .keys import Scored
from .store import Record

EXCHANGE = ("timestamp.txt", "submission_secret.txt")  # what nbgrader's exchange lays beside a submission


@dataclass(frozen=True)
class Outcome:
    """All that is written of one submission."""

    student: str
    rebuilt: guard.Rebuilt
    records: Mapping[str, Record]
    quiz: Sequence[Scored]
    when: datetime | None  # it was handed in, UTC; None where nobody wrote it down
    exchange: Mapping[str, bytes] = field(
        default_factory=dict
    )  # by file name: how feedback finds its way back


class Writer:
    """The gradebook of a course folder, for one lesson; a context manager."""

    def __init__(self, course: Path, release: guard.Release, config: Config | None = None):
        self.course, self.release = course, release
        self.config = config or Config()
        self.marks = course / ".grading" / "written" / release.slug

    def __enter__(self) -> Writer:
        """Raises CourseError where the late policy cannot be had, or the lesson is not as it was released."""
        self.late_policy = late_policy(self.config)
        self.book = Gradebook(f"sqlite:///{self.course / 'gradebook.db'}")
        if differs(self.book, self.release):
            self.book.close()
            raise CourseError(
                f"{self.release.slug} was built anew since it was released; bring the gradebook up to date with: "
                f"lesson release {self.release.slug[:2]}"
            )
        found = self.book.assignment_submissions(self.release.slug)
        self.late = {submission.student_id: submission.total_seconds_late for submission in found}
        return self

    def __exit__(self, *_: object) -> None:
        self.book.close()

    def is_written(self, outcome: Outcome) -> bool:
        """Whether the gradebook and the folder say this already."""
        if outcome.student not in self.late:
            return False
        try:
            return (
                self._mark(outcome).read_text() == self._digest(outcome) and self._notebook(outcome).is_file()
            )
        except OSError:
            return False

    def write(self, outcome: Outcome) -> None:
        """Notebook first, then the gradebook in one transaction, then the mark that says it is done."""
        book = nbformat.from_dict(outcome.rebuilt.book)
        writing.fill(book, outcome.records.values(), outcome.quiz, outcome.rebuilt, self.release)
        path = self._notebook(outcome)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, (nbformat.writes(book) + "\n").encode())
        _lay(path.with_name(f"{self.release.slug}.log.jsonl"), outcome.rebuilt.log)
        for name in EXCHANGE:
            _lay(path.with_name(name), outcome.exchange.get(name, b""))
        self._grades(outcome, book)
        self._mark(outcome).parent.mkdir(parents=True, exist_ok=True)
        files.replace(self._mark(outcome), self._digest(outcome).encode(), durable=False)

    def _grades(self, outcome: Outcome, book: nbformat.NotebookNode) -> None:
        slug, student = self.release.slug, outcome.student
        db = self.book.db
        with db.no_autoflush:
            self.book.update_or_create_student(student)
            about = {"timestamp": outcome.when.isoformat()} if outcome.when else {}
            submission = self.book.update_or_create_submission(slug, student, **about)
            notebook = next(n for n in submission.notebooks if n.name == slug)
            cells = {c.metadata["nbgrader"]["grade_id"]: c for c in book.cells if "nbgrader" in c.metadata}
            for grade in notebook.grades:
                grade.auto_score, _ = utils.determine_grade(cells[grade.name])
                grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
            for comment in notebook.comments:
                cell = cells[comment.name]
                untouched = cell.metadata.nbgrader.get("checksum") == utils.compute_checksum(cell)
                comment.auto_comment = "No response." if untouched and not utils.is_task(cell) else None
        db.flush()
        self.late[student] = submission.total_seconds_late
        notebook.late_submission_penalty = self._penalty(student, submission, notebook)
        db.commit()

    def _penalty(self, student: str, submission: Any, notebook: Any) -> float | None:
        if submission.total_seconds_late <= 0:
            return None
        assigning = self.late_policy
        penalty = assigning.plugin_inst.late_submission_penalty(
            student, notebook.score, submission.total_seconds_late
        )
        return None if penalty is None else assigning._check_late_penalty(notebook, penalty)

    def _notebook(self, outcome: Outcome) -> Path:
        return self.course / "autograded" / outcome.student / self.release.slug / f"{self.release.slug}.ipynb"

    def _mark(self, outcome: Outcome) -> Path:
        return self.marks / outcome.student

    def _digest(self, outcome: Outcome) -> str:
        return digest(
            list(outcome.records.values()),
            [vars(scored) for scored in outcome.quiz],
            [str(outcome.when), outcome.rebuilt.notes, outcome.rebuilt.unreadable],
            sorted(outcome.rebuilt.sources.items()),
            sorted((name, data.hex()) for name, data in outcome.exchange.items()),
            # a due date, an extension or the rule may have changed
            [self.late.get(outcome.student), self._policy()],
        )

    def _policy(self) -> list[str]:
        about = self.config.get("AssignLatePenalties", {})
        plugin = str(about.get("plugin_class", "LateSubmissionPlugin")).rpartition(".")[2]
        return [str(about), str(self.config.get(plugin, {}))]


def _lay(path: Path, data: bytes) -> None:
    """A file with these bytes; no file where there are none."""
    if data:
        files.replace(path, data, durable=False)  # a copy of what was handed in
    else:
        path.unlink(missing_ok=True)


def late_policy(config: Config) -> Any:
    """nbgrader's step that takes points off, with the class's own rule. Raises CourseError where it has a mistake."""
    from nbgrader.preprocessors import AssignLatePenalties

    try:
        found = AssignLatePenalties(config=config)
        found.init_plugin()
        rule = type(found.plugin_inst)
        if unknown := sorted({*config.get(rule.__name__, {})} - {*rule.class_trait_names(config=True)}):
            raise ValueError(f"{rule.__name__} has no {', '.join(unknown)}")  # traitlets would pass over it
        return found
    except Exception as error:  # a module that is not there, a value of the wrong kind, the rule's own
        why = f"{error}".splitlines()[0][:200] if f"{error}" else type(error).__name__
        raise CourseError(
            f"The late policy in nbgrader_config.py cannot be used ({why}); mend AssignLatePenalties there."
        ) from None


def differs(book: Gradebook, release: guard.Release) -> bool:
    """Whether the gradebook's cells or their points are others than those of the lesson as it is built now."""
    notebook = book.find_notebook(release.slug, release.slug)
    known = {cell.name: cell.max_score for cell in notebook.grade_cells}
    return known != cells_with_points(release)


def cells_with_points(release: guard.Release) -> dict[str, float]:
    """The graded cells of a lesson, by grade_id."""
    about = [cell["metadata"].get("nbgrader") or {} for cell in release.cells]
    return {a["grade_id"]: float(a.get("points") or 0) for a in about if a.get("grade")}


def released(course: Path, slug: str) -> bool:
    """Whether the gradebook knows the lesson and its notebook (a due date alone makes no lesson)."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        try:
            book.find_notebook(slug, slug)
        except MissingEntry:
            return False
    return True
