"""The figures of a class report: plain data in, plain data out. What a class got right, what it misunderstood, and how.

Figures are over those who handed in something readable; a blank exercise counts as no points. Difficulty and
discrimination are those of classical test theory (Crocker and Algina 1986, chapter 14): the mean share of an item's
points, and the correlation of an item with the sum of all the others (item-rest).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lessonlib.classroom.bank import Question, near
from lessonlib.classroom.checking import NEVER_RAN, NOT_STARTED

from .keys import Entry

FEWEST = 5  # students; with fewer a correlation says nothing
SHOWN = 8  # different answers to a question without choices that are listed; the others are counted
UNNAMED = "no known mistake"
UNREADABLE, MISSING, TWICE = "unreadable", "missing cells", "duplicate cells"
LIMITS, LOG = "limits reached", "log damaged"
NEWER, UNGRADED = "changed since graded", "not graded"


@dataclass(frozen=True)
class Item:
    """An exercise. out_of: its points."""

    id: str
    title: str
    out_of: float


@dataclass(frozen=True)
class Work:
    """One student's exercise: points in the gradebook, the mistake's name where it failed, and its log.

    met: names of the mistakes that the student's own checks found on the way. ``source``: the cell as handed in.
    """

    points: float
    mistake: str | None = None
    blank: bool = False
    attempts: int = 0
    hints: int = 0
    met: frozenset[str] = frozenset()
    source: str = ""


@dataclass(frozen=True)
class Person:
    """One student's submission. quiz and manual: points in the gradebook, None where the lesson has none; ``open``:
    cells that a person has yet to mark. answers: by question id, of practice questions the first, of graded ones the
    last. flags: (kind, a sentence)."""

    name: str
    works: Mapping[str, Work]
    quiz: float | None = None
    manual: float | None = None
    open: int = 0
    penalty: float = 0.0
    answers: Mapping[str, Any] = field(default_factory=dict)
    logged: bool = False
    flags: Sequence[tuple[str, str]] = ()

    @property
    def earned(self) -> float:
        """Points before the late penalty."""
        return sum(work.points for work in self.works.values()) + (self.quiz or 0.0) + (self.manual or 0.0)

    @property
    def total(self) -> float:
        return max(0.0, self.earned - self.penalty)

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self.flags)


@dataclass(frozen=True)
class Class:
    """A graded class. out_of: points of the whole lesson. key: of the graded questions."""

    slug: str
    title: str
    items: Sequence[Item]
    people: Sequence[Person]
    out_of: float
    questions: Sequence[Question] = ()
    key: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def graded(self) -> list[Person]:
        return [person for person in self.people if not person.has(UNGRADED)]

    @property
    def readable(self) -> list[Person]:
        """Those whom the figures are about."""
        return [person for person in self.graded if not person.has(UNREADABLE)]


@dataclass(frozen=True)
class Spread:
    """Of n numbers; quartiles as numpy and R have them (type 7)."""

    n: int
    mean: float
    deviation: float | None
    low: float
    quartiles: tuple[float, float, float]
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values; the standard deviation (of a sample, n - 1) is None of a single one."""
    if not values:
        return None
    one = len(values) == 1
    first, middle, third = [*values] * 3 if one else statistics.quantiles(values, n=4, method="inclusive")
    deviation = None if one else statistics.stdev(values)
    return Spread(
        len(values), statistics.fmean(values), deviation, min(values), (first, middle, third), max(values)
    )


def histogram(values: Iterable[float], most: float) -> list[tuple[float, float, int]]:
    """(from, to, how many) over 0 to ``most``, in steps of whole points, ten at most; the last one holds its upper end,
    and what is above (extra credit)."""
    width = max(1, math.ceil(most / 10))
    bins = max(1, math.ceil(most / width))
    found = Counter(min(bins - 1, max(0, int(value / width + 1e-9))) for value in values)
    return [(n * width, min((n + 1) * width, most), found[n]) for n in range(bins)]


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's r; None for fewer than FEWEST pairs, or where one side is all the same."""
    sides = [[round(pair[side], 9) for pair in pairs] for side in (0, 1)]
    if len(pairs) < FEWEST or any(len({*side}) < 2 for side in sides):
        return None
    return statistics.correlation(*sides)


@dataclass(frozen=True)
class ItemFigures:
    """Of an exercise. difficulty: mean share of the points. checked: students whose log holds a check of it; attempts:
    their median. hinted: students who took hints; hints: how many all together."""

    item: Item
    n: int
    began: int
    blank: int
    never_ran: int
    full: int
    difficulty: float | None
    discrimination: float | None
    checked: int
    attempts: float | None
    most_attempts: int
    hinted: int
    hints: int


def items(of: Class) -> list[ItemFigures]:
    return [_item(item, of.readable) for item in of.items]


def _item(item: Item, people: Sequence[Person]) -> ItemFigures:
    works = [(person, work) for person in people if (work := person.works.get(item.id))]
    attempts = [work.attempts for _, work in works if work.attempts]
    blank = sum(work.blank for _, work in works)
    shares = [work.points / item.out_of for _, work in works if item.out_of]
    return ItemFigures(
        item,
        n=len(works),
        began=len(works) - blank,
        blank=blank,
        never_ran=sum(work.mistake == NEVER_RAN for _, work in works),
        full=sum(work.points >= item.out_of for _, work in works),
        difficulty=statistics.fmean(shares) if shares else None,
        discrimination=correlation([(work.points, person.earned - work.points) for person, work in works]),
        checked=len(attempts),
        attempts=statistics.median(attempts) if attempts else None,
        most_attempts=max(attempts, default=0),
        hinted=sum(work.hints > 0 for _, work in works),
        hints=sum(work.hints for _, work in works),
    )


