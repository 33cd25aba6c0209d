"""The first code that runs inside: bring the files in, close the doors, then become a Jupyter kernel.

Runs as a script in a place where the rest of the course's grader does not exist: the standard library only.
The one argument is JSON, see ``Jail.command``. ``zygote`` does the same in a process that was forked.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sys
from typing import Any


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked.get("holds"):  # keeps the place for a forked kernel, and is locked up as it is
        close_doors(asked)
        os.write(1, b"1")
        os.read(0, 1)
        return
    bring_files(asked)
    close_doors(asked)
    del sys.path[0]  # this script's folder
    become_kernel(asked)


def bring_files(asked: dict[str, Any]) -> None:
    if asked["files"]:
        shutil.copytree(asked["files"], asked["work"], dirs_exist_ok=True)
    os.chdir(asked["work"])


def close_doors(asked: dict[str, Any]) -> None:
    limit(asked["limits"])
    if asked["seccomp"]:
        no_other_program(base64.b64decode(asked["seccomp"]))


def become_kernel(asked: dict[str, Any]) -> None:
    from ipykernel import kernelapp

    sys.argv = ["ipykernel_launcher", "-f", asked["connection"], "--HistoryManager.enabled=False"]
    kernelapp.launch_new_instance()


def limit(limits: dict[str, list[int]]) -> None:
    """Set resource limits by name (``{"RLIMIT_AS": [soft, hard]}``), as far as this system knows them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, (soft, hard) in limits.items():
        number = getattr(resource, name, None)
        if number is None:
            continue
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some; one may be lower already
            most = resource.getrlimit(number)[1]
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            resource.setrlimit(number, (soft, hard))


def no_other_program(program: bytes) -> None:
    """Install a seccomp filter (an array of struct sock_filter) for this process and all its threads to come.

    Raises: OSError; without the filter the kernel must not start.
    """
    import ctypes

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    code = ctypes.create_string_buffer(program, len(program))
    asked = Program(len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    set_no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    prctl(set_no_new_privileges, 1, 0, 0, 0)
    if prctl(set_seccomp, mode_filter, ctypes.addressof(asked), 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter was not accepted")


if __name__ == "__main__":
    main()
