"""The wheel: everything a student needs, and none of the sources that hold the solutions."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def tracked(pattern: str) -> set[str]:
    """Files in the working tree, by glob, that are not editors' or builds' leftovers."""
    return {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.is_file()}


def test_the_packages_are_whole(names: set[str]) -> None:
    assert tracked("lessonlib/**/*.py") <= names
    assert tracked("grader/*.py") <= names
    assert "lessonlib/py.typed" in names


def test_pictures_and_models_travel_with_the_code(names: set[str]) -> None:
    for pattern in ("explorers/**/*.js", "explorers/**/*.css", "classroom/**/*.css", "classroom/**/*.js"):
        assert tracked(f"lessonlib/{pattern}") <= names, pattern
    assert tracked("lessonlib/zoo/*/*.safetensors") <= names
    assert tracked("lessonlib/zoo/*/*.json") <= names


def test_lessons_travel_built_and_without_their_sources(names: set[str]) -> None:
    shipped = {name for name in names if name.startswith("lessonlib/_course/")}
    assert shipped == {
        f"lessonlib/_course/{name}" for name in tracked("notebooks/*.ipynb") | tracked("quizzes/*.yaml")
    }


def test_nothing_else_travels(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not re.fullmatch(r"llm_inference_course-.*\.dist-info", top)} == {
        "lessonlib",
        "grader",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".log.jsonl")]
    assert not [name for name in names if re.match(r"grader/(course|mutants|keys|checks|hub)/", name)]


def test_an_unpacked_wheel_knows_where_its_lessons_are(wheel: Path, tmp_path: Path) -> None:
    """As installed: no checkout in sight."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "site/lessonlib/_course/notebooks").mkdir(parents=True, exist_ok=True)
    program = (
        "import lessonlib.course as c; print(c.notebooks_dir(), c.quizzes_dir(), c.checkout(), sep='\\n')"
    )
    # -S leaves out site-packages, where the checkout is installed.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path / "site",
        capture_output=True,
        text=True,
        check=True,
    )
    course = (tmp_path / "site/lessonlib/_course").resolve()
    assert done.stdout.split() == [str(course / "notebooks"), str(course / "quizzes"), "None"]


def test_the_entry_points_are_declared(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    text = archive.read(name).decode()
    assert "lesson = lessonlib.cli:main" in text
    assert "grader = grader.commands:register" in text