@dataclass(frozen=True)
class Mistaken:
    """A mistake in an exercise: students whose work shows it, and those who met it in checks of their own."""

    exercise: str
    name: str
    students: Sequence[str]
    met: Sequence[str]


def mistakes(of: Class) -> list[Mistaken]:
    """By exercise, the most frequent first. A failure that no known mistake explains is UNNAMED."""
    found = []
    for item in of.items:
        shown: dict[str, list[str]] = {}
        met: dict[str, list[str]] = {}
        for person in of.readable:
            if (work := person.works.get(item.id)) is None:
                continue
            if work.mistake:
                shown.setdefault(work.mistake, []).append(person.name)
            for name in work.met - {NOT_STARTED}:
                met.setdefault(name, []).append(person.name)
        rows = [Mistaken(item.id, name, shown.get(name, ()), met.get(name, ())) for name in {**shown, **met}]
        found += sorted(rows, key=lambda m: (-len(m.students), -len(m.met), m.name))
    return found


@dataclass(frozen=True)
class Heatmap:
    """counts[row][column]: students; None where nobody showed or met that mistake in that exercise."""

    names: Sequence[str]
    exercises: Sequence[str]
    counts: Sequence[Sequence[int | None]]

    @property
    def most(self) -> int:
        return max((count or 0 for row in self.counts for count in row), default=0)


def heatmap(found: Sequence[Mistaken], exercises: Sequence[str], met: bool = False) -> Heatmap:
    """Mistakes by exercise. met: those of the students' own checks instead of those of the graded work."""
    counts = {(m.name, m.exercise): len(m.met if met else m.students) for m in found}
    place = {exercise: n for n, exercise in enumerate(exercises)}
    by_name: dict[str, list[tuple[int, int]]] = {}
    for (name, exercise), count in counts.items():
        if count:
            by_name.setdefault(name, []).append((place[exercise], -count))
    # A mistake of one exercise stands with that exercise, what several share below.
    names = sorted(by_name, key=lambda name: (len(by_name[name]) > 1, sorted(by_name[name]), name))
    return Heatmap(names, exercises, [[counts.get((name, e)) or None for e in exercises] for name in names])


@dataclass(frozen=True)
class AnswerRow:
    """An answer, or a choice that was ticked. right: None where there is no one right answer to a part."""

    answer: str
    text: str
    count: int
    right: bool
    mistake: str = ""


@dataclass(frozen=True)
class QuestionFigures:
    """A question. n: those who answered; asked: all who could; right: those whose whole answer was right."""

    question: Question
    asked: int
    n: int
    right: int
    discrimination: float | None
    rows: Sequence[AnswerRow]


def questions(of: Class) -> list[QuestionFigures]:
    """Item analysis of every question of the quiz."""
    return [_question(question, of) for question in of.questions]


def _question(question: Question, of: Class) -> QuestionFigures:
    people, entry = of.readable, of.key.get(question.id)
    given = [person.answers[question.id] for person in people if question.id in person.answers]
    right = [_is_right(question, entry, answer) for answer in given]
    points, weight = [], entry.points if entry else 0.0
    for person in people if entry else ():
        own = weight * _is_right(question, entry, person.answers.get(question.id))
        points.append((own, person.earned - (own if person.quiz is not None else 0.0)))
    return QuestionFigures(
        question, len(people), len(given), sum(right), correlation(points), _answers(question, entry, given)
    )


def _is_right(question: Question, entry: Entry | None, answer: Any) -> bool:
    if entry is None:
        return question.practice and question.is_right(answer)
    if isinstance(answer, float) and isinstance(entry.answer, float):
        return near(answer, entry.answer, entry.tolerance)
    return bool(answer == entry.answer)


def _answers(question: Question, entry: Entry | None, given: Sequence[Any]) -> list[AnswerRow]:
    named = {w.answer: w.mistake for w in entry.wrong} if entry else {}
    if question.kind in ("single", "multiple"):
        key = entry.answer if entry else [c.id for c in question.choices if c.correct]
        rights = [key] if isinstance(key, str) else key
        chosen = Counter(c for answer in given for c in ([answer] if isinstance(answer, str) else answer))
        return [
            AnswerRow(c.id, c.text, chosen[c.id], c.id in rights, named.get(c.id, ""))  # type: ignore[operator]
            for c in question.choices
        ]
    listed: Counter[str] = Counter()
    about: dict[str, tuple[bool, str]] = {}
    for answer in given:
        label = f"{answer:.10g}" if isinstance(answer, float) else ", ".join(answer)
        listed[label] += 1
        about[label] = _is_right(question, entry, answer), _known(entry, answer)
    most = sorted(listed, key=lambda label: (-listed[label], label))
    rows = [AnswerRow(label, "", listed[label], *about[label]) for label in most[:SHOWN]]
    if rest := most[SHOWN:]:
        right = [label for label in rest if about[label][0]]
        wrong = sum(listed[label] for label in rest) - sum(listed[label] for label in right)
        rows += [AnswerRow(label, "", listed[label], *about[label]) for label in right]
        rows += [AnswerRow(f"{len(rest) - len(right)} more, each rarer", "", wrong, False)] if wrong else []
    return rows


def _known(entry: Entry | None, answer: Any) -> str:
    if entry is None or not isinstance(answer, float):
        return ""
    return next((w.mistake for w in entry.wrong if near(answer, float(w.answer), w.tolerance)), "")
