"""nbgrader's two seams: what of a submission enters the gradebook's notebook, and who runs it.

``Rebuild`` is the first of ``Autograde.sanitize_preprocessors``, ``RunLocked`` takes the place of ``Execute`` in
``Autograde.autograde_preprocessors`` (see ``nbgrader_config.py``). Without them, nbgrader grades the same notebooks in
its own way: hidden tests inside the student's process.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Float, Unicode

from . import grading, guard, writing

KEPT = "lesson"  # the key in the rebuilt notebook's metadata


class Rebuild(NbGraderPreprocessor):
    """Puts a submission into the release's frame (``guard.rebuild``)."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        if (release := release_of(resources)) is None:
            return nb, resources
        log = _side_file(resources)
        rebuilt = guard.rebuild(release, json.dumps(nb).encode(), log)
        book = NotebookNode(rebuilt.book)
        book.metadata[KEPT] = {
            "others": list(rebuilt.others),
            "notes": list(rebuilt.notes),
            "unreadable": rebuilt.unreadable,
        }
        return book, resources


class RunLocked(NbGraderPreprocessor):
    """Runs the solutions in a sandbox and probes them from outside (``grading.grade``)."""

    unsafe_local = Bool(False, help="Run where nothing can be locked up, without walls.").tag(config=True)
    seed = Unicode("", help="Decides the probes' inputs; by default nobody can foresee them.").tag(
        config=True
    )
    cell_seconds = Float(60.0, help="Seconds for one cell.").tag(config=True)
    submission_seconds = Float(300.0, help="Seconds for one submission.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        release = release_of(resources)
        if release is None or KEPT not in nb.metadata:
            raise ValueError("RunLocked needs Rebuild among Autograde.sanitize_preprocessors.")
        kept = nb.metadata.pop(KEPT)
        rebuilt = guard.again(release, nb, kept, _side_file(resources))
        seed = int(self.seed) if self.seed else random.SystemRandom().randrange(2**32)
        budget = grading.Budget(cell=self.cell_seconds, submission=self.submission_seconds)
        cache = course_folder(resources) / ".grading"
        result = grading.grade(release, rebuilt, seed, cache, budget, self.unsafe_local)
        records = map(writing.record, result.exercises)
        writing.fill(nb, records, result.quiz, rebuilt, release)
        return nb, resources


def release_of(resources: dict[str, Any]) -> guard.Release | None:
    """The release of the notebook that is being graded; None for a notebook that is not of this course."""
    about = resources["nbgrader"]
    path = course_folder(resources) / "source" / about["assignment"] / f"{about['notebook']}.ipynb"
    return guard.load(path) if path.is_file() else None


def course_folder(resources: dict[str, Any]) -> Path:
    """The course's folder: the one above nbgrader's ``autograded`` and ``submitted``."""
    return Path(resources["metadata"]["path"]).resolve().parents[2]


def _side_file(resources: dict[str, Any]) -> bytes:
    """The quiz answers that came with the notebook; nothing where it is no plain file."""
    path = Path(resources["metadata"]["path"], f"{resources['nbgrader']['notebook']}.log.jsonl")
    if path.is_symlink() or not path.is_file() or path.stat().st_size > guard.LIMIT:
        return b""
    return path.read_bytes()
