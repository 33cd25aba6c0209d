"""For the explorers: a stand-in model, and node to run their JavaScript without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lessonlib.explorers import assets

from .tiny import write_tiny

Node = Callable[..., Any]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights and a small byte-level BPE tokenizer."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def node_program(needs: Callable[[str], None]) -> str:
    needs("node")
    return shutil.which("node") or ""


@pytest.fixture(scope="session")
def node(node_program: str) -> Node:
    """``node("pictures/sampling.js", "m.entropy(input)", input)``: an expression's value."""

    def evaluate(module: str, expression: str, given: Any = None) -> Any:
        program = f"""
            import * as m from {json.dumps((assets.HERE / module).as_uri())};
            import {{ readFileSync }} from "node:fs";
            const input = JSON.parse(readFileSync(0, "utf8"));
            process.stdout.write(JSON.stringify({expression}));
        """
        done = subprocess.run(
            [node_program, "--input-type=module", "-e", program],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return evaluate
