"""The question bank: ``quizzes/NN_slug.yaml``, read and checked.

    quiz: 01_generation            # the file's own name
    title: Generating text
    intro: One sentence above the questions (Markdown, may be left out).
    questions:
      - id: recompute              # stable: answers are kept under it
        kind: single               # single | multiple | numeric | ordering
        mode: practice             # practice: reasons shown at once | graded: only "saved"
        text: What happens …?      # Markdown, code and fenced code included
        choices:                   # single and multiple
          - {id: a, text: …, correct: true, reason: why it is right}
          - {id: b, text: …, reason: what this mistake is}
        fixed_order: true          # choices are otherwise shuffled for each student
      - kind: numeric
        unit: tokens
        answer: 55
        tolerance: 0               # largest accepted difference; or "2 %" of the answer
        reason: how it is worked out
        wrong: [{answer: 60, reason: what this mistake is}]
      - kind: ordering
        items: [{id: a, text: …}]  # practice: in the right order (always shown in another)
        reason: why this order

A graded question carries no ``correct``, ``answer``, ``reason`` or ``wrong``: its key stays with the grader
(``grader/keys/``), and the order of its items says nothing.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .errors import ClassroomError, lesson_of

KINDS = ("single", "multiple", "numeric", "ordering")
MODES = ("practice", "graded")
_COMMON = {"id", "kind", "mode", "text"}
_FIELDS = {
    "single": {"choices", "fixed_order"},
    "multiple": {"choices", "fixed_order"},
    "numeric": {"unit", "answer", "tolerance", "reason", "wrong"},
    "ordering": {"items", "reason"},
}
_KEY_FIELDS = {"correct", "answer", "reason", "wrong", "tolerance"}


class BankError(ClassroomError):
    """A question bank that cannot be used; one sentence saying where and why."""


class BadAnswer(ClassroomError):
    """An answer that a question cannot take; one sentence saying what it can."""


@dataclass(frozen=True)
class Choice:
    """A choice, or an item to be put in order."""

    id: str
    text: str
    correct: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Wrong:
    """A wrong number with a known way to get there."""

    answer: float
    reason: str


@dataclass(frozen=True)
class Question:
    """One question. ``answer``, ``reason`` and ``correct`` are known for practice questions only."""

    id: str
    kind: str
    mode: str
    text: str
    choices: tuple[Choice, ...] = ()
    fixed_order: bool = False
    unit: str = ""
    answer: float | None = None
    tolerance: float = 0.0
    reason: str = ""
    wrong: tuple[Wrong, ...] = ()

    @property
    def practice(self) -> bool:
        return self.mode == "practice"

    def arranged(self, seed: int | None) -> tuple[Choice, ...]:
        """The choices as shown: shuffled by this student's seed; None is the printed order, the same for all.

        Items to be put in order are shuffled in print as well, since the file may list them in the right
        order.
        """
        choices = list(self.choices)
        if self.kind == "ordering" or (seed is not None and not self.fixed_order):
            random.Random(f"{seed}:{self.id}").shuffle(choices)
            if self.kind == "ordering" and choices == list(self.choices) and len(choices) > 1:
                choices.append(choices.pop(0))
        return tuple(choices)

    def read(self, answer: Any) -> str | float | list[str]:
        """An answer in its kept form: a choice's id, a list of ids, or a number. Raises BadAnswer."""
        ids = [choice.id for choice in self.choices]
        known = ", ".join(ids)
        if self.kind == "numeric":
            return read_number(answer, self.unit)
        if self.kind == "single":
            if answer not in ids:
                raise BadAnswer(f"Question {self.id} takes one of {known}; {answer!r} is none of them.")
            return str(answer)
        listed = list(answer) if isinstance(answer, Sequence) and not isinstance(answer, str) else [None]
        if any(item not in ids for item in listed) or len({*listed}) != len(listed):
            raise BadAnswer(f"Question {self.id} takes a list of ids ({known}), each at most once.")
        if self.kind == "ordering":
            if len(answer) != len(ids):
                raise BadAnswer(f"Question {self.id} needs all of {known}, in your order.")
            return list(answer)
        return [i for i in ids if i in answer]

    def is_right(self, answer: str | float | list[str]) -> bool:
        """Whether a practice question is answered correctly. For several choices: exactly the right set."""
        if self.kind == "numeric":
            return isinstance(answer, float) and near(answer, self.answer or 0.0, self.tolerance)
        if self.kind == "ordering":
            return answer == [choice.id for choice in self.choices]
        right = [choice.id for choice in self.choices if choice.correct]
        return answer == (right[0] if self.kind == "single" else right)


@dataclass(frozen=True)
class Bank:
    """The questions of one lesson."""

    name: str
    title: str
    intro: str
    questions: tuple[Question, ...]

    def question(self, question_id: str) -> Question:
        for question in self.questions:
            if question.id == question_id:
                return question
        known = ", ".join(q.id for q in self.questions)
        raise BadAnswer(f"The quiz {self.name} has no question {question_id!r}; it has {known}.")


def load(name: str) -> Bank:
    """The bank of a lesson ("01_generation" or "01"). Raises BankError."""
    lesson = lesson_of(name)
    if not lesson.quiz.is_file():
        raise BankError(f"There is no quiz for {lesson.slug} yet.")
    return _load(lesson.quiz, lesson.quiz.stat().st_mtime_ns)


