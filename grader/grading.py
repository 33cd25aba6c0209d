"""Grades one submission: rebuilds it, runs its solutions in a locked-up kernel, probes them from outside.

A pure function of bytes: it touches no database and no file of the class, so it can run anywhere. Whatever a submission
does costs that submission only: a dead kernel, a loop without end or too much memory is a zero with the reason, and the
next exercise starts in a new kernel.
"""

from __future__ import annotations

import importlib
import random
import socket
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lessonlib.classroom import checking, workbook
from lessonlib.classroom.checking import Failure, Report
from lessonlib.classroom.exercises import Exercise, Observation, StudentError, find
from lessonlib.classroom.kernel import DIED, TOO_LONG
from lessonlib.classroom.whole_lesson import said

from . import probes, warm
from .checks import Hidden
from .conversation import Conversation, Lost
from .guard import Rebuilt, Release, Task
from .keys import Scored, score
from .library import AGENT, library
from .locked import OUT_OF_MEMORY, LockedKernel, Ran
from .sandbox import Jail, Limits, SandboxError, make_room, remove_room

SOCKET = "probes"
NAMES = "get_ipython().user_ns"
ENDED = (DIED, OUT_OF_MEMORY, TOO_LONG)  # how code ends that leaves no kernel to go on in, or no time
QUICK = 10.0  # seconds: an exercise that failed in less is tried once more, alone


@dataclass(frozen=True)
class Budget:
    """Seconds: of one cell, of all probes of one exercise, of the whole submission; and what the kernel may use."""

    cell: float = 60.0
    probes: float = probes.SECONDS
    submission: float = 300.0
    limits: Limits = field(default_factory=Limits)

    def times(self, factor: float) -> Budget:
        """So many times the time; the memory stays."""
        limits = replace(self.limits, cpu=round(self.limits.cpu * factor))
        return Budget(self.cell * factor, self.probes * factor, self.submission * factor, limits)


@dataclass(frozen=True)
class Graded:
    """One exercise. ``outputs``: what its cell showed. ``why``: what ended it before its probes could, if anything."""

    task: Task
    report: Report
    outputs: tuple[dict[str, Any], ...] = ()
    why: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        return self.task.points if self.report.passed else 0.0


@dataclass(frozen=True)
class Result:
    """What one submission earned, and how."""

    exercises: tuple[Graded, ...]
    quiz: tuple[Scored, ...]
    notes: tuple[str, ...]
    unreadable: str | None
    seconds: float

    @property
    def points(self) -> float:
        return sum(e.points for e in self.exercises) + sum(q.points for q in self.quiz)


def grade(
    release: Release,
    rebuilt: Rebuilt,
    seed: int,
    cache: Path,
    budget: Budget | None = None,
    unsafe_local: bool = False,
    only: Collection[str] | None = None,
) -> Result:
    """What a rebuilt submission earned.

    seed: decides the inputs of the probes. cache: a folder for what all submissions share. only: these exercises, by
    default all.
    Raises SandboxError where nothing can be locked up here; never because of what a submission does.
    """
    began = time.monotonic()
    budget = budget or Budget()
    with ExitStack() as stack:
        runner = stack.enter_context(_Runner(release, rebuilt, cache, budget, unsafe_local, began))
        asked = [task for task in release.tasks if only is None or task.exercise in only]
        graded = tuple(runner.graded(task, _seed(seed, task.exercise)) for task in asked)
    return Result(
        graded,
        tuple(quiz_scores(release, rebuilt)),
        rebuilt.notes,
        rebuilt.unreadable,
        time.monotonic() - began,
    )


def hidden_checks(exercise_id: str) -> Hidden:
    """The probes of an exercise, from ``grader.checks``."""
    number, name = exercise_id.split(".")
    found = getattr(importlib.import_module(f"grader.checks.lesson_{number}"), name)
    assert isinstance(found, Hidden)
    return found


