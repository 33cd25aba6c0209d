"""`lesson release` and `lesson grade`: from a built lesson to a gradebook that is full."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lessonlib.commands import INSTRUCTORS
from lessonlib.course import CourseError

from .needs import need_all

if TYPE_CHECKING:
    from distributed import Client
    from rich.console import Console

    from .fleet import Event

COURSE = Path(__file__).parent / "course"
Course = Annotated[Path, typer.Option(help="The nbgrader course folder.", show_default=False)]


def in_a_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose trouble with the disk or the gradebook is a sentence."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CourseError(
                f"{error.filename or 'A file'} cannot be read or written ({error.strerror or error}); what was done "
                "so far is kept: mend that, and run the command again."
            ) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "sqlalchemy":
                raise
            why = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise CourseError(
                f"The gradebook (gradebook.db) cannot be used ({why}); if another program has it open, close that and "
                "run the command again, else bring back a copy."
            ) from None

    return run


def register(app: typer.Typer) -> None:
    """Add the commands to the `lesson` application."""

    @app.command(rich_help_panel=INSTRUCTORS, epilog="Example: lesson release 02")
    @in_a_sentence
    def release(
        lesson: Annotated[str, typer.Argument(help="Number or name of a built lesson.")],
        course: Course = COURSE,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    ) -> None:
        """Put a built lesson into the gradebook; the students' version lies in release/ afterwards."""
        need_all("release")
        from . import desk, freezing

        slug = slug_of(lesson, course)
        freezing.refuse(course, slug)
        out = console()
        if dry_run:
            told = "is in the gradebook" if desk.is_released(course, slug) else "would enter the gradebook"
            out.print(f"{slug} {told}; {course / 'release' / slug} would be written.")
            return
        out.print(f"✓ {slug} is in the gradebook; hand out {desk.release(course, slug)}.", style="green")

    @app.command(rich_help_panel=INSTRUCTORS, epilog="Example: lesson grade 02 --workers 4")
    @in_a_sentence
    def grade(
        lesson: Annotated[str, typer.Argument(help="Number or name of a released lesson.")] = "",
        students: Annotated[
            list[str] | None, typer.Option("--student", help="Only this one; may be repeated.")
        ] = None,
        workers: Annotated[
            int, typer.Option(min=0, help="Processes on this machine; one a core by default.")
        ] = 0,
        scheduler: Annotated[str, typer.Option(help="Use a running Dask cluster: tcp://host:8786")] = "",
        cluster: Annotated[
            Path | None, typer.Option(help="Start a cluster from this YAML file (Slurm, PBS).")
        ] = None,
        course: Course = COURSE,
        cell_seconds: Annotated[float, typer.Option(min=1, help="Limit for one cell.")] = 60.0,
        submission_seconds: Annotated[float, typer.Option(min=1, help="Limit for one submission.")] = 300.0,
        unsafe_local: Annotated[
            bool, typer.Option("--unsafe-local", help="Run without a sandbox: strangers' code as you.")
        ] = False,
        again: Annotated[
            list[str] | None,
            typer.Option("--again", help="Run this exercise anew (02.visible); may be repeated."),
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
        demo: Annotated[
            bool, typer.Option("--demo", help="Make a class of 30 in a new folder and grade it.")
        ] = False,
    ) -> None:
        """Grade a class: run locked up, probe from outside, write the gradebook. Stopped, it goes on the next time."""
        need_all("grade")
        from . import desk, fleet, freezing
        from .grading import Budget
        from .sandbox import SandboxError, why_not

        out = console()
        if not unsafe_local and (reason := why_not()):
            raise SandboxError(reason)
        if demo and dry_run:
            out.print("A class of 30 would be made in a new folder, and graded.")
            return
        if demo:
            from .demo import make_class

            lesson = lesson or "02"
            course = make_class(slug_of(lesson, course), course)
            out.print(f"A class of 30 in {course}")
        if not lesson:
            raise CourseError("Say which lesson to grade, for example: lesson grade 02")
        slug = slug_of(lesson, course)
        freezing.refuse(course, slug)
        if not desk.is_released(course, slug):
            raise CourseError(
                f"{slug} is not in the gradebook yet; put it there with: lesson release {slug[:2]}"
            )
        budget = Budget(cell=cell_seconds, submission=submission_seconds)
        asked = fleet.submissions(course, slug, students or ())
        opened = fleet.lesson(course, slug, budget, unsafe_local, keep=not dry_run)
        with _cluster(workers, scheduler, cluster) as client:
            run = fleet.Fleet(course, opened, client, again or ())
            if unknown := sorted({*(again or ())} - {*run.exercises}):
                raise CourseError(
                    f"{', '.join(unknown)} is no exercise of {slug}: {', '.join(run.exercises)}."
                )
            if dry_run:
                states = list(map(run.state, asked))
                out.print(
                    f"{len(asked)} submissions of {slug}: {states.count(True)} have results, "
                    f"{states.count(False)} would be run."
                )
                return
            failed = _follow(out, run.run(asked), len(asked))
        if failed:
            raise typer.Exit(1)


def _follow(out: Console, events: Iterator[Event], total: int) -> list[Event]:
    """Show the run as it goes; returns those that could not be graded."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from .fleet import AGAIN, FAILED

    failed: list[Event] = []
    again = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("grading", total=total)
        for event in events:
            bar.update(task, advance=1, description=event.student[:30])
            if event.state == FAILED:
                failed.append(event)
                out.print(f"✗ {event.student}: {event.why}", style="red")
            elif event.state == AGAIN:
                again += 1
            else:
                out.print(f"✓ {event.student}: {event.points:g} of {event.out_of:g}")
    done = f"{total - len(failed)} of {total} graded" + (f", {again} of them as before" if again else "")
    out.print(f"{done}." + (" Run it again for the others." if failed else ""))
    return failed


@contextmanager
def _cluster(workers: int, scheduler: str, file: Path | None) -> Iterator[Callable[[], Client]]:
    """A way to the client of a cluster, which is started when it is first asked for, and ended at the end."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def client() -> Client:
            import distributed

            if scheduler:
                return stack.enter_context(distributed.Client(scheduler))
            made: Any = _from_file(file) if file else _local(workers)
            return stack.enter_context(distributed.Client(stack.enter_context(made)))

        yield client


def _local(workers: int) -> Any:
    import os

    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers or os.cpu_count() or 1,
        threads_per_worker=1,
        dashboard_address=None,
        silence_logs=50,
    )


