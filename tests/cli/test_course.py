"""The table of contents: names resolve, files are where they are said to be."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from lessonlib import course


@pytest.mark.parametrize(
    "name", ["01", "1", "01_generation", "01.sample", "01_generation.ipynb", "notebooks/01_generation.py"]
)
def test_a_lesson_goes_by_many_names(name: str) -> None:
    assert course.lesson(name).slug == "01_generation"


@pytest.mark.parametrize("name", ["42", "01_generatoin", "", "sample", "1_generation_x"])
def test_an_unknown_lesson_is_one_sentence_with_the_known_ones(name: str) -> None:
    with pytest.raises(course.CourseError, match="01_generation") as caught:
        course.lesson(name)
    assert "\n" not in str(caught.value)


def test_the_core_track_takes_45_minutes() -> None:
    assert sum(lesson.minutes_core for lesson in course.LESSONS) == 45


@pytest.mark.parametrize("lesson", [x for x in course.LESSONS if x.minutes_core], ids=lambda x: x.slug)
def test_each_lesson_says_how_long_its_core_track_is(lesson: course.Lesson) -> None:
    """And its text is short enough to be read in that time, at 200 words a minute, exercises left out."""
    cells = [
        cell for cell in nbformat.read(lesson.notebook, as_version=4).cells if cell.cell_type == "markdown"
    ]
    text = "\n".join(cell.source for cell in cells)
    assert re.search(rf"(●: |exercises: ){lesson.minutes_core}\b", " ".join(text.split()))
    sections = re.split(r"^(?=##? )", text, flags=re.MULTILINE)
    core = [
        re.split(r"^### Exercise", part, flags=re.MULTILINE)[0]
        for part in sections
        if part.startswith("## ●")
    ]
    words = re.findall(r"\w+", re.sub(r"```.*?```", "", "\n".join(core), flags=re.DOTALL))
    assert 0 < len(words) / 200 <= lesson.minutes_core + 0.5


def test_student_dir_is_lesson_home_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LESSON_HOME", raising=False)
    assert course.student_dir() == tmp_path
    monkeypatch.setenv("LESSON_HOME", str(tmp_path / "mine"))
    assert course.student_dir() == tmp_path / "mine"


def test_a_lesson_is_available_once_its_notebook_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "notebooks_dir", lambda: tmp_path)
    lesson = course.lesson("02")
    assert not lesson.available
    (tmp_path / "02_kv_cache.ipynb").touch()
    assert lesson.available


def test_no_lesson_is_forgotten() -> None:
    known = {lesson.slug for lesson in course.LESSONS}
    assert {file.stem for file in course.notebooks_dir().glob("*.py")} <= known
    assert {file.stem for file in course.quizzes_dir().glob("*.yaml")} <= known
