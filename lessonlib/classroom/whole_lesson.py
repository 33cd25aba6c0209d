"""A whole lesson checked outside the notebook: every exercise run from its cell, for ``lesson check``.

Only the exercises' cells run, and of the other cells what they lean on. The checks are those of the notebook,
and are remembered like them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import feedback, observing, workbook
from .bank import BankError, load
from .checking import NOT_STARTED
from .exercises import Exercise, exercises, find
from .kernel import DIED, TOO_LONG, Kernel, Ran
from .leaning import leaned_on
from .predict import predictions_made
from .quiz import answered
from .store import log_for
from .submission import blanks
from .workbook import Workbook

SECONDS = 60.0  # for an exercise's cell; a check has a limit of its own
OUTCOME = "application/vnd.lesson.outcome+json"
PASSED, FAILED, BLANK, MISSING, STOPPED = "passed", "failed", "blank", "missing", "not run"
_PREDICT = re.compile(r"""\bpredict\(\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Outcome:
    """One exercise: PASSED, FAILED, BLANK (as handed out) or MISSING (its cell is gone), and one line why."""

    exercise: Exercise
    state: str
    why: str = ""


@dataclass(frozen=True)
class Beside:
    """What else a lesson asks for: (done, of how many)."""

    answers: tuple[int, int]
    predictions: tuple[int, int]


def open_lesson(name: str, folder: Path) -> tuple[Workbook, tuple[Exercise, ...]]:
    """The student's notebook and the exercises meant by "01" or "01.sample". Raises ClassroomError."""
    lesson, _ = workbook.shipped(name)
    asked = (find(name.strip()),) if "." in name.removesuffix(".ipynb") else exercises(lesson.number)
    return workbook.read(workbook.own(lesson, folder)), asked


def outcomes(
    mine: Workbook,
    asked: tuple[Exercise, ...],
    seconds: float = SECONDS,
    begin: Callable[[Exercise], None] = lambda exercise: None,
) -> Iterator[Outcome]:
    """Run the exercises one after the other. ``begin`` is called before each; a kernel starts when needed."""
    original = workbook.shipped(mine.path.name)[1]
    blank = blanks(mine, original)
    runner = _Runner(mine, seconds)
    try:
        for exercise in asked:
            begin(exercise)
            cell = exercise.id.replace(".", "-", 1)
            if cell not in mine.positions():
                back = f"its cell is gone; `lesson reset {exercise.id}` puts it back"
                yield Outcome(exercise, MISSING, back)
            elif cell in blank:
                yield Outcome(exercise, BLANK)
            else:
                yield runner.check(exercise, mine.positions()[cell])
    finally:
        runner.close()


def beside(name: str) -> Beside:
    """Questions answered and predictions made, from the log alone. Raises ClassroomError."""
    lesson, original = workbook.shipped(name)
    log = log_for(lesson.slug)
    try:
        bank = load(lesson.slug)
        answers = len(answered(log, bank)), len(bank.questions)
    except BankError:
        answers = 0, 0
    code = [workbook.text(cell) for cell in original.cells if cell["cell_type"] == "code"]
    predictions = {found for source in code for found in _PREDICT.findall(source)}
    return Beside(answers, (min(predictions_made(log), len(predictions)), len(predictions)))


def tell(exercise_id: str) -> None:
    """In the kernel: check the student's function, remember it, and display the outcome as data."""
    from IPython.display import display

    exercise = find(exercise_id)
    report, unsaved = feedback.tried(exercise)
    state = PASSED if report.passed else BLANK if report.name == NOT_STARTED else FAILED
    why = feedback.in_one_line(report)
    display({OUTCOME: json.dumps([state, f"{why} {unsaved}".strip() if unsaved else why])}, raw=True)


class _Runner:
    """The kernel of one lesson, begun anew where a cell took it along."""

    def __init__(self, mine: Workbook, seconds: float):
        self.mine, self.seconds = mine, seconds
        self.kernel: Kernel | None = None
        self.ran: dict[tuple[int, str], None] = {}  # (cell, code) that ran well: a new kernel runs it again

    def check(self, exercise: Exercise, positions: list[int]) -> Outcome:
        for cell, code in self._needed(positions):
            if (cell, code) in self.ran:
                continue
            own = cell in positions
            limit = self.seconds if own else max(self.seconds, SECONDS)  # it may import something heavy
            if problem := self._run(code, limit).problem:
                which = "its cell" if own else f"cell {cell + 1} from the top, which it needs,"
                return Outcome(exercise, FAILED, f"{which} {said(problem, limit)}")
            self.ran[cell, code] = None
        limit = observing.SECONDS + max(self.seconds, SECONDS)  # a check stops by itself, if it can
        done = self._run(f"__import__({__name__!r}, fromlist=['tell']).tell({exercise.id!r})", limit)
        if done.problem or OUTCOME not in done.shown:
            return Outcome(exercise, FAILED, f"its check {said(done.problem or DIED, limit)}")
        state, why = json.loads(done.shown[OUTCOME])
        return Outcome(exercise, state, why)

    def close(self) -> None:
        if self.kernel:
            self.kernel.__exit__()
            self.kernel = None

    def _needed(self, positions: list[int]) -> Iterator[tuple[int, str]]:
        """What must run for the exercise in these cells, (cell, code) each; the exercise's own cells last."""
        cells = self.mine.cells
        texts = ["" if cell["cell_type"] != "code" else workbook.text(cell) for cell in cells]
        whole = {n for name in self.mine.solutions() for n in self.mine.positions()[name]}
        others = [
            "" if n in positions or (n not in whole and workbook.is_graded(cell)) else text
            for n, (cell, text) in enumerate(zip(cells, texts, strict=True))
        ]
        for n, needed in enumerate(leaned_on(others, [texts[n] for n in positions])):
            yield from ((n, texts[n]),) if needed and n in whole else ((n, code) for code in needed)
        yield from ((n, texts[n]) for n in positions)

    def _run(self, code: str, seconds: float) -> Ran:
        if self.kernel is None or self.kernel.lost:
            self.close()
            self.kernel = Kernel(self.mine.path.parent).__enter__()
            for _, before in self.ran:
                self.kernel.run(before, max(self.seconds, SECONDS))
        return self.kernel.run(code, seconds)


def said(problem: str, seconds: float) -> str:
    """How a cell ended, in words."""
    if problem == TOO_LONG:
        return f"did not end within {seconds:g} seconds and was stopped"
    return "ended the whole Python process" if problem == DIED else f"stops with {problem}"
