"""Warm kernels: a process for each worker that has imported PyTorch and the course, and forks kernels into sandboxes.

Starting Python and importing is most of what a submission costs. ``LESSON_KERNELS=cold`` starts each kernel from
nothing; so does everything that keeps a fork from working, and grades are the same. See ``inside.zygote``.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

from grader import mounts
from grader.sandbox import Jail

SWITCH = "LESSON_KERNELS"
# What cells of lessons and the grader's agent import. Not matplotlib: as it is imported, it looks at the environment.
COMMON = ("ipykernel.kernelapp", "ipykernel.ipkernel", "torch", "numpy")
OF_THE_COURSE = (
    *("lessonlib", "lessonlib.engine", "lessonlib.classroom", "lessonlib.classroom.leaning"),
    *("lessonlib.classroom.observing", "lesson_agent.agent"),
)
_START = 60.0  # seconds to import all that
_ANSWER = 20.0  # seconds to fork
_one: Zygote | None = None
_lock = Lock()
_given_up = False


class NoFork(Exception):
    """There is no kernel to be had this way, here and now."""


class Zygote:
    """The process that forks, for kernels that import this copy of lessonlib. Raises NoFork if it does not begin."""

    def __init__(self, library: Path | None):
        self.library = library
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, str(mounts.LAUNCH.with_name("zygote.py")), str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                [*command, json.dumps([*COMMON, *(OF_THE_COURSE if library else ())])],
                env=Jail(Path("/"), library).environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.line = ours
        if self._answer(_START) != b"ready":
            self.end()
            raise NoFork("it does not start")

    def fork(self, asked: dict[str, Any], descriptors: list[int]) -> int:
        """The pid of a keeper, which waits for its ``go`` (see ``zygote.keep``). Raises NoFork."""
        try:
            socket.send_fds(self.line, [json.dumps(asked).encode()], descriptors)
            keeper = int(self._answer(_ANSWER) or 0)
        except (OSError, ValueError):
            keeper = 0
        if keeper <= 0:
            raise NoFork("it does not fork")
        return keeper

    def end(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.wait()

    def _answer(self, seconds: float) -> bytes:
        return self.line.recv(100) if select.select([self.line], [], [], seconds)[0] else b""


def zygote(library: Path | None) -> Zygote | None:
    """This process's zygote for that copy of lessonlib; None where kernels start cold."""
    global _one
    if _given_up or sys.platform != "linux" or os.environ.get(SWITCH) == "cold":
        return None
    with _lock:
        if _one is None or _one.library != library or _one.process.poll() is not None:
            end()
            try:
                _one = Zygote(library)
            except (NoFork, OSError):
                give_up()
        return _one


def give_up() -> None:
    """From now on kernels of this process start cold."""
    global _given_up
    _given_up = True
    end()


@atexit.register
def end() -> None:
    """End the zygote, and with it what it has forked."""
    global _one
    if _one is not None:
        _one.end()
        _one = None
