"""The contact sheet has every explorer in both themes, and its table the slowest one first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .contact_sheet import COLUMN, SHEET, TABLE, TIMES, main, names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two explorers in red (light) and blue (dark), one of them tall; a third in one theme only."""
    for name, height in (("b", 400), ("a", 900)):
        for theme, colour in (("light", "#ff0000"), ("dark", "#0000ff")):
            Image.new("RGB", (1200, height), colour).save(tmp_path / f"{name}-{theme}-1600.png")
    Image.new("RGB", (1200, 10)).save(tmp_path / "half-light-1600.png")
    Image.new("RGB", (800, 10)).save(tmp_path / "a-light-900.png")
    (tmp_path / TIMES).write_text(json.dumps({"b": [1.0, 2.0, 9.0], "a": [20.0, 30.0]}))
    return tmp_path


def test_every_explorer_is_there_in_both_themes(folder: Path):
    assert names(folder) == ["a", "b"] and main(folder) == 0
    with Image.open(folder / SHEET) as whole:
        pixels = whole.width * whole.height
        areas = {colour: count for count, colour in whole.getcolors(pixels) or []}
    expected = COLUMN * (round(900 * COLUMN / 1200) + round(400 * COLUMN / 1200))
    assert areas[(255, 0, 0)] == areas[(0, 0, 255)] == expected


def test_the_table_begins_with_the_slowest(folder: Path):
    main(folder)
    lines = (folder / TABLE).read_text().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["a", "25.0"], ["b", "2.0"]]
    assert "9.0 ms" in lines[2]


def test_without_screenshots_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(tmp_path) == 1
    assert "run pytest tests/browser/test_explorers.py first" in capsys.readouterr().err
