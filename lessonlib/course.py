"""The course's table of contents, and where its files are.

A leaf: it imports nothing of ours and nothing heavy, so anyone may ask it. The same questions have the same
answers in a checkout (`notebooks/` beside `pyproject.toml`) and in an installed wheel (`lessonlib/_course/`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class CourseError(LookupError):
    """Something the user asked for cannot be done; the message is one sentence that says what to do.

    The command line shows the sentence and no traceback. Other rooms derive their own errors from it.
    """


@dataclass(frozen=True)
class Lesson:
    """One lesson: its number ("01"), file stem, title, and how long each track takes, in minutes."""

    number: str
    slug: str
    title: str
    minutes_core: int  # 0: not part of the 45-minute core track
    minutes_full: int

    @property
    def notebook(self) -> Path:
        """The notebook as shipped to students (it may not exist yet: see `available`)."""
        return notebooks_dir() / f"{self.slug}.ipynb"

    @property
    def quiz(self) -> Path:
        """The question bank of this lesson (not every lesson has one)."""
        return quizzes_dir() / f"{self.slug}.yaml"

    @property
    def available(self) -> bool:
        """True once the lesson's notebook has been written and built."""
        return self.notebook.is_file()


LESSONS: tuple[Lesson, ...] = (
    Lesson("00", "00_start_here", "Start here", 2, 15),
    Lesson("01", "01_generation", "One token at a time", 6, 60),
    Lesson("02", "02_kv_cache", "The KV cache", 6, 60),
    Lesson("03", "03_quantization", "Quantization", 8, 60),
    Lesson("04", "04_batching", "Batching", 6, 60),
    Lesson("05", "05_speculative", "Speculative decoding", 7, 60),
    Lesson("06", "06_deployment", "Deployment", 7, 60),
    Lesson("07", "07_security", "Security", 3, 60),
    Lesson("08", "08_capstone", "Capstone", 0, 120),
)


def lesson(name: str) -> Lesson:
    """Find a lesson by number ("01" or "1"), slug ("01_generation"), exercise ("01.sample") or file name.

    Raises:
        CourseError: no lesson goes by that name.
    """
    asked = Path(name.strip()).name
    for suffix in (".ipynb", ".py", ".yaml"):
        asked = asked.removesuffix(suffix)
    number = asked.split(".")[0].split("_")[0]
    number = number.zfill(2) if number.isdigit() else number
    for item in LESSONS:
        if item.number == number and (asked == item.slug or "_" not in asked.split(".")[0]):
            return item
    known = ", ".join(item.slug for item in LESSONS)
    raise CourseError(f"There is no lesson {name!r}; the lessons are {known}.")


def notebooks_dir() -> Path:
    """The folder of the shipped notebooks (students work on a copy: see `student_dir`)."""
    return _files() / "notebooks"


def quizzes_dir() -> Path:
    """The folder of the question banks."""
    return _files() / "quizzes"


def student_dir() -> Path:
    """Where this student's work lives: `$LESSON_HOME` (`lesson lab` sets it), else the current folder."""
    home = os.environ.get("LESSON_HOME")
    return Path(home).expanduser() if home else Path.cwd()


def checkout() -> Path | None:
    """The root of the repository when we run from one, else None (an installed wheel)."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and not _packed().is_dir() else None


def _packed() -> Path:
    return Path(__file__).resolve().parent / "_course"


def _files() -> Path:
    return checkout() or _packed()
