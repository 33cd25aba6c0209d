"""Whether this machine can do what the course asks: each part is tried, not merely looked for.

A check returns a `Finding`: what works, and if it does not, what to do about it. Only a missing *required*
part is a failure; "tight" means that things will be slow; an absent optional part closes one door, no more.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lessonlib.course import LESSONS, notebooks_dir
from lessonlib.lab.delivery import student_folder
from lessonlib.lab.server import write_kernelspec

DISTRIBUTION = "llm-inference-course"
MODELS = ("pico", "pico-draft")
LAB_EXTENSIONS = ("anywidget", "@jupyter-widgets/jupyterlab-manager")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
GIB = 1024**3

Status = Literal["ok", "tight", "failed", "absent"]


@dataclass(frozen=True)
class Finding:
    """One line of the health report: `found` says what is there, `todo` what to do (empty if nothing)."""

    name: str
    status: Status
    found: str
    todo: str = ""


def examine() -> Iterator[Finding]:
    """Run every check in turn; the slow ones (packages, kernel, models) take a few seconds each."""
    for name, required, check in CHECKS:
        try:
            yield check(name)
        except Exception as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(
                name,
                "failed" if required else "absent",
                problem[:300],
                "Run `make lab` again; if this stays, report it with the line above." if required else "",
            )


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, `$LESSON_CHROMIUM` first, or None."""
    asked = os.environ.get("LESSON_CHROMIUM")
    return asked or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def sandbox_works() -> bool:
    """True if bubblewrap really starts a process here (containers often forbid the namespaces it needs)."""
    program = shutil.which("bwrap")
    if program is None:
        return False
    trial = [program, "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-all", "--die-with-parent", "true"]
    return subprocess.run(trial, capture_output=True, timeout=20, check=False).returncode == 0


