"""``check``: what a student sees when a function is tried, and what the log remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import checking
from .cards import Block, Card, Code, Foot, Mistake, Pair, Prose, Shares, in_ipython
from .checking import CheckFailed, Failure, Report
from .exercises import Exercise, ExerciseError, find
from .hints import hints_left
from .store import Log, StoreError, log_for


def check(target: str | Callable[..., Any], function: Callable[..., Any] | None = None) -> None:
    """Try your function and show a card: ``check("01.sample", sample)``, ``check("01.sample")``,
    ``check(sample)``.

    Raises CheckFailed when an input was found on which the function is wrong.
    """
    exercise = find(target)
    if function is None:
        function = _of_student(exercise) if isinstance(target, str) else target
    if not callable(function):
        raise ExerciseError(
            f"{exercise.id} checks a function: pass {exercise.name} itself, without calling it."
        )
    report, unsaved = tried(exercise, function)
    log = log_for(exercise.id)
    card(report, attempts(log, exercise.id), hints_left(log, exercise), note=unsaved).show()
    if not report.passed:
        raise CheckFailed(headline(report), report)


def tried(exercise: Exercise, function: Callable[..., Any] | None = None) -> tuple[Report, str | None]:
    """Check a function (by default the notebook's of that name) and remember it; the sentence says why not."""
    report = checking.run(exercise, _of_student(exercise) if function is None else function)
    return report, _record(log_for(exercise.id), report)


def attempts(log: Log, exercise_id: str) -> int:
    """How often a started function was checked."""
    events = log.events("check", exercise_id)
    return sum(1 for event in events if event.data.get("name") != checking.NOT_STARTED)


def headline(report: Report, secret: bool = False) -> str:
    """One line for the place of the traceback."""
    if report.name == checking.NOT_STARTED:
        return f"{report.exercise.id} is not started yet: the card above says what to do."
    line = f"{report.exercise.id}: {report.name or 'not right yet'}"
    return f"{line}." if secret else f"{line}; the card above shows an input that fails."


def in_one_line(report: Report) -> str:
    """What is wrong, on which input, for a table: ``counts the last token: count_work(5, 3) → 9, not 8``."""
    failure = report.failure
    if failure is None or failure.name == checking.NOT_STARTED:
        return ""
    seen, line = failure.observation, failure.name or "not right yet"
    if failure.inputs is not None:
        line += f": {report.exercise.call_text((seen.inputs if seen.error else None) or failure.inputs)}"
    if seen.error:
        what = (
            f"{seen.error.type}: {seen.error.message}" if seen.error.type else "stopped after the time limit"
        )
        line += f" → {what}" + (f" (line {seen.error.line})" if seen.error.line else "")
    elif seen.wrong_form:
        line += f" → {seen.wrong_form.text}"
    elif seen.changed:
        line += f" → {seen.changed.argument} is {seen.changed.after} afterwards"
    elif failure.comparison and failure.comparison.shares:
        label, expected, got = max(failure.comparison.shares, key=lambda row: abs(row[1] - row[2]))
        line += f" → {label} comes in {got:.1%} of the draws, not {expected:.1%}"
    elif failure.comparison:
        line += f" → {failure.comparison.got}, not {failure.comparison.expected}"
    return " ".join(line.split())


def card(
    report: Report,
    attempt: int = 1,
    hints: int = 4,
    note: str | None = None,
    hidden: bool = False,
    secret: bool = False,
) -> Card:
    """The card of a report.

    hidden: the grader's checks, which promise no further inputs. secret: nor is the one that failed shown, nor anything
    that a function could have made of it.
    """
    exercise = report.exercise
    extra = [Foot(note)] if note else []
    if report.failure is None:
        tried = f"{report.trials} input{'s' * (report.trials != 1)}"
        if hidden:
            return Card(
                "good", f"{exercise.id} · passed", [Prose(f"Right on all {tried} the grader tried."), *extra]
            )
        done = Prose(f"Visible checks passed ({tried}). The grader will try other inputs.")
        return Card("good", f"{exercise.id} · {exercise.title}", [done, *extra])
    if report.name == checking.NOT_STARTED:
        return Card(
            "start", f"{exercise.id} · not started yet", [Prose(checking.WHY[checking.NOT_STARTED]), *extra]
        )
    told = _secretly(report.failure) if secret else _what_happened(exercise, report.failure)
    blocks = [*told, *_foot(exercise, attempt, hints, hidden), *extra]
    return Card("retry", f"{exercise.id} · not right yet", blocks)


def _what_happened(exercise: Exercise, failure: Failure) -> list[Block]:
    seen = failure.observation
    blocks: list[Block] = []
    if failure.case is not None and failure.inputs is not None:
        # A trial may be many calls: of an error show the one that can be pasted to see it again.
        stopped = seen.inputs if seen.error or seen.wrong_form else None
        call = exercise.call_text(stopped or failure.inputs)
        blocks += [Prose(failure.case.title), Code("With this input", call)]
        blocks += [Foot(exercise.about)] if exercise.about else []
    if seen.error:
        where = f"Line {seen.error.line} of your cell: {seen.error.source}\n" if seen.error.line else ""
        ended = (
            f"{seen.error.type}: {seen.error.message}"
            if seen.error.type
            else seen.error.message or "Stopped: the time limit was reached."
        )
        blocks.append(
            Code("your function stopped with an error" if seen.error.type else "", f"{where}{ended}")
        )
    elif seen.wrong_form:
        blocks.append(Code("what came back", seen.wrong_form.text))
    elif seen.changed:
        name = seen.changed.argument
        blocks.append(Pair((f"{name} before", seen.changed.before), (f"{name} after", seen.changed.after)))
    elif failure.comparison:
        if failure.comparison.shares:
            blocks.append(Shares(failure.comparison.shares, failure.comparison.note))
        else:
            wanted = f"expected {failure.comparison.note}".rstrip()
            blocks.append(Pair((wanted, failure.comparison.expected), ("yours", failure.comparison.got)))
    blocks += _mistake(failure)
    if seen.printed.strip():
        blocks.append(Code("your function printed", seen.printed.rstrip()))
    return blocks


def _secretly(failure: Failure) -> list[Block]:
    """What happened, without the input: an error's message, a value or a print may have been made of it."""
    if failure.inputs is None:
        error = failure.observation.error
        return [*([Prose(error.message)] if error else []), *_mistake(failure)]
    blocks: list[Block] = [Prose("Wrong on an input that the grader tried; this exercise does not show it.")]
    if (error := failure.observation.error) and error.line:
        where = f"Line {error.line} of your cell: {error.source}"
        blocks.append(Code("your function stopped with an error", where))
    return [*blocks, *_mistake(failure)]


def _mistake(failure: Failure) -> list[Block]:
    if failure.name and failure.name != checking.RAISES:
        return [Mistake(failure.name, failure.why)]
    return []


def _foot(exercise: Exercise, attempt: int, hints: int, hidden: bool) -> list[Block]:
    if hidden:
        return []
    # The first attempt has no number: a notebook that is run once always shows the same card.
    count = f"Attempt {attempt}. " if attempt > 1 else ""
    stuck = f'Stuck? `hint("{exercise.id}")` ' + (
        f"has {hints} step{'s' * (hints != 1)} left." if hints else "shows the worked example again."
    )
    return [Foot(f"{count}Change your function, run its cell, then run this one again. {stuck}")]


def _record(log: Log, report: Report) -> str | None:
    try:
        log.append("check", report.exercise.id, passed=report.passed, name=report.name, trials=report.trials)
    except StoreError as error:
        return str(error)
    return None


def _of_student(exercise: Exercise) -> Callable[..., Any]:
    """The function of that name in the notebook, for ``check("01.sample")``."""
    names: dict[str, Any] = {}
    if in_ipython():
        from IPython.core.getipython import get_ipython

        names = getattr(get_ipython(), "user_ns", {})  # type: ignore[no-untyped-call]
    if exercise.name not in names:
        raise ExerciseError(f"There is no function {exercise.name} yet; run the cell that defines it first.")
    return names[exercise.name]
