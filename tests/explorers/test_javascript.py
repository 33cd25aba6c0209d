"""The unit tests of the JavaScript itself, in js/: node's own runner, nothing to install."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent / "js"


def test_javascript(node_program: str):
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    assert files
    done = subprocess.run([node_program, "--test", *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout and "# skipped 0" in done.stdout
