"""`lesson submit`: a lesson packed into the one file to hand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessonlib.commands import STUDENTS

PANEL = STUDENTS
EXAMPLE = "lesson submit 01"


def submit(
    lesson: Annotated[str, typer.Argument(help="The lesson to hand in: 01 or 01_generation.")],
    dir: Annotated[
        Path | None, typer.Option(help="The folder with your lessons (otherwise it is looked for here).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The zip to write, or the folder for it (otherwise beside your notebook)."),
    ] = None,
) -> None:
    """Pack LESSON into one zip to hand in: your notebook, your answers, and a list of both.

    Save the notebook first. Every call writes a new file; earlier ones are never overwritten.
    """
    from lessonlib import __version__
    from lessonlib.classroom import submission
    from lessonlib.lab.delivery import use_student_folder

    folder = use_student_folder(dir)
    done = submission.submit(lesson, folder, __version__, output and output.expanduser())
    for note in done.notes:
        typer.secho(f"Note: {note}", fg="yellow")
    notebook, *others = done.names
    typer.echo(
        f"Packed: {' and '.join([f'{notebook} as saved on {done.saved:%Y-%m-%d at %H:%M}', *others])}."
    )
    typer.secho(f"Hand in: {done.path}", bold=True)
