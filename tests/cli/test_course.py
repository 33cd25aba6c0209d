"""The table of contents: names resolve, files are where they are said to be."""

from __future__ import annotations

from pathlib import Path

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
