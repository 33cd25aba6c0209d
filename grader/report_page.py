"""The class report as one HTML file: no script, no request, nothing of a student's that is not escaped.

It reads in a browser (light and dark), with a screen reader (every table has a caption and headings, colour never
stands alone) and on A4 paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from lessonlib.classroom.cards import markdown

from . import report
from .report import Class, Heatmap, QuestionFigures
from .similarity import SHORTEST, THRESHOLD, Pair

PAIRS = 50  # similar pairs that are shown; all are in pairs.csv
CODE = 12_000  # characters of a solution that are shown
FEW = 10  # students; of fewer no percentage is told
LEVELS = 5  # of the heatmap
DASH = "–"
STYLE = Path(__file__).with_name("templates") / "lesson_report.css"
# Controls that make a text look like another are shown by their number (Boucher and Anderson 2021, Trojan Source).
_HIDDEN = [
    *range(0x20),
    *range(0x7F, 0xA0),
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
]
_SPELT = {code: f"\\u{code:04x}" for code in [*_HIDDEN, 0x61C, 0xFEFF] if chr(code) not in "\n\t"}


def page(of: Class, pairs: Sequence[Pair]) -> str:
    """The whole page."""
    parts = {
        "scores": ("Scores", _scores(of)),
        "exercises": ("Exercises", _exercises(of)),
        "misconceptions": ("Misconceptions", _misconceptions(of)),
        "quiz": ("Quiz", _quiz(of)),
        "work": ("Attempts and hints", _work(of)),
        "look": ("Submissions to look at", _flagged(of)),
        "students": ("All students", _students(of)),
        "similar": ("Similar code", _similar(of, pairs)),
    }
    links = "".join(f"<li><a href='#{name}'>{title}</a></li>" for name, (title, _) in parts.items())
    body = "".join(
        f"<section id='{name}'><h2>{title}</h2>{inside}</section>" for name, (title, inside) in parts.items()
    )
    title = f"{text(of.slug[:2])} {text(of.title)}: class report"
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main><h1>{title}</h1>{_about(of)}"
        f"<nav aria-label='Contents'><ul>{links}</ul></nav>{body}</main></body></html>\n"
    )


def text(value: object) -> str:
    """Any text as HTML that shows it, hidden characters included."""
    return escape(str(value).translate(_SPELT))


def counted(count: int, n: int) -> str:
    """``12 of 30 (40 %)``; of few students the counts alone."""
    return f"{count} of {n}" + (f" ({count / n:.0%})".replace("%", " %") if n >= FEW else "")


def number(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def points(value: float | None) -> str:
    return DASH if value is None else f"{round(value, 2):g}"


def _about(of: Class) -> str:
    n, graded, readable = len(of.people), len(of.graded), len(of.readable)
    waiting = sum(person.open for person in of.people)
    told = f"<p>{n} handed in, {graded} graded, {readable} of these readable: the figures are about them."
    return (
        told
        + (f" {waiting} cells wait to be marked by hand; their points are missing here." * bool(waiting))
        + "</p>"
    )


def _scores(of: Class) -> str:
    totals = [person.total for person in of.readable]
    found = report.spread(totals)
    if found is None:
        return "<p>Nothing readable was handed in.</p>"
    low, middle, high = map(points, found.quartiles)
    deviation = f", standard deviation {points(found.deviation)}" if found.deviation is not None else ""
    bars = report.histogram(totals, of.out_of)
    most = max(count for *_, count in bars)
    rows = [
        (f"{points(a)} to {'' if n == len(bars) else 'below '}{points(b)}", str(count), _bar(count, most))
        for n, (a, b, count) in enumerate(bars, 1)
    ]
    return (
        f"<p>Of {points(of.out_of)} points (n = {found.n}, late penalties taken off): mean {points(found.mean)}, "
        f"median {middle}, middle half {low} to {high}, lowest {points(found.low)}, highest {points(found.high)}"
        f"{deviation}.</p>"
        + _table("How many students have how many points", ("points", "students", ""), rows, "bars")
    )


def _exercises(of: Class) -> str:
    rows = [
        (
            f"<b>{text(f.item.id)}</b> {text(f.item.title)}",
            points(f.item.out_of),
            str(f.n),
            str(f.full),
            str(f.began),
            str(f.blank),
            str(f.never_ran),
            f"{number(f.difficulty)} {_bar(f.difficulty or 0, 1)}",
            number(f.discrimination),
        )
        for f in report.items(of)
    ]
    head = (
        "exercise",
        "points",
        "n",
        "full points",
        "began",
        "blank",
        "never ran",
        "difficulty",
        "discrimination",
    )
    return (
        "<p><b>Difficulty</b> is the mean share of an exercise's points (n students, blank ones count as 0): 1 is "
        "solved by all, 0 by nobody. <b>Discrimination</b> is the correlation of an exercise's points with those of "
        "all the rest of the lesson (item-rest, over the same n): near 1, who does well elsewhere does well here; near "
        f"0 or below, look at the exercise. A dash: fewer than {report.FEWEST} students, or all with equal points.</p>"
        + _table("Each exercise in numbers of students, its difficulty and discrimination", head, rows)
    )


def _misconceptions(of: Class) -> str:
    found, ids, n = report.mistakes(of), [item.id for item in of.items], len(of.readable)
    told = (
        f"<p>A mistake is named by simulating it: the name is what the code does, not why. {n} students' graded work; "
        "who made each is in misconceptions.csv.</p>"
    )
    graded = _heatmap("Students whose graded work shows a mistake", report.heatmap(found, ids), n)
    logged = sum(person.logged for person in of.readable)
    way = report.heatmap(found, ids, met=True)
    return (
        told
        + graded
        + (
            f"<p>And what the students' own checks found while they worked ({logged} of {n} have a log; who got "
            "over it is counted too):</p>" + _heatmap("Students who met a mistake on the way", way, logged)
            if logged
            else "<p>Nobody's log holds checks, so what was met on the way is not known.</p>"
        )
    )


def _heatmap(caption: str, heat: Heatmap, n: int) -> str:
    if not heat.names:
        return f"<p>{caption}: none.</p>"
    rows = []
    for name, counts in zip(heat.names, heat.counts, strict=True):
        cells = [
            f"<td class='heat h{-(-LEVELS * count // heat.most)}'>{count}</td>"
            if count
            else "<td class='heat'></td>"
            for count in counts
        ]
        rows.append(f"<tr><th scope='row'>{text(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th scope='col'>{_broken(name)}</th>" for name in heat.exercises)
    return _framed(
        caption,
        f"<caption>{caption} (of {n}); the strongest colour is {heat.most}, an empty cell nobody</caption>"
        f"<thead><tr><th scope='col'>mistake</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>",
        "heatmap",
    )


def _quiz(of: Class) -> str:
    found = report.questions(of)
    if not found:
        return "<p>This lesson has no quiz.</p>"
    return (
        "<p>Of a practice question the first answer counts, of a graded one the last. Answers come from the "
        "students' logs (n is told with each question). The discrimination of a graded question is over all "
        f"{len(of.readable)} students; no answer counts as a wrong one.</p>"
        + "".join(_question(q, n) for n, q in enumerate(found, 1))
    )


def _question(q: QuestionFigures, place: int) -> str:
    several = q.question.kind == "multiple"
    told = f"{q.question.mode}; {counted(q.right, q.n)} right, {q.asked - q.n} of {q.asked} did not answer"
    if not q.question.practice:
        told += f"; discrimination {number(q.discrimination)}"
    rows: list[Sequence[str]] = [
        (
            ("✓ right" if row.right else "wrong")
            if q.question.kind != "multiple" or row.right
            else "wrong tick",
            f"<code>{text(row.answer)}</code> {markdown(row.text)}"
            if row.text
            else f"<code>{text(row.answer)}</code>",
            f"{row.count} {_bar(row.count, max(q.n, 1))}",
            text(row.mistake),
        )
        for row in q.rows
    ]
    if not any(row.mistake for row in q.rows):
        rows = [row[:3] for row in rows]
    head = (
        "",
        "choice" if q.question.choices else "answer",
        "ticked by" if several else "students",
        "mistake",
    )
    body = (
        _table(f"Answers to question {place} (n = {q.n})", head[: len(rows[0])], rows, "answers", header=1)
        if q.n
        else "<p>No answers.</p>"
    )
    return (
        f"<article><h3>{place}. <code>{text(q.question.id)}</code></h3><div class='asked'>"
        f"{markdown(q.question.text)}</div><p>{told}.</p>{body}</article>"
    )


def _work(of: Class) -> str:
    rows = [
        (
            _broken(f.item.id),
            str(f.checked),
            DASH if f.attempts is None else points(f.attempts),
            str(f.most_attempts) if f.checked else DASH,
            str(f.hinted),
            str(f.hints),
        )
        for f in report.items(of)
    ]
    n = sum(person.logged for person in of.readable)
    head = (
        "exercise",
        "students who checked",
        "attempts, median",
        "attempts, most",
        "students who took hints",
        "hints",
    )
    return (
        "<p>An attempt is a check of a function that was begun. From the logs that students handed in with their "
        f"notebooks: {n} of {len(of.readable)}. A log can be edited; nothing here gives points.</p>"
        + _table(f"Attempts and hints by exercise (n = {n})", head, rows)
    )


def _flagged(of: Class) -> str:
    rows = [
        (text(person.name), text(kind), text(" ".join(dict.fromkeys(sentence for _, sentence in flags))))
        for person in of.people
        for kind, flags in groupby(sorted(person.flags), key=lambda flag: flag[0])
    ]
    if not rows:
        return "<p>None: everything could be read, and no limit was reached.</p>"
    students = sum(bool(person.flags) for person in of.people)
    return f"<p>{students} of {len(of.people)} submissions.</p>" + _table(
        "Submissions that could not be read or graded as they are",
        ("student", "what", "in words"),
        rows,
        "long",
    )


def _similar(of: Class, pairs: Sequence[Pair]) -> str:
    told = (
        "<p>Names, comments and layout do not count, nor does what was handed out or stands in the reference "
        "solution. Similarity is the share of what is left that both have in the same order, from 0 to 1; pairs from "
        f"{THRESHOLD:g} on are shown, and solutions with fewer than {SHORTEST} tokens of their own are not compared. "
        "<b>Similar is not copied</b>: a textbook, a lecture or a shared idea does the same. Look yourself.</p>"
    )
    if not pairs:
        return told + "<p>No pairs.</p>"
    counts = [(text(i.id), str(sum(p.exercise == i.id for p in pairs))) for i in of.items]
    shown = f"the {PAIRS} most similar of {len(pairs)} pairs follow" if len(pairs) > PAIRS else "all follow"
    told += _table(
        f"Similar pairs by exercise ({shown}; all are in pairs.csv)", ("exercise", "pairs"), counts
    )
    works = {person.name: person.works for person in of.people}
    return told + "".join(
        _pair(pair, *(works[n][pair.exercise].source for n in (pair.first, pair.second)))
        for pair in pairs[:PAIRS]
    )


def _pair(pair: Pair, first: str, second: str) -> str:
    sides = "".join(
        f"<figure><figcaption>{text(name)}</figcaption><pre tabindex='0'>{_code(source)}</pre></figure>"
        for name, source in ((pair.first, first), (pair.second, second))
    )
    return (
        f"<article class='pair'><h3>{text(pair.exercise)}: {text(pair.first)} and {text(pair.second)}</h3>"
        f"<p>Similar; look yourself. {number(pair.similarity)}, of {pair.tokens[0]} and {pair.tokens[1]} tokens.</p>"
        f"<div class='sides'>{sides}</div></article>"
    )


def _code(source: str) -> str:
    return text(source if len(source) <= CODE else f"{source[:CODE]}\n… (cut)")


def _students(of: Class) -> str:
    rows = []
    for p in of.people:
        each = [points(p.works[i.id].points) if i.id in p.works else DASH for i in of.items]
        rest = (
            [DASH] * 4
            if p.has(report.UNGRADED)
            else [points(p.quiz), points(p.manual), points(p.penalty), f"<b>{points(p.total)}</b>"]
        )
        rows.append((text(p.name), *each, *rest, text(", ".join(dict.fromkeys(kind for kind, _ in p.flags)))))
    head = ("student", *(_broken(item.id) for item in of.items), "quiz", "by hand", "late", "total", "flags")
    return _table(
        f"Points of every student, of {points(of.out_of)} ({len(of.people)} students)", head, rows, "students"
    )


def _broken(name: str) -> str:
    """An exercise's id that may be broken after its number, and between words."""
    return text(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _bar(value: float, most: float) -> str:
    return f"<span class='bar' aria-hidden='true' style='--part:{min(1.0, max(0.0, value / (most or 1))):.3f}'></span>"


def _table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "plain", header: int = 0
) -> str:
    """A table of HTML cells. header: the column that names its row."""
    top = "".join(f"<th scope='col'>{name}</th>" if name else "<td></td>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f"<th scope='row'>{c}</th>" if n == header else f"<td>{c}</td>" for n, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return _framed(
        caption, f"<caption>{caption}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody>", kind
    )


def _framed(label: str, table: str, kind: str) -> str:
    """A table that scrolls by itself where the screen is narrow, with the keyboard too."""
    about = f"class='frame' role='region' tabindex='0' aria-label='{label}'"
    return f"<div {about}><table class='{kind}'>{table}</table></div>"
