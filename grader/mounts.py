"""What a locked-up kernel sees of the file system: an empty root in memory, then only what is named here."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from lessonlib.course import checkout

if TYPE_CHECKING:
    from grader.sandbox import Jail

LAUNCH = Path(__file__).parent / "inside" / "launch.py"
INSIDE = "/lesson"  # where it is seen
_PROC = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "uptime",
    "version",
    "vmstat",
]  # files one may read


def root(jail: Jail) -> list[str]:
    """Bubblewrap's options for the mounts of ``jail``, in order. What can be written to has a size."""
    options: list[str] = []

    def show(*paths: str | Path) -> None:
        for path in map(str, paths):
            if os.path.islink(path) and os.path.dirname(path) == "/":  # /lib -> usr/lib
                options.extend(("--symlink", os.readlink(path), path))
            elif os.path.exists(path):
                options.extend(("--ro-bind", path, path))

    def memory(*paths: str | Path) -> None:
        for path in map(str, paths):
            options.extend(("--size", str(jail.limits.temporary), "--tmpfs", path))

    def cover(path: str | Path) -> None:
        options.extend(("--size", "4096", "--tmpfs", str(path)))

    show(
        "/usr",
        "/lib",
        "/lib32",
        "/lib64",
        "/bin",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/sys/devices/system/cpu",
    )
    options.extend(("--proc", "/proc", *_hidden_in_proc(), "--dev", "/dev"))
    memory("/tmp", "/dev/shm")  # before Python, which may live below /tmp
    course = checkout()
    if course and course.is_relative_to("/usr"):
        cover(course)
    for prefix in _python():
        show(prefix)
        if course and course.is_relative_to(prefix):
            cover(course)
    for folder in {*site.getsitepackages(), sysconfig.get_path("purelib")}:
        for ours in ("grader", "lessonlib"):  # installed, not in a checkout: answers are in there
            if os.path.isdir(os.path.join(folder, ours)):
                cover(os.path.join(folder, ours))
    for name in ("passwd", "group", "hosts", "nsswitch.conf"):
        options.extend(("--ro-bind", str(jail.room / "etc" / name), f"/etc/{name}"))
    options.extend(("--ro-bind", str(LAUNCH), f"{INSIDE}/launch.py"))
    for path in map(str, filter(None, (jail.library, *jail.binds, jail.room))):
        options.extend(("--ro-bind", path, path))  # bubblewrap says so if one is not there
    options.extend(("--bind", str(jail.wire), str(jail.wire)))
    memory(jail.work)
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def _python() -> list[Path]:
    """The folders that this Python is made of: where it was built, what its links go through, its environment."""
    found = [Path(sys.base_prefix)]
    program = Path(sys.executable)
    while program.is_symlink():
        program = program.parent / os.readlink(program)
        found.append(program.parent.parent)
    found.append(Path(sys.prefix))
    kept: list[Path] = []
    for prefix in found:  # not twice; and never all of /, for a /bin/python
        prefix = Path(os.path.normpath(prefix))
        if not any(prefix.is_relative_to(other) for other in (*kept, Path("/usr"))) and prefix != Path("/"):
            kept.append(prefix)
    return kept


def _hidden_in_proc() -> list[str]:
    """Covers for all of /proc that is not about the kernel itself.

    Files there ask who you are, not what you may do: to a grader that runs as root, /proc/sys would be writable from
    inside, capabilities or not (bubblewrap covers it only if it looks writable, which the folder itself does not).
    What is not listed here cannot be there either: Linux mounts a new /proc only for who sees all of the old one.
    """
    options = ["--size", "4096", "--tmpfs", "/proc/1"]  # bubblewrap's own, which may still start programs
    for entry in sorted(os.scandir("/proc"), key=lambda entry: entry.name):
        if entry.name.isdigit() or entry.name in _PROC or entry.is_symlink():
            continue
        if entry.is_dir():
            options += ["--size", "4096", "--tmpfs", entry.path, "--remount-ro", entry.path]
        else:
            options += ["--ro-bind", "/dev/null", entry.path]
    return options
