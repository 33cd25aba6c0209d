"""The room a submission runs in: what it can see, what it may use, and how bubblewrap is told.

Nothing of the machine is visible but what Python needs, read-only. What a cell writes goes to memory of a fixed
size and ends with the kernel. The folder that both sides share holds sockets only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader import mounts, seccomp
from lessonlib.course import CourseError

MIB = 2**20
BROUGHT = 16 * MIB  # bytes a submission may bring in all
_OLDEST = (0, 8)  # bubblewrap: --disable-userns, --size

_NAMESPACES = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    *("--unshare-cgroup-try", "--disable-userns", "--uid", "1000", "--gid", "1000", "--hostname", "lesson"),
    *("--cap-drop", "ALL", "--new-session", "--die-with-parent"),
)


class SandboxError(CourseError):
    """A submission cannot be locked up, or its files not be taken; one sentence that says what to do."""


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Sizes in bytes.

    ``memory`` counts addresses, not pages: PyTorch and the course's model ask for 2.3 GiB of them and use 0.4.
    ``resident`` (pages really used) and ``threads`` need control groups; for an ordinary user, ``threads`` holds
    without them as well.
    """

    memory: int = 4096 * MIB
    resident: int = 2048 * MIB
    cpu: int = 120  # seconds of processor time
    file_size: int = 64 * MIB
    open_files: int = 256
    temporary: int = 64 * MIB  # in each of /tmp, /dev/shm and the working folder
    threads: int = 128

    def rlimits(self) -> dict[str, list[int]]:
        """Name in `resource`: [soft, hard]."""
        limits = {
            "RLIMIT_AS": [self.memory, self.memory],
            "RLIMIT_CPU": [self.cpu, self.cpu + 2],  # first SIGXCPU, which can be told from other ends
            "RLIMIT_FSIZE": [self.file_size, self.file_size],
            "RLIMIT_NOFILE": [self.open_files, self.open_files],
            "RLIMIT_CORE": [0, 0],
            "RLIMIT_MEMLOCK": [0, 0],
        }
        if _counts_threads():
            limits["RLIMIT_NPROC"] = [self.threads, self.threads]
        return limits


