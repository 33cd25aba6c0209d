"""Releases of real lessons for the grader's tests, and submissions made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from nbformat import NotebookNode

from grader import authoring, guard
from lessonlib.course import notebooks_dir


@cache
def released(number: str) -> guard.Release:
    """A lesson as it is handed out, straight from its source."""
    [source] = notebooks_dir().glob(f"{number}_*.py")
    return guard.Release(source.stem, authoring.read_lesson(source))


def code_points(number: str) -> float:
    """What the lesson's exercises give that a machine checks."""
    return sum(task.points for task in released(number).tasks)


def solutions(number: str) -> dict[str, str]:
    """The instructor's own code of each solution cell, by grade_id."""
    return {name: cell["source"] for cell in released(number).cells if (name := guard.solution_id(cell))}


def notebook(number: str, sources: Mapping[str, str] | None = None) -> NotebookNode:
    """A student's notebook with these sources in its solution cells, the rest as handed out."""
    release = released(number)
    book = deepcopy(release.handed_out)
    for cell, original in zip(book.cells, release.cells, strict=True):
        name = guard.solution_id(original)
        if sources and name in sources:
            cell["source"] = sources[name]
        if guard.is_check(original):
            cell["source"] = "# the student's version has no hidden tests"
    return book


def as_bytes(book: Any) -> bytes:
    return json.dumps(book).encode()
