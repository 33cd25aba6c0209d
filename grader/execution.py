"""Runs a notebook as a reader would: a fresh kernel of this interpreter in a fresh folder."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grader.authoring import BuildError
from lessonlib.course import checkout

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_TIMEOUT = 120  # seconds; a reader will not wait longer either
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run(notebook: NotebookNode, name: str, on_cell: Callable[[int, int], None] | None = None) -> None:
    """Execute `notebook` in place, cell by cell; cells tagged `raises-exception` may fail, no other.

    Args:
        name: what to call the notebook in an error.
        on_cell: called with (cells started, cells in all) as each code cell starts.

    The kernel sees an empty working folder that is also its LESSON_HOME, so nothing lands in the author's
    progress log; the author's own settings (IPython profile, matplotlibrc, hash seed) do not reach it.

    Raises: BuildError when a cell fails, takes longer than CELL_TIMEOUT, or the kernel dies.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    started: list = []

    def start(cell: NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            started.append(cell)
            if on_cell:
                on_cell(len(started), len(codes))

    with tempfile.TemporaryDirectory(prefix="lesson-", ignore_cleanup_errors=True) as room:
        client = NotebookClient(
            notebook,
            kernel_manager_class=_this_interpreter(),
            timeout=CELL_TIMEOUT,
            resources={"metadata": {"path": room}},
            coalesce_streams=True,  # how output was cut into messages depends on the clock
            record_timing=False,
            shutdown_kernel="immediate",
            on_cell_start=start,
        )
        try:
            client.execute(env=environment(Path(room)), stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            what = f"{error.ename}: {_COLOURS.sub('', error.evalue)}".strip().splitlines()[0]
            raise BuildError(f"{name}, cell {started[-1].id} failed with {what}") from None
        except CellTimeoutError:
            raise BuildError(
                f"{name}, cell {started[-1].id} ran longer than {CELL_TIMEOUT} s; make it smaller."
            ) from None
        except DeadKernelError:
            raise BuildError(
                f"{name}: the kernel died in cell {started[-1].id}; is there enough memory?"
            ) from None


def _this_interpreter() -> type:
    """A kernel manager for the running interpreter, whatever kernels are registered as python3."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class Specs(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    class ThisInterpreter(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _specs(self) -> KernelSpecManager:
            return Specs(parent=self)

    return ThisInterpreter


def environment(room: Path) -> dict[str, str]:
    """The kernel's environment: ours, less what would make one author's outputs differ from another's."""
    (room / ".matplotlibrc").touch()
    personal = {"MPLBACKEND", "NBGRADER_EXECUTION", "NO_COLOR", "FORCE_COLOR", "PYTHONSTARTUP"}
    kept = {key: value for key, value in os.environ.items() if key not in personal}
    root = checkout()
    paths = [str(root) if root else "", kept.get("PYTHONPATH", "")]
    return (
        kept
        | {
            "LESSON_HOME": str(room),
            "IPYTHONDIR": str(room / ".ipython"),
            "MATPLOTLIBRC": str(room / ".matplotlibrc"),
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # sums in the same order on every machine; and busy threads wait for each other
            "COLUMNS": "100",
            "JUPYTER_COLUMNS": "100",
        }
    )