@dataclass(frozen=True)
class Jail:
    """How one kernel is locked up.

    ``room``: a private folder from `private_room`. Inside it is seen at the same path, read-only: a socket of the
    grader's own listens there. ``room/wire`` is for the kernel's sockets and is gone once they are connected;
    ``room/work`` is the kernel's working folder, in memory. ``library``: a folder with the copy of ``lessonlib``
    that the kernel imports. ``binds``: more files or folders to show, read-only, at the same path.
    """

    room: Path
    library: Path | None = None
    binds: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def work(self) -> Path:
        return self.room / "work"

    @property
    def wire(self) -> Path:
        return self.room / "wire"

    def argv(
        self, command: list[str], seccomp_fd: int | None = None, extra: tuple[str, ...] = ()
    ) -> list[str]:
        """The command line that runs ``command`` locked up. ``seccomp_fd``: an open file with `seccomp.for_start()`;
        ``extra``: more options of bubblewrap, for the caller's own descriptors."""
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError(why_not() or "bubblewrap is not installed.")
        argv = [program, *_NAMESPACES, *extra, *mounts.root(self), "--clearenv"]
        for name, value in self.environment().items():
            argv += ["--setenv", name, value]
        if seccomp_fd is not None:
            argv += ["--seccomp", str(seccomp_fd)]
        return [*argv, "--chdir", str(self.work), "--", *command]

    def command(self, connection_file: str, locked: bool = True, holds: bool = False) -> list[str]:
        """What to run inside: our launcher, which becomes the kernel, or ``holds`` the place for one that is forked.
        Not ``locked``: in no jail at all."""
        script = f"{mounts.INSIDE}/launch.py" if locked else str(mounts.LAUNCH)
        asked = {**self.asked(connection_file, locked), "holds": holds}
        return [sys.executable, *(["-I", "-S"] if holds else []), script, json.dumps(asked)]

    def asked(self, connection_file: str, locked: bool = True) -> dict[str, Any]:
        """What our launcher must know."""
        limits = self.limits.rlimits()
        if not locked:
            limits.pop("RLIMIT_NPROC", None)  # outside a namespace it would count all that you run
        return {
            "connection": connection_file,
            "files": str(self.room / "files"),
            "work": str(self.work),
            "limits": limits,
            "seccomp": base64.b64encode(seccomp.for_cells()).decode() if locked else "",
        }

    def environment(self) -> dict[str, str]:
        """All of the kernel's environment variables."""
        return {
            "HOME": "/tmp",
            "IPYTHONDIR": "/tmp/.ipython",
            "MPLCONFIGDIR": "/tmp/.matplotlib",
            "LESSON_HOME": str(self.work),
            "PYTHONPATH": str(self.library or ""),
            "PATH": "/usr/bin",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONNOUSERSITE": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }


@contextlib.contextmanager
def private_room() -> Iterator[Path]:
    """A folder for one `Jail`, on a path short enough for sockets; removed afterwards, with all in it."""
    room = make_room()
    try:
        yield room
    finally:
        remove_room(room)


def make_room() -> Path:
    """As `private_room`, for callers who say themselves when to `remove_room`."""
    short = "/tmp" if os.path.isdir("/tmp") and os.name == "posix" else None  # socket paths end at 108 bytes
    room = Path(tempfile.mkdtemp(prefix="lk-", dir=short)).resolve()  # mode 0700
    for name in ("wire", "work", "files", "etc"):
        (room / name).mkdir(mode=0o700)
    (room / "etc" / "passwd").write_text("student:x:1000:1000::/tmp:/bin/false\n")
    (room / "etc" / "group").write_text("student:x:1000:\n")
    (room / "etc" / "hosts").write_text("127.0.0.1 localhost lesson\n")
    (room / "etc" / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    return room


def remove_room(room: Path) -> None:
    shutil.rmtree(room, ignore_errors=True)


def bring(files: Mapping[str, bytes], room: Path) -> None:
    """Lay a submission's files ready in ``room``; the kernel finds them in its working folder when it starts.

    Names are plain (no folders) and contents are bytes, so no link and nothing beside the submission comes along.

    Raises: SandboxError for a name that is not plain, or for more than `BROUGHT` bytes in all.
    """
    size = sum(map(len, files.values()))
    if size > BROUGHT:
        raise SandboxError(
            f"The submission's files are {size / MIB:.0f} MiB together, more than the {BROUGHT // MIB} MiB that are "
            "taken; hand in without the large ones."
        )
    for name, content in files.items():
        if name in (".", "..") or not re.fullmatch(r"[^/\\:\x00-\x1f\x7f\ud800-\udfff]{1,63}", name):
            raise SandboxError(f"{name[:80]!r} is not a plain file name; rename the file and hand in again.")
        with open(room / "files" / name, "xb") as file:
            file.write(content)


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """None if submissions can be locked up here; else why not and what to do, found by really trying (once)."""
    if platform.system() != "Linux":
        return _advice(
            f"Submissions are locked up by bubblewrap, which runs on Linux only (this is {platform.system()})."
        )
    if not seccomp.supported():
        return _advice(
            f"The list of forbidden system calls is not known for this processor ({platform.machine()})."
        )
    program = shutil.which("bwrap")
    if program is None:
        return _advice("bubblewrap is not installed: install it (on Debian: apt-get install bubblewrap).")
    told = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=20, check=False
    ).stdout
    if tuple(map(int, re.findall(r"\d+", told)[:2])) < _OLDEST:
        return _advice(f"{told.strip()} is too old: 0.8 or newer is needed.")
    trial = [program, *_NAMESPACES, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"]
    tried = subprocess.run(trial, capture_output=True, text=True, timeout=20, check=False)
    return None if tried.returncode == 0 else _advice(diagnose(tried.stderr))


def diagnose(stderr: str, proc: Path = Path("/proc/sys")) -> str:
    """What keeps bubblewrap from working, as a sentence, from what it said and from the system's settings."""

    def setting(name: str) -> str:
        with contextlib.suppress(OSError):
            return (proc / name).read_text().strip()
        return ""

    said = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    if setting("kernel/unprivileged_userns_clone") == "0":
        return "This system forbids user namespaces: allow them (sudo sysctl kernel.unprivileged_userns_clone=1)."
    if setting("user/max_user_namespaces") == "0":
        return "This system forbids user namespaces: allow them (sudo sysctl user.max_user_namespaces=15000)."
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "Ubuntu's AppArmor forbids user namespaces to programs without a profile: give bwrap one (sudo apt install "
            "apparmor-profiles, then load bwrap-userns-restrict) or sudo sysctl "
            "kernel.apparmor_restrict_unprivileged_userns=0."
        )
    if in_container(proc.parent):
        return (
            f"This container may not make namespaces of its own ({said}): start it with --security-opt "
            "seccomp=unconfined --security-opt systempaths=unconfined (and apparmor=unconfined), or grade on its host."
        )
    return f"bubblewrap cannot start anything here ({said})."


def in_container(proc: Path = Path("/proc")) -> bool:
    """True if this looks like a container."""
    if any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")):
        return True
    with contextlib.suppress(OSError):
        return bool(re.search(r"docker|kubepods|containerd|lxc|libpod", (proc / "1" / "cgroup").read_text()))
    return False


def _advice(reason: str) -> str:
    return (
        f"{reason} Or grade in a container that is thrown away (docker run --rm --network none --memory 4g "
        "--pids-limit 256, the course in it, then lesson grade with --unsafe-local): that guards the machine, but not "
        "one submission from another. Or take the risk on this machine: --unsafe-local."
    )


def _counts_threads() -> bool:
    """True if RLIMIT_NPROC counts what runs in the jail (Linux 5.14) and binds its user (it never binds root)."""
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    return platform.system() == "Linux" and os.getuid() != 0 and release >= (5, 14)
