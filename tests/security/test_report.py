"""The committed figures: README.md says what was measured, of the model that is shipped, and the aims are met."""

from __future__ import annotations

import json
import operator
import re

import pytest

from lessonlib.security import evaluate
from lessonlib.security.evaluation import report
from lessonlib.security.validator import shipped

PARTS = json.loads(report.FIGURES.read_text())["parts"]
COMPARE = {">=": operator.ge, "<=": operator.le}


def holds(value: float, aim: str) -> bool:
    if between := re.fullmatch(r"([\d.]+) to ([\d.]+)", aim):
        return float(between[1]) <= value <= float(between[2])
    sign, bound = aim.split()
    return COMPARE[sign](value, float(bound))


def test_every_part_was_measured_and_the_page_shows_it():
    assert set(PARTS) == set(evaluate.FIGURES)
    page = report.PAGE.read_text("utf-8")
    assert page == report.filled(page, report.table(PARTS))
    assert page.count("\n| ") > len(report.LINES)


def test_the_figures_are_those_of_the_shipped_model():
    again = "run python -m lessonlib.security.evaluate validator --save"
    assert PARTS["validator"]["model"] == shipped().meta["data"], again


@pytest.mark.parametrize("line", [line for line in report.LINES if line.aim], ids=lambda line: line.label)
def test_the_aims_of_the_page_are_met(line):
    assert holds(report.cell(line, PARTS[line.part]["rows"]), line.aim)


def test_the_aims_of_the_evaluation_are_met():
    aims = [row for part in PARTS.values() for row in part["rows"] if row.get("target")]
    assert len(aims) > 15
    assert [row["what"] for row in aims if not holds(row["value"], row["target"])] == []


def test_the_theft_of_the_hidden_size_works_only_without_the_policy():
    rows = {row["policy"]: row for row in PARTS["surface"]["rows"]}
    assert rows["off"]["recovered"] == rows["off"]["hidden_size"]
    assert rows["default"]["recovered"] is None


def test_saving_replaces_what_was_measured_and_keeps_the_rest(tmp_path):
    figures, page = tmp_path / "figures.json", tmp_path / "README.md"
    page.write_text(f"Before.\n{report.BEGIN}\nold\n{report.END}\nAfter.\n")
    rows = {name: part["rows"] for name, part in PARTS.items()}
    report.save({"output": rows["output"], "timing": rows["timing"]}, figures, page)
    changed = [row | {"value": 0.123456} for row in rows["output"]]
    report.save({"output": changed}, figures, page)
    told = page.read_text()
    assert told.startswith(f"Before.\n{report.BEGIN}\n|") and told.endswith(f"|\n{report.END}\nAfter.\n")
    assert "| 0.1235 |" in told and "old" not in told and "| timing |" in told
    assert json.loads(figures.read_text())["parts"]["timing"]["rows"] == rows["timing"]


def test_a_line_that_means_no_row_or_two_is_an_error():
    line = report.Line("x", "output", {"what": "a"})
    for rows in ([], [{"what": "a", "value": 1}] * 2):
        with pytest.raises(LookupError, match=r"rows of 'output' are"):
            report.cell(line, rows)
