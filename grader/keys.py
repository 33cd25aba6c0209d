"""The keys of graded questions: ``grader/keys/NN_slug.yaml``, which students never get.

    quiz: 01_generation
    answers:
      question-id:                   # a graded question of quizzes/01_generation.yaml
        answer: c                    # a choice's id; a list of ids (multiple; ordering: in order); or a number
        tolerance: 0.5               # numeric: largest accepted difference, or "2 %" of the answer
        points: 1                    # 1 if left out
        why: shown after grading     # Markdown
        wrong:                       # the mistakes behind wrong answers, for feedback and the class report
          a: {mistake: its name, why: what to see}                           # single and multiple: by choice
          - {answer: 50, tolerance: 0.5, mistake: its name, why: …}          # numeric: a list

An answer is right or not: there are no points for half a set of ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lessonlib import course
from lessonlib.classroom.bank import BadAnswer, Question, load, near, tolerance

KEYS = Path(__file__).parent / "keys"


class KeyFileError(course.CourseError):
    """A key that does not fit its question bank; one sentence."""


@dataclass(frozen=True)
class Wrong:
    """A wrong answer with the mistake behind it."""

    answer: str | float
    tolerance: float
    mistake: str
    why: str


@dataclass(frozen=True)
class Entry:
    """The key of one question."""

    question: Question
    answer: str | float | list[str]
    tolerance: float
    points: float
    why: str
    wrong: tuple[Wrong, ...]


@dataclass(frozen=True)
class Scored:
    """One graded question of one student. ``mistake`` and ``why`` explain; ``why`` is fit for feedback."""

    question: str
    answer: Any
    points: float
    out_of: float
    mistake: str | None
    why: str


def load_key(name: str) -> dict[str, Entry]:
    """The key of a lesson's quiz by question id, empty without graded questions. Raises KeyFileError."""
    bank = load(name)
    file = KEYS / f"{bank.name}.yaml"
    graded = {q.id: q for q in bank.questions if not q.practice}
    record: dict[str, Any] = {"quiz": bank.name}
    if file.is_file():
        record = _read(file, file.stat().st_mtime_ns)
    if record.get("quiz") != bank.name:
        raise KeyFileError(f"{file.name} must begin with 'quiz: {bank.name}'.")
    answers: dict[str, Any] = record.get("answers") or {}
    if missing := sorted({*graded} - {*answers}):
        raise KeyFileError(f"grader/keys/{file.name} has no answer for {', '.join(missing)}; add it there.")
    if unasked := sorted({*answers} - {*graded}):
        raise KeyFileError(
            f"grader/keys/{file.name} answers {', '.join(unasked)}, which quizzes/{file.name} does not ask as graded."
        )
    return {name: _entry(graded[name], item, file.name) for name, item in answers.items()}


@lru_cache(maxsize=32)
def _read(file: Path, changed: int) -> Any:
    """A key file as it was at that moment: it is asked for with every submission."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _entry(question: Question, item: Any, file: str) -> Entry:
    label = f"{file}, question {question.id}"
    if not isinstance(item, Mapping) or not {"answer", "why"} <= {*item}:
        raise KeyFileError(f"{label}: needs answer and why.")
    try:
        answer = question.read(item["answer"])
    except BadAnswer as error:
        raise KeyFileError(f"{label}: {error}") from None
    number = answer if isinstance(answer, float) else 0.0
    wrong = _wrong(question, item.get("wrong") or {}, label)
    if question.kind in ("single", "multiple"):
        right = {answer} if isinstance(answer, str) else {*answer} if isinstance(answer, list) else set()
        unexplained = {c.id for c in question.choices} - right - {w.answer for w in wrong}
        if unexplained:
            raise KeyFileError(f"{label}: the wrong choices {', '.join(sorted(unexplained))} need a mistake.")
    return Entry(
        question,
        answer,
        tolerance(item.get("tolerance", 0), number),
        float(item.get("points", 1)),
        str(item["why"]),
        wrong,
    )


def _wrong(question: Question, items: Any, label: str) -> tuple[Wrong, ...]:
    try:
        if question.kind == "numeric":
            return tuple(
                Wrong(
                    float(w["answer"]),
                    tolerance(w.get("tolerance", 0), float(w["answer"])),
                    w["mistake"],
                    w["why"],
                )
                for w in items
            )
        return tuple(Wrong(choice, 0.0, w["mistake"], w["why"]) for choice, w in items.items())
    except (TypeError, AttributeError, LookupError, ValueError):
        raise KeyFileError(
            f"{label}: every wrong answer needs mistake and why (and a numeric one its answer)."
        ) from None


def score(name: str, answers: Mapping[str, Any]) -> list[Scored]:
    """Every graded question of a quiz, scored; unanswered and unreadable answers get no points.

    answers: {question id: answer} as the student's log holds them (see
    ``lessonlib.classroom.quiz.answered``).
    """
    return [_score(entry, answers.get(question_id)) for question_id, entry in load_key(name).items()]


def earned(name: str) -> float:
    """The points of the answers in the log beside a notebook: the value of a quiz cell where plain nbgrader runs it."""
    from lessonlib.classroom.quiz import answered
    from lessonlib.classroom.store import log_for

    return sum(scored.points for scored in score(name, answered(log_for(name), load(name))))


def points_available(name: str) -> float:
    return sum(entry.points for entry in load_key(name).values())


def _score(entry: Entry, given: Any) -> Scored:
    question = entry.question.id
    try:
        answer = entry.question.read(given)
    except BadAnswer:
        return Scored(question, None, 0.0, entry.points, None, "")
    if _matches(answer, entry.answer, entry.tolerance):
        return Scored(question, answer, entry.points, entry.points, None, entry.why)
    found = next((w for w in entry.wrong if _made(answer, w, entry)), None)
    why = f"{found.why} {entry.why}" if found else entry.why
    return Scored(question, answer, 0.0, entry.points, found.mistake if found else None, why)


def _matches(answer: Any, key: Any, allowed: float) -> bool:
    if isinstance(answer, float) and isinstance(key, float):
        return near(answer, key, allowed)
    return bool(answer == key)


def _made(answer: Any, wrong: Wrong, entry: Entry) -> bool:
    """Whether an answer shows this mistake: the wrong choice, one wrong tick among several, the wrong
    number."""
    if entry.question.kind == "multiple":
        return wrong.answer in answer
    return _matches(answer, wrong.answer, wrong.tolerance)


__all__ = ["Entry", "KeyFileError", "Scored", "Wrong", "earned", "load_key", "points_available", "score"]
