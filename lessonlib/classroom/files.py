"""The student's files: read whole and with care, written whole or not at all, never one over another.

The errors are sentences for the student.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from lessonlib import files

from .errors import ClassroomError

LIMIT = 20 * 2**20  # bytes; a notebook full of pictures has one or two million


class FileError(ClassroomError):
    """A file that cannot be read or written; one sentence saying what to do."""


def read(path: Path, limit: int | None = LIMIT) -> bytes:
    """The bytes of an ordinary file of at most `limit` bytes. Raises FileError for anything else."""
    if path.is_symlink():
        raise FileError(
            f"{path} is a link, which the grader does not follow; put the file itself in its place."
        )
    if not os.path.lexists(path):
        raise FileError(
            f"There is no {path.name} in {path.parent}; name the folder with your lessons with --dir, or start "
            "`lesson lab` to have them put there."
        )
    if not path.is_file():
        raise FileError(f"{path} is not a file; move it away and put your {path.name} there.")
    try:
        with open(path, "rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({_reason(error)}); allow yourself to read it.") from None
    if limit is not None and len(data) > limit:
        raise FileError(
            f"{path.name} is larger than {limit // 2**20} MiB, more than the grader reads; make it smaller (in a "
            "notebook, clear the outputs of cells that print or draw very much), save, and try again."
        )
    return data


def create(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet. Raises FileExistsError if it is, FileError if it cannot be."""
    try:
        files.create(path, data)
    except FileExistsError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from None


def create_numbered(folder: Path, stem: str, suffix: str, data: bytes) -> Path:
    """Write `stem-N.suffix` with a number above all that are there: the highest is always the newest."""
    pattern = re.compile(re.escape(stem) + r"-(\d{1,9})" + re.escape(suffix))
    while True:
        try:
            taken = [int(found[1]) for name in os.listdir(folder) if (found := pattern.fullmatch(name))]
        except OSError as error:
            raise _unwritable(folder / f"{stem}{suffix}", error) from None
        path = folder / f"{stem}-{max(taken, default=0) + 1}{suffix}"
        with suppress(FileExistsError):  # somebody else took the number in between
            create(path, data)
            return path


def replace(path: Path, data: bytes) -> None:
    """Write a file over the one that is there, keeping its permissions. Raises FileError."""
    try:
        files.replace(path, data)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        f"{path.name} cannot be written to {path.parent} ({_reason(error)}); make room, or choose a folder you "
        "may write to."
    )


def _reason(error: OSError) -> str:
    return (error.strerror or "the system says no more").lower()
