"""A lesson as it is handed out, and what can happen to it: for the tests of submitting and resetting."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lessonlib import course
from lessonlib.classroom import files

SLUG = "01_generation"
NAME, LOG = f"{SLUG}.ipynb", f"{SLUG}.log.jsonl"
BLANK = "def {0}(x):\n    # Your code here.\n    raise NotImplementedError()"
EXERCISES = ("sample", "generate")
GRADED = ["01-sample", "01-sample-check", "01-generate", "01-generate-check", "01-why"]
no_health_check = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def cell(name: str, source: str, kind: str = "code", grade_id: str = "", **grading: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if grade_id:
        flags = {"grade": False, "solution": False, "task": False, "locked": False} | grading
        metadata = {"deletable": False, "nbgrader": {"grade_id": grade_id, "schema_version": 3, **flags}}
    made = {"cell_type": kind, "id": name, "metadata": metadata, "source": source.splitlines(keepends=True)}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def lesson_book() -> dict[str, Any]:
    """A lesson with two checked exercises and a table to fill in."""
    cells = [cell("intro", "# Generating", "markdown"), cell("look", "print('ä')")]
    for name in EXERCISES:
        cells += [
            cell(f"text-{name}", f"Write `{name}`.", "markdown"),
            cell(f"01-{name}", BLANK.format(name), grade_id=f"01-{name}", solution=True),
            cell(
                f"01-{name}-check",
                f'check("01.{name}", {name})',
                grade_id=f"01-{name}-check",
                grade=True,
                locked=True,
                points=2,
            ),
        ]
    cells.append(
        cell("01-why", "Write here.", "markdown", grade_id="01-why", grade=True, solution=True, points=1)
    )
    cells.append(cell("end", "Done.", "markdown", grade_id="01-end", locked=True))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def at(book: dict[str, Any], grade_id: str) -> dict[str, Any]:
    """The first cell of this grade_id."""
    return next(c for c in book["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == grade_id)


def as_bytes(book: Any) -> bytes:
    return json.dumps(book, indent=1).encode()


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this folder be the course's notebooks, with one lesson in it."""
    folder.mkdir()
    (folder / NAME).write_bytes(as_bytes(lesson_book()))
    monkeypatch.setattr(course, "notebooks_dir", lambda: folder)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def one_sentence(error: Exception) -> bool:
    text = str(error)
    return "\n" not in text and text.endswith(".") and len(text) < 400


def refusing(number: int):
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def without(grade_id: str):
    def change(path: Path, book: dict[str, Any]) -> bytes:
        book["cells"].remove(at(book, grade_id))
        return as_bytes(book)

    return change


def copied(grade_id: str, **also: Any):
    """A copy as JupyterLab pastes it: the grade_id stays, the id is new."""

    def change(path: Path, book: dict[str, Any]) -> bytes:
        book["cells"].insert(1, copy.deepcopy(at(book, grade_id)) | {"id": "pasted"} | also)
        return as_bytes(book)

    return change


def turned(grade_id: str, kind: str):
    def change(path: Path, book: dict[str, Any]) -> bytes:
        at(book, grade_id).update(cell_type=kind)
        return as_bytes(book)

    return change


def version(**fields: Any):
    return lambda path, book: as_bytes(book | fields)


def damaged(**fields: Any):
    def change(path: Path, book: dict[str, Any]) -> bytes:
        book["cells"][1].update(fields)
        return as_bytes(book)

    return change


UNFIT = [
    (without("01-sample"), r"lacks the graded cell 01\.sample; `lesson reset 01\.sample`"),
    (without("01-generate-check"), r"lacks the graded cell 01\.generate-check; .*reset 01\.generate-check"),
    (without("01-why"), r"lacks the graded cell 01\.why"),
    (copied("01-sample"), r"01\.sample 2 times \(cells 2 and 5 from the top"),
    (copied("01-sample-check", source="pass"), r"01\.sample-check 2 times"),
    (
        turned("01-sample", "markdown"),
        r"markdown cell and must be a code cell: select it, press Escape and Y",
    ),
    (turned("01-sample", "raw"), "a raw cell"),
    (lambda path, book: b"", "not JSON"),
    (lambda path, book: as_bytes(book)[:-9], "not JSON"),
    (lambda path, book: b"\xff" + as_bytes(book), "not JSON"),
    (lambda path, book: b"\xef\xbb\xbf" + as_bytes(book), "not JSON"),
    (lambda path, book: b"[" * 200_000, "not JSON"),
    (lambda path, book: b"[]", "holds no cells"),
    (lambda path, book: as_bytes({k: v for k, v in book.items() if k != "cells"}), "holds no cells"),
    (version(cells={}), "holds no cells"),
    (version(nbformat=3), "format 4"),
    (version(nbformat=5), "format 4"),
    (version(nbformat_minor=None), "format 4"),
    (damaged(source=7), "cell 2 is damaged"),
    (damaged(metadata=None), "cell 2 is damaged"),
    (damaged(cell_type="heading"), "cell 2 is damaged"),
    (damaged(id=[]), "cell 2 is damaged"),
    (damaged(outputs=[{"output_type": "stream", "text": [None]}]), "nbformat stops with"),
    (damaged(outputs="none"), "cell 2 is damaged"),
    (lambda path, book: as_bytes(book) + b" " * files.LIMIT, "20 MiB"),
]


json_values = st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=3)
json_values = (
    json_values | st.lists(json_values, max_size=2) | st.dictionaries(st.text(max_size=3), json_values)
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """A notebook in which one place was replaced by something else, or dropped."""
    book = lesson_book()
    book["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["ä\n"]}]
    place: Any = book
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], dict | list) or draw(st.integers(0, 5)) == 0:
            break
        place = place[key]
    if draw(st.booleans()):
        place[key] = draw(json_values)
    else:
        del place[key]
    return book


def worked_on() -> dict[str, Any]:
    """Both exercises solved and run, with a cell of the student's own."""
    book = lesson_book()
    at(book, "01-sample").update(source="def sample(x):\n    return 'ä'", execution_count=7)
    at(book, "01-generate").update(source=["def generate(x):\n", "    return x"])
    book["cells"].insert(4, cell("own", "my_notes = '🙂 \ud800'"))
    book["metadata"] = {"kernelspec": {"name": "python3", "display_name": "mine"}}
    return book
