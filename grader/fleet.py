"""Grades a class: many workers run submissions, one writer keeps the gradebook, and every result is kept at once.

A run that was stopped, at any moment and in any way, goes on where it was: results lie in a store by what decides them
(``fingerprint``), the gradebook is written a submission at a time, and writing twice changes nothing.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib import files
from lessonlib.course import CourseError

from . import apart, fingerprint, guard, work
from .grading import Budget, quiz_scores
from .store import Record, Store
from .writer import EXCHANGE, Outcome, Writer

if TYPE_CHECKING:
    from distributed import Client

SHORT = 1000  # bytes of a file of the exchange that are believed
AHEAD = 3  # submissions that wait at each worker, so that none is ever idle
GRADED, AGAIN, FAILED = "graded", "as before", "not graded"


@dataclass(frozen=True)
class Submission:
    """What a student handed in, in nbgrader's ``submitted`` folder."""

    student: str
    folder: Path
    slug: str

    def notebook(self) -> bytes | None:
        return plain_bytes(self.folder / f"{self.slug}.ipynb")

    def log(self) -> bytes:
        return plain_bytes(self.folder / f"{self.slug}.log.jsonl") or b""

    def exchange(self) -> dict[str, bytes]:
        """What nbgrader's exchange laid beside it."""
        found = {name: plain_bytes(self.folder / name) for name in EXCHANGE}
        return {name: data for name, data in found.items() if data is not None and len(data) <= SHORT}

    def when(self) -> datetime | None:
        """The moment in ``timestamp.txt``, UTC; None where there is none that can be read."""
        from nbgrader.utils import parse_utc

        try:
            return parse_utc((self.folder / "timestamp.txt").read_text(encoding="utf-8").strip())
        except (OSError, ValueError, OverflowError):
            return None


@dataclass(frozen=True)
class Event:
    """One submission is done. ``state``: GRADED, AGAIN (nothing had changed) or FAILED, with ``why``."""

    student: str
    state: str
    points: float = 0.0
    out_of: float = 0.0
    why: str = ""


@dataclass
class _Job:
    """Submissions that say the same, and what is still missing of their results."""

    rebuilt: guard.Rebuilt
    budget: Budget
    keys: dict[str, str]
    records: dict[str, Record]
    missing: list[str]
    waiting: list[Submission] = field(default_factory=list)


class Fleet:
    """One run over a class.

    course: nbgrader's folder. client: gives the client of a Dask cluster; asked for only when something has to run.
    again: exercises that are run even where their result is there.
    """

    def __init__(
        self, course: Path, lesson: work.Lesson, client: Callable[[], Client], again: Collection[str] = ()
    ):
        self.course, self.lesson, self._client, self.again = course, lesson, client, again
        self.release = lesson.open()
        self.store = Store(course / ".grading" / "results")
        self.exercises = [task.exercise for task in self.release.tasks]

    def run(self, submissions: Iterable[Submission]) -> Iterator[Event]:
        """Grade, write, and tell of each submission as it is done."""
        todo = deque(submissions)
        running: dict[Any, _Job] = {}
        by_content: dict[str, _Job] = {}
        with ExitStack() as stack:
            writer = stack.enter_context(Writer(self.course, self.release, self._config()))
            while todo or running:
                while todo and len(running) < self._room():
                    submission = todo.popleft()
                    job = self._job(submission)
                    content = fingerprint.digest(job.keys)
                    if not job.missing:
                        yield self._write(writer, submission, job)
                    elif content in by_content:
                        by_content[content].waiting.append(submission)
                    else:
                        job.waiting.append(submission)
                        by_content[content] = job
                        running[self._submit(submission, job)] = job
                if running:
                    yield from self._next(writer, running, by_content)

    def _next(self, writer: Writer, running: dict[Any, _Job], by_content: dict[str, _Job]) -> Iterator[Event]:
        """Wait until something is done, and write it."""
        from distributed import wait

        for future in wait([*running], return_when="FIRST_COMPLETED").done:
            job = running.pop(future)
            by_content.pop(fingerprint.digest(job.keys), None)
            if future.status != "finished":
                error = future.exception()
                why = (f"{error}".splitlines() or [type(error).__name__])[0][:300]
                yield from (Event(submission.student, FAILED, why=why) for submission in job.waiting)
                continue
            for exercise, record in future.result().items():
                self.store.put(job.keys[exercise], record, exercise in self.again)
                job.records[exercise] = record
            future.release()
            first, *same = job.waiting
            yield self._write(writer, first, job)
            for submission in same:
                mine = self._job(submission, again=())  # the notes and the log of each are its own
                mine.records.update(job.records)
                yield self._write(writer, submission, mine)

    def state(self, submission: Submission) -> bool:
        """Whether all of a submission's results are there already."""
        return not self._job(submission).missing

    @cached_property
    def client(self) -> Client:
        return self._client()

    @cached_property
    def _shared(self) -> Any:
        """The lesson, sent to every worker once. On a cluster the first one may stand in a queue for a while."""
        self.client.wait_for_workers(1)
        return self.client.scatter(self.lesson, broadcast=True)

    def _submit(self, submission: Submission, job: _Job) -> Any:
        return self.client.submit(
            apart.run, self._shared, submission.notebook(), job.missing, job.budget, pure=False, retries=1
        )

    def _room(self) -> int:
        """How many submissions may be on their way: a class of a thousand must not lie in memory."""
        if "client" not in self.__dict__:
            return AHEAD
        return AHEAD * max(1, len(self.client.scheduler_info()["workers"]))

    def _job(self, submission: Submission, again: Collection[str] | None = None) -> _Job:
        rebuilt = guard.rebuild(self.release, submission.notebook(), submission.log())
        budget = self.lesson.budget.times(self.factors.get(submission.student, 1.0))
        keys = fingerprint.keys(self.release, rebuilt, self.lesson.seed, budget)
        asked_again = self.again if again is None else again
        found = {
            exercise: self.store.get(key) for exercise, key in keys.items() if exercise not in asked_again
        }
        records = {exercise: record for exercise, record in found.items() if record is not None}
        missing = [exercise for exercise in self.exercises if exercise not in records]
        return _Job(rebuilt, budget, keys, records, missing)

    @cached_property
    def factors(self) -> dict[str, float]:
        """Students who have more time, and how many times as much."""
        return time_factors(self.course)

    def _write(self, writer: Writer, submission: Submission, job: _Job) -> Event:
        ordered = {exercise: job.records[exercise] for exercise in self.exercises}
        quiz = list(quiz_scores(self.release, job.rebuilt))
        outcome = Outcome(
            submission.student, job.rebuilt, ordered, quiz, submission.when(), submission.exchange()
        )
        points = sum(r["points"] for r in ordered.values()) + sum(s.points for s in quiz)
        out_of = sum(r["out_of"] for r in ordered.values()) + sum(s.out_of for s in quiz)
        state = AGAIN if writer.is_written(outcome) else GRADED
        if state == GRADED:
            writer.write(outcome)
        return Event(submission.student, state, points, out_of)

    def _config(self) -> Any:
        from .release import course_config

        return course_config(self.course)


