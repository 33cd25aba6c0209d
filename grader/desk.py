"""The instructor's desk: a lesson into the gradebook and out to the students."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from lessonlib.course import CourseError

from . import guard
from .release import course_config
from .writer import cells_with_points, released


def release(course: Path, slug: str) -> Path:
    """Put a built lesson into the gradebook, the students' version into ``release``. Twice is the same as once.

    Returns: the folder to hand out. Raises: CourseError where nbgrader cannot; it says why.
    """
    from nbgrader.converters import GenerateAssignment

    out = course / "release" / slug
    _refuse_other_cells(course, slug)
    _nbgrader(GenerateAssignment, course, slug, force=True)
    return out


def _refuse_other_cells(course: Path, slug: str) -> None:
    """nbgrader removes what was handed out and stops, when cells have come or gone that somebody has marks for."""
    from nbgrader.api import Gradebook

    source = course / "source" / slug / f"{slug}.ipynb"
    if not source.is_file() or not is_released(course, slug):
        return
    with Gradebook(database(course)) as book:
        notebook = book.find_notebook(slug, slug)
        known = {cell.name for cell in notebook.grade_cells}
        marked = len(notebook.submissions)
    now = {*cells_with_points(guard.load(source))}
    if marked and known != now:
        raise CourseError(
            f"{marked} students have marks for {slug}, and it has other graded cells now "
            f"({', '.join(sorted(known ^ now))}); build it with the cells that were handed out."
        )


def database(course: Path) -> str:
    """The address of a class's gradebook."""
    return f"sqlite:///{course / 'gradebook.db'}"


def feedback(course: Path, slug: str) -> None:
    """Every student's feedback page, made again from the gradebook. Raises: CourseError where nbgrader cannot."""
    from nbgrader.converters import GenerateFeedback

    _nbgrader(GenerateFeedback, course, slug, force=True)


def is_released(course: Path, slug: str) -> bool:
    """Whether the gradebook knows the lesson; where there is no gradebook, none is made."""
    find_alembic()
    return (course / "gradebook.db").is_file() and released(course, slug)


def _nbgrader(converter: Any, course: Path, slug: str, **options: Any) -> None:
    """Run one of nbgrader's own converters on a course folder."""
    from nbgrader.coursedir import CourseDirectory

    find_alembic()
    config = course_config(course)
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.assignment_id = slug
    run = converter(coursedir=CourseDirectory(config=config), config=config, **options)
    run.log = logging.getLogger("lesson.nbgrader")
    run.log.propagate = False
    run.log.addHandler(told := _Told())
    try:
        run.start()
    except CourseError:
        raise
    except Exception as error:  # nbgrader's own, and those of what it uses
        raise CourseError(f"nbgrader could not do it: {told.why or error}") from None
    finally:
        run.log.removeHandler(told)


class _Told(logging.Handler):
    """Why nbgrader stopped: its exception says only that the log has it, as the last line of a traceback."""

    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().strip().splitlines()
        if not self.why and record.levelno >= logging.ERROR and lines and "Traceback" in lines[0]:
            self.why = next((line for line in reversed(lines) if "Error" in line), lines[-1])[:300]


def find_alembic() -> None:
    """The gradebook calls the program `alembic`, which an environment that is not activated does not find."""
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
