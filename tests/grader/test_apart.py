"""The process that grades may be lost: one submission pays for it, and the next finds another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import nbformat
import psutil
import pytest

from grader import apart, sandbox, work
from grader.grading import Budget

from .releases import as_bytes, notebook, released, solutions

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.slow]

EXERCISE, CELL = "02.kv_bytes", "02-kv_bytes"
ENDLESS = "while True:\n    pass"


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    yield
    apart.end()


def lesson(**budget: float) -> work.Lesson:
    return work.Lesson("02_kv_cache", nbformat.writes(released("02").book), 1, Budget(**budget))


def handed_in(source: str) -> bytes:
    return as_bytes(notebook("02", {CELL: source}))


def gone(pids: set[int]) -> bool:
    for _ in range(100):
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.1)
    return False


def family(pid: int) -> set[int]:
    return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}


def test_the_same_comes_out_and_one_process_does_for_all():
    here = work.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])[EXERCISE]
    there = apart.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])[EXERCISE]
    assert {**there, "seconds": 0} == {**here, "seconds": 0} and there["points"] == 2
    first = apart._one
    assert apart.run(lesson(), handed_in("def kv_bytes(): ..."), [EXERCISE])[EXERCISE]["points"] == 0
    assert apart._one is first


def test_who_keeps_it_busy_gets_nothing_and_the_next_ones_are_graded(monkeypatch):
    apart.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])
    everybody = family(apart._one.process.pid)
    monkeypatch.setattr(apart, "GRACE", -88.0)
    found = apart.run(lesson(cell=30.0, submission=30.0), handed_in(ENDLESS), [EXERCISE, "02.visible"])
    assert {(name, r["points"], r["why"]) for name, r in found.items()} == {
        (EXERCISE, 0, apart.BUSY),
        ("02.visible", 0, apart.BUSY),
    }
    monkeypatch.undo()
    assert gone(everybody)
    assert apart.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])[EXERCISE]["points"] == 2


def test_a_process_that_is_killed_is_tried_again_and_then_it_is_said(monkeypatch):
    kills, stop = [], threading.Event()

    def kill(often: int) -> None:
        while len(kills) < often and not stop.is_set():
            one = apart._one
            if one and one.process.pid not in kills:
                time.sleep(0.5)
                kills.append(one.process.pid)
                os.kill(one.process.pid, signal.SIGKILL)
            time.sleep(0.01)

    for often in (1, 2):
        kills.clear()
        apart.end()
        killer = threading.Thread(target=kill, args=(often,))
        killer.start()
        try:
            if often == 1:
                found = apart.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])
                assert found[EXERCISE]["points"] == 2
            else:
                with pytest.raises(RuntimeError, match="ended each time"):
                    apart.run(lesson(), handed_in(ENDLESS), [EXERCISE])
        finally:
            stop.set() if often == 2 else None
            killer.join()
        assert len(kills) == often


def test_what_it_cannot_do_is_told_as_by_the_one_who_asked(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(sandbox.SandboxError):
        apart.run(lesson(), handed_in("x = 1"), [EXERCISE])


def test_a_submission_cannot_take_all_memory():
    """The limit is there, and the student's kernel has its own."""
    apart.run(lesson(), handed_in(solutions("02")[CELL]), [EXERCISE])
    with open(f"/proc/{apart._one.process.pid}/limits", encoding="ascii") as file:
        [line] = [line for line in file if line.startswith("Max address space")]
    assert apart.MEMORY < int(line.split()[3]) < 2 * apart.MEMORY + 2**33


def test_it_leaves_with_those_who_asked(tmp_path):
    script = (
        "import sys, time; from tests.grader.test_apart import *\n"
        "apart.run(lesson(), handed_in(solutions('02')[CELL]), [EXERCISE])\n"
        "print(apart._one.process.pid, flush=True); time.sleep(100)"
    )
    asking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(asking.stdout.readline())
    everybody = family(pid)
    asking.kill()
    asking.communicate()
    assert gone(everybody)
