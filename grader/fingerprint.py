"""When a result may be used again: if nothing that decides it has changed.

A result belongs to what the student wrote, the exercise's own probes, the library it ran with, the limits, the versions
and the seed. So a change to one probe grades one exercise again, and equal submissions are run once.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lessonlib.classroom.leaning import leaned_on, statements

from .grading import Budget, hidden_checks
from .guard import Rebuilt, Release
from .library import library_key

FORMAT = 1  # of what is stored; raise it when an old record must not be read any more
PACKAGES = ("ipykernel", "ipython", "numpy", "torch")


def keys(release: Release, rebuilt: Rebuilt, seed: int, budget: Budget) -> dict[str, str]:
    """The key of each exercise's result, by exercise id."""
    forbidden = sorted({name for task in release.tasks for name in hidden_checks(task.exercise).forbid})
    plain = [cell["source"] for cell in release.cells if not cell["metadata"].get("nbgrader")]
    common = digest(
        [FORMAT, seed, asdict(budget), versions(), library_key(release.slug[:2], forbidden), plain],
        [sorted(rebuilt.sources.items()), rebuilt.others],
    )
    return {
        task.exercise: digest(common, probes_of(task.exercise), [task.cell, task.check, task.points])
        for task in release.tasks
    }


@cache
def versions() -> dict[str, str]:
    """What student code runs on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {**found, "python": sys.version, "machine": platform.machine()}


@cache
def probes_of(exercise_id: str) -> str:
    """A digest of all that judges an exercise: its lines of ``grader.checks``, and the modules they lean on."""
    number, name = exercise_id.split(".")
    exercise = hidden_checks(exercise_id).exercise
    checks = sys.modules[f"grader.checks.lesson_{number}"]
    lines = list(map(ast.unparse, statements(inspect.getsource(checks))))
    needed = [code for found in leaned_on(lines, [f"__probes__({name})"]) for code in found]
    used = {named for code in needed for named in _imported(code)} | {"grader.probes", "grader.conversation"}
    home = f"lessonlib.classroom.checks.lesson_{number}."
    used |= {
        named
        for named, module in [*sys.modules.items()]
        if named.startswith(home) and any(value is exercise for value in vars(module).values())
    }
    files = {file for named in used for file in _files(named, set())}
    return digest(needed, [[file.name, file.read_bytes().hex()] for file in sorted(files)])


def digest(*parts: Any) -> str:
    """A short name for what these plain values say."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _imported(code: str) -> Iterator[str]:
    """The modules of the course that an import statement of ``grader.checks`` names."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str, seen: set[str]) -> set[Path]:
    """The files of a module of the course and, of those in ``lessonlib.classroom``, of all that they import."""
    module = sys.modules.get(name)
    if module is None or name in seen or not name.startswith(("lessonlib.classroom", "grader")):
        return set()
    seen.add(name)
    file = Path(module.__file__ or "")
    found = {file} if file.suffix == ".py" else set()
    if name.startswith("lessonlib.classroom") and file.name != "__init__.py":
        for value in vars(module).values():
            of = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(of, str):
                found |= _files(of, seen)
    return found
