"""`lesson report`: reads a graded class from its folder, runs nothing again, and writes a page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessonlib import files
from lessonlib.commands import INSTRUCTORS
from lessonlib.course import CourseError

from .grade_command import COURSE, Course, console, slug_of
from .needs import need_all


def register(app: typer.Typer) -> None:
    """Add `lesson report` to the `lesson` application."""

    @app.command("report", rich_help_panel=INSTRUCTORS, epilog="Example: lesson report 02 --anonymous")
    def report_(
        lesson: Annotated[str, typer.Argument(help="Number or name of a graded lesson.")],
        course: Course = COURSE,
        output: Annotated[
            Path | None,
            typer.Option(help="A folder for the page and the tables; reports/ in the course if left out."),
        ] = None,
        anonymous: Annotated[
            bool, typer.Option("--anonymous", help="Numbers instead of the students' names.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    ) -> None:
        """What a class got right and what it misunderstood: one page, and tables (CSV)."""
        need_all("report")
        from . import fleet
        from .report_reading import read
        from .report_tables import written

        slug = slug_of(lesson, course)
        folder = output or course / "reports" / slug
        names = ["report.html", "scores.csv", "exercises.csv", "misconceptions.csv", "quiz.csv", "pairs.csv"]
        if dry_run:
            console().print(
                f"{len(fleet.submissions(course, slug))} submissions; {', '.join(names)} in {folder}."
            )
            return
        of, alike = read(course, slug, anonymous)
        for name, data in written(of, alike).items():
            _write(folder / name, data)
        told = f"{len(of.graded)} of {len(of.people)} submissions of {slug}"
        console().print(
            f"✓ {told}: {folder / 'report.html'}, and {len(names) - 1} tables beside it.", style="green"
        )


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data)
    except OSError as error:
        raise CourseError(f"{path} cannot be written ({error.strerror}); choose another --output.") from None