@cache
def _load(file: Path, _changed: int) -> Bank:
    return parse(file.read_text(encoding="utf-8"), file.stem)


def parse(source: str, name: str) -> Bank:
    """A bank from its YAML text. Raises BankError naming the question that is wrong."""
    import yaml

    try:
        record = yaml.safe_load(source)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise BankError(
            f"{name}.yaml is not valid YAML{f' (line {where.line + 1})' if where else ''}."
        ) from None
    if not isinstance(record, dict) or record.get("quiz") != name or not record.get("questions"):
        raise BankError(f"{name}.yaml must begin with 'quiz: {name}' and have a list of questions.")
    questions = tuple(_question(item, name) for item in record["questions"])
    if len({q.id for q in questions}) < len(questions):
        raise BankError(f"{name}.yaml has two questions with the same id.")
    return Bank(name, str(record.get("title", name)), str(record.get("intro", "")), questions)


def _question(item: Any, name: str) -> Question:
    label = f"{name}.yaml, question {item.get('id') if isinstance(item, dict) else item!r}"

    def need(holds: Any, what: str) -> None:
        if not holds:
            raise BankError(f"{label}: {what}.")

    need(isinstance(item, dict) and {*_COMMON} <= {*item}, f"needs {', '.join(sorted(_COMMON))}")
    kind, mode = item["kind"], item["mode"]
    need(kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
    need(mode in MODES, f"mode must be one of {', '.join(MODES)}")
    unknown = {*item} - _COMMON - _FIELDS[kind]
    need(not unknown, f"a {kind} question has no field {', '.join(sorted(unknown))}")
    listed = item.get("items" if kind == "ordering" else "choices", [])
    choices = tuple(_choice(choice, label) for choice in listed)
    if kind != "numeric":
        need(len(choices) >= 2, "needs at least two choices or items")
        need(len({c.id for c in choices}) == len(choices), "has two choices with the same id")
    if mode == "graded":
        told = _KEY_FIELDS & {key for part in (item, *listed) for key in part}
        need(not told, f"is graded, so {', '.join(sorted(told))} belongs in the grader's key, not here")
    elif kind == "numeric":
        need(isinstance(item.get("answer"), (int, float)), "needs a number as answer")
        need(item.get("reason"), "needs a reason")
    elif kind == "ordering":
        need(item.get("reason"), "needs a reason")
    else:
        right = sum(c.correct for c in choices)
        need(right == 1 if kind == "single" else right, "needs one correct choice (multiple: at least one)")
        need(all(c.reason for c in choices), "needs a reason for every choice")
    answer = item.get("answer")
    return Question(
        id=str(item["id"]),
        kind=kind,
        mode=mode,
        text=str(item["text"]),
        choices=choices,
        fixed_order=bool(item.get("fixed_order", False)),
        unit=str(item.get("unit", "")),
        answer=None if answer is None else float(answer),
        tolerance=tolerance(item.get("tolerance", 0), float(answer or 0)),
        reason=str(item.get("reason", "")),
        wrong=tuple(Wrong(float(w["answer"]), str(w["reason"])) for w in item.get("wrong", [])),
    )


def _choice(item: Any, label: str) -> Choice:
    if not isinstance(item, Mapping) or not {"id", "text"} <= {*item} <= {"id", "text", "correct", "reason"}:
        raise BankError(f"{label}: a choice has id and text, and in practice questions correct and reason.")
    if not isinstance(item["id"], str):
        raise BankError(
            f"{label}: the choice {item['id']!r} needs a text as id (YAML reads y, n, on and off otherwise)."
        )
    return Choice(
        item["id"], str(item["text"]), bool(item.get("correct", False)), str(item.get("reason", ""))
    )


def tolerance(given: Any, answer: float) -> float:
    """A tolerance as an absolute number, from a number or "2 %" of the answer."""
    if isinstance(given, str) and given.rstrip().endswith("%"):
        return abs(answer) * float(given.rstrip().rstrip("%")) / 100
    return float(given)


def near(number: float, answer: float, allowed: float) -> bool:
    """Whether a number is the answer within what is allowed (and what rounding of floats does)."""
    return abs(number - answer) <= allowed + 1e-9 * max(1.0, abs(answer))


def read_number(answer: Any, unit: str = "") -> float:
    """A number as people write it: 5050, "5,050", "5 050 tokens", "1.5e3", "1/3". Raises BadAnswer."""
    if isinstance(answer, bool) or not isinstance(answer, (int, float, str)):
        raise BadAnswer(f"This needs a number; {answer!r} is none.")
    if not isinstance(answer, str):
        number = float(answer) if abs(answer) < 1e300 else math.inf
    else:
        text = answer.strip().lower().removesuffix(unit.lower() or "\0").strip().replace("×10^", "e")
        text = re.sub(r"(?<=\d)[\s,_'](?=\d{3}(\D|$))", "", text)  # 5,050 and 5 050
        parts = text.split("/")
        try:
            number = (
                float(parts[0]) / (float(parts[1]) if len(parts) == 2 else 1.0)
                if len(parts) < 3
                else math.nan
            )
        except (ValueError, ZeroDivisionError):
            raise BadAnswer(f"“{answer.strip()[:40]}” is not a number; write one like 1234 or 0.5.") from None
    if not math.isfinite(number):
        raise BadAnswer("This needs an ordinary number, like 1234 or 0.5.")
    return number
