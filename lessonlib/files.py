"""Writing files so that nobody's work is lost: whole or not at all, and never one over another by accident.

A leaf: it imports nothing of ours. Errors are the system's own (OSError); who calls says what they mean.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


def create(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet. Raises FileExistsError if anything has its name."""
    fresh = _aside(path, data)
    try:
        os.link(fresh, path)  # unlike a rename, a link never replaces what is there
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first, then fill it
        open(path, "xb").close()
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def replace(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file over the one that may be there, keeping its permissions.

    Not ``durable``: for what can be made again; where the power fails it may be damaged afterwards.
    """
    fresh = _aside(path, data, durable)
    try:
        with suppress(OSError):
            shutil.copymode(path, fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _aside(path: Path, data: bytes, durable: bool = True) -> Path:
    """The data, safely on disk under a name of its own beside `path`."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(aside, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside
