"""`lesson submit` in a terminal."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from lessonlib import cli, course


def test_a_lesson_is_packed_and_its_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSON_HOME", "")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my-lessons"
    folder.mkdir()
    shutil.copy(course.lesson("01").notebook, folder)
    assert cli.main(["submit", "01"]) == 0  # found in ./my-lessons
    shown = capsys.readouterr().out
    zipped = folder / "01_generation.submission-1.zip"
    assert f"Hand in: {zipped}" in shown and "Note: Still as handed out: 01.sample" in shown
    assert zipfile.ZipFile(zipped).read("01_generation.ipynb") == course.lesson("01").notebook.read_bytes()

    (folder / "01_generation.ipynb").write_text("torn")
    assert cli.main(["submit", "01", "--dir", str(folder), "--output", "mine.zip"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("lesson: 01_generation.ipynb cannot be read")
    assert len(told.err.splitlines()) == 1 and not Path("mine.zip").exists()
