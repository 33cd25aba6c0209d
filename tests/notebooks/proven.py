"""The lessons under proof: every `notebooks/NN_slug.py` of the course, and the toy lesson, freshly built.

The toy keeps the proofs honest: it holds one cell of every kind, whatever the course's lessons happen to use.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

from grader import build

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "grader" / "fixtures" / "notebooks" / "90_toy.py"
SOURCES = {path.stem: path for path in [*sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")), TOY]}


@dataclass(frozen=True)
class Lesson:
    """A lesson's source and the student notebook that is committed with it."""

    source: Path

    @property
    def committed(self) -> Path:
        return self.source.with_suffix(".ipynb")

    def read(self) -> nbformat.NotebookNode:
        """The committed student notebook."""
        assert self.committed.is_file(), (
            f"{self.committed.name} is missing: run `lesson build {self.source.stem}`."
        )
        return nbformat.read(self.committed, as_version=4)

    @cached_property
    def rebuilt(self) -> nbformat.NotebookNode:
        """The student notebook as the source builds it now, executed; once for all tests that ask."""
        return build.compose(self.source, self.read(), execute=True)[1]


def built_toy(folder: Path) -> Lesson:
    """The toy lesson, built in `folder`."""
    toy = Lesson(Path(shutil.copy(TOY, folder)))
    build.build(toy.source, folder / "course")
    return toy
