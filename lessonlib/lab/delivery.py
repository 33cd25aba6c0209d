"""Which version of a lesson a student has: ours while they have not touched it, theirs once they have.

A newer lesson replaces a copy in which nothing is theirs, and otherwise arrives beside it as
`01_generation.new-3fa9c1d.ipynb`. What was handed out is remembered in `.lesson/shipped.json`; without that
memory every difference counts as the student's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lessonlib import files
from lessonlib.course import CourseError, notebooks_dir

STUDENT_FOLDER = "my-lessons"
STATE_FOLDER = ".lesson"

# What opening and saving changes by itself. Everything else in a notebook counts as the student's work.
_VOLATILE_NOTEBOOK = frozenset({"kernelspec", "language_info", "widgets"})
_VOLATILE_CELL = frozenset({"execution", "trusted", "collapsed", "scrolled"})

Status = Literal["new", "current", "updated", "kept", "beside"]


@dataclass(frozen=True)
class Delivery:
    """What happened to one lesson.

    status: "new" (copied), "current" (already the newest), "updated" (replaced, nothing in it was theirs),
    "kept" (edited; the newest version was offered before), "beside" (edited; the newest is now at `path`).
    """

    name: str
    status: Status
    path: Path


def student_folder(asked: Path | None = None) -> Path:
    """Where a student's lessons belong: the folder asked for, `$LESSON_HOME`, this one if it is one already,
    else `./my-lessons`. It need not exist."""
    here = Path.cwd()
    named = asked or os.environ.get("LESSON_HOME")
    if named:
        return Path(named).expanduser().resolve()
    return here if (here / STATE_FOLDER / "shipped.json").is_file() else here / STUDENT_FOLDER


def use_student_folder(asked: Path | None = None) -> Path:
    """Let `course.student_dir()` answer with the student's folder in this process, and return it."""
    folder = student_folder(asked)
    if asked is None and not folder.is_dir():
        folder = Path.cwd()
    os.environ["LESSON_HOME"] = str(folder)
    return folder


def deliver(student: Path, shipped: Path | None = None) -> list[Delivery]:
    """Bring the newest version of every shipped notebook into `student`, losing nothing of theirs.

    Raises:
        CourseError: there is nothing to deliver, or the folder cannot be written.
    """
    shipped = notebooks_dir() if shipped is None else shipped
    lessons = sorted(shipped.glob("*.ipynb"))
    if not lessons:
        raise CourseError(
            f"There are no lessons in {shipped}: run `lesson build` there, or reinstall the course."
        )
    if student.resolve() == shipped.resolve():
        raise CourseError(f"{student} holds the lessons as shipped; choose another folder with --dir.")
    try:
        (student / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
        memory = _Memory.read(student)
        done = [_deliver_one(lesson, student, memory) for lesson in lessons]
        memory.write(student)
    except OSError as error:
        problem = error.strerror or str(error)
        raise CourseError(
            f"Your lessons cannot be written to {student} ({problem}): choose another --dir."
        ) from None
    return done


def work_digest(data: bytes) -> str:
    """SHA-256 of what a person could have made in a notebook: cells, their order, text and outputs.

    Formatting of the JSON, execution counters, timings and the kernel's name do not count. Bytes that are not
    a notebook are hashed as they are.
    """
    try:
        book = json.loads(data)
        work: Any = {
            "metadata": _without(book.get("metadata", {}), _VOLATILE_NOTEBOOK),
            "cells": [_cell(cell) for cell in book["cells"]],
        }
        text = json.dumps(work, sort_keys=True).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        text = data
    return hashlib.sha256(text).hexdigest()


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": cell["cell_type"],
        "source": _joined(cell["source"]),
        "metadata": _without(cell.get("metadata", {}), _VOLATILE_CELL),
        "attachments": cell.get("attachments", {}),
        "outputs": [_output(output) for output in cell.get("outputs", [])],
    }


def _output(output: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in output.items() if key != "execution_count"}
    if "text" in kept:
        kept["text"] = _joined(kept["text"])
    if "data" in kept:
        kept["data"] = {
            kind: value if kind.endswith("json") else _joined(value) for kind, value in kept["data"].items()
        }
    return kept


def _joined(text: Any) -> Any:
    """The notebook format allows a text to be one string or a list of lines."""
    lines = isinstance(text, list) and all(isinstance(line, str) for line in text)
    return "".join(text) if lines else text


def _without(data: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in keys}


@dataclass
class _Memory:
    """What we wrote (file name -> digest) and which version of each lesson the student was last offered."""

    written: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def _path(student: Path) -> Path:
        return student / STATE_FOLDER / "shipped.json"

    @classmethod
    def read(cls, student: Path) -> _Memory:
        try:
            saved = json.loads(cls._path(student).read_text(encoding="utf-8"))
            return cls(dict(saved["written"]), dict(saved["offered"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()  # forgetting is safe: it only makes us more careful

    def write(self, student: Path) -> None:
        saved = {"written": self.written, "offered": self.offered}
        files.replace(self._path(student), json.dumps(saved, indent=1, sort_keys=True).encode())


def _deliver_one(lesson: Path, student: Path, memory: _Memory) -> Delivery:
    data = lesson.read_bytes()
    newest = work_digest(data)
    target = student / lesson.name
    beside = student / f"{lesson.stem}.new-{newest[:7]}.ipynb"
    status: Status

    if _create(target, data):
        memory.written[lesson.name], status = newest, "new"
    elif (current := _digest_of(target)) == newest:
        memory.written[lesson.name], status = newest, "current"
    elif current is not None and current == memory.written.get(lesson.name):
        files.replace(target, data)
        memory.written[lesson.name], status = newest, "updated"
    elif memory.offered.get(lesson.name) != newest and _create(beside, data):
        memory.written[beside.name], status = newest, "beside"
    else:
        status = "kept"

    memory.offered[lesson.name] = newest
    _sweep(lesson.stem, beside, student, memory)
    return Delivery(lesson.name, status, beside if status == "beside" else target)


def _sweep(stem: str, newest: Path, student: Path, memory: _Memory) -> None:
    """Remove older `.new-` copies that were never touched: they are ours, and superseded."""
    for name in [name for name in memory.written if name.startswith(f"{stem}.new-") and name != newest.name]:
        old = student / name
        if _digest_of(old) == memory.written[name]:
            old.unlink()
        del memory.written[name]


def _digest_of(path: Path) -> str | None:
    """The work digest of a file, or None if it is not a file."""
    return work_digest(path.read_bytes()) if path.is_file() else None


def _create(path: Path, data: bytes) -> bool:
    """Write a file that must not exist yet. False if something is there already."""
    with contextlib.suppress(FileExistsError):
        files.create(path, data)
        return True
    return False
