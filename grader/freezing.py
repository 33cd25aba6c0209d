"""A lesson whose marks are final: a file says so, and whoever would change them asks first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lessonlib import files
from lessonlib.course import CourseError


def freeze(course: Path, slug: str) -> None:
    path = _mark(course, slug)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC".encode())


def thaw(course: Path, slug: str) -> None:
    _mark(course, slug).unlink(missing_ok=True)


def refuse(course: Path, slug: str) -> None:
    """Raises CourseError if the lesson is frozen."""
    path = _mark(course, slug)
    if path.is_file():
        raise CourseError(
            f"{slug} was frozen on {path.read_text()[:20]}; lesson class freeze {slug[:2]} --thaw allows changes again."
        )


def _mark(course: Path, slug: str) -> Path:
    return course / ".grading" / "frozen" / slug
