"""A lesson that could not be graded, or gives something away, is not built."""

from __future__ import annotations

from copy import deepcopy

import pytest

from grader import build, completeness, guard, keys
from grader.authoring import BuildError
from grader.checks import Hidden
from lessonlib import course

from .releases import released

SLUG = "02_kv_cache"


def complaint(change=lambda book: None, student=None):
    book = deepcopy(released("02").book)
    change(book)
    return completeness.complaint(SLUG, book, student or deepcopy(released("02").handed_out))


def about(book, name):
    return next(
        c for c in book.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name
    ).metadata.nbgrader


@pytest.mark.parametrize(
    "lesson", [lesson for lesson in course.LESSONS if lesson.number != "00"], ids=lambda x: x.slug
)
def test_every_lesson_is_complete(lesson):
    release = released(lesson.number)
    assert completeness.complaint(lesson.slug, release.book, release.handed_out) is None


def drop(name):
    def change(book):
        book.cells = [c for c in book.cells if c.metadata.get("nbgrader", {}).get("grade_id") != name]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("02-visible"), "02.visible has a probe, but the notebook has no cell 02-visible."),
        (drop("02-visible-check"), "02.visible has a probe, but the notebook has no cell 02-visible-check."),
        (drop("02-quiz"), "no cell with the grade_id 02-quiz"),
        (lambda book: about(book, "02-quiz").update(points=3), "The quiz cell gives 3 points"),
        (lambda book: about(book, "02-visible-check").update(points=0), "gives 0 points"),
        (lambda book: about(book, "02-visible-check").update(points=1.5), "gives 1.5 points"),
    ],
)
def test_cells_and_points(change, told):
    assert told in complaint(change)


def test_an_exercise_without_a_probe(monkeypatch):
    probes = completeness.probes(SLUG)
    monkeypatch.setattr(
        completeness, "probes", lambda slug: {n: p for n, p in probes.items() if n != "02.KVCache"}
    )
    assert "02.KVCache has no probe" in complaint()


def test_a_probe_without_an_exercise(monkeypatch):
    probes = completeness.probes(SLUG)
    monkeypatch.setattr(completeness, "probes", lambda slug: {**probes, "02.other": probes["02.visible"]})
    assert "02.other is in the notebook or among the probes, but no exercise" in complaint()


def test_a_probe_of_another_exercise(monkeypatch):
    probes = completeness.probes(SLUG)
    swapped = Hidden(probes["02.visible"].exercise, probes["02.KVCache"].cases)
    monkeypatch.setattr(completeness, "probes", lambda slug: {**probes, "02.KVCache": swapped})
    assert "is one of the exercise 02.visible" in complaint()


def test_an_exercise_without_mutants(monkeypatch):
    planted = completeness.planted
    monkeypatch.setattr(completeness, "planted", lambda name: [] if name == "02.find_bug" else planted(name))
    assert "02.find_bug has no differently written correct solution" in complaint()


def test_a_reason_of_the_key_that_students_can_read():
    student = deepcopy(released("02").handed_out)
    reason = next(entry.why for entry in keys.load_key(SLUG).values() if len(entry.why) > 60)
    student.cells[0].source += "\n" + "\n".join(reason.split(" "))
    assert "can be read by students" in complaint(student=student)


def test_a_side_file_in_the_source_is_refused(toy):
    stray = toy.instructor.parent / "90_toy.log.jsonl"
    stray.write_text("{}")
    with pytest.raises(BuildError, match=r"90_toy\.log\.jsonl beside the lesson"):
        build.build(toy.source, toy.course)
    stray.unlink()
    build.build(toy.source, toy.course)


def test_other_notebooks_are_left_alone(toy):
    assert completeness.complaint("90_toy", guard.load(toy.instructor).book, toy.read()) is None
