"""What an instructor's command needs on this machine, told in a sentence where it is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lessonlib.course import CourseError

KEYS = Path(__file__).parent / "keys"
EXTRA = (
    "bleach",
    "distributed",
    "jupytext",
    "latex2mathml",
    "markdown_it",
    "mdit_py_plugins",
    "nbclient",
    "nbgrader",
    "rapidfuzz",
)


def need_all(command: str) -> None:
    """Raises CourseError where a package of the extra `grader` is missing, or the keys: those never travel."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise CourseError(
            f"`lesson {command}` needs {', '.join(missing)}; "
            "install it with: pip install 'llm-inference-course[grader]'"
        )
    if not KEYS.is_dir():
        raise CourseError(
            f"`lesson {command}` works in a checkout of the course: keys and hidden checks are not in the package that "
            "students install."
        )
