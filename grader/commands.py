"""The instructor's commands; they join `lesson` through the entry point group `lesson.commands`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grader import class_command, grade_command, report_command
from lessonlib.commands import INSTRUCTORS
from lessonlib.course import CourseError, notebooks_dir

from .needs import need_all

if TYPE_CHECKING:
    from rich.console import Console

    from grader.build import Built

COURSE = Path(__file__).parent / "course"


def register(app: typer.Typer) -> None:
    """Add the instructor's commands to the `lesson` application."""
    grade_command.register(app)
    class_command.register(app)
    report_command.register(app)

    @app.command(rich_help_panel=INSTRUCTORS, epilog="Example: lesson build 01 --no-execute")
    def build(
        lessons: Annotated[
            list[str] | None, typer.Argument(help="Numbers or names; all lessons if none.")
        ] = None,
        check: Annotated[
            bool, typer.Option("--check", help="Write nothing; fail if a committed notebook differs.")
        ] = False,
        execute: Annotated[
            bool,
            typer.Option("--execute/--no-execute", help="Run the student version and store its outputs."),
        ] = True,
        verify: Annotated[
            bool, typer.Option("--verify", help="Also run it with solutions: every check must pass.")
        ] = False,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Measure again where outputs vary, instead of keeping them.")
        ] = False,
        notebooks: Annotated[Path | None, typer.Option(help="The folder with NN_slug.py files.")] = None,
        course: Annotated[
            Path, typer.Option(help="The nbgrader course folder.", show_default=False)
        ] = COURSE,
    ) -> None:
        """Build lessons: the executed student notebook, and the instructor's in the nbgrader course."""
        need_all("build")
        from rich.console import Console

        from grader.build import sources

        console = Console(highlight=False, markup=False, soft_wrap=True)
        failed = False
        for source in sources(notebooks or notebooks_dir(), lessons):
            try:
                with _progress(console, source.stem) as on_cell:
                    done = (
                        _compare(source, execute, fresh, on_cell)
                        if check
                        else _write(source, course, execute, fresh, on_cell)
                    )
                    if verify:
                        done += _prove(source, on_cell)
                console.print(f"✓ {source.stem}: {done}", style="green")
            except CourseError as error:  # BuildError, and what is wrong with a key or a mutant
                failed = True
                console.print(f"✗ {source.stem}: {error}", style="red")
        if failed:
            raise typer.Exit(1)


OnCell = Callable[[int, int], None]


def _write(source: Path, course: Path, execute: bool, fresh: bool, on_cell: OnCell) -> str:
    from grader.build import build

    return _sentence(build(source, course, execute=execute, fresh=fresh, on_cell=on_cell))


def _compare(source: Path, execute: bool, fresh: bool, on_cell: OnCell) -> str:
    from grader.build import BuildError, differences

    changes = differences(source, execute=execute, fresh=fresh, on_cell=on_cell)
    if changes:
        told = "".join(f"\n  {line}" for line in changes)
        raise BuildError(f"the committed notebook is not what the source builds; run `lesson build`.{told}")
    return "as built"


def _prove(source: Path, on_cell: OnCell) -> str:
    from grader.build import verify

    return f"; solutions score all {verify(source, on_cell):g} points"


def _sentence(built: Built) -> str:
    ran = f"{built.executed} run" if built.executed else "not run"
    text = f"{'written' if built.changed else 'unchanged'}, {built.cells} cells, {ran}, {built.seconds:.1f} s"
    if built.set_aside:
        text += f" (your edited notebook is now {built.set_aside.name}; edit {built.slug}.py instead)"
    return text


@contextmanager
def _progress(console: Console, slug: str) -> Iterator[OnCell]:
    """A bar that fills as cells run, gone when they are done; silent where there is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(slug, total=None)
        yield lambda started, total: bar.update(task, completed=started - 1, total=total)
