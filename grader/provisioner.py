"""Starts a Jupyter kernel in a `Jail`: the kernel provisioner ``lesson-locked``.

A kernel.json that wants it says ``"interrupt_mode": "message"`` and
``"metadata": {"kernel_provisioner": {"provisioner_name": "lesson-locked", "config": {"library": "<folder>"}}}``.
Whoever talks to such a kernel through jupyter_client reads what it sends as libzmq does, without limits on size;
`grader.locked.LockedKernel` has them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Dict, Unicode

from grader import seccomp
from grader.cgroup import Group
from grader.sandbox import Jail, Limits, SandboxError, make_room, remove_room, why_not

_ENDING = 10_000  # milliseconds for the system to end what was killed
_WORDS = 4096  # bytes of standard error that are read


class LockedProvisioner(LocalProvisioner):
    """The process outside is bubblewrap; it ends when the kernel ends, and the kernel ends when it ends.

    It also ends with the *thread* that started it (that is what --die-with-parent means).
    """

    library = Unicode("", help="A folder with the copy of lessonlib that kernels import.").tag(config=True)
    limits: Dict = Dict(help="Fields of grader.sandbox.Limits that differ from the defaults.").tag(
        config=True
    )

    jail: Jail | None = None  # given by LockedKernel; else one is made, and removed with the kernel
    _own_room: Path | None = None
    _group: Group | None = None
    _init_pid = 0  # of the first process in the pid namespace, as seen from here
    _init: int | None = None  # a pidfd of it: its end is the end of all
    _stderr: int | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        if reason := why_not():
            raise SandboxError(reason)
        if self.jail is None:
            self._own_room = make_room()
            self.jail = Jail(
                self._own_room, Path(self.library) if self.library else None, limits=Limits(**self.limits)
            )
        use_sockets(self.parent, self.jail)
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel locked up. Of what jupyter_client wants (`cmd`, environment, folder), nothing is used.

        Raises: SandboxError if bubblewrap ends before the kernel begins.
        """
        assert self.jail is not None and self.parent is not None
        words = self._listen()
        try:
            return await self._bubblewrap(self.jail.command(self.parent.connection_file), words)
        finally:
            os.close(words)

    def _listen(self) -> int:
        """A descriptor for what runs inside to write its last words to."""
        self._stderr, words = os.pipe()
        os.set_blocking(self._stderr, False)
        return words

    async def _bubblewrap(
        self,
        command: list[str],
        words: int,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> KernelConnectionInfo:
        """Run a command in a new sandbox, and take hold of it."""
        assert self.jail is not None
        info, info_in = os.pipe()
        block, block_in = os.pipe()
        rules, rules_in = os.pipe()
        try:
            os.write(rules_in, seccomp.for_start())  # a kilobyte: it fits
            os.close(rules_in)
            try:
                extra = ("--info-fd", str(info_in), "--block-fd", str(block))
                told = await super().launch_kernel(
                    self.jail.argv(command, seccomp_fd=rules, extra=extra),
                    stdin=stdin,
                    stdout=stdout,
                    stderr=words,
                    env={},
                    cwd="/",
                    pass_fds=(info_in, block, rules),
                )
            finally:
                for theirs in (info_in, block, rules):
                    os.close(theirs)
            self._hold(info)
            os.write(block_in, b"1")
        finally:
            os.close(info)
            os.close(block_in)
        return told

    def _hold(self, info: int) -> None:
        """Take hold of the new process, which waits, and put it into its control group."""
        assert self.jail is not None
        answer = b""
        while not answer.rstrip().endswith(b"}"):
            part = os.read(info, 4096)
            if not part:
                assert self.process is not None
                self.process.wait()
                raise SandboxError(
                    f"bubblewrap could not start the kernel ({self.last_words() or 'no reason given'})."
                )
            answer += part
        self._init_pid = int(json.loads(answer)["child-pid"])
        self._init = os.pidfd_open(self._init_pid)
        self._group = Group(self.jail.limits.resident, self.jail.limits.threads)
        self._group.add(self._init_pid)

    def holding(self) -> tuple[str, ...]:
        """Which limits are in force: names from `Limits`, and what else stands in the way."""
        assert self.jail is not None
        names = ["namespaces", "seccomp", "memory", "cpu", "file_size", "open_files", "temporary"]
        held = self._group.holds if self._group else ()
        if "memory" in held:
            names.append("resident")
        if "pids" in held or "RLIMIT_NPROC" in self.jail.limits.rlimits():
            names.append("threads")
        return tuple(names)

    def last_words(self) -> str:
        """The last line of what the process wrote to its standard error, if that fits into a pipe."""
        said = b""
        with contextlib.suppress(OSError, TypeError):
            while part := os.read(self._stderr, 65536):  # type: ignore[arg-type]
                said = (said + part)[-_WORDS:]
        return (said.decode(errors="replace").strip().splitlines() or [""])[-1]

    def ran_out_of_memory(self) -> bool:
        """True if the control group's limit ended it."""
        return self._group is not None and self._group.ran_out()

    def exit_status(self, seconds: float) -> int | None:
        """How it ended (negative: the signal), if it does so within that time."""
        return _status(self.process, seconds)

    def end(self) -> None:
        """Kill the kernel and all that runs with it, and wait until nothing is left. Twice is as good as once."""
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            waiting = select.poll()
            waiting.register(self._init, select.POLLIN)  # readable once it and its whole namespace have ended
            waiting.poll(_ENDING)
            os.close(self._init)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._stderr is not None:
            os.close(self._stderr)
        if self._group is not None:
            self._group.close()
        self._init = self._stderr = self._group = None

    async def kill(self, restart: bool = False) -> None:
        self.end()

    async def cleanup(self, restart: bool = False) -> None:
        self.end()
        if self._own_room is not None and not restart:
            remove_room(self._own_room)
            self._own_room = None
        await super().cleanup(restart=restart)


class UnlockedProvisioner(LocalProvisioner):
    """The same kernel in no jail, for systems that have none: it can read, write and send whatever you can."""

    jail: Jail

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        if os.name == "posix":
            use_sockets(self.parent, self.jail)
        else:
            assert self.parent is not None
            self.parent.connection_file = str(self.jail.wire / "kernel.json")
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        assert self.parent is not None
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = self.jail.command(self.parent.connection_file, locked=False)
        own = self.jail.environment() | {
            "HOME": str(self.jail.room),
            "IPYTHONDIR": str(self.jail.room / ".ipython"),
        }
        own["MPLCONFIGDIR"] = str(self.jail.room / ".matplotlib")
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP") if name in os.environ}
        return await super().launch_kernel(command, env=own | kept, cwd=str(self.jail.work), **quiet)

    def holding(self) -> tuple[str, ...]:
        return ("memory", "cpu", "file_size", "open_files") if os.name == "posix" else ()

    def ran_out_of_memory(self) -> bool:
        return False

    def last_words(self) -> str:
        return ""

    def exit_status(self, seconds: float) -> int | None:
        return _status(self.process, seconds)

    def end(self) -> None:
        """Kill the kernel and its process group (what has left the group lives on)."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            if self.pgid:
                os.killpg(self.pgid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()

    async def kill(self, restart: bool = False) -> None:
        self.end()


def _status(process: subprocess.Popen[bytes] | None, seconds: float) -> int | None:
    if process is None:
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode


def use_sockets(manager: Any, jail: Jail) -> None:
    """Make a kernel manager talk over sockets in ``room/wire`` instead of ports that every user can reach."""
    manager.transport = "ipc"
    manager.cache_ports = False
    manager.connection_file = str(jail.wire / "kernel.json")
    manager.ip = str(jail.wire / "s")
