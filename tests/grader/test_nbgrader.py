"""nbgrader's own commands work on what `lesson build` writes."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

ANSWERS = {
    "solved": "def double(x):\n    return x * 2",
    "cheated": "def double(x):\n    return 6",
    "blank": None,
}


def nbgrader(course, *arguments):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def submit(toy, student, answer):
    released = nbformat.read(toy.course / "release/90_toy/90_toy.ipynb", as_version=4)
    for cell in released.cells:
        if cell.id == "90-double" and answer:
            cell.source = answer
    folder = toy.course / "submitted" / student / "90_toy"
    folder.mkdir(parents=True)
    nbformat.write(released, folder / "90_toy.ipynb")


def gradebook(course, monkeypatch):
    """{student: (score, highest score)}; in this process nobody but us sees to it that alembic is found."""
    from nbgrader.api import Gradebook

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        entries = book.assignment_submissions("90_toy")
        return {entry.student.id: (entry.score, entry.max_score) for entry in entries}


def test_release_autograde_and_feedback(toy, monkeypatch):
    nbgrader(toy.course, "generate_assignment", "90_toy")
    released = nbformat.read(toy.course / "release/90_toy/90_toy.ipynb", as_version=4)
    ours = [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in toy.read().cells]
    assert [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in released.cells] == ours

    for student, answer in ANSWERS.items():
        submit(toy, student, answer)
    nbgrader(toy.course, "autograde", "90_toy")
    scores = gradebook(toy.course, monkeypatch)
    assert scores == {"solved": (3, 5), "cheated": (0, 5), "blank": (0, 5)}  # 2 points are graded by hand

    nbgrader(toy.course, "generate_feedback", "90_toy")
    for student in ANSWERS:
        [page] = (toy.course / "feedback" / student).rglob("*.html")
        text = html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))
        assert "90.double" in text  # the visible check is there
        assert "double(-21)" not in text and "HIDDEN TESTS" not in text