def _from_file(file: Path) -> Any:
    """A cluster of dask_jobqueue: {kind: slurm, jobs: 8, options: {queue: …, cores: 1, memory: 4GB, …}}."""
    import yaml

    try:
        about = yaml.safe_load(file.read_text(encoding="utf-8"))
        kind, jobs, options = about["kind"], int(about.get("jobs", 1)), dict(about.get("options") or {})
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CourseError(
            f"{file} does not describe a cluster ({type(error).__name__}); it needs kind (slurm, pbs, sge, lsf), jobs, "
            "and options as dask_jobqueue takes them."
        ) from None
    import dask_jobqueue

    kinds = {
        name.removesuffix("Cluster").lower(): name for name in dir(dask_jobqueue) if name.endswith("Cluster")
    }
    if kind not in kinds:
        raise CourseError(f"{file}: there is no kind {kind!r}; there are {', '.join(sorted(kinds))}.")
    try:
        made = getattr(dask_jobqueue, kinds[kind])(**options)
    except (TypeError, ValueError) as error:
        raise CourseError(f"{file}: dask_jobqueue does not take that ({error}).") from None
    made.scale(jobs=jobs)
    return made


def slug_of(name: str, course: Path) -> str:
    """The lesson that goes by this number or name in the course's source folder. Raises CourseError."""
    if "?" in str(course):  # the gradebook's address would end there
        raise CourseError(f"{course} has a question mark in its name; rename the folder.")
    known = sorted(path.name for path in (course / "source").glob("[0-9][0-9]_*") if path.is_dir())
    match = [slug for slug in known if slug == name or slug[:2] == name.zfill(2)]
    if not match:
        raise CourseError(
            f"There is no lesson {name!r} in {course / 'source'} (there: {', '.join(known) or 'none'}); build it with "
            f"`lesson build {name}`."
        )
    return match[0]


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)
