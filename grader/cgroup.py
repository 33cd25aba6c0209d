"""A control group for one kernel: the limits on memory really used and on threads, where this system lets us.

Only groups directly below or beside our own are made, never above: whatever holds the grader holds its kernels too.
Where nothing can be written (most containers, a login without delegation) there is no group, and no error.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

_NAME = "lesson-kernel"
_count = itertools.count()

# controller: (file of version 2, file of version 1)
_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max")}
_SWAP = (
    "memory.swap.max",
    "memory.memsw.limit_in_bytes",
)  # or a limit on memory only moves the rest to the disk


class Group:
    """Control groups with limits: ``memory`` in bytes, ``pids`` in threads. ``holds`` names those in force."""

    def __init__(self, memory: int, pids: int, own: str | None = None, mounts: str | None = None):
        """``own`` and ``mounts`` are the texts of /proc/self/cgroup and /proc/self/mounts (tests give others)."""
        self.holds: tuple[str, ...] = ()
        self._folders: list[Path] = []
        limits = {"memory": memory, "pids": pids}
        for parent, controllers in _places(own, mounts):
            missing = [name for name in controllers if name not in self.holds]
            if missing:
                self._make(parent, {name: limits[name] for name in missing})

    def _make(self, parent: Path, limits: dict[str, int]) -> None:
        _sweep(parent)
        folder = parent / f"{_NAME}-{os.getpid()}-{next(_count)}"
        try:
            folder.mkdir()
        except OSError:
            return
        held = [name for name, limit in limits.items() if _write(folder, _FILES[name], limit)]
        if "memory" in held:
            _write(folder, (_SWAP[0],), 0) or _write(folder, (_SWAP[1],), limits["memory"])
        if held and os.access(folder / "cgroup.procs", os.W_OK):
            self._folders.append(folder)
            self.holds += tuple(held)
        else:
            _remove(folder)

    def add(self, pid: int) -> None:
        """Put a process in; what it starts later is in as well."""
        for folder in list(self._folders):
            if not _write(folder, ("cgroup.procs",), pid):
                self.holds = ()  # a limit that holds only in part is not one to promise
                self._folders.remove(folder)
                _remove(folder)

    def ran_out(self) -> bool:
        """True if the kernel of the system killed something in it for using too much memory."""
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    told = dict(line.split() for line in (folder / name).read_text().splitlines())
                    if int(told.get("oom_kill", 0)):
                        return True
        return False

    def close(self) -> None:
        """Remove the groups; what was in them has ended."""
        while self._folders:
            _remove(self._folders.pop())


def _places(own: str | None, mounts: str | None) -> list[tuple[Path, list[str]]]:
    """Where a group may be made, and which controllers it would have."""
    try:
        own = Path("/proc/self/cgroup").read_text() if own is None else own
        mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    except OSError:
        return []
    trees: dict[str, Path] = {}  # controller, or "" for version 2: where it is mounted
    for _device, point, kind, options, *_ in map(str.split, mounts.splitlines()):
        if kind == "cgroup2":
            trees[""] = Path(point)
        elif kind == "cgroup":
            trees |= {name: Path(point) for name in options.split(",") if name in _FILES}
    found = []
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name not in trees:
                continue
            here = trees[name] / path.lstrip("/")
            if name:
                found.append((here, [name]))
                continue
            for parent in (
                here,
                here.parent,
            ):  # our own group holds processes: mostly only a sibling may have limits
                with contextlib.suppress(OSError):
                    given = (parent / "cgroup.subtree_control").read_text().split()
                    found.append((parent, [name for name in _FILES if name in given]))
    return found


def _write(folder: Path, names: tuple[str, ...], value: int) -> bool:
    for name in names:
        with contextlib.suppress(OSError):
            if (folder / name).exists():
                (folder / name).write_text(str(value))
                return True
    return False


def _remove(folder: Path) -> None:
    for _ in range(100):  # the last process has ended, but may not yet have been taken out
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _sweep(parent: Path) -> None:
    """Remove what graders that were killed have left behind."""
    for left in parent.glob(f"{_NAME}-*"):
        maker = left.name.removeprefix(f"{_NAME}-").split("-")[0]
        if maker.isdigit() and not Path("/proc", maker).exists():
            with contextlib.suppress(OSError):
                left.rmdir()