def quiz_scores(release: Release, rebuilt: Rebuilt) -> Iterable[Scored]:
    """The graded questions, scored from the log that was handed in."""
    from lessonlib.classroom.bank import load
    from lessonlib.classroom.quiz import answered
    from lessonlib.classroom.store import Log

    if release.quiz is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        log.write_bytes(rebuilt.log)
        return score(release.slug, answered(Log(log), load(release.slug)))


class _Runner:
    """The kernel of one submission, begun anew where a cell took it along."""

    def __init__(
        self,
        release: Release,
        rebuilt: Rebuilt,
        cache: Path,
        budget: Budget,
        unsafe_local: bool,
        began: float,
    ):
        self.release, self.rebuilt, self.budget, self.unsafe_local = release, rebuilt, budget, unsafe_local
        self.tasks = [task for task in release.tasks if task.cell not in rebuilt.blank]
        forbidden = {name for task in release.tasks for name in hidden_checks(task.exercise).forbid}
        self.library = library(release.slug[:2], forbidden, cache)
        self.deadline = began + budget.submission
        self.kernel: LockedKernel | None = None
        self.needs: dict[str, list[str]] | None = None
        self.ran: dict[str, Ran] = {}  # code that ran in this kernel

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def graded(self, task: Task, seed: int) -> Graded:
        exercise, began = find(task.exercise), time.monotonic()
        if task.cell in self.rebuilt.blank:
            return Graded(task, checking.not_started(exercise))
        if began > self.deadline:
            return self._zero(
                task, exercise, "the time for the whole submission was used up before it", began
            )
        alone = not self.ran
        found = self._tried(task, exercise, seed, began)
        if found.report.passed or alone or found.seconds > QUICK:
            return found
        # Another exercise's code ran before it in this kernel: what that did must not cost this one its points.
        self._close()
        again = self._tried(task, exercise, seed, time.monotonic())
        return again if again.report.passed else found

    def _tried(self, task: Task, exercise: Exercise, seed: int, began: float) -> Graded:
        try:
            return self._run(task, exercise, seed, began)
        except Lost as lost:
            self._close()
            return self._zero(task, exercise, str(lost), began)

    def _run(self, task: Task, exercise: Exercise, seed: int, began: float) -> Graded:
        own = self.rebuilt.sources[task.cell]
        without = ""  # code that failed; perhaps it is not needed after all
        for code in self._needed(task):
            if problem := self._cell(code).problem:
                told = f"code that it needs {said(problem, self.budget.cell)}"
                if problem in ENDED:
                    return self._zero(task, exercise, told, began)
                without = without or f"{told}, and "
        ran = self._cell(own)
        outputs = tuple(ran.outputs)
        if ran.problem:
            told = f"{without}its cell {said(ran.problem, self.budget.cell)}"
            return self._zero(task, exercise, told, began, outputs)
        seconds = min(self.budget.probes, self.deadline - time.monotonic())
        conversation = self._talk()
        try:
            if conversation.untouched(exercise.name):
                report = checking.not_started(exercise)
            else:
                hidden = hidden_checks(task.exercise)
                report = probes.probe(exercise, hidden.cases, conversation, seed, seconds)
        finally:
            self._hang_up(conversation)
        return Graded(task, report, outputs, seconds=time.monotonic() - began)

    def _needed(self, task: Task) -> list[str]:
        """The code of other cells that an exercise leans on: the release's, the student's, that of other exercises."""
        if self.needs is None:
            self.needs = self._lean()
        return self.needs[task.exercise]

    def _lean(self) -> dict[str, list[str]]:
        cells = [workbook.text(c) for c in self.release.cells if c["cell_type"] == "code" and _is_plain(c)]
        others = [*cells, *self.rebuilt.others]
        solutions = [self.rebuilt.sources[task.cell] for task in self.tasks]
        conversation = self._talk()
        try:
            found = conversation.lean([*others, *solutions], [[source] for source in solutions])
        finally:
            self._hang_up(conversation)
        needs = {}
        for n, task in enumerate(self.tasks):
            by_cell = found[n] if n < len(found) else []
            code = [part for needed in by_cell[: len(others)] for part in needed]
            code += [
                solution  # whole: a helper of one exercise may be used in another
                for m, (solution, needed) in enumerate(zip(solutions, by_cell[len(others) :], strict=False))
                if needed and m != n
            ]
            needs[task.exercise] = code
        return needs

    def _cell(self, code: str) -> Ran:
        """Run a cell, once in this kernel."""
        kernel = self._kernel()
        if code in self.ran:
            return self.ran[code]
        ran = kernel.run(code, max(1.0, min(self.budget.cell, self.deadline - time.monotonic())))
        if not kernel.alive:
            self._close()
        else:
            self.ran[code] = ran
        return ran

    def _kernel(self) -> LockedKernel:
        """A living kernel; a new one knows nothing of what ran before."""
        if self.kernel is not None and self.kernel.alive:
            return self.kernel
        self._close()
        self.room = make_room()
        jail = Jail(self.room, self.library, limits=self.budget.limits)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.room / SOCKET))
        self.listener.listen(1)
        self.kernel = self._started(jail)
        return self.kernel

    def _started(self, jail: Jail) -> LockedKernel:
        """Warm where that works here; no student's code has run yet, so none can have a say in it."""
        forks = None if self.unsafe_local else warm.zygote(self.library)
        if forks is not None:
            try:
                return LockedKernel(jail, zygote=forks).__enter__()
            except SandboxError:
                warm.give_up()
        return LockedKernel(jail, self.unsafe_local).__enter__()

    def _talk(self) -> Conversation:
        """Begin to serve in the kernel, and answer the call that comes from there."""
        kernel = self._kernel()
        path = str(self.room / SOCKET)
        self.asked = kernel.begin(f"__import__({AGENT!r} + '.agent').agent.serve({path!r}, {NAMES})")
        self.listener.settimeout(self.budget.cell)
        try:
            connection = self.listener.accept()[0]
        except OSError:
            raise Lost("the process does not answer") from None
        return Conversation(connection, kernel.interrupt, self.budget.cell)

    def _hang_up(self, conversation: Conversation) -> None:
        lost = conversation.lost
        conversation.end()
        if self.kernel is not None and self.kernel.alive:
            self.kernel.end(self.asked, 5.0)
        if lost and self.kernel is not None:
            self._close()

    def _zero(
        self, task: Task, exercise: Exercise, why: str, began: float, outputs: tuple[dict[str, Any], ...] = ()
    ) -> Graded:
        return replace(never_ran(task, exercise, why), outputs=outputs, seconds=time.monotonic() - began)

    def _close(self) -> None:
        self.ran = {}
        if self.kernel is not None:
            self.kernel.kill()
            self.kernel = None
            self.listener.close()
            remove_room(self.room)


def never_ran(task: Task, exercise: Exercise, why: str) -> Graded:
    """Nothing could be probed: the report says why."""
    seen = Observation(error=StudentError("never ran", message=f"{why[0].upper()}{why[1:]}."))
    failure = Failure(None, None, seen, checking.NEVER_RAN, checking.WHY[checking.NEVER_RAN])
    return Graded(task, Report(exercise, 0, failure), why=why)


def _is_plain(cell: dict[str, Any]) -> bool:
    """Whether a cell of the release is neither a student's nor graded: what exercises may lean on."""
    about = cell["metadata"].get("nbgrader") or {}
    return not (about.get("solution") or about.get("grade"))


def _seed(seed: int, exercise_id: str) -> int:
    return random.Random(f"{seed} {exercise_id}").randrange(2**32)


__all__ = ["Budget", "Graded", "Result", "SandboxError", "grade"]
