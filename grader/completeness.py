"""Whether a lesson can be graded: cells, probes, mutants, keys and points fit together; nothing is given away."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lessonlib import course
from lessonlib.classroom.exercises import exercises

from . import keys
from .checks import Hidden
from .exercises import grade_id, planted, too_few
from .guard import Release

if TYPE_CHECKING:
    from nbformat import NotebookNode

QUIZ = "-quiz"  # the end of the graded quiz cell's grade_id


def complaint(slug: str, instructor: NotebookNode, student: NotebookNode) -> str | None:
    """The first thing that is wrong with a lesson of the course, a sentence; None for other notebooks."""
    if slug not in [lesson.slug for lesson in course.LESSONS]:
        return None
    release = Release(slug, instructor)
    for found in (_exercises(release), _quiz(release), _given_away(slug, student)):
        for sentence in found:
            return sentence
    return None


def side_files(folder: Path, slug: str) -> str | None:
    """nbgrader hands out all that lies beside a source, over what students have: a log there would replace theirs."""
    if not folder.is_dir():
        return None
    beside = sorted(
        path.name for path in folder.iterdir() if path.name != f"{slug}.ipynb" and path.name[0] != "."
    )
    if not beside:
        return None
    names = ", ".join(beside)
    return (
        f"{names} beside the lesson in {folder} would be handed out, over students' own files; move it away."
    )


def probes(slug: str) -> dict[str, Hidden]:
    """The hidden checks of a lesson by exercise id; none where it has no module in ``grader.checks``."""
    number = slug[:2]
    try:
        module = importlib.import_module(f"grader.checks.lesson_{number}")
    except ModuleNotFoundError as missing:
        if missing.name != f"grader.checks.lesson_{number}":
            raise
        return {}
    return {f"{number}.{name}": found for name, found in vars(module).items() if isinstance(found, Hidden)}


def _exercises(release: Release) -> Iterator[str]:
    declared = {exercise.id for exercise in exercises(release.slug)}
    probed = probes(release.slug)
    asked = {task.exercise for task in release.tasks}
    cells = {cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in release.cells}
    for name in sorted(declared | {*probed} | asked):
        if name not in declared:
            yield (
                f"{name} is in the notebook or among the probes, but no exercise: declare it in "
                f"lessonlib/classroom/checks/lesson_{name[:2]}/ and add it to EXERCISES in its __init__.py."
            )
        if name not in probed:
            yield f"{name} has no probe: grader/checks/lesson_{name[:2]}.py needs a Hidden called {name[3:]}."
        if probed[name].exercise.id != name:
            yield f"The probe {name} is one of the exercise {probed[name].exercise.id}; give it its own."
        if name not in asked:
            missing = grade_id(name) if grade_id(name) not in cells else f"{grade_id(name)}-check"
            yield f"{name} has a probe, but the notebook has no cell {missing}."
        yield from too_few(name, planted(name))
    for task in release.tasks:
        if task.points <= 0 or not task.points.is_integer():
            yield f"{task.check} gives {task.points:g} points; a whole number above 0 is needed."


def _quiz(release: Release) -> Iterator[str]:
    points = keys.points_available(release.slug)
    cell = release.quiz
    if cell is None and points:
        name = f"{release.slug[:2]}{QUIZ}"
        yield f"The quiz has graded questions for {points:g} points, but there is no cell with the grade_id {name}."
    if cell is not None and cell["metadata"]["nbgrader"].get("points") != points:
        given = cell["metadata"]["nbgrader"].get("points")
        yield f"The quiz cell gives {given:g} points, and the graded questions of its key {points:g}; make them equal."


def _given_away(slug: str, student: NotebookNode) -> Iterator[str]:
    """Reasons of graded answers, which are only for feedback, in what students get."""
    text = "\n".join(cell["source"] for cell in student.cells)
    bank = course.lesson(slug).quiz
    text += bank.read_text(encoding="utf-8") if bank.is_file() else ""
    shown = " ".join(text.split())
    for question, entry in keys.load_key(slug).items():
        for reason in (entry.why, *(wrong.why for wrong in entry.wrong)):
            if len(reason) >= 40 and " ".join(reason.split()) in shown:
                yield f"The key's reason for {question} can be read by students: {reason[:40]!r}."
