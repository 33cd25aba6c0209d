"""What an authored lesson may say: reads `notebooks/NN_slug.py` and refuses what would break later.

The format is jupytext's percent format with nbgrader's metadata on the cell line; the short form
(`nbgrader={"solution": true, "grade_id": "01-sample"}`) is completed here. Cell ids come from the grade_id,
an explicit `id`, or the cell's own text, so editing one cell never renumbers another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lessonlib.course import CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode

KINDS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
IGNORE_OUTPUT, MAY_FAIL = "nbval-ignore-output", "raises-exception"

_FILE = re.compile(r"(\d\d)_\w+")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what nbgrader and nbformat both accept: no dots
_MARKER = re.compile(r"\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")
_NEARLY = re.compile(
    r"\b(BEGIN|END)[ _-]+(SOLUTION|HIDDEN[ _-]*TEST|MARK(ING)?[ _-]*SCHEME)"
    r"|^\s*#\s*#*\s*((?i:begin|end))[ _-]+(?i:solutions?|hidden[ _-]*tests?)\W*$"
)
_ALLOWED = {"nbgrader", "tags", "id", "jupyter", "slideshow"}
_FROM_JUPYTEXT = {"title", "cell_marker", "lines_to_next_cell", "lines_to_end_of_cell_marker"}


class BuildError(CourseError):
    """A lesson cannot be built; one sentence naming the file, the cell and the remedy."""


@dataclass(frozen=True)
class Block:
    """Lines `start` to `end` of a cell (marker lines excluded), to be kept from students."""

    kind: str
    start: int
    end: int


def read_lesson(path: Path) -> NotebookNode:
    """Read and check one authored lesson.

    Returns: an nbformat v4 notebook with solutions, hidden tests and complete nbgrader metadata; no outputs.
    Raises: BuildError, about the first thing that is wrong.
    """
    import jupytext
    from nbformat import ValidationError
    from nbformat.v4 import new_notebook

    named = _FILE.fullmatch(path.stem)
    if named is None:
        raise BuildError(
            f"{path.name} is not a lesson's name; call it NN_slug.py, for example 01_generation.py."
        )
    text = path.read_text(encoding="utf-8")
    try:
        notebook = jupytext.reads(text, fmt="py:percent")
    except ValidationError as error:
        raise BuildError(
            f"{path.name} is no valid notebook: {error.message}; look at the cell metadata."
        ) from None
    marks = [n for n, line in enumerate(text.splitlines(), 1) if line.startswith("# %%")]
    lines = marks if len(marks) == len(notebook.cells) else None

    seen: dict[str, int] = {}
    for index, cell in enumerate(notebook.cells):
        place = f"{path.name}" + (f" line {lines[index]}" if lines else "") + f", cell {index + 1}"
        _complete(cell)
        cell.id = _identify(cell, place, seen)
        problem = _problem(cell, named[1])
        if problem:
            raise BuildError(f"{place} ({cell.id}): {problem}")
    _ask_nbgrader(notebook, path)
    return new_notebook(cells=notebook.cells, metadata=dict(_NOTEBOOK_METADATA))


_NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


def blocks(source: str) -> list[Block]:
    """The marked blocks of a cell, in order.

    Raises: ValueError with half a sentence, when markers are misspelt, nested or unbalanced.
    """
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(source.split("\n")):
        marker = _MARKER.fullmatch(line.rstrip())
        if marker is None:
            if _NEARLY.search(line):
                kinds = ", ".join(f"'### BEGIN {kind}'" for kind in KINDS)
                raise ValueError(
                    f"{line.strip()!r} looks like a marker; alone on its line, write one of {kinds}."
                )
            continue
        edge, kind = marker.groups()
        if edge == "BEGIN":
            if opened:
                raise ValueError(
                    f"'### BEGIN {kind}' inside an open {opened[0]} block; close that one first."
                )
            opened = (kind, number + 1)
        elif opened is None or opened[0] != kind:
            raise ValueError(f"'### END {kind}' closes nothing; add '### BEGIN {kind}' above it.")
        else:
            found.append(Block(kind, opened[1], number))
            opened = None
    if opened:
        raise ValueError(f"'### BEGIN {opened[0]}' is never closed; add '### END {opened[0]}'.")
    return found


def grade_id(exercise: str) -> str:
    """The grade_id of an exercise's solution cell ("01.sample" -> "01-sample"): nbgrader allows no dots."""
    return exercise.replace(".", "-", 1)


def is_check(cell: NotebookNode) -> bool:
    """True for a check cell: code that is graded and is not itself the student's answer, nor the quiz."""
    return _gives_points(cell) and not is_quiz(cell)


def is_quiz(cell: NotebookNode) -> bool:
    """True for the cell whose value is the quiz's points: its grade_id is NN-quiz."""
    name = str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
    return _gives_points(cell) and name.endswith("-quiz")


def _gives_points(cell: NotebookNode) -> bool:
    grading = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and grading.get("grade", False) and not grading.get("solution", False)


def tagged(cell: NotebookNode, tag: str) -> bool:
    """True if the cell carries this tag."""
    return tag in cell.metadata.get("tags", [])


