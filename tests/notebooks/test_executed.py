"""What happens when the lessons run: as a student opens them, and with the solutions in place."""

import pytest
from proven import Lesson

from grader import build
from grader.authoring import MAY_FAIL, is_check, tagged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def failed(cell) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def test_a_rebuild_gives_the_committed_bytes(lesson: Lesson):
    changes = build.compare(lesson.committed, lesson.rebuilt)
    assert not changes, "\n".join([f"run `lesson build {lesson.source.stem}` and commit it:", *changes])


def test_the_blank_fails_exactly_its_checks(lesson: Lesson):
    cells = lesson.rebuilt.cells
    on_purpose = {cell.id for cell in cells if tagged(cell, MAY_FAIL) and not is_check(cell)}
    assert {cell.id for cell in cells if failed(cell)} - on_purpose == {
        cell.id for cell in cells if is_check(cell)
    }


def test_the_solutions_pass_every_check(lesson: Lesson):
    worth = sum(cell.metadata.nbgrader.points for cell in lesson.rebuilt.cells if is_check(cell))
    assert build.verify(lesson.source) == worth
