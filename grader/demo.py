"""A class of thirty, made up: blank, right, half right, wrong in every named way, late, damaged and hostile."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from lessonlib.classroom import workbook

from . import demo_logs, desk, guard
from .demo_logs import PASS
from .exercises import Attempt, planted

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

SKILL = {"right": 0.9, "late": 0.9, "hostile": 0.8, "wrong": 0.65, "half": 0.5, "blank": 0.3}


@dataclass(frozen=True)
class Handed:
    """A submission. ends: how the exercises that were begun come out, for the student's log."""

    kind: str
    data: bytes | None
    ends: Mapping[str, str]


def make_class(slug: str, course: Path) -> Path:
    """A new course folder with one released lesson and thirty submissions of it."""
    made = Path(tempfile.mkdtemp(prefix="lesson-demo-"))
    shutil.copytree(course / "source" / slug, made / "source" / slug)
    shutil.copy(course / "nbgrader_config.py", made)
    desk.release(made, slug)
    release = guard.load(made / "source" / slug / f"{slug}.ipynb")
    due = datetime.now(UTC) - timedelta(hours=1)
    for number, (name, handed) in enumerate(zip(_NAMES, _submissions(release), strict=False)):
        folder = made / "submitted" / name / slug
        folder.mkdir(parents=True)
        if handed.data is not None:
            (folder / f"{slug}.ipynb").write_bytes(handed.data)
        if (skill := SKILL.get(handed.kind)) is not None:
            log = demo_logs.log(slug, handed.ends, skill, Random(f"{slug} {name}"))
            (folder / f"{slug}.log.jsonl").write_bytes(log)
        when = due + timedelta(minutes=90 if handed.kind == "late" else -number)
        (folder / "timestamp.txt").write_text(when.strftime("%Y-%m-%d %H:%M:%S.%f UTC"))
    return made


def _submissions(release: guard.Release) -> Iterator[Handed]:
    """What is handed in, the special ones first; then mistakes, one a submission, until the class is full."""
    right = {task.cell: _right(release, task.cell) for task in release.tasks}
    all_pass = {task.exercise: PASS for task in release.tasks}
    first, *_ = release.tasks
    half = release.tasks[: len(release.tasks) // 2]
    whole = handed_in(release, right)
    yield Handed("right", whole, all_pass)
    yield Handed("blank", handed_in(release, {}), {})
    some = {task.cell: right[task.cell] for task in half}
    yield Handed("half", handed_in(release, some), {task.exercise: PASS for task in half})
    yield Handed("late", whole, all_pass)
    yield Handed("damaged", whole[:-2000], {})
    yield Handed("nothing", None, {})
    for attack in HOSTILE.values():
        code = attack.format(name=first.exercise[3:])
        yield Handed("hostile", handed_in(release, {**right, first.cell: code}), all_pass)
    mutants = [
        (task, attempt)
        for task in release.tasks
        for attempt in planted(task.exercise)
        if attempt.expect not in (PASS, "does not finish in time")
    ]
    step = max(1, len(mutants) // (SIZE - 6 - len(HOSTILE)))
    for task, attempt in mutants[::step]:
        data = handed_in(release, {**right, task.cell: _as_written(attempt)})
        yield Handed("wrong", data, {**all_pass, task.exercise: attempt.expect})


def _as_written(attempt: Attempt) -> str:
    """A mutant without its first line, which says what is wrong with it."""
    return attempt.source.split("\n", 1)[1]


def _right(release: guard.Release, name: str) -> str:
    return next(workbook.text(cell) for cell in release.cells if guard.solution_id(cell) == name)


def handed_in(release: guard.Release, sources: dict[str, str]) -> bytes:
    """The bytes of a notebook with these sources in its solution cells, the rest as handed out."""
    book: dict[str, Any] = deepcopy(release.handed_out)
    for cell in book["cells"]:
        if (name := guard.solution_id(cell)) in sources:
            cell["source"] = sources[name]
    return json.dumps(book).encode()
