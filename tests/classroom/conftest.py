"""Every classroom test has a student's folder of its own, and nothing of it outlives the test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The student's folder."""
    folder = tmp_path / "my-lessons"
    folder.mkdir()
    monkeypatch.setenv("LESSON_HOME", str(folder))
    return folder


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]):
    """Call it for everything the classroom has shown since the last call (outside a notebook cards are
    printed)."""
    return lambda: capsys.readouterr().out
