"""The figures' command: what it prints, and what it says to a wrong name."""

from __future__ import annotations

import pytest

from lessonlib.security import evaluate


def test_a_table_tells_each_row_apart_and_what_is_common_once():
    rows = [{"what": "a", "value": 0.123456, "data": "own"}, {"what": "bb", "value": None, "data": "own"}]
    assert evaluate.table(rows).splitlines() == ["what  value", "a     0.1235", "bb", "data: own"]


def test_only_what_is_asked_for_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "FIGURES", {"one": lambda: [{"x": 1}], "two": lambda: 1 / 0})
    evaluate.main(["one"])
    assert "one (0 s)\nx\n1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'three' is not evaluated here; choose from one, two"):
        evaluate.main(["three"])
