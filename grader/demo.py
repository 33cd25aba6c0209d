"""A class of thirty, made up: blank, right, half right, wrong in every named way, late, damaged and hostile."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lessonlib.classroom import workbook

from . import desk, guard
from .exercises import planted

SIZE = 30
HOSTILE = {
    "ends python": "import os\nos._exit(0)",
    "never ends": "while True:\n    pass",
    "reads the keys": "print(open('/etc/shadow').read())",
    "takes the network": "import socket\nsocket.create_connection(('127.0.0.1', 22))",
    "fills memory": "hoard = [bytearray(2**28) for _ in range(10**6)]",
    "patches torch": "import torch\ntorch.equal = lambda *a, **k: True\n{name} = lambda *a, **k: True",
}
_NAMES = str.split(
    "ada alan barbara claude dennis donald edsger frances grace hedy ida john katherine ken kurt leslie linus margaret "
    "niklaus radia ray richard rosalind shafi sophie stephen tim tony vint whitfield"
)

Write = tuple[str, bytes | None]


def make_class(slug: str, course: Path) -> Path:
    """A new course folder with one released lesson and thirty submissions of it."""
    made = Path(tempfile.mkdtemp(prefix="lesson-demo-"))
    shutil.copytree(course / "source" / slug, made / "source" / slug)
    shutil.copy(course / "nbgrader_config.py", made)
    desk.release(made, slug)
    release = guard.load(made / "source" / slug / f"{slug}.ipynb")
    due = datetime.now(UTC) - timedelta(hours=1)
    for number, (name, (kind, data)) in enumerate(zip(_NAMES, _submissions(release), strict=False)):
        folder = made / "submitted" / name / slug
        folder.mkdir(parents=True)
        if data is not None:
            (folder / f"{slug}.ipynb").write_bytes(data)
        when = due + timedelta(minutes=90 if kind == "late" else -number)
        (folder / "timestamp.txt").write_text(when.strftime("%Y-%m-%d %H:%M:%S.%f UTC"))
    return made


def _submissions(release: guard.Release) -> Iterator[Write]:
    """What is handed in, the special ones first; then mistakes, one a submission, until the class is full."""
    right = {task.cell: _right(release, task.cell) for task in release.tasks}
    cells = [*right]
    yield "right", handed_in(release, right)
    yield "blank", handed_in(release, {})
    yield "half", handed_in(release, {cell: right[cell] for cell in cells[: len(cells) // 2]})
    yield "late", handed_in(release, right)
    yield "damaged", handed_in(release, right)[:-2000]
    yield "nothing", None
    for attack in HOSTILE.values():
        name = cells[0].split("-", 1)[1]
        yield "hostile", handed_in(release, {**right, cells[0]: attack.format(name=name)})
    mutants = [
        (task.cell, attempt.source)
        for task in release.tasks
        for attempt in planted(task.exercise)
        if attempt.expect != "does not finish in time"
    ]
    step = max(1, len(mutants) // (SIZE - 6 - len(HOSTILE)))
    for cell, source in mutants[::step]:
        yield "wrong", handed_in(release, {**right, cell: source})


def _right(release: guard.Release, name: str) -> str:
    return next(workbook.text(cell) for cell in release.cells if guard.solution_id(cell) == name)


def handed_in(release: guard.Release, sources: dict[str, str]) -> bytes:
    """The bytes of a notebook with these sources in its solution cells, the rest as handed out."""
    book: dict[str, Any] = deepcopy(release.handed_out)
    for cell in book["cells"]:
        if (name := guard.solution_id(cell)) in sources:
            cell["source"] = sources[name]
    return json.dumps(book).encode()
