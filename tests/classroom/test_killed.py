"""`lesson reset` and `lesson submit`, killed at some byte of what they write: nothing of the student's is lost."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .handout import NAME, ship, worked_on

KILLED = """
import json, os, resource, signal, sys
from pathlib import Path
import nbformat  # before the children, who would each wait for it
from lessonlib import course
from lessonlib.classroom.resetting import reset_cell, reset_lesson
from lessonlib.classroom.submission import submit

home, shipped, act = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
course.notebooks_dir = lambda: shipped
acts = {
    "cell": lambda: reset_cell("01.sample", home),
    "lesson": lambda: reset_lesson("01", home),
    "submit": lambda: submit("01", home, "0.1"),
}
mine = {path.name: path.read_bytes() for path in home.iterdir()}
told = []
for size in [*range(0, 400, 57), *range(400, 12_000, 601)]:
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size,) * 2)
        acts[act]()
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    told.append([size, killed, {p.name: p.read_bytes().hex() for p in home.iterdir()}])
    for path in home.iterdir():
        path.unlink()
    for name, data in mine.items():
        (home / name).write_bytes(data)
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot end a process at a file's size")
@pytest.mark.parametrize("act", ["cell", "lesson", "submit"])
def test_killed_while_writing_nothing_of_the_students_is_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
):
    """The system ends the process when a file has so many bytes: everything is there, or nothing happened."""
    ship(tmp_path / "notebooks", monkeypatch)
    had = json.dumps(worked_on()).encode()  # shorter than what is written over it
    (home / NAME).write_bytes(had)
    command = [sys.executable, "-c", KILLED, str(home), str(tmp_path / "notebooks"), act]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    ends = set()
    for size, killed, found in json.loads(done.stdout):
        ends.add(killed)
        there = {name: bytes.fromhex(data) for name, data in found.items() if not name.endswith(".part")}
        assert had in there.values(), f"{act} killed at {size} bytes lost the notebook"
        assert there[NAME] == had or not killed
        for name, data in there.items():
            if name.endswith(".zip"):
                assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
            else:
                json.loads(data)
    assert ends == {True, False}
