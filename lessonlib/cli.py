"""The `lesson` command: gathers the commands, and turns an expected error into one sentence.

The commands are the modules of `lessonlib.commands`, plus what installed packages offer under the entry point
group `lesson.commands` (that is how the instructor's commands arrive without an import of `grader`).
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from importlib.metadata import entry_points

import typer

from lessonlib import __version__, commands
from lessonlib.course import CourseError

ENTRY_POINTS = "lesson.commands"


def build_app() -> tuple[typer.Typer, dict[str, str]]:
    """The application with every command that loads, and for each group that does not, the reason."""
    app = typer.Typer(
        name="lesson",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start with: lesson lab",
    )

    @app.callback()
    def root(
        version_: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ) -> None:
        """Learn LLM inference by hand: lessons in JupyterLab, a real model, an engine you rebuild."""

    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"lessonlib.commands.{found.name}")
        panel = getattr(module, "PANEL", commands.ENGINE)
        example = getattr(module, "EXAMPLE", None)
        epilog = example and f"Example: {example}"
        app.command(rich_help_panel=panel, epilog=epilog)(getattr(module, found.name))

    broken = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()(app)
        except Exception as error:  # another package's fault must not cost the student `lesson lab`
            broken[point.name] = f"{type(error).__name__}: {error}"
    return app, broken


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 failed with a sentence, 2 asked wrongly.

    Unexpected exceptions keep their traceback: they are bugs and someone will want to report them.
    """
    app, broken = build_app()
    try:
        app(args=arguments, prog_name="lesson")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if status == 2:
            for name, reason in broken.items():
                print(
                    f"The commands of {name!r} are missing, they could not be loaded: {reason}",
                    file=sys.stderr,
                )
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lesson … | head` closed our output: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("LESSON_DEBUG") or not isinstance(error, expected_errors()):
            raise
        print(f"lesson: {error}", file=sys.stderr)
        return 1
    return 0


def expected_errors() -> tuple[type[Exception], ...]:
    """Exceptions whose message is already the sentence to show. The engine counts once it is imported."""
    engine = sys.modules.get("lessonlib.engine")
    found = getattr(engine, "EngineError", None)
    return (CourseError, found) if isinstance(found, type) else (CourseError,)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"lesson {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    sys.exit(main())
