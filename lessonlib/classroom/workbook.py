"""A lesson's notebook as the grader sees it: cells of a known form, the graded ones known by their name.

nbgrader calls a cell "01-sample" (its grade_id allows no dot); the student knows it as "01.sample", and its
check cell as "01.sample-check".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import course
from . import files
from .errors import ClassroomError, lesson_of

Cell = dict[str, Any]
KINDS = ("code", "markdown", "raw")


class NotebookError(ClassroomError):
    """A notebook that cannot be used; one sentence saying why and what to do."""


@dataclass(frozen=True)
class Workbook:
    """A notebook in format 4: its bytes, and what they say."""

    path: Path
    data: bytes
    book: dict[str, Any]

    @property
    def cells(self) -> list[Cell]:
        return self.book["cells"]

    def positions(self) -> dict[str, list[int]]:
        """For every grade_id in the notebook, the positions of the cells that have it."""
        found: dict[str, list[int]] = {}
        for position, cell in enumerate(self.cells):
            if (name := grade_id(cell)) is not None:
                found.setdefault(name, []).append(position)
        return found

    def graded(self) -> dict[str, Cell]:
        """The cells the grader needs, by grade_id: solutions, checks and tasks."""
        return {n: cell for cell in self.cells if (n := grade_id(cell)) is not None and is_graded(cell)}

    def solutions(self) -> dict[str, Cell]:
        """The cells in which the student writes, by grade_id."""
        return {n: cell for n, cell in self.graded().items() if cell["metadata"]["nbgrader"].get("solution")}


def shipped(name: str) -> tuple[course.Lesson, Workbook]:
    """A lesson that goes by this name, and its notebook as shipped. Raises ClassroomError."""
    lesson = lesson_of(name)
    if not lesson.available:
        raise ClassroomError(f"Lesson {lesson.number} ({lesson.title}) is not there yet; update the course.")
    return lesson, read(lesson.notebook)


def own(lesson: course.Lesson, folder: Path) -> Path:
    """The student's notebook of a lesson. Raises ClassroomError where the lessons lie as shipped."""
    if folder.resolve() == course.notebooks_dir().resolve():
        raise ClassroomError(f"{folder} holds the lessons as shipped; name the folder with yours with --dir.")
    return folder / f"{lesson.slug}.ipynb"


def read(path: Path, limit: int | None = files.LIMIT) -> Workbook:
    """A notebook of at most `limit` bytes.

    Raises FileError, or NotebookError where the file is no notebook in format 4.
    """
    return parse(path, files.read(path, limit))


def parse(path: Path, data: bytes) -> Workbook:
    """The notebook that these bytes are. Raises NotebookError, which names it by its path."""
    try:
        book = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise unreadable(path, "it is not JSON") from None
    if not isinstance(book, dict) or not isinstance(book.get("cells", []), list):
        raise unreadable(path, "it holds no cells")
    if book.get("nbformat") != 4 or type(book.get("nbformat_minor")) is not int:
        raise NotebookError(
            f"{path.name} is not in notebook format 4, the only one the grader reads; open it in JupyterLab and "
            "save it again."
        )
    if "cells" not in book or not isinstance(book.get("metadata"), dict):
        raise unreadable(path, "it holds no cells")
    for number, cell in enumerate(book["cells"], 1):
        if not _well_formed(cell):
            raise unreadable(path, f"cell {number} is damaged")
    return Workbook(path, data, book)


def grade_id(cell: Cell) -> str | None:
    """What nbgrader calls a cell; None if it is not one of nbgrader's."""
    about = cell["metadata"].get("nbgrader")
    name = about.get("grade_id") if isinstance(about, dict) else None
    return name if isinstance(name, str) else None


def is_graded(cell: Cell) -> bool:
    """Whether a cell is a solution, a check or a task."""
    about = cell["metadata"].get("nbgrader")
    return isinstance(about, dict) and any(about.get(part) for part in ("grade", "solution", "task"))


def spoken(name: str) -> str:
    """A grade_id as students know it: "01-sample" is "01.sample"."""
    return name.replace("-", ".", 1)


def text(cell: Cell) -> str:
    """The source of a cell, which the format allows to be a list of lines."""
    return "".join(cell["source"])


def dump(book: dict[str, Any]) -> bytes:
    """A notebook as Jupyter writes it."""
    try:
        return json.dumps(book, ensure_ascii=False, indent=1).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: legal in JSON, not in UTF-8
        return json.dumps(book, indent=1).encode() + b"\n"


def unreadable(path: Path, why: str) -> NotebookError:
    """The sentence about a notebook that cannot be read."""
    number = path.name[:2]
    return NotebookError(
        f"{path.name} cannot be read ({why}); repair it, or let `lesson reset {number} --whole` keep a copy of it "
        "and start the lesson again."
    )


def _well_formed(cell: Any) -> bool:
    if not isinstance(cell, dict) or cell.get("cell_type") not in KINDS:
        return False
    source, outputs = cell.get("source"), cell.get("outputs", [])
    lines = isinstance(source, list) and all(isinstance(line, str) for line in source)
    return (
        isinstance(cell.get("metadata"), dict)
        and isinstance(cell.get("id", ""), str)
        and (lines or isinstance(source, str))
        and isinstance(outputs, list)
        and all(isinstance(output, dict) for output in outputs)
        and (cell["cell_type"] != "code" or "outputs" in cell)
    )
