"""The instructor's desk: a lesson into the gradebook and out to the students."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from lessonlib.course import CourseError

from .release import course_config
from .writer import released


def release(course: Path, slug: str) -> Path:
    """Put a built lesson into the gradebook, the students' version into ``release``. Twice is the same as once.

    Returns: the folder to hand out. Raises: CourseError where nbgrader cannot; it says why.
    """
    from nbgrader.converters import GenerateAssignment

    out = course / "release" / slug
    _nbgrader(GenerateAssignment, course, slug, force=True)
    return out


def feedback(course: Path, slug: str) -> None:
    """Every student's feedback page, made again from the gradebook. Raises: CourseError where nbgrader cannot."""
    from nbgrader.converters import GenerateFeedback

    _nbgrader(GenerateFeedback, course, slug, force=True)


def is_released(course: Path, slug: str) -> bool:
    """Whether the gradebook knows the lesson (a gradebook is made where there is none)."""
    find_alembic()
    return released(course, slug)


def _nbgrader(converter: Any, course: Path, slug: str, **options: Any) -> None:
    """Run one of nbgrader's own converters on a course folder."""
    from nbgrader.coursedir import CourseDirectory

    find_alembic()
    config = course_config(course)
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.assignment_id = slug
    run = converter(coursedir=CourseDirectory(config=config), config=config, **options)
    run.log = logging.getLogger("lesson.nbgrader")
    run.log.addHandler(logging.NullHandler())
    run.log.propagate = False
    try:
        run.start()
    except Exception as error:  # nbgrader's own, and those of what it uses
        raise CourseError(f"nbgrader could not do it: {error}") from None


def find_alembic() -> None:
    """The gradebook calls the program `alembic`, which an environment that is not activated does not find."""
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])
