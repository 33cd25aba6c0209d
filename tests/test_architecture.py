"""The arrows of the house hold, and the tool that says so would notice if they did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# Where each contract would be broken: (contract, file, line to plant).
VIOLATIONS = [
    ("arrows", "lessonlib/course.py", "import lessonlib.classroom"),
    ("arrows", "lessonlib/explorers/planted.py", "import lessonlib.commands"),
    ("arrows", "lessonlib/garage/__init__.py", ""),  # a room nobody gave a place
    ("arrows", "lessonlib/explorers/planted.py", "import lessonlib.serving"),
    ("side-by-side", "lessonlib/explorers/planted.py", "from lessonlib.classroom import check"),
    ("engine-alone", "lessonlib/engine/planted.py", "from lessonlib import LLM"),
    ("engine-plain", "lessonlib/engine/planted.py", "import transformers"),
    ("no-grader", "lessonlib/classroom/planted.py", "import grader"),
    ("no-test-tools", "grader/planted.py", "import pytest"),
]


def lint(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    chosen = [word for contract in contracts for word in ("--contract", contract)]
    # Told not to use its cache, which would land in the folder under test.
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", *chosen]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_the_arrows_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The house without its furniture: only what is imported."""
    root = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in ("lessonlib", "grader"):
        for file in (ROOT / package).rglob("*.py"):
            if "mutants" in file.parts:
                continue
            target = root / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return root


def test_every_contract_has_a_planted_violation() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == {contract["id"] for contract in CONTRACTS}


@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_a_planted_violation_is_noticed(copy: Path, contract: str, file: str, line: str) -> None:
    planted = copy / file
    before = planted.read_text() if planted.exists() else None
    planted.parent.mkdir(exist_ok=True)
    serving = copy / "lessonlib/serving"
    if "serving" in line and not serving.exists():
        serving.mkdir()
        (serving / "__init__.py").touch()
    try:
        planted.write_text(f"{before or ''}\n{line}\n")
        result = lint(copy, contract)
    finally:
        if before is None:
            planted.unlink()
            if file.endswith("__init__.py"):
                planted.parent.rmdir()
        else:
            planted.write_text(before)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout
    assert Path(file).parts[1] in result.stdout or Path(file).stem in result.stdout
