"""Honest work gets exactly its due, however it is written."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from grader import grading, guard
from grader.grading import Budget
from lessonlib.classroom import leaning, workbook

from .hostile.cells import RIGHT
from .releases import as_bytes, notebook, released, solutions

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.slow]

LIMITER = "07-TokenLimiter"
CELL = "07-choose_threshold"
EXERCISES = ("07.choose_threshold", "07.TokenLimiter")
FULL = {"07.choose_threshold": 3.0, "07.TokenLimiter": 4.0}

HELPED = """
def choose_threshold(benign, attacks, budget):
    fits = [line for line in [*benign, *attacks] if share(benign, line) <= budget]
    line = min(fits, default=LAST)
    return {"threshold": line, "recall": share(attacks, line)}
"""
HELPER = "LAST = float('inf')\n\ndef share(scores, line):\n    return sum(s >= line for s in scores) / max(len(scores), 1)"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def book_of(source: str = RIGHT):
    return notebook("07", {CELL: source, LIMITER: solutions("07")[LIMITER]})


def due(book, cache: Path, budget: Budget | None = None) -> tuple[dict[str, float], grading.Result]:
    rebuilt = guard.rebuild(released("07"), as_bytes(book))
    result = grading.grade(released("07"), rebuilt, 5, cache, budget, only=EXERCISES)
    return {one.task.exercise: one.points for one in result.exercises}, result


def position(book, name: str) -> int:
    return next(n for n, cell in enumerate(book.cells) if workbook.grade_id(cell) == name)


SOURCES = {
    "plainly": RIGHT,
    "with a warning": "import warnings; warnings.warn('old')\nimport sys; print('careful', file=sys.stderr)\n" + RIGHT,
    "with much printing": "print('look ' * 50_000)\n" + RIGHT.replace("    fits", "    print(benign)\n    fits"),
    "slowly": "import time; time.sleep(2)\n" + RIGHT.replace("    fits", "    time.sleep(0.05)\n    fits"),
    "with magics": "%time x = 1\n" + RIGHT + "\n%timeit -n1 -r1 1 + 1",
    "with await": "import asyncio\nawait asyncio.sleep(0)\n" + RIGHT,
    "with NumPy": RIGHT.replace('"recall": flagged', '"recall": __import__("numpy").float64(1) * flagged'),
    "with a class": (
        "from dataclasses import dataclass\n@dataclass\nclass Line:\n    at: float\n    def passes(self, scores):\n"
        "        return sum(s >= self.at for s in scores) / max(len(scores), 1)\n"
        "def choose_threshold(benign, attacks, budget):\n"
        "    lines = [Line(x) for x in [*benign, *attacks]]\n"
        "    at = min((line.at for line in lines if line.passes(benign) <= budget), default=float('inf'))\n"
        "    return {'threshold': at, 'recall': Line(at).passes(attacks)}"
    ),
    "with a cache": "from functools import cache\nseen = {}\n" + RIGHT.replace("    fits", "    seen[len(benign)] = budget\n    fits"),
    "with types and defaults": RIGHT.replace("(benign, attacks, budget)", "(benign: list, attacks: list, budget: float = 0.1) -> dict"),
    "as a lambda": RIGHT.replace("def choose_threshold", "def f") + "\nchoose_threshold = lambda *a: f(*a)",
    "with a figure": "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()\n" + RIGHT,
    "with an unused import of the course": "from lessonlib import LLM\nfrom lessonlib.security import InputValidator\n" + RIGHT,
    "with a quarrel with itself": RIGHT + "\nassert choose_threshold([0.1], [0.9], 0.5)['recall'] == 1",
}  # fmt: skip


@pytest.mark.parametrize("way", SOURCES)
def test_right_however_it_is_written(way, cache):
    points, result = due(book_of(SOURCES[way]), cache)
    assert points == FULL, [one.report.failure or one.why for one in result.exercises]


def with_cell(where: int, cell) -> Callable:
    def change(book):
        book.cells.insert(where, cell)

    return change


def split(book):
    """JupyterLab's split: both halves keep the cell's name."""
    n = position(book, CELL)
    first, second = book.cells[n], new_code_cell(HELPED, metadata=book.cells[n].metadata)
    first.source = HELPER
    book.cells.insert(n + 1, second)


def as_text(book):
    n = position(book, CELL)
    book.cells[n] = new_markdown_cell(RIGHT, metadata=book.cells[n].metadata)


BOOKS = {
    "a helper in a cell before": (HELPED, with_cell(2, new_code_cell(HELPER))),
    "a helper in a cell after": (HELPED, with_cell(60, new_code_cell(HELPER))),
    "cells that fail": (RIGHT, with_cell(1, new_code_cell("1 / 0"))),
    "a cell that is no Python": (RIGHT, with_cell(1, new_code_cell("this is not python ("))),
    "a cell with a shell command": (RIGHT, with_cell(1, new_code_cell("!ls\n%cd /\n%%bash\necho"))),
    "an edited walk-through": (RIGHT, lambda book: book.cells[1].update(source="import torch\nprint('mine')")),
    "a solution in a Markdown cell": ("x", as_text),
    "a name of its own that fails elsewhere": (f"mine = 1\nprint(mine)\n{RIGHT}", with_cell(60, new_code_cell("mine = 1 / 0"))),
    "a name that is used and fails, needlessly": (
        RIGHT + "\ntry:\n    print(mine)\nexcept NameError:\n    pass",
        with_cell(60, new_code_cell("mine = 1 / 0")),
    ),
    "many cells": (RIGHT, lambda book: book.cells.extend(new_code_cell(f"n{i} = {i}") for i in range(800))),
}  # fmt: skip


@pytest.mark.parametrize("way", BOOKS)
def test_right_whatever_lies_around_it(way, cache):
    source, change = BOOKS[way]
    book = book_of(source)
    change(book)
    points, result = due(book, cache)
    assert points == FULL, [one.report.failure or one.why for one in result.exercises]


def test_one_exercise_may_use_anothers_function(cache):
    """As in lesson 02, where the attention may use the mask."""
    sources = {
        CELL: RIGHT,
        LIMITER: solutions("07")[LIMITER].replace(
            "class TokenLimiter", "choose_threshold([1], [1], 1)\nclass TokenLimiter"
        ),
    }
    assert due(notebook("07", sources), cache)[0] == FULL


def test_half_right(cache):
    points, result = due(book_of("def choose_threshold(benign, attacks, budget):\n    found = {}"), cache)
    assert points == {**FULL, "07.choose_threshold": 0.0}
    assert result.exercises[0].report.name == "returns nothing"


def test_one_exercise_does_not_pay_for_another_that_spoils_things(cache):
    spoils = "import builtins\nbuiltins.sum = builtins.max = builtins.len = None\n" + RIGHT
    points, _ = due(book_of(spoils), cache)
    assert points == {**FULL, "07.choose_threshold": 0.0}


def test_a_helper_that_is_missing_is_named(cache):
    _, result = due(book_of(HELPED), cache)
    error = result.exercises[0].report.failure.observation.error
    assert error.type == "NameError" and error.message.split("'")[1] in ("LAST", "share")


def test_more_time_for_one_student(cache):
    slow = RIGHT.replace("    fits", "    import time; time.sleep(0.2)\n    fits")
    tight = Budget(probes=1.0)
    assert due(book_of(slow), cache, tight)[0]["07.choose_threshold"] == 0
    assert due(book_of(slow), cache, tight.times(20))[0] == FULL


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06", "07", "08"])
def test_the_reference_solutions_earn_every_point(number, cache):
    release = released(number)
    result = grading.grade(
        release, guard.rebuild(release, as_bytes(notebook(number, solutions(number)))), 3, cache
    )
    lost = [(one.task.exercise, one.report.name, one.why) for one in result.exercises if not one.points]
    assert not lost and len(result.exercises) == len(release.tasks)


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06", "07", "08"])
def test_who_tries_things_out_in_the_cell_may_call_them_as_the_lesson_does(number, cache):
    """``for i in …``, ``answer = …``: names of walk-through cells that cannot run where nobody looks."""
    release, right = released(number), solutions(number)
    plain = [
        workbook.text(c) for c in release.cells if c.cell_type == "code" and not c.metadata.get("nbgrader")
    ]
    bound = {
        name
        for text in plain
        for code in leaning.statements(text)
        for name in leaning.names(ast.unparse(code))[0]
    }
    used = {
        name
        for text in right.values()
        for code in leaning.statements(text)
        for part in leaning.names(ast.unparse(code))
        for name in part
    }
    names = sorted(name for name in bound - used if not name.startswith("_"))
    tried = f"\nfor {', '.join(names)}, *_ in [range({len(names) + 1})]:\n    print({', '.join(names)})"
    sources = {cell: source + tried for cell, source in right.items()}
    result = grading.grade(release, guard.rebuild(release, as_bytes(notebook(number, sources))), 3, cache)
    lost = [(one.task.exercise, one.report.name, one.why) for one in result.exercises if not one.points]
    assert not lost and len(names) > 10
