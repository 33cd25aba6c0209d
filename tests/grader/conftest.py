"""The toy lesson, and lessons of a few cells, for the tests of `lesson build`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from grader import build

FIXTURES = Path(__file__).parent / "fixtures" / "notebooks"


@dataclass(frozen=True)
class Toy:
    """A built lesson in a folder of its own."""

    source: Path
    course: Path

    @property
    def student(self) -> Path:
        return self.source.with_suffix(".ipynb")

    @property
    def instructor(self) -> Path:
        return self.course / "source" / self.source.stem / f"{self.source.stem}.ipynb"

    def read(self) -> nbformat.NotebookNode:
        return nbformat.read(self.student, as_version=4)

    def cell(self, name: str) -> nbformat.NotebookNode:
        return next(cell for cell in self.read().cells if cell.id == name)


@pytest.fixture(scope="session")
def _built_once(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    toy = Toy(shutil.copy(FIXTURES / "90_toy.py", folder / "90_toy.py"), folder / "course")
    build.build(toy.source, toy.course)
    return toy


@pytest.fixture
def toy(_built_once: Toy, tmp_path: Path) -> Toy:
    """The toy lesson, built and executed; each test has its own copy."""
    shutil.copytree(_built_once.source.parent, tmp_path, dirs_exist_ok=True)
    return Toy(tmp_path / "90_toy.py", tmp_path / "course")


@pytest.fixture
def lesson(tmp_path: Path) -> Callable[[str], Toy]:
    """Writes a lesson 91 from text; not yet built."""

    def write(text: str) -> Toy:
        source = tmp_path / "91_small.py"
        source.write_text(text, encoding="utf-8")
        return Toy(source, tmp_path / "course")

    return write
