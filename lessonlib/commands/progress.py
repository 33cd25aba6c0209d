"""`lesson progress`: how far this student is, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessonlib.commands import STUDENTS

PANEL = STUDENTS
EXAMPLE = "lesson progress --dir my-lessons"


def progress(
    dir: Annotated[
        Path | None, typer.Option(help="The folder with your lessons (otherwise it is looked for here).")
    ] = None,
) -> None:
    """Show which exercises pass, which hints you took, and what comes next."""
    from lessonlib.classroom.progress import render_terminal
    from lessonlib.lab.delivery import use_student_folder

    use_student_folder(dir)
    render_terminal()