def secret_lines(notebook: NotebookNode) -> Iterator[str]:
    """The lines of a lesson that students must never see, stripped; not those they see elsewhere anyway."""
    hidden: list[str] = []
    shown: list[str] = []
    for cell in notebook.cells:
        lines = cell.source.split("\n")
        within = {number for block in blocks(cell.source) for number in range(block.start, block.end)}
        for number, line in enumerate(lines):
            (hidden if number in within else shown).append(line.strip())
    openly = "\n".join(shown)
    yield from (line for line in hidden if len(line) >= 20 and line not in openly)


def _complete(cell: NotebookNode) -> None:
    """Fill in what the short form of the metadata leaves out; drop what jupytext adds for itself."""
    cell.source = cell.source.rstrip()
    for key in _FROM_JUPYTEXT & set(cell.metadata):
        del cell.metadata[key]
    grading = cell.metadata.get("nbgrader")
    if isinstance(grading, dict):
        for key in ("grade", "solution", "task"):
            grading.setdefault(key, False)
        grading.setdefault("locked", grading["grade"] and not grading["solution"])
        grading.setdefault("schema_version", 3)


def _identify(cell: NotebookNode, place: str, seen: dict[str, int]) -> str:
    """The cell's id: explicit, or the hash of its text (a second cell with that text gets -2)."""
    grading = cell.metadata.get("nbgrader")
    explicit = grading.get("grade_id") if isinstance(grading, dict) else None
    stated = cell.metadata.pop("id", None)
    name = explicit or stated
    if explicit and stated and explicit != stated:
        raise BuildError(f"{place}: its id {stated!r} and its grade_id {explicit!r} differ; drop the id.")
    if name is None:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        base = name = f"{cell.cell_type}-{digest}"
        while name in seen:
            seen[base] += 1
            name = f"{base}-{seen[base]}"
    elif not isinstance(name, str) or not _ID.fullmatch(name):
        raise BuildError(
            f"{place}: {name!r} cannot be an id; use letters, digits, '_' and '-' (no dots: 01-sample)."
        )
    elif name in seen:
        raise BuildError(f"{place}: the id {name!r} is used by an earlier cell too; each id must be unique.")
    seen[name] = 1
    return name


def _problem(cell: NotebookNode, number: str) -> str | None:
    """What is wrong with this cell, as a sentence; None if nothing is."""
    if "incorrectly_encoded_metadata" in cell.metadata:
        written = cell.metadata["incorrectly_encoded_metadata"]
        return f"cannot read {written}; values are JSON, text in double quotes."
    strange = set(cell.metadata) - _ALLOWED
    if strange:
        return f"unknown cell metadata {sorted(strange)}; known are {sorted(_ALLOWED)}."
    try:
        kinds = {block.kind for block in blocks(cell.source)}
    except ValueError as error:
        return str(error)

    grading = cell.metadata.get("nbgrader")
    if grading is None:
        grading = {}
    elif not isinstance(grading, dict):
        return 'nbgrader must be an object, like nbgrader={"solution": true, "grade_id": "01-sample"}.'
    elif not str(grading.get("grade_id", "")).startswith(f"{number}-"):
        return f"its grade_id must start with '{number}-', for example '{number}-sample'."

    solution, check, quiz = grading.get("solution"), is_check(cell), is_quiz(cell)
    if "SOLUTION" in kinds and not solution:
        return 'a solution block outside a solution cell; add "solution": true or remove the block.'
    if "HIDDEN TESTS" in kinds and not (check or quiz):
        return 'hidden tests outside a check cell; move them into a code cell with "grade": true.'
    if "MARK SCHEME" in kinds and not grading.get("task"):
        return 'a mark scheme outside a task cell; add "task": true or remove it.'
    if solution and "SOLUTION" not in kinds:
        return "a solution cell without '### BEGIN SOLUTION' and '### END SOLUTION' around the solution."
    if (grading.get("grade") or grading.get("task")) and not _positive(grading.get("points")):
        return 'a graded cell needs "points", a number above 0.'
    if (check or quiz) and not grading["locked"]:
        return 'a check cell must stay locked; remove "locked": false.'
    if check and not tagged(cell, MAY_FAIL):
        return f'a check cell fails until it is solved; add tags=["{MAY_FAIL}"] so that Run All goes on.'
    return None


def _positive(points: object) -> bool:
    return isinstance(points, int | float) and not isinstance(points, bool) and points > 0


def _ask_nbgrader(notebook: NotebookNode, path: Path) -> None:
    """Let nbgrader itself have the last word on the metadata."""
    from jsonschema import ValidationError
    from nbgrader.nbgraderformat import MetadataValidator
    from nbgrader.nbgraderformat.common import SchemaMismatchError

    for number, cell in enumerate(notebook.cells, 1):
        try:
            MetadataValidator().validate_cell(cell)
        except (ValidationError, SchemaMismatchError) as error:
            reason = getattr(error, "message", str(error))
            raise BuildError(f"{path.name}, cell {number} ({cell.id}): nbgrader says: {reason}") from None
