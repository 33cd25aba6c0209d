"""A kernel of one's own for a student's cells: the same IPython as in the notebook, with a time limit.

Code that does not stop is interrupted as in JupyterLab; code that will not be interrupted costs the kernel.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

from .errors import ClassroomError

START = 60  # seconds until a kernel must answer
GRACE = 3.0  # seconds for code to stop after an interrupt
TOO_LONG, DIED = "too long", "died"
SOFT_EXIT = "from sys import exit; quit = exit"  # IPython's own end the kernel, a moment later


@dataclass(frozen=True)
class Ran:
    """What one piece of code did. ``problem``: None, TOO_LONG, DIED, or the error in one line; ``shown``:
    displayed data by MIME type, the last of each."""

    problem: str | None = None
    shown: dict[str, Any] = field(default_factory=dict)


class Kernel:
    """This very Python in a process of its own, working in ``folder``; a context manager that ends it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lost = False  # the kernel is gone, and all that ran in it

    def __enter__(self) -> Kernel:
        self._private = tempfile.TemporaryDirectory(prefix="lesson-check-", ignore_cleanup_errors=True)
        self._manager = KernelManager(
            kernel_spec_manager=_ThisPython(),
            connection_file=str(Path(self._private.name, "kernel.json")),
            shutdown_wait_time=1.0,
        )
        environment = {
            "LESSON_HOME": str(self.folder),
            "IPYTHONDIR": self._private.name,  # no start-up files of the student's own
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        quiet = {"stdout": DEVNULL, "stderr": DEVNULL}  # what cells print comes as messages
        try:
            self._manager.start_kernel(cwd=str(self.folder), env=os.environ | environment, **quiet)
            self._client = self._manager.blocking_client()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=START)
        except (RuntimeError, OSError) as error:
            self.__exit__()
            raise ClassroomError(
                f"Python could not be started to run your cells ({str(error).splitlines()[0]}); `lesson doctor` "
                "says what is missing."
            ) from None
        except BaseException:  # Ctrl-C while it starts: it must not stay behind
            self.__exit__()
            raise
        self.run(SOFT_EXIT, START)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if hasattr(self, "_client"):
                self._client.stop_channels()
            if self._manager.has_kernel:
                self._manager.shutdown_kernel(now=True)
        finally:
            self._private.cleanup()

    def run(self, source: str, seconds: float) -> Ran:
        """Run a cell and wait until it ends, at most so many seconds."""
        asked = self._client.execute(source, store_history=False, allow_stdin=False)
        ran = self._wait(asked, seconds)
        if ran.problem == TOO_LONG:
            self._manager.interrupt_kernel()
            self.lost = self._wait(asked, GRACE).problem in (TOO_LONG, DIED)
        self.lost = self.lost or ran.problem == DIED
        return ran

    def _wait(self, asked: str, seconds: float) -> Ran:
        """Collect what the code shows, until the kernel says that it is done with it."""
        deadline = time.monotonic() + seconds
        problem: str | None = None
        shown: dict[str, Any] = {}
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self._client.get_iopub_msg(timeout=min(left, 0.5))
            except Empty:
                if not self._manager.is_alive():
                    return Ran(DIED, shown)
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "display_data":
                shown.update(content["data"])
            elif kind == "error":
                problem = _in_one_line(content)
            elif kind == "status" and content["execution_state"] == "idle":
                return Ran(problem, shown)
        return Ran(TOO_LONG, shown)


class _ThisPython(KernelSpecManager):
    """Whatever kernels are registered on the machine, ours is the Python that has the course."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="", language="python")


def _in_one_line(error: dict[str, Any]) -> str:
    """``NameError: name 'x' is not defined (line 2)``."""
    told = re.sub(
        r"\(\w+\.py, line (\d+)\)", r"(line \1)", f"{error['ename']}: {error['evalue']}".strip().rstrip(":")
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    places = re.findall(r"^Cell In\s*\[\d*\s*\], line (\d+)", plain, re.MULTILINE)
    told = told.splitlines()[0]
    return f"{told} (line {places[-1]})" if places and "(line" not in told else told
