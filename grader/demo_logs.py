"""What the made-up students did on the way: checks that failed with a named mistake, hints, and answers to the quiz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from lessonlib.classroom import bank
from lessonlib.classroom.bank import Question
from lessonlib.classroom.quiz import ANSWER
from lessonlib.classroom.store import Event

from . import keys
from .exercises import planted
from .keys import Entry

PASS = "pass"
MOST = 5  # checks of one exercise that fail


def log(slug: str, ends: Mapping[str, str], skill: float, rng: Random) -> bytes:
    """A student's log. ends: how the exercises that were begun came out, "pass" or a mistake's name; skill: 0 to 1."""
    events = [*_checks(ends, skill, rng), *_answers(slug, skill, rng)]
    return b"".join(event.line() for event in events)


def _checks(ends: Mapping[str, str], skill: float, rng: Random) -> Iterator[Event]:
    for exercise, end in ends.items():
        names = sorted({attempt.expect for attempt in planted(exercise)} - {PASS})
        for _ in range(rng.randrange(1 + round(MOST * (1 - skill)))):
            yield Event("check", exercise, {"passed": False, "name": rng.choice(names), "trials": 1})
        for step in range(rng.randrange(1 + round(3 * (1 - skill)))):
            yield Event("hint", exercise, {"step": step + 1})
        name = None if end == PASS else end
        yield Event("check", exercise, {"passed": end == PASS, "name": name, "trials": 1})


def _answers(slug: str, skill: float, rng: Random) -> Iterator[Event]:
    questions, key = bank.load(slug), keys.load_key(slug)
    for question in questions.questions:
        if rng.random() < 0.1:
            continue  # not everybody answers everything
        right = _right(question, key.get(question.id))
        answer = right if rng.random() < skill else _wrong(question, key.get(question.id), right, rng)
        yield Event(ANSWER, f"{slug}.{question.id}", {"answer": answer, "mode": question.mode})


def _right(question: Question, entry: Entry | None) -> Any:
    if entry:
        return entry.answer
    if question.kind == "numeric":
        return question.answer
    ids = [c.id for c in question.choices if c.correct or question.kind == "ordering"]
    return ids[0] if question.kind == "single" else ids


def _wrong(question: Question, entry: Entry | None, right: Any, rng: Random) -> Any:
    ids = [choice.id for choice in question.choices]
    if question.kind == "single":
        return rng.choice([c for c in ids if c != right])
    if question.kind == "multiple":
        swapped = rng.choice(ids)
        return [c for c in ids if (c in right) != (c == swapped)]
    if question.kind == "ordering":
        return [*right[1:], right[0]]
    known = [w.answer for w in (entry or question).wrong]
    return rng.choice([*known, float(right) * 2 + 1])
