"""A real JupyterLab for tests: a private server on a temporary folder, and a page as a student has it open.

    with Lab(folder) as lab:
        lab.write_notebook("lesson.ipynb", ["1 + 1"])
        notebook = Notebook(page, lab, "lesson.ipynb")
        notebook.run_all()

Nothing of the user's own Jupyter configuration is read or written.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
START_SECONDS, RUN_SECONDS = 90, 240


class Lab:
    """``jupyter lab`` on ``folder``, with a token, on a free port, quiet: no news, no update checks."""

    def __init__(self, folder: Path, options: Sequence[str] = ()):
        self.folder, self.token, self.options = Path(folder), secrets.token_hex(16), options
        self.port = _free_port()
        self.private = self.folder.parent / f"{self.folder.name}-jupyter"
        self.log = self.private / "server.log"

    def __enter__(self) -> Lab:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.private.mkdir(parents=True, exist_ok=True)
        self.set_theme(LIGHT)
        self._settings("notification", {"fetchNews": "false", "checkForUpdates": False})
        command = [
            sys.executable,
            "-m",
            "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
            f"--port={self.port}",
        ]
        command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        command += [f"--ServerApp.root_dir={self.folder}", "--expose-app-in-browser", *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def notebook_url(self, name: str) -> str:
        """Address of a notebook of this folder. ``reset`` forgets the tabs of the last visit."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{quote(name)}?token={self.token}&reset"

    def write_notebook(self, name: str, cells: Sequence[str]) -> Path:
        """A notebook with these code cells, not yet run."""
        path = self.folder / name
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, path)
        return path

    def set_theme(self, theme: str) -> None:
        """LIGHT or DARK, for pages opened from now on."""
        self._settings("themes", {"theme": theme})

    def stop_kernel(self, name: str) -> None:
        """End the kernel of this notebook, as closing JupyterLab does."""
        for session in json.loads(self._ask("api/sessions")):
            if session["path"] == name:
                self._ask(f"api/sessions/{session['id']}", method="DELETE")

    def _ask(self, path: str, method: str = "GET") -> bytes:
        address = f"http://127.0.0.1:{self.port}/{path}?token={self.token}"
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=30) as answer:
            return answer.read()

    def _settings(self, plugin: str, values: dict[str, object]) -> None:
        path = (
            self.private / "settings" / "@jupyterlab" / "apputils-extension" / f"{plugin}.jupyterlab-settings"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def _environment(self) -> dict[str, str]:
        private = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "MPLCONFIGDIR": "matplotlib",
        }
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return (
            os.environ
            | {name: str(self.private / folder) for name, folder in private.items()}
            | {"PYTHONPATH": path, "JUPYTER_PLATFORM_DIRS": "1"}
        )

    def _wait(self) -> None:
        for _ in range(START_SECONDS * 5):
            if self.process.poll() is not None:
                raise RuntimeError(f"JupyterLab ended at once; its log says:\n{self.log.read_text()[-3000:]}")
            try:
                self._ask("api/status")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(
            f"JupyterLab did not answer in {START_SECONDS} s; its log says:\n{self.log.read_text()[-3000:]}"
        )


class Notebook:
    """The notebook open in a page: what a student does with it."""

    def __init__(self, page: Page, lab: Lab, name: str):
        self.page = page
        page.goto(lab.notebook_url(name))
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_SECONDS * 1000)
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.model")

    def run_all(self, seconds: int = RUN_SECONDS) -> None:
        """Run > Run All Cells, and wait until the kernel has nothing left to do."""
        status = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status"
        self.page.wait_for_function(f"{status} === 'idle'", timeout=START_SECONDS * 1000)
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        finished = """() => {
            const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
            const code = cells.filter(cell => cell.type === "code" && cell.sharedModel.source.trim());
            return code.every(cell => cell.executionCount !== null && cell.executionState !== "running");
        }"""
        self.page.wait_for_function(finished, timeout=seconds * 1000)
        self.page.wait_for_function(f"{status} === 'idle'", timeout=seconds * 1000)

    def explorers(self) -> Locator:
        """Every explorer on the page."""
        return self.page.locator(".lx")

    def cell_sources(self) -> list[str]:
        cells = "[...window.jupyterapp.shell.currentWidget.content.model.cells]"
        return self.page.evaluate(f"{cells}.map(cell => cell.sharedModel.source)")

    def save(self) -> None:
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")


@contextmanager
def launch(chromium: str) -> Iterator[Browser]:
    """Headless Chromium from this path."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def errors_of(page: Page) -> list[str]:
    """A list that fills with every error, uncaught or written to the console, that comes from an explorer."""
    errors: list[str] = []

    # A widget's module is loaded from a blob; JupyterLab's own complaints come from its static files.
    def uncaught(error: Error) -> None:
        if "blob:" in (error.stack or ""):
            errors.append(str(error))

    def written(said: ConsoleMessage) -> None:
        if said.type == "error" and "blob:" in f"{said.text} {said.location.get('url', '')}":
            errors.append(said.text)

    page.on("pageerror", uncaught)
    page.on("console", written)
    return errors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