def submissions(course: Path, slug: str, students: Iterable[str] = ()) -> list[Submission]:
    """The class's submissions of a lesson. Raises CourseError where there are none, or not of these students."""
    found = {
        folder.parent.name: Submission(folder.parent.name, folder, slug)
        for folder in sorted((course / "submitted").glob(f"*/{slug}"))
        if folder.is_dir() and not folder.is_symlink()
    }
    if not found:
        raise CourseError(f"Nobody has handed in {slug} yet: nothing lies in {course}/submitted/*/{slug}.")
    if unknown := sorted({*students} - {*found}):
        raise CourseError(f"{', '.join(unknown)} did not hand in {slug}; look in {course}/submitted.")
    return [found[name] for name in sorted(students or found)]


def lesson(
    course: Path, slug: str, budget: Budget | None = None, unsafe_local: bool = False, keep: bool = True
) -> work.Lesson:
    """A lesson as the fleet needs it. Raises CourseError where it has not been built. keep: see ``seed_of``."""
    path = course / "source" / slug / f"{slug}.ipynb"
    guard.load(path)
    return work.Lesson(
        slug, path.read_text(encoding="utf-8"), seed_of(course, slug, keep), budget or Budget(), unsafe_local
    )


def seed_of(course: Path, slug: str, keep: bool = True) -> int:
    """What decides the probes' inputs: drawn once for a lesson of a class, so that a run can go on and be repeated.

    Not ``keep``: for who only looks, and leaves nothing behind.
    """
    path = course / ".grading" / "seeds" / slug
    drawn = random.SystemRandom().randrange(2**32)
    if keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            files.create(path, str(drawn).encode())
    return int(path.read_text()) if path.is_file() else drawn


def time_factors(course: Path) -> dict[str, float]:
    """How many times the usual limits a student has: ``.grading/time.json``, kept by `lesson class time`.

    Raises CourseError where that file is damaged: whoever was promised more time would get the usual.
    """
    path = course / ".grading" / "time.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(student): float(factor) for student, factor in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise CourseError(
            f"{path} is damaged ({error}); mend it, or delete it and say every student's time again."
        ) from None


def plain_bytes(path: Path) -> bytes | None:
    """The bytes of an ordinary file, one more than is read at most; None for links, folders and what is not there."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with open(path, "rb") as file:
            return file.read(guard.LIMIT + 1)
    except OSError:
        return None


__all__ = ["AGAIN", "FAILED", "GRADED", "Event", "Fleet", "Submission", "lesson", "submissions"]
