"""What a student hands in: one zip with the notebook, the log beside it, and a manifest.

    01_generation.submission-1.zip
        manifest.json              {"format": 1, "lesson": "01_generation", "course": "0.1.0",
                                    "at": "2026-01-31T09:30:00Z", "files": {name: {"size": …, "sha256": …}}}
        01_generation.ipynb        the bytes the student saved
        01_generation.log.jsonl    if there is one: quiz answers, checks, predictions

Only what the grader could not read is refused. Work that is not finished is accepted, and said.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .. import course
from . import files, workbook
from .bank import BankError, load
from .errors import ClassroomError
from .quiz import answered
from .store import Log
from .workbook import Cell, Workbook, spoken

FORMAT = 1
MANIFEST = "manifest.json"
_CHECK = re.compile(r"""\bcheck\(\s*["']([^"']+)["']""")
_KEY = {"code": "Y", "markdown": "M", "raw": "R"}  # turns a selected cell into that kind


class SubmissionError(ClassroomError):
    """A notebook the grader could not read; one sentence saying why and what to do."""


@dataclass(frozen=True)
class Submission:
    """What was handed in. ``saved``: when the notebook was; ``notes``: sentences the student should read."""

    path: Path
    names: tuple[str, ...]
    saved: datetime
    notes: tuple[str, ...]


def submit(
    name: str, folder: Path, version: str, output: Path | None = None, now: datetime | None = None
) -> Submission:
    """Pack a lesson ("01") from the student's folder into a new file.

    version: of the course; output: the file to write, or a folder for a numbered one (otherwise the student's
    own); now: the time to put on it. Raises ClassroomError; nothing has been written then.
    """
    lesson, original = workbook.shipped(name)
    mine = workbook.read(workbook.own(lesson, folder))
    _ask_nbformat(mine)
    _refuse_unfit(mine, original)
    packed = {mine.path.name: mine.data}
    log = Log(folder / f"{lesson.slug}.log.jsonl")
    if os.path.lexists(log.path):
        packed[log.path.name] = files.read(log.path)
    notes = (*_unfinished(mine, original, log, lesson), *_left_out(mine.path), *_about_log(log))
    data = pack(packed, lesson.slug, version, now or datetime.now(UTC))
    return Submission(
        path=_write(data, lesson.slug, folder, output),
        names=tuple(packed),
        saved=datetime.fromtimestamp(mine.path.stat().st_mtime),
        notes=notes,
    )


def pack(packed: Mapping[str, bytes], slug: str, version: str, at: datetime) -> bytes:
    """The zip. The same files at the same time give the same bytes, on any machine."""
    manifest = {
        "format": FORMAT,
        "lesson": slug,
        "course": version,
        "at": at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(packed.items())
        },
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [(MANIFEST, json.dumps(manifest, indent=1).encode()), *sorted(packed.items())]:
            entry = zipfile.ZipInfo(name)  # dated 1980, like all entries without a date
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def blanks(mine: Workbook, original: Workbook) -> list[str]:
    """The grade_ids of the cells that say what they said when the lesson was handed out."""
    solutions = mine.solutions()
    return [n for n, cell in original.solutions().items() if n in solutions and _same(solutions[n], cell)]


def _ask_nbformat(mine: Workbook) -> None:
    """Graders read with nbformat, so whatever it stumbles over is found here."""
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nbformat.reads(mine.data.decode(), as_version=4)
    except Exception as error:  # what it raises depends on what is damaged, and is not always its own
        raise workbook.unreadable(mine.path, f"nbformat stops with {type(error).__name__}") from None


def _refuse_unfit(mine: Workbook, original: Workbook) -> None:
    where, name = mine.positions(), mine.path.name
    missing = [spoken(cell) for cell in original.graded() if cell not in where]
    if missing:
        raise SubmissionError(
            f"{name} lacks the graded {_cells(missing)}; `lesson reset {missing[0]}` puts it back and keeps a "
            "copy of your notebook."
        )
    for cell, found in where.items():
        if len(found) > 1:
            numbers = " and ".join(str(position + 1) for position in found)
            raise SubmissionError(
                f"{name} has the graded cell {spoken(cell)} {len(found)} times (cells {numbers} from the top; a "
                "copied or split cell keeps its name): delete the copy, or select both parts and merge "
                "them (Shift+M), then save."
            )
    for cell, shipped in original.graded().items():
        kind, meant = mine.cells[where[cell][0]]["cell_type"], shipped["cell_type"]
        if kind != meant:
            raise SubmissionError(
                f"The cell {spoken(cell)} of {name} has become a {kind} cell and must be a {meant} cell: select "
                f"it, press Escape and {_KEY[meant]}, then save."
            )


def _unfinished(mine: Workbook, original: Workbook, log: Log, lesson: course.Lesson) -> Iterator[str]:
    """What is not solved, not checked or not answered, a sentence each."""
    blank = [spoken(cell) for cell in blanks(mine, original)]
    if blank:
        yield f"Still as handed out: {', '.join(blank)}."
    last = {event.id: event.data.get("passed") is True for event in log.events("check")}
    cells = original.graded().values()
    checks = [name for cell in cells for name in _CHECK.findall(workbook.text(cell)) if name not in blank]
    if failed := [name for name in checks if last.get(name) is False]:
        yield f"The last check did not pass: {', '.join(failed)}."
    if never := [name for name in checks if name not in last]:
        yield f"Never checked: {', '.join(never)}."
    try:
        bank = load(lesson.slug)
    except BankError:
        return
    done = answered(log, bank)
    if left := [q.id for q in bank.questions if not q.practice and q.id not in done]:
        yield f"Graded quiz questions without an answer: {', '.join(left)}."


def _left_out(notebook: Path) -> Iterator[str]:
    for newer in sorted(notebook.parent.glob(f"{notebook.stem}.new-*.ipynb")):
        yield f"{newer.name}, a newer version of the lesson, was left out: your own {notebook.name} was submitted."


def _about_log(log: Log) -> Iterator[str]:
    if not os.path.lexists(log.path):
        yield f"There is no {log.path.name}: the submission holds no quiz answers."
    elif complaint := log.complaint():
        yield complaint


def _write(data: bytes, slug: str, folder: Path, output: Path | None) -> Path:
    if output is None or output.is_dir():
        return files.create_numbered(output or folder, f"{slug}.submission", ".zip", data)
    try:
        files.create(output, data)
    except FileExistsError:
        raise SubmissionError(
            f"{output} is there already and is never overwritten; choose another --output, or leave it out."
        ) from None
    return output


def _same(cell: Cell, other: Cell) -> bool:
    """Whether two cells say the same; in code, comments and spacing say nothing."""
    first, second = workbook.text(cell), workbook.text(other)
    if cell["cell_type"] == other["cell_type"] == "code":
        try:
            return ast.dump(ast.parse(first)) == ast.dump(ast.parse(second))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return first.split() == second.split()


def _cells(names: Sequence[str]) -> str:
    return f"cell{'s' * (len(names) > 1)} {', '.join(names)}"
