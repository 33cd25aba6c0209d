"""The unit tests of the form's JavaScript, in js/: node's own runner, nothing to install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "js"


def test_javascript():
    node = shutil.which("node")
    if node is None:
        sentence = "This test needs node: install it (on Debian: apt-get install nodejs)."
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"{sentence} Under CI=true it must be there.", pytrace=False)
        pytest.skip(sentence)
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout and "# skipped 0" in done.stdout
