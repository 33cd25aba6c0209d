"""A JupyterLab as `lesson lab` starts it, on a machine whose owner has a Jupyter of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nbformat
import pytest

# The real command, on lessons of our own, so that these tests do not depend on what the lessons say.
DRIVER = """
import sys
from pathlib import Path
import lessonlib.lab.delivery as delivery
shipped = Path(sys.argv.pop(1))
delivery.notebooks_dir = lambda: shipped
from lessonlib.cli import main
sys.exit(main())
"""


def write_lesson(folder: Path, slug: str, *cells: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    title = nbformat.v4.new_markdown_cell(f"# {slug}")
    book = nbformat.v4.new_notebook(cells=[title, *map(nbformat.v4.new_code_cell, cells)])
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number}"
    for cell in book.cells[
        1:
    ]:  # a picture that shows only in a trusted notebook: otherwise its id is cleaned away
        picture = {"text/html": "<b id='stored'>a stored picture</b>"}
        cell["outputs"] = [nbformat.v4.new_output("display_data", data=picture)]
    nbformat.write(book, folder / f"{slug}.ipynb")


def write_own_jupyter(home: Path) -> None:
    """The user's own Jupyter: settings, kernels and start-up files that would spoil the course."""
    files = {
        ".jupyter/jupyter_server_config.py": "c.IdentityProvider.token = 'theirs'\n",
        ".jupyter/jupyter_lab_config.py": "raise SystemExit('the user config was read')\n",
        ".jupyter/labconfig/page_config.json": json.dumps({"disabledExtensions": {"anywidget": True}}),
        ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings": "{}",
        ".jupyter/lab/workspaces/default-37a8.jupyterlab-workspace": "{}",
        ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
            {"argv": ["false"], "display_name": "theirs", "language": "python"}
        ),
        "elsewhere/kernels/python3/kernel.json": json.dumps(
            {"argv": ["false"], "display_name": "elsewhere", "language": "python"}
        ),
        ".ipython/profile_default/startup/00-theirs.py": "import os; os._exit(3)\n",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class RunningLab:
    """`lesson lab` as a child process; `url` is the address it printed."""

    process: subprocess.Popen[str]
    folder: Path
    home: Path
    lines: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def base(self) -> str:
        return self.url.split("/lab")[0]

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    def get(self, path: str, data: dict[str, Any] | None = None, token: str | None = None) -> tuple[int, str]:
        """Status and text of one request, with the printed token unless another one is given."""
        body = None if data is None else json.dumps(data).encode()
        token = self.token if token is None else token
        headers = {"Authorization": f"token {token}"} if token else {}
        request = Request(f"{self.base}{path}", data=body, headers=headers)
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        """Ctrl-C, once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


def start_lab(root: Path, *options: str) -> RunningLab:
    shipped, home, work = root / "shipped", root / "home", root / "work"
    work.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if "JUPYTER" not in name and name != "LESSON_HOME"
    }
    environment |= {"HOME": str(home), "PYTHONUNBUFFERED": "1", "JUPYTER_PATH": str(home / "elsewhere")}
    command = [sys.executable, "-c", DRIVER, str(shipped), "lab", "--port", "0", "--no-browser", *options]
    process = subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    lab = RunningLab(process, work / "my-lessons", home)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lab.lines.append(line)
            found = re.search(r"http://\S+", line)
            if found:
                lab.url = found.group()
            if "Ctrl-C" in line:
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    ready.wait(timeout=120)
    assert lab.url, lab.output
    return lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    root = tmp_path_factory.mktemp("lab")
    write_lesson(root / "shipped", "00_start_here", "1 + 1")
    write_lesson(root / "shipped", "01_generation", "2 + 2")
    write_own_jupyter(root / "home")
    running = start_lab(root)
    yield running
    running.stop()
