"""nbval, strict: a fresh run of every student notebook gives the outputs that are committed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from proven import Lesson

from grader import execution

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SANITIZE = Path(__file__).with_name("sanitize.cfg")


def nbval(notebook: Path, room: Path) -> subprocess.CompletedProcess:
    """Run nbval over a copy in `room`, in a process of its own: pytest-randomly would shuffle the cells."""
    environment = {
        key: text for key, text in execution.environment(room).items() if not key.startswith("PYTEST_")
    }
    options = [
        "--nbval",
        "--nbval-current-env",
        f"--nbval-cell-timeout={execution.CELL_TIMEOUT}",
        f"--nbval-sanitize-with={SANITIZE}",
        *("-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:timeout"),
        *("--color=no", "--tb=short", "-q", "-c", os.devnull, f"--rootdir={room}"),
    ]
    command = [sys.executable, "-m", "pytest", *options, shutil.copy(notebook, room)]
    return subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True)


def test_a_fresh_run_gives_the_committed_outputs(lesson: Lesson, tmp_path: Path):
    done = nbval(lesson.committed, tmp_path)
    assert done.returncode == 0, done.stdout[-8000:]
    cells = sum(cell.cell_type == "code" for cell in lesson.read().cells)
    assert f"{cells} passed" in done.stdout


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("5050 tokens in 0", "5051 tokens in 0"),
        ("90.double: not yet", "90.double: passes"),
        ("Explorer at 2", "Explorer at 3"),
    ],
)
def test_it_would_notice(toy: Lesson, tmp_path: Path, was: str, now: str):
    text = toy.committed.read_text()
    assert was in text
    notebook = tmp_path / "elsewhere" / toy.committed.name
    notebook.parent.mkdir()
    notebook.write_text(text.replace(was, now))
    done = nbval(notebook, tmp_path)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-4000:]
