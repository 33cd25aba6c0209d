"""Starts an exercise or a lesson again: what was shipped comes back, what the student had is kept beside it.

    01_generation.before-reset-1.ipynb     the notebook as it was before the first reset

The log is left alone: answers, attempts and predictions stay.
"""

from __future__ import annotations

import copy
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, workbook
from .errors import ClassroomError, lesson_of
from .workbook import Cell, Workbook, spoken

_NAMED = re.compile(r"(\d{1,2})[.](.+)")


class ResetError(ClassroomError):
    """Something that cannot be reset; one sentence saying why and what to do."""


@dataclass(frozen=True)
class Reset:
    """What was done. ``what``: the cell ("01.sample") or lesson; ``backup``: None if there was nothing to keep.

    changed: False when everything was as shipped already; copies: how many further cells of that name stay in
    the notebook, no longer graded.
    """

    what: str
    notebook: Path
    backup: Path | None = None
    changed: bool = True
    copies: int = 0


def reset_cell(name: str, folder: Path) -> Reset:
    """Bring back one graded cell ("01.sample", or its check: "01.sample-check") as shipped.

    Raises ClassroomError; the notebook is untouched then.
    """
    lesson, original = workbook.shipped(name)
    wanted = _grade_id(name, original)
    path = workbook.own(lesson, folder)
    if not os.path.lexists(path):
        raise ResetError(
            f"There is no {path.name} in {folder}; name the folder with --dir, or let `lesson reset "
            f"{lesson.number} --whole` put the lesson there."
        )
    mine = workbook.read(path, limit=None)  # too large to hand in is not too large to start again
    book, copies = restored(mine, original, wanted)
    if book == mine.book:
        return Reset(spoken(wanted), path, changed=False)
    backup = _keep(path, mine.data)
    _put(path, mine.data, workbook.dump(book))
    return Reset(spoken(wanted), path, backup, copies=copies)


def reset_lesson(name: str, folder: Path) -> Reset:
    """Bring back a whole lesson ("01") as shipped. Raises ClassroomError; the notebook is untouched then."""
    lesson, original = workbook.shipped(name)
    if _NAMED.fullmatch(name.strip()):
        raise ResetError(f"{name} is one exercise: leave out --whole, or name the lesson, {lesson.number}.")
    path = workbook.own(lesson, folder)
    if not os.path.lexists(path):
        try:
            files.create(path, original.data)
        except FileExistsError:
            raise _changed(path) from None
        return Reset(lesson.slug, path)
    had = files.read(path, limit=None)
    if had == original.data:
        return Reset(lesson.slug, path, changed=False)
    backup = _keep(path, had)
    _put(path, had, original.data)
    return Reset(lesson.slug, path, backup)


def restored(mine: Workbook, original: Workbook, wanted: str) -> tuple[dict[str, Any], int]:
    """The student's notebook with one cell as shipped, and how many copies of it were made ordinary cells.

    A cell that says what it said when shipped stays as it is, outputs included.
    """
    book = copy.deepcopy(mine.book)
    cells: list[Cell] = book["cells"]
    shipped = original.graded()[wanted]
    found = mine.positions().get(wanted) or [
        n for n, cell in enumerate(cells) if cell.get("id") == wanted and workbook.grade_id(cell) is None
    ]
    # A pasted copy has its grade_id and an id of its own: the cell with the shipped id is the first one.
    found.sort(key=lambda n: cells[n].get("id") != shipped.get("id"))
    for n in found[1:]:
        del cells[n]["metadata"]["nbgrader"]
        cells[n]["metadata"].pop("deletable", None)
        cells[n]["metadata"].pop("editable", None)
    if found and _as_shipped(cells[found[0]], shipped):
        return book, len(found) - 1

    fresh = copy.deepcopy(shipped)
    if found:
        was = cells[found[0]]
        cells[found[0]] = fresh
    else:
        was = shipped
        cells.insert(_place(mine, original, wanted), fresh)
    _identify(fresh, was.get("id"), book)
    return book, max(0, len(found) - 1)


def _identify(fresh: Cell, wish: str | None, book: dict[str, Any]) -> None:
    """Give the cell an id that the notebook's format allows and no other cell has."""
    if book["nbformat_minor"] < 5:
        fresh.pop("id", None)
        return
    taken = {cell.get("id") for cell in book["cells"] if cell is not fresh}
    fresh["id"] = wish if wish and wish not in taken else secrets.token_hex(4)


def _as_shipped(cell: Cell, shipped: Cell) -> bool:
    same = all(cell["metadata"].get(key) == shipped["metadata"].get(key) for key in ("nbgrader", "tags"))
    return (
        same and cell["cell_type"] == shipped["cell_type"] and workbook.text(cell) == workbook.text(shipped)
    )


def _place(mine: Workbook, original: Workbook, wanted: str) -> int:
    """Where a missing cell belongs: after the nearest cell above it that the student still has."""
    here = {_key(cell): position for position, cell in enumerate(mine.cells)}
    place = 0
    for cell in original.cells:
        if workbook.grade_id(cell) == wanted:
            break
        place = here[_key(cell)] + 1 if _key(cell) in here else place
    return place


def _key(cell: Cell) -> object:
    return workbook.grade_id(cell) or cell.get("id") or workbook.text(cell)


def _grade_id(name: str, original: Workbook) -> str:
    """The grade_id in the shipped notebook that a student's words mean."""
    named = _NAMED.fullmatch(name.strip())
    known = [spoken(cell) for cell in original.solutions()]
    number = lesson_of(name).number
    if named is None:
        if not known:
            raise ResetError(
                f"Lesson {number} has no exercises; `lesson reset {number} --whole` restores it all."
            )
        raise ResetError(
            f"Say which exercise ({', '.join(known)}), or add --whole to start the whole lesson {number} again."
        )
    wanted = f"{number}-{named[2]}"
    if wanted not in original.graded():
        has = f"it has {', '.join(known)}" if known else "it has no exercises"
        raise ResetError(f"There is no exercise {name} in lesson {number}; {has}.")
    return wanted


def _keep(path: Path, data: bytes) -> Path:
    return files.create_numbered(path.parent, f"{path.stem}.before-reset", path.suffix, data)


def _put(path: Path, had: bytes, data: bytes) -> None:
    """Replace the notebook, unless it is no longer the one that was kept: JupyterLab may be saving it."""
    if files.read(path, limit=None) != had:
        raise _changed(path)
    files.replace(path, data)


def _changed(path: Path) -> ResetError:
    return ResetError(f"{path.name} was saved by another program just now, so nothing was reset; try again.")
