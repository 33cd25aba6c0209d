"""`lesson progress` in a terminal, after work in the notebook and in the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonlib import cli
from lessonlib.classroom import hint, quiz


def test_progress_is_that_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("LESSON_HOME", str(tmp_path / "one"))
    hint("01.sample")
    quiz("01", {"slower": "d"})
    capsys.readouterr()
    shown = {}
    for folder in ("one", "two"):
        assert cli.main(["progress", "--dir", str(tmp_path / folder)]) == 0
        shown[folder] = capsys.readouterr().out
    row = next(line for line in shown["one"].splitlines() if line.startswith("01 One token at a time"))
    assert row.split()[-5:] == ["1/13", "0", "1", "1", "min"]
    assert "All together" in shown["one"] and "1/13" not in shown["two"]
