"""`lesson class …`: what an instructor does around grading. Each may be run twice; ``--dry-run`` only tells."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lessonlib import files
from lessonlib.commands import INSTRUCTORS
from lessonlib.course import CourseError

from .grade_command import COURSE, Course, console, in_a_sentence, slug_of
from .needs import need_all

Lesson = Annotated[str, typer.Argument(help="Number or name of a lesson.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]
For = Annotated[str, typer.Option("--for", help="csv, moodle or canvas.")]


def register(app: typer.Typer) -> None:
    """Add `lesson class` to the `lesson` application."""
    desk = typer.Typer(
        no_args_is_help=True, help="Collect, dates, extensions, freeze, marks and feedback for a class."
    )
    app.add_typer(desk, name="class", rich_help_panel=INSTRUCTORS)

    @desk.callback()
    def ready() -> None:
        need_all("class")

    @desk.command(epilog="Example: lesson class collect 02 'CS101-Lesson 2-123456.zip'")
    @in_a_sentence
    def collect(
        lesson: Lesson,
        places: Annotated[
            list[Path], typer.Argument(help="Folders, or the zips that Moodle or Canvas gives.")
        ],
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """Take what was handed in; a newer file counts, and an older one is kept beside it."""
        from . import freezing, intake

        slug = slug_of(lesson, course)
        freezing.refuse(course, slug)
        out, found = console(), 0
        for place in places:
            gathered = intake.gather(place, slug)
            for sentence in gathered.complaints:
                out.print(f"! {sentence}", style="yellow")
            found += len(gathered.handed)
            if dry_run:
                out.print(f"{place.name}: {len(gathered.handed)} submissions of {slug} would be taken.")
                continue
            done = [*intake.keep(course, slug, gathered).values()]
            counts = ", ".join(
                f"{done.count(word)} {word}" for word in ("new", "newer", "older", "as before")
            )
            out.print(f"✓ {place.name}: {len(done)} submissions of {slug} ({counts})", style="green")
        if not found:
            raise CourseError(
                f"No submission of {slug} was found there; is it the right lesson, the right file?"
            )

    @desk.command(epilog="Example: lesson class due 02 '2026-12-01 23:59'")
    @in_a_sentence
    def due(
        lesson: Lesson,
        date: Annotated[str, typer.Argument(help="Local time, or with a zone: 2026-12-01T23:59+01:00")],
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """When a lesson must be handed in; later costs what the late policy says."""
        from . import freezing

        slug, moment = slug_of(lesson, course), _moment(date)
        _need_released(course, slug)
        freezing.refuse(course, slug)
        if not dry_run:
            with _gradebook(course) as book:
                book.update_or_create_assignment(slug, duedate=moment.isoformat())
        console().print(f"{'Would be due' if dry_run else '✓ Due'}: {slug}, {moment:%Y-%m-%d %H:%M} UTC")

    @desk.command(epilog="Example: lesson class extend 02 ada --hours 48")
    @in_a_sentence
    def extend(
        lesson: Lesson,
        student: Annotated[str, typer.Argument(help="The student's folder name.")],
        hours: Annotated[
            float, typer.Option(min=0, max=24 * 366, help="After the due date; 0 takes an extension back.")
        ] = 24.0,
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """Give one student more time to hand in (twice is not twice as much)."""
        from . import freezing

        slug = slug_of(lesson, course)
        _need_released(course, slug)
        freezing.refuse(course, slug)
        _warn_of_stranger(course, student)
        if not dry_run:
            with _gradebook(course) as book:
                book.update_or_create_student(student)
                with book.db.no_autoflush:
                    book.update_or_create_submission(slug, student)
                book.grant_extension(slug, student, minutes=round(hours * 60))
        console().print(f"{'Would have' if dry_run else '✓'} {student}: {hours:g} hours more for {slug}")

    @desk.command(epilog="Example: lesson class time ada 1.5")
    @in_a_sentence
    def time(
        student: Annotated[str, typer.Argument(help="The student's folder name.")],
        factor: Annotated[
            float, typer.Argument(min=0.1, max=20, help="Times the usual limits; 1 is as usual.")
        ],
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """Let one student's code run longer than the others' before it is stopped."""
        import json

        from .fleet import time_factors

        if not course.is_dir():
            raise CourseError(f"{course} is no folder; say where the class is with --course.")
        _warn_of_stranger(course, student)
        known = {**time_factors(course), student: factor}
        known = {name: value for name, value in sorted(known.items()) if value != 1}
        if not dry_run:
            path = course / ".grading" / "time.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, json.dumps(known, indent=1).encode())
        console().print(f"{'Would have' if dry_run else '✓'} {student}: {factor:g} times the time")

    @desk.command(epilog="Example: lesson class feedback 02 --for moodle --output feedback.zip")
    @in_a_sentence
    def feedback(
        lesson: Lesson,
        platform: For = "csv",
        output: Annotated[
            Path | None, typer.Option(help="Also a zip of all pages, named for the platform.")
        ] = None,
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """Make every student's feedback page again from the gradebook, and a zip to upload."""
        from . import desk as work
        from . import marks

        slug = slug_of(lesson, course)
        _known(platform)
        _need_released(course, slug)
        if dry_run:
            count = sum(1 for _ in (course / "autograded").glob(f"*/{slug}/{slug}.ipynb"))
            console().print(f"{count} pages would be made in {course / 'feedback'}.")
            return
        work.feedback(course, slug)
        data, count = marks.feedback_zip(course, slug, platform)
        if output:
            _write(output, data)
        console().print(f"✓ {count} pages in {course / 'feedback'}" + (f" and in {output}" if output else ""))

    @desk.command(
        epilog="Example: lesson class marks 02 --for moodle --worksheet grades.csv --output filled.csv"
    )
    @in_a_sentence
    def marks(
        lesson: Lesson,
        platform: For = "csv",
        worksheet: Annotated[
            Path | None, typer.Option(help="The platform's own export, to be filled in.")
        ] = None,
        output: Annotated[Path | None, typer.Option(help="A file; otherwise the table is printed.")] = None,
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """The final marks as a table, late penalties taken off."""
        from . import marks as work

        slug = slug_of(lesson, course)
        _known(platform)
        text, left_out = work.table(course, slug, platform, _sheet(worksheet) if worksheet else None)
        waiting = sum(mark.open > 0 for mark in work.marks(course, slug))
        if output and not dry_run:
            _write(output, text.encode())
            console().print(f"✓ {output}: {text.count(chr(10)) - 1} rows")
        else:
            typer.echo(text, nl=False)
        if left_out:
            where = worksheet.name if worksheet else f"what {platform.title()} handed over"
            typer.echo(f"Not in {where}, so not in the table: {', '.join(left_out)}.", err=True)
        if waiting:
            note = f"{waiting} submissions have cells that a person must mark (Formgrader, Manual Grading)."
            typer.echo(note, err=True)

    @desk.command(epilog="Example: lesson class freeze 02")
    @in_a_sentence
    def freeze(
        lesson: Lesson,
        thaw: Annotated[bool, typer.Option("--thaw", help="Allow changes again.")] = False,
        course: Course = COURSE,
        dry_run: DryRun = False,
    ) -> None:
        """Keep a lesson's marks as they are: nothing is collected or graded until it is thawed."""
        from . import freezing

        slug = slug_of(lesson, course)
        _need_released(course, slug)
        if not dry_run:
            freezing.thaw(course, slug) if thaw else freezing.freeze(course, slug)
        console().print(f"{'Would be' if dry_run else '✓'} {'thawed' if thaw else 'frozen'}: {slug}")


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CourseError(f"{text!r} is no date; write it like 2026-12-01 23:59.") from None
    if not 1971 <= found.year <= 9000:
        raise CourseError(f"{text!r} is in the year {found.year}; write it like 2026-12-01 23:59.")
    return found.astimezone(UTC).replace(tzinfo=None)


def _need_released(course: Path, slug: str) -> None:
    from . import desk

    if not desk.is_released(course, slug):
        raise CourseError(f"{slug} is not in the gradebook; put it there: lesson release {slug[:2]}")


def _warn_of_stranger(course: Path, student: str) -> None:
    """A name with a typing mistake would have what somebody else should get. Raises CourseError where it is no name."""
    from difflib import get_close_matches

    if student in ("", "..") or student != Path(student).name:
        raise CourseError(f"{student!r} cannot be a student's name: a folder is called like the student.")
    known = sorted(path.name for path in (course / "submitted").glob("*") if path.is_dir())
    if student not in known:
        near = get_close_matches(student, known)
        hint = f"; is it {' or '.join(near)}?" if near else "."
        console().print(f"! Nobody called {student} has handed in anything yet{hint}", style="yellow")


def _sheet(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CourseError(
            f"{path} cannot be read ({error.strerror}); give the export as --worksheet."
        ) from None


def _known(platform: str) -> None:
    from .marks import PLATFORMS

    if platform not in PLATFORMS:
        raise CourseError(f"--for takes {', '.join(PLATFORMS)}; {platform!r} is none of them.")


def _gradebook(course: Path):  # type: ignore[no-untyped-def]  # nbgrader's, imported when it is needed
    from nbgrader.api import Gradebook

    from .desk import find_alembic

    find_alembic()
    return Gradebook(f"sqlite:///{course / 'gradebook.db'}")


def _write(path: Path, data: bytes) -> None:
    try:
        files.replace(path, data)
    except OSError as error:
        raise CourseError(f"{path} cannot be written ({error.strerror}); choose another --output.") from None
