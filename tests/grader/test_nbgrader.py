"""nbgrader's own commands, with none of ours between, work on what `lesson build` writes."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from grader.keys import load_key, points_available

pytestmark = pytest.mark.slow

ANSWERS = {
    "solved": "def double(x):\n    return x * 2",
    "cheated": "def double(x):\n    return 6",
    "blank": None,
}


def nbgrader(course, *arguments):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LESSON_GRADER": "plain"}
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


POINTS = points_available("02_kv_cache")
QUIZZED = f"""# %%
from lessonlib.classroom import quiz

# %% nbgrader={{"grade": true, "grade_id": "02-quiz", "points": {POINTS:g}}}
quiz("02_kv_cache")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("02_kv_cache")
### END HIDDEN TESTS
"""


def test_a_quiz_gives_its_points(tmp_path, monkeypatch):
    """The value of the quiz cell is what nbgrader writes down: of all questions two are right."""
    from grader import build
    from lessonlib.classroom.quiz import ANSWER
    from lessonlib.classroom.store import Log

    source = tmp_path / "02_small.py"
    source.write_text(QUIZZED)
    course = tmp_path / "course"
    build.build(source, course)
    nbgrader(course, "generate_assignment", "02_small")
    released = nbformat.read(course / "release/02_small/02_small.ipynb", as_version=4)
    assert released.cells[1].source == 'quiz("02_kv_cache")'
    right = {name: entry.answer for name, entry in load_key("02_kv_cache").items()}
    for student, answers in {"two": dict([*right.items()][:2]), "none": {}, "all": right}.items():
        folder = course / "submitted" / student / "02_small"
        folder.mkdir(parents=True)
        nbformat.write(released, folder / "02_small.ipynb")
        log = Log(folder / "02_kv_cache.log.jsonl")
        for name, answer in answers.items():
            log.append(ANSWER, f"02_kv_cache.{name}", answer=answer)
    nbgrader(course, "autograde", "02_small")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        scores = {entry.student.id: entry.score for entry in book.assignment_submissions("02_small")}
    assert scores == {"two": 2, "none": 0, "all": POINTS}
