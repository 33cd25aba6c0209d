"""`lesson reset`: an exercise, or a lesson, as it was handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessonlib.commands import STUDENTS

PANEL = STUDENTS
EXAMPLE = "lesson reset 01.sample"


def reset(
    name: Annotated[str, typer.Argument(help="The exercise, 01.sample; with --whole a lesson, 01.")],
    whole: Annotated[bool, typer.Option("--whole", help="Start the whole lesson again.")] = False,
    dir: Annotated[
        Path | None, typer.Option(help="The folder with your lessons (otherwise it is looked for here).")
    ] = None,
) -> None:
    """Bring back the cell of exercise NAME as it was handed out.

    Your notebook is copied first, under a name of its own. Save it before: what only the browser knows cannot
    be kept. Answers, hints and attempts stay.
    """
    from lessonlib.classroom import resetting
    from lessonlib.lab.delivery import use_student_folder

    folder = use_student_folder(dir)
    done = resetting.reset_lesson(name, folder) if whole else resetting.reset_cell(name, folder)
    if not done.changed:
        typer.echo(f"{done.what} is as it was handed out; nothing was changed.")
        return
    if done.backup:
        typer.echo(f"Your notebook as it was: {done.backup}")
    if done.copies:
        cells = "1 copy" if done.copies == 1 else f"{done.copies} copies"
        typer.echo(f"{cells} of the cell stayed in the notebook as ordinary cells, which are not graded.")
    typer.echo(f"{done.what} is back as it was handed out, in {done.notebook}")
    typer.echo("If it is open in JupyterLab, choose File → Reload Notebook from Disk before you go on.")
