"""From the instructor's notebook to the student's: nbgrader's own steps, without its database."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.course import CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from traitlets.config import Config

CONFIG = Path(__file__).with_name("nbgrader_config.py")


def nbgrader_config() -> Config:
    """The course's nbgrader settings, as a traitlets Config."""
    from traitlets.config.loader import PyFileConfigLoader

    return PyFileConfigLoader(CONFIG.name, path=str(CONFIG.parent)).load_config()


def course_config(course: Path) -> Config:
    """The settings of a class: those of its own `nbgrader_config.py`, which begins with the course's.

    Raises CourseError where that file has a mistake.
    """
    from traitlets.config.loader import PyFileConfigLoader

    path = course / CONFIG.name
    if not path.is_file():
        return nbgrader_config()
    try:
        return PyFileConfigLoader(CONFIG.name, path=str(course)).load_config()
    except Exception as error:  # it is a program that a person wrote
        raise CourseError(f"{path} cannot be read ({error}); mend it and run the command again.") from None


def student_version(instructor: NotebookNode) -> NotebookNode:
    """A copy without solutions, hidden tests and mark schemes, locked and with nbgrader's checksums.

    The steps and their order are those of `nbgrader generate_assignment` (a test holds the results equal);
    saving to the gradebook is left out, and so is what this course does not use (headers, generated tests).
    """
    from nbgrader import preprocessors as steps

    config = nbgrader_config()
    notebook = deepcopy(instructor)
    resources: dict[str, Any] = {}
    for step in (
        steps.LockCells,
        steps.ClearSolutions,
        steps.ClearOutput,
        steps.CheckCellMetadata,
        steps.ClearHiddenTests,
        steps.ClearMarkScheme,
        steps.ComputeChecksums,
        steps.CheckCellMetadata,
    ):
        notebook, resources = step(config=config)(notebook, resources)
    return notebook
