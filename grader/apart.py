"""Grades submissions in a process that may be lost: what a stranger's answers do to the grader, they do to that one.

What comes out of a sandbox is decoded, read and compared outside of it. The decoder, the faces and the checks have
bounds; should something find a way past them, to all the memory or to a loop without end, this process is given up and
the next submission gets a new one.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from . import work
from .grading import Budget
from .sandbox import SandboxError
from .store import Record

GRACE = 60.0  # seconds beyond all budgets
MEMORY = 8 * 2**30  # bytes of address space beside what it begins with
TRIES = 2  # a process may also be lost to somebody else, who took the machine's memory
BUSY = "its answers kept the grader busy beyond all limits"

_one: _Grader | None = None


class Lost(Exception):
    """The process is gone, or does not answer."""


def run(
    lesson: work.Lesson, notebook: bytes | None, only: Sequence[str], budget: Budget | None = None
) -> dict[str, Record]:
    """``work.run``, apart. One thread at a time.

    Raises SandboxError as that does, and RuntimeError where the process was lost each time.
    """
    budget = budget or lesson.budget
    seconds = budget.submission + budget.cell + budget.probes + GRACE
    for _ in range(TRIES):
        try:
            answer = _grader().ask((lesson, notebook, only, budget), seconds)
        except TimeoutError:
            end()
            return work.given_up(lesson, only, BUSY)
        except Lost:
            end()
            continue
        if "refused" in answer:
            raise SandboxError(answer["refused"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer["records"])
    raise RuntimeError("the process that graded it ended each time: for want of memory, perhaps")


class _Grader:
    """The process, and the two pipes to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt in the terminal is for those who ask
        )

    def ask(self, task: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        """Raises Lost, and TimeoutError where it does not answer in time."""
        assert self.process.stdin and self.process.stdout
        end = time.monotonic() + seconds
        alarm = threading.Timer(seconds, self.process.kill)
        alarm.start()
        try:
            self.process.stdin.write(pickle.dumps(task))
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = b""
        finally:
            alarm.cancel()
        if not line.endswith(b"\n"):
            raise TimeoutError if time.monotonic() >= end else Lost
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _grader() -> _Grader:
    global _one
    if _one is None or _one.process.poll() is not None:
        end()
        _one = _Grader()
    return _one


@atexit.register
def end() -> None:
    """End the process, and with it what it has started."""
    global _one
    if _one is not None:
        _one.end()
        _one = None


def serve() -> None:
    """In that process: answer until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints is no answer
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    _limit_memory()
    while True:
        try:
            task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: dict[str, Any] = {"records": work.run(*task)}
        except SandboxError as error:
            answer = {"refused": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_memory() -> None:
    """Of this process: the kernels that it starts set their own limits."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            begins = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (begins + MEMORY, most))


__all__ = ["end", "run"]
