"""The student's log: one append-only file of JSON lines per lesson, beside the notebook.

Every state of the classroom (attempts, hints, predictions, quiz answers) is a fold over this file, so there
is one thing to keep safe. A line is written by a single ``write`` on an append-only descriptor: a crash can
tear only the line being written, and two notebooks can write at once. A line that cannot be read is reported
and left where it is; nothing is ever rewritten or deleted.

A line: {"v": 1, "at": "2026-01-31T09:30:00.123Z", "kind": "check", "id": "01.sample", "data": {...}}
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import course
from .errors import ClassroomError, lesson_of

SCHEMA = 1
LOCK_PATIENCE = 2.0  # seconds to wait for another writer before writing anyway


class StoreError(ClassroomError):
    """The log could not be written; the message is one sentence for the student."""


@dataclass(frozen=True)
class Event:
    """One thing the student did. ``at`` is UTC; ``id`` names the exercise, prediction or question."""

    kind: str
    id: str
    data: dict[str, Any] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def line(self) -> bytes:
        stamp = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"v": SCHEMA, "at": stamp, "kind": self.kind, "id": self.id, "data": self.data}
        try:  # readable by people where the text allows it
            return json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n"
        except UnicodeEncodeError:  # half a surrogate pair: legal in a Python string, not in UTF-8
            return json.dumps(record, default=str).encode() + b"\n"


def parse(line: bytes) -> Event:
    """The event in one line. Raises ValueError for anything that is not one of ours."""
    record = json.loads(line)
    if not isinstance(record, dict) or record.get("v") != SCHEMA or not isinstance(record.get("data"), dict):
        raise ValueError("not an event of this schema")
    at = datetime.fromisoformat(record["at"])
    if at.tzinfo is None or not isinstance(record["kind"], str) or not isinstance(record["id"], str):
        raise ValueError("not an event of this schema")
    return Event(record["kind"], record["id"], record["data"], at)


@dataclass(frozen=True)
class Log:
    """The log at ``path``; the file appears with the first event."""

    path: Path

    def append(self, kind: str, id: str, **data: Any) -> Event:
        """Write one event and return it once it is on the disk.

        Raises StoreError where the folder cannot be written.
        """
        event = Event(kind, id, data)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                with _alone(descriptor):
                    _write(descriptor, event.line())
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = (error.strerror or "it cannot be written").lower()
            raise StoreError(
                f"Your work could not be recorded in {self.path.name} ({reason}); make room or choose a "
                "folder you may write to, then try again."
            ) from None
        return event

    def events(self, kind: str | None = None, id: str | None = None) -> list[Event]:
        """Readable events in the order they happened, of one kind and id if given."""
        found = self._read()[0]
        return [e for e in found if (kind is None or e.kind == kind) and (id is None or e.id == id)]

    def complaint(self) -> str | None:
        """One sentence about what could not be read, or None when all is well."""
        _, unreadable, reason = self._read()
        if reason:
            return (
                f"{self.path.name} cannot be read ({reason}), so what you did before is not shown; it was left "
                "as it is: allow yourself to read it, or move it away."
            )
        if not unreadable:
            return None
        lines = "1 line" if unreadable == 1 else f"{unreadable} lines"
        return (
            f"{lines} of {self.path.name} could not be read (a crash while writing, or a newer version of "
            "the course); the file was left as it is and everything else was kept."
        )

    def _read(self) -> tuple[list[Event], int, str]:
        """The events, how many lines are none, and why the file as a whole cannot be read."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0, ""
        except OSError as error:
            return [], 0, (error.strerror or "the system says no more").lower()
        events, unreadable = [], 0
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            try:
                events.append(parse(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                unreadable += 1
        return events, unreadable, ""


def log_for(name: str) -> Log:
    """The log of a lesson, by number, slug or the id of anything in it ("01", "01_generation",
    "01.sample")."""
    return Log(course.student_dir() / f"{lesson_of(name).slug}.log.jsonl")


def student_seed(log: Log) -> int:
    """This student's own random number for this lesson: drawn once, then read back from the log."""
    for event in log.events("student"):
        if isinstance(event.data.get("seed"), int):
            return int(event.data["seed"])
    seed = random.SystemRandom().randrange(2**32)
    try:
        log.append("student", "seed", seed=seed)
    except StoreError:
        return 0  # nothing can be remembered here: at least everything stays the same
    # Another notebook may have drawn at the same moment: the first line wins for both.
    return next((int(e.data["seed"]) for e in log.events("student", "seed")), seed)


def _write(descriptor: int, line: bytes) -> None:
    line = _mended(descriptor) + line
    if os.write(descriptor, line) < len(line):
        # Cut short (a full disk): what was written is a torn line, and the event is written again in full.
        again = b"\n" + line
        if os.write(descriptor, again) < len(again):
            raise OSError(0, "the disk is full")
    with suppress(OSError):  # some network folders cannot; the line is written all the same
        os.fsync(descriptor)


def _mended(descriptor: int) -> bytes:
    """A newline if the file ends in the middle of a line, so that the torn line harms no other."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return b""
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return b"" if os.read(descriptor, 1) == b"\n" else b"\n"


@contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Keep other writers out between looking at the end of the file and writing, where the system can.

    A lock that cannot be had (Windows, some network folders, a stopped process) is done without: the append
    itself is atomic, so the worst that can happen is one torn line.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    give_up = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                break
            time.sleep(0.002)
        except OSError:
            break
    yield  # closing the descriptor gives the lock back
