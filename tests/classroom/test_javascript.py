"""The unit tests of the form's JavaScript, in js/: node's own runner, nothing to install."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "js"


@pytest.mark.needs("node")
def test_javascript():
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout and "# skipped 0" in done.stdout
