"""What of a submission is taken: the sources of its solution cells, its other code, the quiz answers. Nothing else.

Cells, their order, metadata, tags, tests and points come from the release. The student's other code cells are kept
aside as mere text: an exercise may lean on a helper function in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.classroom import workbook
from lessonlib.classroom.errors import ClassroomError
from lessonlib.course import CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode

LIMIT = 20 * 2**20  # bytes of a notebook or a log
CELL = 200_000  # characters of one cell
OTHERS = 1_000_000  # characters of all other cells

Cell = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One exercise as it was handed out. ``cell`` and ``check`` are grade_ids; the check cell carries the points."""

    exercise: str
    cell: str
    check: str
    points: float


@dataclass(frozen=True)
class Release:
    """A lesson as it was handed out, with its hidden tests: the instructor's notebook, which nbgrader calls source."""

    slug: str
    book: NotebookNode

    @property
    def cells(self) -> list[Cell]:
        return self.book["cells"]

    @cached_property
    def handed_out(self) -> dict[str, Any]:
        """The student's version, as nbgrader makes it, with the hidden tests left in the check cells."""
        from .release import student_version

        book: dict[str, Any] = student_version(self.book)
        for cell, full in zip(book["cells"], self.cells, strict=True):
            if is_check(full):
                cell["source"] = workbook.text(full)
        return book

    @cached_property
    def stubs(self) -> dict[str, str]:
        """What a student found in each solution cell."""
        return {n: workbook.text(cell) for cell in self.handed_out["cells"] if (n := solution_id(cell))}

    @property
    def tasks(self) -> list[Task]:
        """The exercises that probes can grade, in order."""
        known = {name: cell for cell in self.cells if (name := workbook.grade_id(cell))}
        return [
            Task(
                workbook.spoken(name.removesuffix("-check")), name.removesuffix("-check"), name, _points(cell)
            )
            for name, cell in known.items()
            if is_check(cell) and name.removesuffix("-check") in known and not name.endswith("-quiz")
        ]

    @property
    def quiz(self) -> Cell | None:
        """The graded quiz cell, if the lesson has one."""
        return next(
            (c for c in self.cells if is_check(c) and str(workbook.grade_id(c)).endswith("-quiz")), None
        )


@dataclass(frozen=True)
class Rebuilt:
    """A submission put into the release's frame.

    ``sources``: of each solution cell, what the student wrote. ``blank``: those that say what was handed out.
    ``others``: the student's other code. ``log``: bytes of the side file. ``notes``: sentences about what was odd.
    ``unreadable``: why nothing could be taken, or None.
    """

    book: dict[str, Any]
    sources: Mapping[str, str]
    blank: frozenset[str]
    others: tuple[str, ...]
    log: bytes
    notes: tuple[str, ...]
    unreadable: str | None = None


def load(path: Path) -> Release:
    """The release in nbgrader's ``source`` folder. Raises CourseError where it is not there."""
    import nbformat

    try:
        book = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (OSError, ValueError):
        raise CourseError(
            f"There is no lesson at {path}; build it with `lesson build {path.stem[:2]}`."
        ) from None
    return Release(path.stem, book)


def rebuild(release: Release, notebook: bytes | None, log: bytes = b"") -> Rebuilt:
    """Never raises, whatever the bytes are: what cannot be read counts as blank, with the reason."""
    book = deepcopy(release.handed_out)
    found = _Found()
    unreadable = None
    try:
        if notebook is None:
            raise workbook.NotebookError("No notebook was handed in.")
        if len(notebook) > LIMIT:
            raise workbook.NotebookError(f"The notebook is larger than {LIMIT // 2**20} MiB.")
        found.read(workbook.parse(Path(f"{release.slug}.ipynb"), notebook), release)
    except ClassroomError as error:
        unreadable = str(error)
    except RecursionError:
        unreadable = "The notebook is nested too deep to be read."
    if len(log) > LIMIT:
        found.notes.append(f"The log is larger than {LIMIT // 2**20} MiB and was not read: no quiz answers.")
        log = b""
    for cell in book["cells"]:
        if (name := solution_id(cell)) is not None:
            cell["source"] = found.sources.get(name, release.stubs[name])
    return again(release, book, {"others": found.others, "notes": found.notes, "unreadable": unreadable}, log)


def again(release: Release, book: dict[str, Any], kept: Mapping[str, Any], log: bytes) -> Rebuilt:
    """What ``rebuild`` gave, from its notebook and what was kept beside it."""
    sources = {name: workbook.text(cell) for cell in book["cells"] if (name := solution_id(cell))}
    blank = frozenset(name for name, text in sources.items() if text.split() == release.stubs[name].split())
    return Rebuilt(book, sources, blank, tuple(kept["others"]), log, tuple(kept["notes"]), kept["unreadable"])


@dataclass
class _Found:
    sources: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, mine: workbook.Workbook, release: Release) -> None:
        """Sort a notebook's cells. Of a cell that is there twice the last one counts that says anything new."""
        known = {name for cell in release.cells if (name := workbook.grade_id(cell))}
        room = OTHERS
        for cell in mine.cells:
            name, text = workbook.grade_id(cell), clean(workbook.text(cell))
            if name in release.stubs:
                told = workbook.spoken(name)
                if len(text) > CELL:
                    self.notes.append(f"{told} has more than {CELL:,} characters and was not read.")
                    continue
                if name in self.sources:
                    self.notes.append(f"{told} is there more than once; the last one counts that was edited.")
                    if text.split() == release.stubs[name].split():
                        continue
                self.sources[name] = text
            elif name not in known and cell["cell_type"] == "code" and len(text) <= room:
                room -= len(text)
                self.others.append(text)
        for name in sorted({*release.stubs} - {*self.sources}):
            self.notes.append(f"{workbook.spoken(name)} is missing.")


def is_check(cell: Cell) -> bool:
    """Whether this is a cell that gives points by itself: code, graded, not the student's."""
    about = cell["metadata"].get("nbgrader") or {}
    return bool(cell["cell_type"] == "code" and about.get("grade") and not about.get("solution"))


def solution_id(cell: Cell) -> str | None:
    """The grade_id of a cell in which the student writes."""
    about = cell["metadata"].get("nbgrader") or {}
    return about.get("grade_id") if about.get("solution") else None


def clean(text: str) -> str:
    """Text that every program can write: no halves of surrogate pairs, no NUL."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _points(cell: Cell) -> float:
    return float(cell["metadata"]["nbgrader"].get("points") or 0)
