"""`lesson reset` in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonlib import cli, course


def test_an_exercise_comes_back_and_the_copy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSON_HOME", str(tmp_path))
    mine = tmp_path / "01_generation.ipynb"
    shipped = course.lesson("01").notebook.read_text(encoding="utf-8")
    mine.write_text(shipped.replace("def sample(logits", "def mine(logits"), encoding="utf-8")
    assert mine.read_text(encoding="utf-8") != shipped

    assert cli.main(["reset", "01.sample"]) == 0
    backup = tmp_path / "01_generation.before-reset-1.ipynb"
    assert f"Your notebook as it was: {backup}\n" in capsys.readouterr().out
    assert "def mine(logits" in backup.read_text(encoding="utf-8")
    assert mine.read_text(encoding="utf-8") == shipped

    assert cli.main(["reset", "01.sample"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert cli.main(["reset", "01"]) == 1
    assert "--whole" in capsys.readouterr().err
    mine.unlink()
    assert cli.main(["reset", "01", "--whole"]) == 0
    assert mine.read_text(encoding="utf-8") == shipped
