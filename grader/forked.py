"""Starts a kernel by forking it into a `Jail`: the sandbox is the same, Python and PyTorch are there already."""

from __future__ import annotations

import base64
import os
import select
from contextlib import ExitStack
from typing import Any

from jupyter_client.connect import KernelConnectionInfo

from grader import seccomp
from grader.provisioner import LockedProvisioner
from grader.sandbox import SandboxError
from grader.warm import NoFork, Zygote

_READY = 20.0  # seconds for bubblewrap to make a sandbox


class ForkedProvisioner(LockedProvisioner):
    """Bubblewrap starts a holder, which is locked up as a kernel is and waits; the kernel is forked beside it.

    The keeper, outside, ends the holder when the kernel has ended; then bubblewrap ends as well: see ``inside.zygote``.
    """

    zygote: Zygote
    _told: int | None = None  # where the keeper says how the kernel ended

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """As `LockedProvisioner.launch_kernel`. Raises: SandboxError, also where there is no fork to be had."""
        assert self.jail is not None and self.parent is not None
        with ExitStack() as opened:

            def pipe() -> tuple[int, int]:
                ends = os.pipe()
                for end in ends:
                    opened.callback(os.close, end)
                return ends

            (held, holder), (ready, ready_in), (go, go_in) = pipe(), pipe(), pipe()
            words = self._listen()
            opened.callback(os.close, words)
            self._told, tell = os.pipe()
            opened.callback(os.close, tell)
            command = self.jail.command(self.parent.connection_file, holds=True)
            info = await self._bubblewrap(command, words, held, ready_in)
            assert self._init is not None and self._group is not None
            asked = {
                **self.jail.asked(self.parent.connection_file),
                "seccomp_start": base64.b64encode(seccomp.for_start()).decode(),
                "environment": self.jail.environment(),
            }
            try:
                keeper = self.zygote.fork(asked, [self._init, words, holder, go, tell])
            except NoFork as error:
                raise SandboxError(f"There is no warm kernel to be had ({error}).") from None
            self._group.add(keeper)  # the kernel is its child, and is counted with it
            if not select.select([ready], [], [], _READY)[0] or os.read(ready, 1) != b"1":
                raise SandboxError(
                    f"The sandbox does not get ready ({self.last_words() or 'no reason given'})."
                )
            os.write(go_in, b"1")
            return info

    def exit_status(self, seconds: float) -> int | None:
        """The kernel's own, not bubblewrap's, which ends when the holder does."""
        if self._told is None or not select.select([self._told], [], [], seconds)[0]:
            return super().exit_status(seconds)
        return int(os.read(self._told, 20) or 0)

    def end(self) -> None:
        super().end()
        if self._told is not None:
            os.close(self._told)
            self._told = None
