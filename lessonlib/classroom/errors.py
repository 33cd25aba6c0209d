"""What can go wrong between a student and the classroom: one sentence, and no traceback of ours."""

from __future__ import annotations

from .. import course


class ClassroomError(course.CourseError):
    """Something the student asked for cannot be done; a notebook shows only the sentence."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def lesson_of(name: str) -> course.Lesson:
    """The lesson of an id ("01.sample", "01_generation", "01"). Raises ClassroomError."""
    try:
        return course.lesson(name)
    except course.CourseError as error:
        raise ClassroomError(str(error)) from None
