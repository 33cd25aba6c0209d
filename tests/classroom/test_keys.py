"""The grader's keys: they fit their banks, and score what a student's log holds."""

from __future__ import annotations

import pytest
import yaml

from grader import keys
from lessonlib import course
from lessonlib.classroom.bank import load
from lessonlib.classroom.checks.lesson_01.count_work import right
from lessonlib.classroom.quiz import answered, save
from lessonlib.classroom.store import log_for

BANKS = [lesson.slug for lesson in course.LESSONS if lesson.quiz.is_file()]


@pytest.mark.parametrize("name", BANKS)
def test_every_graded_question_has_a_key(name):
    entries = keys.load_key(name)
    assert {*entries} == {q.id for q in load(name).questions if not q.practice}
    for entry in entries.values():
        listed = [c.id for c in entry.question.choices]
        assert entry.answer != listed, f"{entry.question.id}: the items are listed in the right order"


def test_a_students_log_is_scored():
    bank, log = load("01"), log_for("01")
    given = {
        "twice-as-long": "a",
        "padded-row": "d",
        "cache-saves": "149",
        "same-twice": ["e", "a", "c"],
        "k-then-p": "0.57",
        "slower": "a",
    }
    for question, answer in given.items():
        save(bank, log, question, answer)
    scored = {s.question: s for s in keys.score("01", answered(log, bank))}
    assert {n: s.points for n, s in scored.items()} == {
        "twice-as-long": 0,
        "padded-row": 1,
        "cache-saves": 1,
        "same-twice": 1,
        "k-then-p": 0,
        "least-work": 0,
    }
    assert (
        scored["twice-as-long"].mistake == "counts every token once"
        and "three times" in scored["twice-as-long"].why
    )
    assert scored["k-then-p"].mistake == "top-p counts tokens that top-k removed"
    assert scored["least-work"].answer is None and scored["least-work"].why == ""
    assert keys.points_available("01") == 6


@pytest.mark.parametrize("junk", [None, 7, "zz", [], [[]], {"a": 1}, float("nan"), "9" * 400, 10**400])
def test_what_cannot_be_read_gets_no_points(junk):
    entries = keys.load_key("01")
    for scored in keys.score("01", dict.fromkeys(entries, junk)):
        assert scored.points == 0


def test_the_figures_are_right():
    entries = keys.load_key("01")
    assert entries["cache-saves"].answer == right(100, 50, True)
    work = {
        "a": right(100, 10, False),
        "b": right(1000, 10, True),
        "c": right(10, 10, False),
        "d": right(100, 10, True),
    }
    assert entries["least-work"].answer == sorted(work, key=work.get)
    assert right(1, 500, False) == pytest.approx(125_000, rel=0.01)
    assert right(1, 1500, False) == pytest.approx(1_125_000, rel=0.01)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Write the key with one change."""
    record = yaml.safe_load((keys.KEYS / "01_generation.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(keys, "KEYS", tmp_path)

    def write(change):
        change(record)
        (tmp_path / "01_generation.yaml").write_text(yaml.safe_dump(record))

    return write


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda r: r["answers"].pop("padded-row"), "has no answer for padded-row; add it there"),
        (
            lambda r: r["answers"].update(slower={"answer": "d", "why": ""}),
            "answers slower, which .* does not ask as graded",
        ),
        (lambda r: r["answers"]["padded-row"].update(answer="q"), "takes one of a, b, c, d"),
        (lambda r: r["answers"]["padded-row"]["wrong"].pop("b"), "the wrong choices b need a mistake"),
        (lambda r: r["answers"]["padded-row"].pop("why"), "needs answer and why"),
        (lambda r: r["answers"]["padded-row"]["wrong"]["a"].pop("mistake"), "needs mistake and why"),
        (lambda r: r.update(quiz="02_kv_cache"), "must begin with 'quiz: 01_generation'"),
    ],
)
def test_a_bad_key_is_named(broken, change, complaint):
    broken(change)
    with pytest.raises(keys.KeyFileError, match=complaint):
        keys.load_key("01")


def test_keys_are_not_in_what_students_get():
    for folder in (course.quizzes_dir(), course.notebooks_dir()):
        for file in folder.glob("*.yaml"):
            assert "answers:" not in file.read_text(encoding="utf-8")
