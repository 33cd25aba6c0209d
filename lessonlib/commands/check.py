"""`lesson check`: the exercises of a lesson, run outside the notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lessonlib.commands import STUDENTS

if TYPE_CHECKING:
    from rich.console import Console

    from lessonlib.classroom.whole_lesson import Beside, Outcome

PANEL = STUDENTS
EXAMPLE = "lesson check 01"


def check(
    name: Annotated[str, typer.Argument(help="The lesson, 01, or one exercise of it, 01.sample.")],
    dir: Annotated[
        Path | None, typer.Option(help="The folder with your lessons (otherwise it is looked for here).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long an exercise's cell may run.")] = 60,
) -> None:
    """Run the exercises of NAME in a fresh Python and show which pass.

    Save the notebook first: what only the browser knows cannot be checked. Your cells run as in a new kernel,
    with what they need from the cells around them. The exit status is 0 only if every exercise passes.
    """
    from rich.console import Console

    from lessonlib.classroom import whole_lesson
    from lessonlib.lab.delivery import use_student_folder

    folder = use_student_folder(dir)
    mine, asked = whole_lesson.open_lesson(name, folder)
    console = Console() if sys.stdout.isatty() else Console(width=1000)  # in a file a row is a line
    done: list[Outcome] = []
    try:
        with console.status("Starting Python …") as status:
            for outcome in whole_lesson.outcomes(
                mine, asked, seconds, lambda exercise: status.update(f"Checking {exercise.id} …")
            ):
                done.append(outcome)
    except KeyboardInterrupt:
        left = asked[len(done) :]
        done += [whole_lesson.Outcome(exercise, whole_lesson.STOPPED) for exercise in left]
        _show(console, done, whole_lesson.beside(name))
        console.print("Stopped; what was checked before is kept.")
        raise
    _show(console, done, whole_lesson.beside(name))
    if any(outcome.state != whole_lesson.PASSED for outcome in done):
        raise typer.Exit(1)


STYLES = {"passed": ("✓ passed", "green"), "failed": ("✗ failed", "red"), "blank": ("○ blank", "dim")}


def _show(console: Console, done: list[Outcome], beside: Beside) -> None:
    """One row an exercise, then what else the lesson asks for."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for outcome in done:
        words, style = STYLES.get(outcome.state, (f"– {outcome.state}", "yellow"))
        table.add_row(outcome.exercise.id, Text(words, style), Text(outcome.why))
    if done:
        console.print(table)
        passed = sum(outcome.state == "passed" for outcome in done)
        console.print(f"Exercises that pass their visible checks: {passed} of {len(done)}.")
    else:
        console.print("This lesson has no exercises.")
    for what, (made, total) in (
        ("Quiz questions answered", beside.answers),
        ("Predictions made", beside.predictions),
    ):
        if total:
            console.print(f"{what}: {made} of {total}.")
