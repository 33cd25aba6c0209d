"""Of a submission only the sources of solution cells count; everything else is the release's."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell

from grader import guard
from lessonlib.classroom import workbook
from lessonlib.classroom.exercises import exercises
from lessonlib.course import notebooks_dir

from ..engine.conftest import QUIET
from .releases import as_bytes, notebook, released, solutions

KEPT = ("cell_type", "metadata", "id")


def rebuilt(book, log=b""):
    return guard.rebuild(released("02"), as_bytes(book), log)


def frame(book):
    """All that a submission must not change."""
    return [
        {key: cell[key] for key in KEPT} | ({} if guard.solution_id(cell) else {"source": cell["source"]})
        for cell in book["cells"]
    ]


def cell_of(book, name):
    return next(cell for cell in book.cells if workbook.grade_id(cell) == name)


def test_a_solved_notebook():
    found = rebuilt(notebook("02", solutions("02")))
    assert found.sources == solutions("02") and not found.blank and not found.notes and not found.unreadable
    assert frame(found.book) == frame(released("02").handed_out)


def test_a_blank_notebook():
    found = rebuilt(notebook("02"))
    assert found.blank == {*solutions("02")} and not found.unreadable


def test_the_hidden_tests_are_in_the_rebuilt_checks():
    checks = [cell for cell in rebuilt(notebook("02")).book["cells"] if guard.is_check(cell)]
    assert len(checks) == len(exercises("02")) + 1  # and the quiz
    assert all("BEGIN HIDDEN TESTS" in cell["source"] for cell in checks)


def test_tasks_and_points_are_the_releases():
    source = (notebooks_dir() / "02_kv_cache.py").read_text(encoding="utf-8")
    said = re.findall(r'"grade_id": "02-(\w+)-check", "points": (\d+)', source)
    tasks = [(task.exercise, task.points) for task in released("02").tasks]
    assert tasks == [(f"02.{name}", int(points)) for name, points in said] and len(tasks) > 3


FORGERIES = {
    "points": lambda book: cell_of(book, "02-visible-check").metadata.nbgrader.update(points=100),
    "no check": lambda book: book.cells.remove(cell_of(book, "02-visible-check")),
    "own check": lambda book: cell_of(book, "02-visible-check").update(source="pass"),
    "unlocked": lambda book: cell_of(book, "02-visible-check").metadata.nbgrader.update(locked=False),
    "solution is graded": lambda book: cell_of(book, "02-visible").metadata.nbgrader.update(grade=True, points=9),
    "new check": lambda book: book.cells.append(
        new_code_cell(
            "pass",
            metadata={"nbgrader": {"grade": True, "grade_id": "free", "points": 50, "locked": True}},
        )
    ),
    "reordered": lambda book: Random(1).shuffle(book.cells),
    "schema": lambda book: cell_of(book, "02-visible").metadata.nbgrader.update(schema_version=99),
    "kernel": lambda book: book.metadata.update(kernelspec={"name": "evil", "display_name": "x", "language": "sh"}),
    "language": lambda book: book.metadata.update(language_info={"name": "bash"}),
    "tags": lambda book: cell_of(book, "02-visible").metadata.update(tags=["raises-exception", "remove-cell"]),
    "notes": lambda book: book.metadata.update(lesson={"others": ["evil"]}, lesson_notes=["<script>"]),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_frame_is_ignored(forgery):
    book = notebook("02", solutions("02"))
    FORGERIES[forgery](book)
    found = rebuilt(book)
    assert frame(found.book) == frame(released("02").handed_out)
    assert found.book["metadata"] == released("02").handed_out["metadata"]
    assert found.sources == solutions("02")


def test_outputs_do_not_come_along():
    book = notebook("02", solutions("02"))
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [{"output_type": "stream", "name": "stdout", "text": "passed"}]
    assert not any(cell.get("outputs") for cell in rebuilt(book).book["cells"])


def test_other_code_is_kept_aside_as_text():
    book = notebook("02", solutions("02"))
    book.cells.insert(3, new_code_cell("def helper(): return 1"))
    book.cells.insert(5, new_markdown_cell("not code"))
    found = rebuilt(book)
    assert "def helper(): return 1" in found.others and "not code" not in "".join(found.others)
    assert frame(found.book) == frame(released("02").handed_out)


def test_of_a_cell_that_is_there_twice_the_last_edited_one_counts():
    book = notebook("02", solutions("02"))
    first = cell_of(book, "02-visible")
    second, third = deepcopy(first), deepcopy(first)
    second.source = "def visible(held, new): return 2"
    third.source = released("02").stubs["02-visible"]
    book.cells += [second, third]
    found = rebuilt(book)
    assert found.sources["02-visible"] == second.source
    assert [note for note in found.notes if "02.visible is there more than once" in note]


def test_a_missing_cell_is_blank_and_said():
    book = notebook("02", solutions("02"))
    book.cells.remove(cell_of(book, "02-visible"))
    found = rebuilt(book)
    assert found.blank == {"02-visible"} and found.notes == ("02.visible is missing.",)


def test_a_solution_in_a_cell_of_another_kind_is_still_the_solution():
    book = notebook("02", solutions("02"))
    code = cell_of(book, "02-visible")
    text = new_markdown_cell(code.source, metadata=code.metadata)
    book.cells[book.cells.index(code)] = text
    found = rebuilt(book)
    assert found.sources == solutions("02") and frame(found.book) == frame(released("02").handed_out)


UNREADABLE = {
    "nothing": None,
    "empty": b"",
    "no json": b"{",
    "a list": b"[]",
    "no utf-8": b"\xff\xfe{}",
    "format 3": json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}).encode(),
    "damaged cell": json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3]}).encode(),
    "deep": b'{"nbformat":4,"nbformat_minor":5,"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "large": b" " * (guard.LIMIT + 1),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_what_cannot_be_read_is_blank_with_a_reason(damage):
    found = guard.rebuild(released("02"), UNREADABLE[damage])
    assert found.unreadable and found.blank == {*solutions("02")}
    assert frame(found.book) == frame(released("02").handed_out)


def test_a_huge_cell_is_not_read():
    book = notebook("02", solutions("02"))
    cell_of(book, "02-visible").source = "x = 1\n" * guard.CELL
    found = rebuilt(book)
    assert "02-visible" in found.blank and "02.visible has more than" in found.notes[0]


def test_a_huge_log_is_not_read():
    found = guard.rebuild(released("02"), as_bytes(notebook("02")), b"x" * (guard.LIMIT + 1))
    assert found.log == b"" and "no quiz answers" in found.notes[0]


def test_text_that_cannot_be_written_is_made_writable():
    book = json.loads(as_bytes(notebook("02", solutions("02"))))
    for cell in book["cells"]:
        if workbook.grade_id(cell) == "02-visible":
            cell["source"] = ["x = '\ud800'\n", "y = '\0'"]
    found = guard.rebuild(released("02"), json.dumps(book).encode())
    assert found.sources["02-visible"] == "x = '?'\ny = '\ufffd'"


WORDS = ["code", "markdown", "02-visible"]
FIELDS = ["cell_type", "metadata", "source", "outputs", "nbgrader", "grade_id", "solution", "id"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
)


@QUIET
@given(st.lists(JSON, max_size=4), st.binary(max_size=50))
def test_any_bytes_give_a_whole_notebook(cells, log):
    data = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode()
    found = guard.rebuild(released("02"), data, log)
    assert frame(found.book) == frame(released("02").handed_out)


def test_again_gives_what_rebuild_gave():
    book = notebook("02", {"02-visible": "def visible(held, new): ..."})
    book.cells.append(new_code_cell("helper = 1"))
    found = rebuilt(book, b"log")
    kept = {"others": list(found.others), "notes": list(found.notes), "unreadable": found.unreadable}
    assert guard.again(released("02"), found.book, kept, b"log") == found
