"""Builds a lesson: `notebooks/NN_slug.py` becomes the instructor's notebook and the executed student's.

Decides what a build consists of and what makes it fail. `authoring` reads, `release` takes the solutions out,
`execution` runs, `outputs` says what of the outputs is stored.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grader import authoring, completeness, execution, outputs, release
from grader.authoring import BuildError, is_check
from lessonlib.course import checkout

if TYPE_CHECKING:
    from nbformat import NotebookNode

OnCell = Callable[[int, int], None]
COURSE_SHIM = '''"""Written by `lesson build`: nbgrader's settings for a class kept in this folder."""

from importlib.resources import files
from pathlib import Path

load_subconfig(str(files("grader") / "nbgrader_config.py"))  # noqa: F821
get_config().CourseDirectory.root = str(Path(__file__).resolve().parent)  # noqa: F821
'''


@dataclass(frozen=True)
class Built:
    """What one build did."""

    slug: str
    student: Path
    instructor: Path
    cells: int
    executed: int  # code cells that were run this time
    seconds: float
    changed: bool  # the student notebook's bytes differ from before
    set_aside: Path | None  # where a hand-edited student notebook was saved


def sources(notebooks: Path, names: list[str] | None = None) -> list[Path]:
    """The authored lessons in a folder; with `names`, those that go by a number ("01") or a slug.

    Raises: BuildError if there is none, or none of that name.
    """
    found = sorted(path for path in notebooks.glob("[0-9][0-9]_*.py"))
    if not found:
        raise BuildError(
            f"There are no lesson sources (NN_slug.py) in {notebooks}; run this in a checkout of the course."
        )
    chosen = []
    for name in names or [path.stem for path in found]:
        stem = Path(name).name.removesuffix(".py").removesuffix(".ipynb")
        match = [path for path in found if path.stem == stem or path.stem[:2] == stem.zfill(2)]
        if not match:
            raise BuildError(
                f"There is no lesson {name!r} to build; there are {', '.join(p.stem for p in found)}."
            )
        chosen += [path for path in match if path not in chosen]
    return chosen


def build(
    source: Path, course: Path, *, execute: bool = True, fresh: bool = False, on_cell: OnCell | None = None
) -> Built:
    """Write the instructor's notebook into the nbgrader course folder and the student's beside its source.

    Args:
        execute: run the student version; if not, unchanged cells keep their outputs, the others have none.
        fresh: measure again in cells tagged as varying, instead of keeping their committed outputs.

    Raises: BuildError; nothing has been written then.
    """
    began = time.perf_counter()
    student_path = source.with_suffix(".ipynb")
    before = _read(student_path)
    instructor, student = compose(source, before, execute=execute, fresh=fresh, on_cell=on_cell)

    if sentence := completeness.side_files(course / "source" / source.stem, source.stem):
        raise BuildError(sentence)
    set_aside = None
    if before is not None and not _is_built(before):
        set_aside = _free_name(student_path)
        student_path.replace(set_aside)
    instructor_path = course / "source" / source.stem / f"{source.stem}.ipynb"
    old, new = (student_path.read_text("utf-8") if student_path.is_file() else None), _text(student)
    _write(instructor_path, _text(instructor))
    _write(course / "nbgrader_config.py", COURSE_SHIM)
    if new != old:
        _write(student_path, new)
    return Built(
        slug=source.stem,
        student=student_path,
        instructor=instructor_path,
        cells=len(student.cells),
        executed=sum(cell.cell_type == "code" for cell in student.cells) if execute else 0,
        seconds=time.perf_counter() - began,
        changed=new != old,
        set_aside=set_aside,
    )


def differences(
    source: Path, *, execute: bool = True, fresh: bool = False, on_cell: OnCell | None = None
) -> list[str]:
    """What a rebuild would change in the committed student notebook, as lines to read; empty if nothing."""
    path = source.with_suffix(".ipynb")
    _, student = compose(source, _read(path), execute=execute, fresh=fresh, on_cell=on_cell)
    return compare(path, student)


def compare(path: Path, student: NotebookNode) -> list[str]:
    """How the notebook in the file differs from a newly composed one, cell by cell; empty if no byte does."""
    committed = _read(path)
    if committed is None:
        return [f"{path.name} does not exist."]
    if _text(student) == path.read_text(encoding="utf-8"):
        return []
    return _summary(committed, student) or [f"{path.name}: formatted differently."]


def verify(source: Path, on_cell: OnCell | None = None) -> float:
    """Run the version with solutions and grade it as nbgrader would.

    Returns: the points, which are then all there are for its check cells.
    Raises: BuildError naming the first check cell that does not give full points.
    """
    from nbgrader.utils import determine_grade

    notebook = authoring.read_lesson(source)
    execution.run(notebook, f"{source.name} with solutions", on_cell)
    total = 0.0
    for cell in filter(is_check, notebook.cells):
        score, most = determine_grade(cell)
        if score != most:
            raise BuildError(
                f"{source.name} with solutions: {cell.id} gives {score:g} of {most:g}; {_why(cell)}"
            )
        total += most
    return total


def compose(
    source: Path,
    previous: NotebookNode | None,
    *,
    execute: bool,
    fresh: bool = False,
    on_cell: OnCell | None = None,
) -> tuple[NotebookNode, NotebookNode]:
    """Both notebooks, in memory: (instructor, student). `previous`: the student notebook as it was.

    Raises: BuildError, for everything that makes a lesson unfit to be written.
    """
    instructor = authoring.read_lesson(source)
    student = release.student_version(instructor)
    if sentence := completeness.complaint(source.stem, instructor, student):  # before the minute that it runs
        raise BuildError(f"{source.name}: {sentence}")
    if execute:
        execution.run(student, f"{source.name} without solutions", on_cell)
    outputs.tidy(student)
    if previous is not None:
        previous = deepcopy(previous)
        outputs.tidy(previous)  # someone may have run and saved it in JupyterLab
        outputs.keep_previous(student, previous, _forgiving(), fresh)
    student.metadata["kernelspec"] = instructor.metadata["kernelspec"]
    student.metadata["language_info"] = instructor.metadata["language_info"]
    student.metadata["lesson"] = {"slug": source.stem, "text": _fingerprint(student)}
    _inspect(source, instructor, student, execute)
    return instructor, student


def _inspect(source: Path, instructor: NotebookNode, student: NotebookNode, executed: bool) -> None:
    """Refuse a student notebook that gives something away, shows the author's machine, or passes unsolved."""
    for cell in student.cells:
        trace = outputs.machine_traces(cell)
        if trace:
            raise BuildError(
                f"{source.name}, cell {cell.id} prints {trace}; print something every reader can use."
            )
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))
        if executed and is_check(cell) and not failed:
            raise BuildError(
                f"{source.name}, cell {cell.id} passes without a solution; make its check fail on the blank."
            )
    text = "\n".join(outputs.strings(student))
    for line in authoring.secret_lines(instructor):
        if line in text:
            raise BuildError(
                f"{source.name}: the student version shows {line!r}, a line of a solution or hidden test."
            )


def _why(cell: NotebookNode) -> str:
    for output in cell.outputs:
        if output.output_type == "error":
            return f"it fails with {output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
        if output.output_type == "stream" and output.name == "stderr":
            return f"it writes to stderr, which nbgrader counts as failed: {output.text.splitlines()[0]!r}"
    return "its last line has a value, which nbgrader reads as points; let it return None."


def _forgiving() -> list[tuple[str, str]]:
    root = checkout()
    return outputs.sanitize_patterns(root / "tests" / "notebooks" / "sanitize.cfg") if root else []


def _fingerprint(notebook: NotebookNode) -> str:
    """A hash of ids, kinds and texts: tells a notebook that was edited after it was built."""
    told = "\x00".join(part for cell in notebook.cells for part in (cell.id, cell.cell_type, cell.source))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _is_built(notebook: NotebookNode) -> bool:
    return notebook.metadata.get("lesson", {}).get("text") == _fingerprint(notebook)


def _free_name(path: Path) -> Path:
    """Where to set an edited notebook aside: NN_slug.edited.ipynb, or .edited-2 if that is taken."""
    number, aside = 1, path.with_name(f"{path.stem}.edited.ipynb")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}.edited-{number}.ipynb")
    return aside


def _summary(old: NotebookNode, new: NotebookNode) -> list[str]:
    """Cell by cell, what differs between two student notebooks."""
    before, after = ({cell.id: cell for cell in notebook.cells} for notebook in (old, new))
    lines = [f"cell {key}: no longer in the lesson" for key in before if key not in after]
    for key, cell in after.items():
        was = before.get(key)
        if was is None:
            lines.append(f"cell {key}: new or edited")
        elif was.source != cell.source:
            lines += [f"cell {key}: its text differs", *_diff(was.source, cell.source)]
        elif was.get("outputs") != cell.get("outputs"):
            told = _diff(_shown(was), _shown(cell))
            lines += [f"cell {key}: its output differs", *(told or ["    (a picture)"])]
        elif was != cell:
            lines.append(f"cell {key}: its metadata or execution count differs")
    if list(before) != list(after) and set(before) == set(after):
        lines.append("the cells are in another order")
    if old.metadata != new.metadata:
        lines.append("the notebook's metadata differs")
    return lines


def _shown(cell: NotebookNode) -> str:
    """The texts among a cell's outputs."""
    texts = []
    for output in cell.outputs:
        texts += [output.get("text", ""), output.get("evalue", "")]
        texts += [
            str(value) for mime, value in output.get("data", {}).items() if not mime.startswith("image/p")
        ]
    return "\n".join(filter(None, texts))


def _diff(old: str, new: str, most: int = 12) -> list[str]:
    changes = [
        f"    {line[:160]}"
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    return changes[:most] + [f"    … {len(changes) - most} more lines"] * (len(changes) > most)


def _read(path: Path) -> NotebookNode | None:
    if not path.is_file():
        return None
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise BuildError(
            f"{path.name} is not a readable notebook; move it away and build again ({error})."
        ) from None


def _text(notebook: NotebookNode) -> str:
    import nbformat

    return nbformat.writes(notebook) + "\n"


def _write(path: Path, text: str) -> None:
    """Write so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
