"""Runs cells in a locked-up kernel and brings back what they showed, within limits, whatever the kernel does.

All that comes from the kernel is data: it may be wrong, forged, endless or nothing at all, and none of that raises.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

from grader.collect import OUT_OF_MEMORY, Collected
from grader.forked import ForkedProvisioner
from grader.provisioner import LockedProvisioner, UnlockedProvisioner
from grader.sandbox import Jail, SandboxError
from grader.warm import Zygote
from grader.zmtp import Channel, Lost, Message, Session
from lessonlib.classroom.kernel import DIED, TOO_LONG

START = 60.0  # seconds until a kernel must answer
GRACE = 3.0  # seconds for code to stop after an interrupt
_QUIET = logging.Logger("grader.locked", logging.CRITICAL + 1)  # errors are told once, by us
_SOFT_EXIT = "from sys import exit; quit = exit"  # IPython's own end the kernel, a moment later
_XCPU = 24  # SIGXCPU
_TAIL = 1.0  # seconds for the rest, once the kernel has said that it is done
_TICK = 0.25  # seconds between looks at whether the process lives
_CHANNELS = {"shell": "DEALER", "control": "DEALER", "iopub": "SUB"}


@dataclass(frozen=True)
class Ran:
    """What one piece of code did. ``problem``: None, "too long", "died", "out of memory", or the error in one line;
    ``outputs``: as in a notebook (nbformat 4); ``cut``: True if some were left out."""

    problem: str | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    cut: bool = False


class LockedKernel:
    """This very Python, locked up in ``jail``; a context manager that ends it. One thread at a time may use it.

    Args:
        unsafe_local: run it in no jail at all (macOS, Windows): limits where the system has them, no walls.
        zygote: what forks it, where that can be done; else Python starts from nothing.

    Raises (on entering): SandboxError if it cannot be locked up here or does not start.
    """

    def __init__(self, jail: Jail, unsafe_local: bool = False, zygote: Zygote | None = None):
        self.jail = jail
        self.room = jail.room
        self._manager = _Manager(kernel_spec_manager=_ThisPython(), log=_QUIET)
        about: dict[str, Any] = {
            "kernel_id": "",
            "kernel_spec": self._manager.kernel_spec,
            "parent": self._manager,
        }
        self._provisioner: UnlockedProvisioner | LockedProvisioner
        if unsafe_local:
            self._provisioner = UnlockedProvisioner(**about)
        elif zygote is not None:
            self._provisioner = ForkedProvisioner(**about)
            self._provisioner.zygote = zygote
        else:
            self._provisioner = LockedProvisioner(**about)
        self._provisioner.jail = jail
        self._manager.provisioner = self._provisioner
        self._channels: dict[str, Channel] = {}
        self._alive = False

    def __enter__(self) -> LockedKernel:
        self.jail.wire.mkdir(mode=0o700, exist_ok=True)
        try:
            self._manager.start_kernel()
            self._alive = True
            self._connect()
        except SandboxError:
            self.kill()
            raise
        except (RuntimeError, OSError, Lost) as error:
            words = self._provisioner.last_words() or (str(error).splitlines() or [type(error).__name__])[0]
            self.kill()
            raise SandboxError(
                f"Python did not start in the sandbox ({words}); lesson doctor says what is missing."
            ) from None
        except BaseException:  # Ctrl-C while it starts: it must not stay behind
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """True while the kernel can be asked to run something."""
        process = self._provisioner.process
        return self._alive and process is not None and process.poll() is None

    def holding(self) -> tuple[str, ...]:
        """The limits in force, see `LockedProvisioner.holding`."""
        return self._provisioner.holding()

    def kill(self) -> None:
        """End it now, with everything that runs in it."""
        self._alive = False
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._provisioner.end()

    def run(
        self, source: str, seconds: float, on_output: Callable[[dict[str, Any]], None] | None = None
    ) -> Ran:
        """Run a cell and wait until it ends, at most so many seconds, some more if it must be interrupted.

        Args:
            on_output: called with each new output as it comes (a later text of the same stream is added to it).
        """
        if not self.alive:  # between two cells
            self.kill()
            return Ran(DIED)
        collected = Collected(on_output)
        try:
            asked = self._execute(source)
            if not self._wait(asked, seconds, collected):
                collected.problem = TOO_LONG
                self._send("control", "interrupt_request", {})
                if not self._wait(asked, GRACE, collected):
                    self.kill()
        except Lost:
            self._died(collected)
        return Ran(collected.problem, collected.outputs, collected.cut)

    def begin(self, source: str) -> str:
        """Begin to run a cell, for whoever talks to it by other ways meanwhile; `end` waits for it. Raises: Lost."""
        return self._execute(source, history=False)

    def end(self, asked: str, seconds: float) -> None:
        """Wait for what was begun, at most so many seconds; a kernel that is not done then is killed."""
        try:
            if not self._wait(asked, seconds, Collected()):
                self.kill()
        except Lost:
            self.kill()

    def interrupt(self) -> None:
        """Ask what runs to stop; whether it does is its own business."""
        with contextlib.suppress(Lost):
            self._send("control", "interrupt_request", {})

    def _wait(self, asked: str, seconds: float, collected: Collected) -> bool:
        """Collect outputs until the kernel says that it is done (True) or time is up. Raises: Lost."""
        deadline = time.monotonic() + seconds
        said: set[str] = set()  # that it is done: "iopub" that no output follows, "shell" how it went
        with selectors.DefaultSelector() as selector:
            for name, channel in self._channels.items():
                selector.register(channel, selectors.EVENT_READ, name)
            while (left := deadline - time.monotonic()) > 0 and len(said) < 2:
                ready = selector.select(min(left, _TICK))
                if not ready and not self.alive:
                    raise Lost("ended")
                for key, _ in ready:
                    for message in self._read(key.data, collected):
                        if message.parent != asked or key.data in said:
                            continue
                        if (message.kind == "execute_reply") == (key.data == "shell") and collected.add(
                            message
                        ):
                            said.add(key.data)
                            deadline = min(deadline, time.monotonic() + _TAIL)
        return bool(said)  # of a kernel that floods, one of the two may be lost

    def _read(self, name: str, collected: Collected) -> list[Message]:
        known = []
        for parts in self._channels[name].read():
            if parts is None:
                collected.too_much()
            elif message := self._session.unpack(parts):
                known.append(message)
        return known

    def _execute(self, source: str, history: bool = True) -> str:
        request = {"code": source, "silent": False, "store_history": history, "user_expressions": {}}
        return self._send("shell", "execute_request", request | {"allow_stdin": False, "stop_on_error": True})

    def _send(self, channel: str, kind: str, content: dict[str, Any]) -> str:
        asked, parts = self._session.pack(kind, content)
        self._channels[channel].send(parts)
        return asked

    def _died(self, collected: Collected) -> None:
        """Say how it ended, if that can be told, and see that it did."""
        status = self._provisioner.exit_status(
            _TAIL
        )  # the socket closes a little before the process has ended
        if self._provisioner.ran_out_of_memory():
            collected.problem = OUT_OF_MEMORY
        elif status in (128 + _XCPU, -_XCPU):
            collected.problem = TOO_LONG
        elif collected.problem != TOO_LONG:
            collected.problem = DIED
        self.kill()

    def _connect(self) -> None:
        """Connect while only our own code has run in the kernel, then take the sockets' folder away."""
        manager = self._manager
        self._session = Session(manager.session.key)
        deadline = time.monotonic() + START
        for name, kind in _CHANNELS.items():
            port = getattr(manager, f"{name}_port")
            address = f"{manager.ip}-{port}" if manager.transport == "ipc" else (manager.ip, port)
            while name not in self._channels:
                try:
                    self._channels[name] = Channel(address, kind)
                except OSError:
                    if not self.alive or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        while not self._channels["iopub"].read():  # the kernel greets whom it has heard subscribe
            pass
        asked = self._execute(_SOFT_EXIT, history=False)
        if not self._wait(asked, deadline - time.monotonic(), Collected()):
            raise Lost("no answer")
        shutil.rmtree(self.jail.wire, ignore_errors=True)  # nothing can be made in a folder that is gone


class _Manager(KernelManager):
    """Starts a kernel and does not talk to it: libzmq would read without limit."""

    def _connect_control_socket(self) -> None:
        pass


class _ThisPython(KernelSpecManager):
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=[sys.executable], display_name="", language="python", interrupt_mode="message")
