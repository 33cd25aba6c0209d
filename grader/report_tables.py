"""The files of a report: the page, and the same figures as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from . import report
from .marks import plain
from .report import Class
from .report_page import page
from .similarity import Pair

Row = list[Any]


def written(of: Class, alike: Sequence[Pair]) -> dict[str, bytes]:
    """The files of a report by name."""
    made = {"report.html": page(of, alike).encode("utf-8", "replace")}
    for name, rows in tables(of, alike).items():
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
        made[name] = buffer.getvalue().encode("utf-8", "replace")
    return made


def tables(of: Class, pairs: Sequence[Pair]) -> dict[str, list[Row]]:
    """The CSV files by name, each with its heading. No text in them is a formula to a spreadsheet."""
    ids = [item.id for item in of.items]
    scores: list[Row] = [
        [
            "student",
            *ids,
            "quiz",
            "manual",
            "late penalty",
            "total",
            "out of",
            "to be marked by hand",
            "flags",
        ]
    ]
    for p in of.people:
        points = [p.works[name].points if name in p.works else None for name in ids]
        if not p.has(report.UNGRADED):
            points += [p.quiz, p.manual, p.penalty, p.total, of.out_of]
        points += [None] * (len(ids) + 5 - len(points))
        scores.append([p.name, *points, p.open, ", ".join(dict.fromkeys(kind for kind, _ in p.flags))])
    figures: list[Row] = [
        ["exercise", "title", "points", "n", "difficulty", "discrimination", "began", "blank", "never ran"]
    ]
    figures[0] += ["full points", "checked", "median attempts", "most attempts", "took hints", "hints"]
    for f in report.items(of):
        row = [f.item.id, f.item.title, f.item.out_of, f.n, f.difficulty, f.discrimination, f.began, f.blank]
        figures.append([*row, f.never_ran, f.full, f.checked, f.attempts, f.most_attempts, f.hinted, f.hints])
    named: list[Row] = [["exercise", "name", "count", "students", "met on the way"]]
    named += [
        [m.exercise, m.name, len(m.students), ", ".join(m.students), len(m.met)] for m in report.mistakes(of)
    ]
    quiz: list[Row] = [["question", "mode", "choice or answer", "count", "right", "mistake", "answered", "n"]]
    for q in report.questions(of):
        about, ends = [q.question.id, q.question.mode], [q.n, q.asked]
        quiz += [
            [*about, row.answer, row.count, "yes" if row.right else "no", row.mistake, *ends]
            for row in q.rows
        ]
    alike: list[Row] = [["exercise", "student", "other student", "similarity", "tokens", "other tokens"]]
    alike += [[p.exercise, p.first, p.second, p.similarity, *p.tokens] for p in pairs]
    names = ("scores.csv", "exercises.csv", "misconceptions.csv", "quiz.csv", "pairs.csv")
    made = dict(zip(names, (scores, figures, named, quiz, alike), strict=True))
    return {name: [list(map(_cell, row)) for row in rows] for name, rows in made.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        short = round(value, 4)
        return int(short) if short.is_integer() else short
    return "" if value is None else plain(value) if isinstance(value, str) else value