def memory_limit() -> tuple[int, int]:
    """Total and available memory in bytes, as far as this process may use it (a container may get less)."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        total = min(total, limit)
        available = min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups here, or no limit ("max")
        pass
    return total, available


def _python(name: str) -> Finding:
    return Finding(name, "ok", f"{platform.python_version()} at {sys.executable}")


def _memory(name: str) -> Finding:
    total, available = memory_limit()
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if total < GIB:
        return Finding(
            name, "failed", found, "The lessons need at least 1 GiB of memory: use a larger machine."
        )
    if available < GIB:
        return Finding(name, "tight", found, "Close other programs: less than 1 GiB is available.")
    return Finding(name, "ok", found)


def _disk(name: str) -> Finding:
    folder = student_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < 0.05 * GIB:
        return Finding(name, "failed", found, "Free some disk space: your work could not be saved.")
    if not os.access(folder, os.W_OK):
        return Finding(
            name, "failed", f"{folder} cannot be written", "Change to a folder of yours, or use --dir."
        )
    if free < GIB:
        return Finding(name, "tight", found, "Free some disk space: less than 1 GiB is left.")
    return Finding(name, "ok", found)


def _packages(name: str) -> Finding:
    from packaging.requirements import Requirement

    todo = "Run `make lab`, or `pip install -e .` in the repository, to install what is missing."
    try:
        stated = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return Finding(name, "failed", f"{DISTRIBUTION} is not installed in this Python", todo)
    wrong, good = [], 0
    for need in map(Requirement, stated):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if need.specifier.contains(version, prereleases=True):
            good += 1
        else:
            wrong.append(f"{need.name} {version} is not {need.specifier}")
    if wrong:
        return Finding(name, "failed", "; ".join(wrong), todo)
    import torch

    return Finding(name, "ok", f"all {good} at the required versions; PyTorch {torch.__version__} imports")


def _lessons(name: str) -> Finding:
    ready = [lesson for lesson in LESSONS if lesson.available]
    if not ready:
        return Finding(
            name, "failed", f"no notebooks in {notebooks_dir()}", "Run `lesson build`, or reinstall."
        )
    return Finding(name, "ok", f"{len(ready)} of {len(LESSONS)} lessons in {notebooks_dir()}")


def _kernel(name: str) -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    answer: list[str] = []

    def listen(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            answer.append(message["content"]["text"])

    with tempfile.TemporaryDirectory(prefix="lesson-doctor-", ignore_cleanup_errors=True) as folder:
        specs = KernelSpecManager(kernel_dirs=[str(write_kernelspec(Path(folder)))])
        manager = KernelManager(kernel_spec_manager=specs, connection_file=str(Path(folder) / "kernel.json"))
        manager.start_kernel(env={**os.environ, "IPYTHONDIR": folder})
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
            client.execute_interactive(
                "import sys; print(1 + 1, sys.executable)", timeout=60, output_hook=listen
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    result = "".join(answer).strip()
    if result != f"2 {sys.executable}":
        return Finding(
            name, "failed", f"it started but answered {result!r}", "Run `make clean` and `make lab`."
        )
    return Finding(name, "ok", "started, and computed 1 + 1 = 2 with this Python")


def _widgets(name: str) -> Finding:
    from jupyter_core.paths import jupyter_path

    missing = [
        extension
        for extension in LAB_EXTENSIONS
        if not any(
            (Path(path) / extension / "package.json").is_file() for path in jupyter_path("labextensions")
        )
    ]
    if missing:
        todo = "Run `pip install --force-reinstall anywidget jupyterlab_widgets` in this environment."
        return Finding(name, "failed", f"{' and '.join(missing)} not found by JupyterLab", todo)
    return Finding(name, "ok", "JupyterLab finds anywidget and ipywidgets")


def _models(name: str) -> Finding:
    from lessonlib.engine.checkpoint import load_model

    sizes = []
    for model in MODELS:
        try:
            loaded = load_model(model)
        except Exception as error:
            reason = " ".join(str(error).split())
            return Finding(
                name,
                "failed",
                f"{model}: {reason}",
                "Reinstall the course, or train the models: `lesson train --install`.",
            )
        sizes.append(f"{model} ({sum(p.numel() for p in loaded.parameters()) / 1e6:.1f} M parameters)")
    return Finding(name, "ok", f"{' and '.join(sizes)} loaded")


def _gpu(name: str) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(name, "ok", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return Finding(name, "ok", "Apple GPU (the lessons compute on the CPU)")
    return Finding(name, "absent", "none", "Nothing to do: every lesson runs on the CPU.")


def _sandbox(name: str) -> Finding:
    if sandbox_works():
        return Finding(name, "ok", "bubblewrap starts an isolated process")
    if shutil.which("bwrap"):
        todo = "Before grading, allow user namespaces (in Docker: --security-opt seccomp=unconfined)."
        return Finding(name, "absent", "bubblewrap is installed but may not create namespaces", todo)
    return Finding(
        name, "absent", "not installed", "Instructors: `apt-get install bubblewrap` before grading."
    )


def _chromium(name: str) -> Finding:
    program = find_chromium()
    if program is None:
        return Finding(
            name, "absent", "not installed", "Contributors: `apt-get install chromium` for browser tests."
        )
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    return Finding(name, "ok", f"{answer.stdout.split('built')[0].strip()} at {program}")


def _hub(name: str) -> Finding:
    from huggingface_hub import constants

    todo = "Nothing to do: the lessons run offline; only names like org/model need the hub."
    if constants.HF_HUB_OFFLINE:
        return Finding(name, "absent", "switched off by HF_HUB_OFFLINE", todo)
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=3):
            pass
    except HTTPError:
        pass  # it answered
    except OSError as error:
        return Finding(name, "absent", f"not reachable ({getattr(error, 'reason', error)})", todo)
    return Finding(name, "ok", "reachable: models can be loaded by name")


# name, required, check: in the order of the report.
CHECKS: tuple[tuple[str, bool, Callable[[str], Finding]], ...] = (
    ("Python", True, _python),
    ("Memory", True, _memory),
    ("Disk", True, _disk),
    ("Packages", True, _packages),
    ("Lessons", True, _lessons),
    ("Notebook kernel", True, _kernel),
    ("Interactive pictures", True, _widgets),
    ("Models", True, _models),
    ("GPU (optional)", False, _gpu),
    ("Sandbox (optional)", False, _sandbox),
    ("Chromium (optional)", False, _chromium),
    ("Model hub (optional)", False, _hub),
)
