"""The files become one script a browser can load by itself: nothing missing, nothing fetched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lessonlib.explorers import assets

PICTURES = sorted(path.stem for path in (assets.HERE / "pictures").glob("*.js"))


def test_every_picture_has_its_files():
    python = {path.stem for path in (assets.HERE / "pictures").glob("*.py")} - {"__init__"}
    assert python == set(PICTURES)
    assert {path.stem for path in (assets.HERE / "pictures").glob("*.css")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_the_script_stands_alone(name: str, node_program: str, tmp_path: Path):
    source = assets.script(assets.HERE / "pictures" / f"{name}.js")
    assert not re.search(r"^\s*import\b", source, re.MULTILINE), (
        "an import is left that a notebook cannot resolve"
    )
    # node's parser also finds two shared files that use one name.
    (tmp_path / "whole.mjs").write_text(source)
    checked = subprocess.run(
        [node_program, "--check", str(tmp_path / "whole.mjs")], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    assert source.count("export default") == 1


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_fetched(name: str):
    path = assets.HERE / "pictures" / name
    both = assets.script(path.with_suffix(".js")) + assets.style(path.with_suffix(".css"))
    addresses = set(re.findall(r"https?://[^\s\"')]+", both))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(fetch|XMLHttpRequest|@import|url\(\s*[\"']?http)", both)


def test_a_shared_file_is_written_once():
    source = assets.script(assets.HERE / "pictures" / "autoregressive.js")
    assert source.count("// dom.js") == 1
    assert source.index("// dom.js") < source.index("// frame.js") < source.index("// autoregressive.js")


def test_style_ends_with_the_picture_own():
    css = assets.style(assets.HERE / "pictures" / "autoregressive.css")
    assert css.index(".lx-title") < css.index(".lx-growth")
