"""How JupyterLab runs for the course, without reading or touching the user's own Jupyter configuration.

Everything Jupyter would keep in the home folder (configuration, settings, open tabs, kernels, IPython's
profile) is redirected to `.lesson/jupyter` beside the student's lessons, so that the course looks the same on
every machine and leaves nothing behind on any.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from lessonlib.course import CourseError
from lessonlib.lab.delivery import STATE_FOLDER

DEFAULT_PORT = 8888
LOCAL = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::", "")
PORTS_TRIED = 50

# Teachers' panels, the news toast, what installs things or converts notebooks, what asks for absent servers.
DISABLED_PANELS = (
    "@jupyter/nbgrader",
    "@jupyter-notebook/lab-extension",
    "@jupyterlab/apputils-extension:announcements",
    "@jupyterlab/extensionmanager-extension",
    "@jupyterlab/fileeditor-extension:language-server",
    "@jupyterlab/lsp-extension",
    "@jupyterlab/notebook-extension:language-server",
    "jupyterlab-jupytext",
)
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "checkForUpdates": False,
        "fetchNews": "false",
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 30},
    "@jupyterlab/notebook-extension:tracker": {"autoStartDefaultKernel": True},
}
# Only these, whatever else is installed: nbgrader's and jupytext's server parts stay asleep.
SERVER_EXTENSIONS = {"jupyterlab": True, "jupyter_server_terminals": True}


def prepare(home: Path) -> Path:
    """Write the private Jupyter folder of the lessons in `home`, forget last time's tabs, and return it."""
    root = home / STATE_FOLDER / "jupyter"
    shutil.rmtree(root / "workspaces", ignore_errors=True)
    _write(
        root / "config/labconfig/page_config.json",
        {"disabledExtensions": dict.fromkeys(DISABLED_PANELS, True)},
    )
    _write(root / "config/labconfig/default_setting_overrides.json", SETTINGS)
    write_kernelspec(root / "data")
    for name in ("settings", "workspaces", "ipython"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return root


def write_kernelspec(data: Path) -> Path:
    """Write the kernel "python3" that is this very Python, and return the folder of kernels.

    Other kernels of that name may be registered on the machine; they would not have the course's packages.
    """
    from ipykernel.kernelspec import get_kernel_dict

    spec = get_kernel_dict()
    spec["argv"] = [
        sys.executable,
        *spec["argv"][1:],
        "--log-level=ERROR",
    ]  # warnings would fill the terminal
    spec["display_name"] = "Python 3 (this course)"
    spec["env"] = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    _write(data / "kernels/python3/kernel.json", spec)
    return data / "kernels"


def environment(home: Path, root: Path, runtime: Path) -> dict[str, str | None]:
    """The environment of the server and its kernels; None means the variable is taken away."""
    programs = str(Path(sys.executable).parent)  # so that `!lesson …` in a cell finds this installation
    return {
        "LESSON_HOME": str(home),
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "JUPYTER_NO_CONFIG": None,
        "JUPYTER_CONFIG_PATH": None,
        "JUPYTER_CONFIG_DIR": str(root / "config"),
        "JUPYTER_PREFER_ENV_PATH": "0",  # our folder goes before the environment's
        "JUPYTER_PATH": str(root / "data"),
        "JUPYTER_DATA_DIR": str(root / "data"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_DIR": None,
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"),
        "IPYTHONDIR": str(root / "ipython"),
    }


def choose_port(ip: str, asked: int | None) -> int:
    """The port to listen on: the one asked for, or the first free one from 8888 on (0 asks for any).

    Raises:
        CourseError: the port asked for is taken or not allowed, or the address is not this machine's.
    """
    if asked is not None:
        reason = _why_not(ip, asked)
        if reason == errno.EADDRINUSE:
            raise CourseError(
                f"Port {asked} is already in use: choose another one, for instance --port {asked + 1}."
            )
        if reason in (errno.EACCES, errno.EPERM):
            raise CourseError(f"Port {asked} needs administrator rights: choose one above 1023.")
        if reason:
            raise CourseError(
                f"The address {ip} cannot be used here ({os.strerror(reason)}): try --ip 127.0.0.1."
            )
        return asked or _any_port(ip)
    for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        reason = _why_not(ip, port)
        if reason is None:
            return port
        if reason != errno.EADDRINUSE:
            return choose_port(ip, port)  # not about this port: say why
    last = DEFAULT_PORT + PORTS_TRIED - 1
    raise CourseError(f"Ports {DEFAULT_PORT} to {last} are all in use: choose another one with --port.")


def in_container() -> bool:
    """True inside Docker, Podman and the like, where a port must be published to be reached."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return "container" in os.environ or any(mark.exists() for mark in marks)


def can_open_browser() -> bool:
    """True where a graphical browser can appear (not a text browser inside this terminal)."""
    if in_container() or os.environ.get("SSH_CONNECTION"):
        return False
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def trust(root: Path, notebooks: Iterable[Path]) -> None:
    """Sign notebooks that are ours in the private Jupyter folder: their stored pictures then show at once."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary(data_dir=str(root / "data"))
    for notebook in notebooks:
        notary.sign(nbformat.read(notebook, as_version=4))
    notary.store.close()


@contextlib.contextmanager
def running(
    home: Path, *, ip: str, port: int, first: str, ours: Iterable[Path], open_browser: bool
) -> Iterator[Lab]:
    """A JupyterLab on the folder `home`; `Lab.serve()` runs it until it is told to stop.

    ip: address to listen on. port: a free port. first: the notebook to open, relative to `home`.
    ours: notebooks in `home` in which nothing is the student's.

    Raises:
        CourseError: the private Jupyter folder cannot be written, or the server does not come up.
    """
    runtime = Path(tempfile.mkdtemp(prefix="lesson-lab-"))
    try:
        try:
            root = prepare(home)
            trust(root, ours)
        except OSError as error:
            raise CourseError(f"{home} cannot be written ({error.strerror}): choose another --dir.") from None
        for name, value in environment(home, root, runtime).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        yield Lab(home, ip, port, first, open_browser)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


class Lab:
    """One JupyterLab server in this process. Constructed by `running`, after the environment is set."""

    def __init__(self, home: Path, ip: str, port: int, first: str, open_browser: bool) -> None:
        from jupyter_server.serverapp import ServerApp

        token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
        page = f"/lab/tree/{quote(first)}" if first else "/lab"
        options = {
            "ServerApp.ip": ip,
            "ServerApp.port": port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": home,
            "ServerApp.open_browser": open_browser,
            "ServerApp.allow_root": getattr(os, "geteuid", lambda: 1)() == 0,
            "ServerApp.answer_yes": True,  # Ctrl-C stops at once
            "ServerApp.log_level": "ERROR",
            # A saved notebook keeps pictures, not views of a kernel that will be gone.
            "FileContentsManager.pre_save_hook": "lessonlib.explorers.saved.keep_pictures",
            "LabApp.log_level": "ERROR",
            "IdentityProvider.token": token,
            "KernelSpecManager.allowed_kernelspecs": "python3",
            "LabApp.default_url": page,
            "LabApp.extension_manager": "readonly",
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        }
        self._server = ServerApp.instance(jpserver_extensions=SERVER_EXTENSIONS)
        try:
            self._server.initialize(
                [f"--{name}={value}" for name, value in options.items()],
                starter_extension="lab",
                find_extensions=False,
            )
        except SystemExit:
            raise CourseError(
                "JupyterLab did not start, for the reason above; see `lesson doctor`."
            ) from None
        shown = LOCAL if ip in EVERYWHERE else f"[{ip}]" if ":" in ip else ip
        self.port = self._server.port
        self.url = f"http://{shown}:{self.port}{page}?token={quote(token, safe='')}"

    def serve(self, ready: Callable[[], None]) -> None:
        """Serve until Ctrl-C or a termination signal; kernels are stopped before it returns.

        ready: called once, when the address answers.
        """
        self._server.io_loop.add_callback(ready)  # runs after the callback that opens the port
        self._server.start()


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _why_not(ip: str, port: int) -> int | None:
    """The error number that keeps us from listening there, or None if nothing does."""
    try:
        addresses = socket.getaddrinfo(ip or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":  # a port just left by another server is free
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno
    return None


def _any_port(ip: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])
