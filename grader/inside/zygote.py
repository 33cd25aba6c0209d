"""A process that has imported what kernels need, and forks one into each sandbox that stands ready.

Started by ``grader.warm`` outside of any sandbox, with the kernels' environment and the copy of lessonlib they get. It
never runs a student's code and holds nothing that a student may not read: a child's memory begins as a copy of this.

Three processes for each kernel. The *keeper* is forked here, joins the namespaces that bubblewrap has made and forks
the *kernel*, the first of the two to be inside the pid namespace; the kernel gives up all rights and goes on as
``launch`` does. The keeper stays behind where no student's code can see it, says how the kernel ended, and takes the
*holder* with it: the process bubblewrap started, which keeps the place and is locked up as the kernel is.

Source: setns(2), pid_namespaces(7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import base64
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import launch

_NEW_CGROUP = 0x02000000
# user, mount, pid, network, ipc, uts (CLONE_NEW…): all that bubblewrap is told to make
_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
_DROP_BOUNDING, _AMBIENT, _CLEAR_AMBIENT = 24, 47, 4
_CAPABILITIES_3 = 0x20080522
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # this script's folder
    for name in json.loads(sys.argv[2]):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    gc.collect()
    gc.freeze()  # what is here stays, and shared
    line.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(line, 2**18, 5)
        if not request:
            return
        if threads() != 1:
            line.send(b"0")  # a fork would copy one thread and the locks of all
        elif (keeper := os.fork()) == 0:
            line.close()
            keep(json.loads(request), *descriptors)
        else:
            line.send(str(keeper).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def keep(asked: dict[str, Any], jail: int, words: int, holder: int, go: int, told: int) -> None:
    """Be the keeper of one kernel, to the end. Never returns.

    Args:
        jail: a pidfd of the sandbox's first process. words: what the kernel writes to standard error.
        holder: closed when the kernel has ended. go: is read before anything is done. told: gets the exit status.
    """
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.read(go, 1) != b"1":
            return
        join(jail)
        if (kernel := os.fork()) == 0:
            become_kernel(asked, words)
        status = os.waitstatus_to_exitcode(os.waitpid(kernel, 0)[1])
        os.write(told, str(status).encode())
    finally:
        os._exit(0)


def join(jail: int) -> None:
    """Enter all namespaces of a process. Raises: OSError."""
    if _LIBC.setns(jail, _NAMESPACES | _NEW_CGROUP) and _LIBC.setns(jail, _NAMESPACES):
        raise OSError(ctypes.get_errno(), "the namespaces cannot be joined")


def become_kernel(asked: dict[str, Any], words: int) -> None:
    """Be the kernel, inside. Never returns."""
    with suppress(SystemExit):
        os.setsid()
        os.dup2(words, 2)
        os.closerange(3, 2**20)
        os.environ.update(asked["environment"])
        give_up_rights()
        launch.no_other_program(base64.b64decode(asked["seccomp_start"]))
        launch.bring_files(asked)
        launch.close_doors(asked)
        new_luck()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        launch.become_kernel(asked)
    os._exit(0)


def give_up_rights() -> None:
    """No capability is left, and none can be had again. Raises: OSError."""
    for capability in range(64):
        _LIBC.prctl(_DROP_BOUNDING, capability, 0, 0, 0)  # fails from the last one on
    _LIBC.prctl(_AMBIENT, _CLEAR_AMBIENT, 0, 0, 0)
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    if _LIBC.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "the capabilities cannot be dropped")


def new_luck() -> None:
    """Random generators of the copy go on differently from the next one's."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()


if __name__ == "__main__":
    main()
