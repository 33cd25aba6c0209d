"""Proves that an exercise grades what it says: blank fails, solution passes, each bug fails by its own name.

The material is in ``grader/mutants/<exercise id>/*.py``, one student's cell a file, whose first line says
what must happen: ``# expect: pass`` or ``# expect: <the mistake's name>``; and in ``notebooks/NN_slug.py``,
whose cell with the exercise's id (01-sample for 01.sample) holds the solution between BEGIN SOLUTION and
END SOLUTION.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lessonlib import course
from lessonlib.classroom import checking
from lessonlib.classroom.exercises import Exercise, find
from lessonlib.course import CourseError

from .checks import Hidden

MUTANTS = Path(__file__).parent / "mutants"
PASS = "pass"
UNNAMED = "a failure without a name"
STUB = "raise NotImplementedError()"
_SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION[^\n]*\n.*?^[ \t]*### END SOLUTION[^\n]*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Attempt:
    """One student's cell and the verdict it must get."""

    name: str
    source: str
    expect: str


def with_mutants() -> list[str]:
    """The ids of all exercises that have planted bugs."""
    return sorted(folder.name for folder in MUTANTS.iterdir() if folder.is_dir())


def planted(exercise_id: str) -> list[Attempt]:
    """The alternatives and mutants of an exercise."""
    attempts = []
    for file in sorted((MUTANTS / exercise_id).glob("*.py")):
        source = file.read_text(encoding="utf-8")
        expect = re.match(r"# expect: (.+)\n", source)
        if expect is None:
            raise CourseError(
                f"{exercise_id}/{file.name} of grader/mutants must begin with a line '# expect: pass' or "
                "'# expect: <mistake>'."
            )
        attempts.append(Attempt(file.stem, source, expect[1].strip()))
    return attempts


def notebook_source(exercise_id: str) -> Path:
    """The authored notebook of an exercise's lesson (it may not be written yet)."""
    lesson = course.lesson(exercise_id)
    return course.notebooks_dir() / f"{lesson.slug}.py"


def grade_id(exercise_id: str) -> str:
    """The exercise's id as nbgrader and notebook cells allow it: "01.sample" is "01-sample"."""
    return exercise_id.replace(".", "-")


def from_notebook(exercise_id: str, blank: bool) -> str:
    """The exercise's cell from the authored notebook, solved or blank, after the notebook's imports.

    Raises LookupError where the notebook has no solution cell with this id.
    """
    import jupytext

    notebook = jupytext.read(notebook_source(exercise_id))
    imports: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade_id") == grade_id(exercise_id) and about.get("solution"):
            if not _SOLUTION.search(cell.source):
                raise LookupError(f"The cell {exercise_id} has no BEGIN SOLUTION … END SOLUTION.")
            cell_source = _SOLUTION.sub(rf"\g<1>{STUB}", cell.source) if blank else cell.source
            return "\n".join([*imports, cell_source])
        imports += _imports(cell.source)
    raise LookupError(f"No solution cell in {notebook_source(exercise_id).name} has the id {exercise_id}.")


def _imports(source: str) -> list[str]:
    plain = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    nodes = ast.parse(plain).body
    return [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def hidden(exercise_id: str) -> Hidden:
    """The grader's checks of an exercise."""
    number, name = exercise_id.split(".")
    found = getattr(importlib.import_module(f"grader.checks.lesson_{number}"), name)
    assert isinstance(found, Hidden)
    return found


def verdict(
    exercise_id: str,
    source: str,
    hidden_checks: bool = False,
    seed: int | None = None,
    seconds: float | None = None,
) -> str:
    """Run a student's cell and check it: "pass", the mistake's name, or UNNAMED."""
    return _outcome(_report(exercise_id, source, hidden_checks, seed, seconds))


def _outcome(report: checking.Report) -> str:
    return PASS if report.passed else report.name or UNNAMED


def _report(
    exercise_id: str, source: str, hidden_checks: bool, seed: int | None, seconds: float | None
) -> checking.Report:
    exercise = find(exercise_id)
    function = define(exercise, source)
    if hidden_checks:
        return hidden(exercise_id).run(function, seed, seconds)
    return checking.run(exercise, function, seconds=seconds)


def define(exercise: Exercise, source: str) -> Callable[..., Any]:
    """The function that a student's cell defines."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, f"<student {exercise.id}>", "exec"), names)
    return names[exercise.name]


@cache
def complaints(exercise_id: str, seeds: Sequence[int] = (1,)) -> tuple[str, ...]:
    """Everything that is wrong with an exercise's checks, one sentence each; empty when the gate is open."""
    attempts = planted(exercise_id)
    if notebook_source(exercise_id).exists():
        attempts.append(Attempt("solution", from_notebook(exercise_id, blank=False), PASS))
        attempts.append(Attempt("blank", from_notebook(exercise_id, blank=True), checking.NOT_STARTED))
    found = [*too_few(exercise_id, attempts)]
    for attempt in attempts:
        for hidden_checks, seed in [(False, None), *((True, seed) for seed in seeds)]:
            seconds = 1.0 if attempt.expect == checking.TOO_LONG else None
            report = _report(exercise_id, attempt.source, hidden_checks, seed, seconds)
            if (got := _outcome(report)) != attempt.expect:
                which = f"hidden checks (seed {seed})" if hidden_checks else "visible checks"
                error = report.failure.observation.error if report.failure else None
                why = f" ({error.type or error.kind}: {error.message})" if error else ""
                found.append(
                    f"{exercise_id} {attempt.name}: {which} say {got!r}{why}, not {attempt.expect!r}."
                )
    return tuple(found)


def too_few(exercise_id: str, attempts: Sequence[Attempt]) -> list[str]:
    """What an exercise lacks of planted attempts: another right solution, and three mistakes by name."""
    alternatives = [a for a in attempts if a.expect == PASS and a.name != "solution"]
    names = {a.expect for a in attempts} - {PASS, checking.NOT_STARTED}
    found = []
    if not alternatives:
        found.append(f"{exercise_id} has no differently written correct solution in grader/mutants.")
    if len(names) < 3:
        found.append(
            f"{exercise_id} needs mutants with at least three different mistakes; it has {len(names)}."
        )
    return found
