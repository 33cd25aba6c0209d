"""The course's own server beside a notebook: on a free port, and gone with the notebook, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from typing import Any

from ....course import CourseError
from ...checking import CheckFailed

SECONDS = 100.0  # for loading the model on a busy machine
# `lesson serve`, with somebody who watches standard input: it ends when the notebook closes it or is itself no more.
PROGRAM = """
import os, signal, sys, threading

def watch():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
from lessonlib.cli import main
sys.exit(main())
"""
_running: LocalServer | None = None


class LocalServer:
    """``lesson serve MODEL`` in a process of its own; one at a time.

    It starts when its ``url`` is first asked for. It ends with ``stop()``, with the notebook's kernel (a killed one
    included), and when a cell stops with an error; asked for again, it starts again. options: as ``lesson serve`` takes
    them. ``url`` raises CourseError where the server cannot start.
    """

    def __init__(self, model: str = "pico", *options: str):
        self.command = ["serve", model, "--port", "0", "--no-logs", "--drain", "1", *options]
        self.process: subprocess.Popen[str] | None = None
        self._url = ""
        if shell := _shell():
            shell.events.register("post_run_cell", self._after_cell)

    @property
    def url(self) -> str:
        """Where it listens, such as http://127.0.0.1:40001."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        return self._url

    def stop(self) -> None:
        """End it, whether it runs or not."""
        if self.process is None:
            return
        process, self.process = self.process, None
        try:
            process.communicate(timeout=5)  # closes its standard input
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def _start(self) -> None:
        global _running
        if _running is not None:
            _running.stop()
        _running = self
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            self.process = process = subprocess.Popen(
                [sys.executable, "-u", "-c", PROGRAM, *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                # One core for the server, and the others for who asks: or a measurement shows how the two quarrel.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            assert process.stdout is not None
            timer = threading.Timer(SECONDS, process.kill)
            timer.start()
            found = (line.strip() for line in process.stdout if line.strip().startswith("http://"))
            self._url = next(found, "")
            timer.cancel()
            if not self._url:
                self.stop()
                complaints.seek(0)
                said = complaints.read().strip().splitlines() or ["it ended without a word."]
                raise CourseError(f"The course's server did not start: {said[-1].removeprefix('lesson: ')}")

    def _after_cell(self, result: Any) -> None:
        if result.error_in_exec is not None and not isinstance(result.error_in_exec, CheckFailed):
            self.stop()


def _shell() -> Any:
    """The notebook's shell, None elsewhere."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None
