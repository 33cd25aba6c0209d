"""What a student's process finds of the course: all of it can be imported, nothing of it answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from grader import library
from grader.exercises import hidden, with_mutants
from lessonlib.classroom.leaning import statements
from lessonlib.course import CourseError

from .releases import released

FORBIDDEN = ("lessonlib.engine.kv_cache", "lessonlib.engine.sampling")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return library.library("02", FORBIDDEN, tmp_path_factory.mktemp("libraries"))


def run(made: Path, code: str) -> str:
    """What code prints in a Python that sees this library and no other."""
    site = str(Path(pytest.__file__).parents[1])
    setting = f"import sys; sys.path[:] = [{str(made)!r}, *[p for p in sys.path if p != ''], {site!r}]\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", setting + code], capture_output=True, text=True, cwd=made, timeout=120
    )
    return (done.stdout + (done.stderr.strip().splitlines() or [""])[-1]).strip()


def test_the_copy_is_what_is_imported(made):
    assert run(made, "import lessonlib; print(lessonlib.__file__)").startswith(str(made))


@pytest.mark.parametrize(
    "name",
    [
        "lessonlib.engine",
        "lessonlib.classroom",
        "lessonlib.explorers",
        "lessonlib.security",
        "lessonlib.serving.app",
        "lessonlib.classroom.checks.lesson_02.toys",
        "lessonlib.classroom.checks.lesson_06.local_server",
        "lessonlib.classroom.checks.lesson_08.race",
        "lesson_agent.agent",
    ],
)
def test_everything_can_still_be_imported(made, name):
    assert run(made, f"import {name}; print('well')") == "well"


@pytest.mark.parametrize(
    "code",
    [
        "from lessonlib.engine.kv_cache import visible; visible(1, 2)",
        "from lessonlib.engine import DenseCache; DenseCache()",
        "from lessonlib.engine import kv_cache; kv_cache.anything()",
        "from lessonlib.classroom.checks.lesson_02.visible import right; right({})",
        "from lessonlib.classroom.checks.lesson_02 import VISIBLE; VISIBLE()",
        "from lessonlib.classroom.checks.lesson_02.toy_caches import ToyCache; ToyCache()",
        "from lessonlib.classroom.checks.lesson_08.runners import Cache; Cache(4, 2)",  # another lesson's tool
        "import importlib; importlib.import_module('lessonlib.engine.sampling').distribution()",
    ],
)
def test_what_is_asked_for_is_hollow(made, code):
    told = run(made, code)
    assert "it is not there while you are graded" in told and "\n" not in told


def test_no_answer_lies_in_any_file(made):
    """Neither as source nor compiled: of the hollow modules no name is left."""
    for name in [*FORBIDDEN, *library.answers("02")]:
        parts = name.split(".")
        file = made.joinpath(*parts[:-1], f"{parts[-1]}.py")
        if file.is_file():
            assert len(file.read_text()) < 600, name
        for compiled in made.joinpath(*parts[:-1], "__pycache__").glob(f"{parts[-1]}.*.pyc"):
            assert compiled.stat().st_size < 2000, compiled
    assert not list(made.rglob("grader*")) and not (made / "lessonlib" / "keys").exists()


def test_every_answer_of_the_checks_is_hollow():
    own = [name for name in library.TOOLS if name.startswith("lesson_02.")]
    kept = {f"lessonlib.classroom.checks.{name}" for name in own}
    there = {
        f"lessonlib.classroom.checks.{path.parent.name}.{path.stem}"
        for path in (library.PACKAGE / "classroom" / "checks").glob("lesson_*/*.py")
        if path.stem != "__init__"
    }
    assert kept < there and there - kept < {*library.answers("02")}


def test_a_library_is_made_once(made):
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert library.library("02", reversed(FORBIDDEN), made.parent) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == times
    assert library.library("02", (), made.parent) != made
    assert not [path for path in made.parent.iterdir() if not path.name.startswith("library-")]


def test_a_module_that_is_not_there_cannot_be_forbidden(tmp_path):
    with pytest.raises(CourseError, match=r"There is no module lessonlib\.engine\.nothing to forbid"):
        library.library("02", ["lessonlib.engine.nothing"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exercise", with_mutants())
def test_what_exercises_forbid_is_there(exercise):
    for name in hidden(exercise).forbid:
        place = library.PACKAGE.joinpath(*name.split(".")[1:])
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06", "07", "08"])
def test_what_a_lesson_imports_can_be_imported_with_its_references_hollow(number, tmp_path_factory):
    release = released(number)
    forbidden = {name for task in release.tasks for name in hidden(task.exercise).forbid}
    made = library.library(number, forbidden, tmp_path_factory.getbasetemp() / "lessons")
    lines = [
        ast.unparse(node)
        for cell in release.cells
        if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader")
        for node in statements(cell["source"])
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "lessonlib" in ast.unparse(node)
    ]
    assert run(made, "\n".join([*lines, "print('well')"])).endswith("well")
