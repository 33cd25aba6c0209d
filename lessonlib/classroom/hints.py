"""Hints: three steps, then a worked analogue. Never the solution. How many were used is in the log."""

from __future__ import annotations

from contextlib import suppress

from .cards import Card, Foot, Prose
from .exercises import Exercise, find
from .store import Log, StoreError, log_for


def hint(exercise_id: str) -> None:
    """Show the next hint of an exercise, ``hint("01.sample")``; after the last one, the analogue again."""
    exercise = find(exercise_id)
    log = log_for(exercise.id)
    used = hints_used(log, exercise.id)
    with suppress(StoreError):  # a hint is worth more than its record
        log.append("hint", exercise.id, step=min(used + 1, len(steps(exercise))))
    card(exercise, used).show()


def hints_used(log: Log, exercise_id: str) -> int:
    """How many times a hint was asked for."""
    return len(log.events("hint", exercise_id))


def hints_left(log: Log, exercise: Exercise) -> int:
    return max(0, len(steps(exercise)) - hints_used(log, exercise.id))


def steps(exercise: Exercise) -> tuple[str, ...]:
    """What ``hint`` shows, in order."""
    return (*exercise.hints, exercise.analogue)


def card(exercise: Exercise, used: int) -> Card:
    """The hint that comes after ``used`` of them."""
    ladder = steps(exercise)
    if used < len(exercise.hints):
        left = len(exercise.hints) - used - 1
        then = (
            f"{left} more hint{'s' * (left != 1)}, then a worked example"
            if left
            else "next comes a worked example"
        )
        foot = f"{then[0].upper()}{then[1:]} of the same idea in another place."
        return Card(
            "info",
            f"Hint {used + 1} of {len(exercise.hints)} · {exercise.id}",
            [Prose(ladder[used]), Foot(foot)],
        )
    blocks = [Prose(exercise.analogue)]
    foot = "The same idea, in another place: carry it over to your function."
    if used >= len(ladder):
        foot = f'That was the last step; here it is again. `check("{exercise.id}")` says how far you are.'
    return Card("info", f"A worked example of the same idea · {exercise.id}", [*blocks, Foot(foot)])
