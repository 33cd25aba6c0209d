"""``progress``: how far a student is, from the logs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from .. import course
from .bank import BankError, load
from .cards import Card, Foot
from .exercises import exercises
from .hints import hints_used
from .predict import predictions_made
from .quiz import answered
from .store import Event, Log, log_for

if TYPE_CHECKING:
    from rich.console import Console

PAUSE = 10  # minutes between two events after which the student was away
BAR = 10  # characters of a full bar


@dataclass(frozen=True)
class Standing:
    """One lesson: what is done, out of how much. ``minutes`` is estimated from the times of the events."""

    number: str
    title: str
    available: bool
    checks: int = 0
    checks_total: int = 0
    answers: int = 0
    answers_total: int = 0
    predictions: int = 0
    hints: int = 0
    minutes: int = 0
    complaint: str | None = None

    @property
    def name(self) -> str:
        return f"{self.number} {self.title}".strip()

    @property
    def share(self) -> float:
        """Checks passed and questions answered, of all there are; 0 where there is nothing to do."""
        total = self.checks_total + self.answers_total
        return (self.checks + self.answers) / total if total else 0.0


def progress() -> None:
    """Show a table of all lessons: checks passed, questions answered, predictions, hints and time."""
    card(standings()).show()


def standings() -> list[Standing]:
    """Where the student stands in every lesson of the course."""
    return [standing(lesson) for lesson in course.LESSONS]


def standing(lesson: course.Lesson) -> Standing:
    log = log_for(lesson.slug)
    if not lesson.available:
        return Standing(lesson.number, lesson.title, available=False)
    tasks = exercises(lesson.number)
    try:
        bank = load(lesson.slug)
    except BankError:
        bank = None
    return Standing(
        lesson.number,
        lesson.title,
        available=True,
        checks=sum(passed(log, task.id) for task in tasks),
        checks_total=len(tasks),
        answers=len(answered(log, bank)) if bank else 0,
        answers_total=len(bank.questions) if bank else 0,
        predictions=predictions_made(log),
        hints=sum(hints_used(log, task.id) for task in tasks),
        minutes=minutes_spent(log.events()),
        complaint=log.complaint(),
    )


def together(rows: Sequence[Standing]) -> Standing:
    """The whole course as one row, of the lessons that are there."""
    sums = {
        part: sum(getattr(row, part) for row in rows)
        for part in ("checks", "checks_total", "answers", "answers_total", "predictions", "hints", "minutes")
    }
    return Standing("", "All together", any(row.available for row in rows), **sums)


def passed(log: Log, exercise_id: str) -> bool:
    """Whether the exercise's visible checks ever passed."""
    return any(event.data.get("passed") is True for event in log.events("check", exercise_id))


def minutes_spent(events: Sequence[Event]) -> int:
    """Time between events; a gap of more than PAUSE minutes is a break. At least 1 if there are events."""
    if not events:
        return 0
    times = sorted(event.at for event in events)
    gaps = [(later - earlier).total_seconds() / 60 for earlier, later in pairwise(times)]
    return max(1, round(sum(gap for gap in gaps if gap <= PAUSE)))


def card(rows: Sequence[Standing]) -> Card:
    """The table for a notebook."""
    notes = [Foot(row.complaint) for row in rows if row.complaint]
    return Card("info", "Your progress", [_Table([*rows, together(rows)]), *notes])


HEAD = ("lesson", "done", "checks", "quiz", "predictions", "hints", "time")


def _cells(row: Standing) -> tuple[str, ...]:
    if not row.available:
        return ("", "", "", "", "")
    return (
        f"{row.checks}/{row.checks_total}" if row.checks_total else "–",
        f"{row.answers}/{row.answers_total}" if row.answers_total else "–",
        str(row.predictions),
        str(row.hints),
        f"{row.minutes} min" if row.minutes < 100 else f"{row.minutes / 60:.1f} h",
    )


@dataclass(frozen=True)
class _Table:
    rows: Sequence[Standing]

    def html(self) -> str:
        head = "".join(f"<th scope='col'>{name}</th>" for name in HEAD)
        body = ""
        for row in self.rows:
            name = f"<th scope='row'>{escape(row.name)}</th>"
            if not row.available:
                body += f"<tr class='lesson-later'>{name}<td colspan='{len(HEAD) - 1}'>coming</td></tr>"
                continue
            fill = f"<span style='width:{row.share:.0%}'></span>"
            bar = f"<td><span class='lesson-track' aria-hidden='true'>{fill}</span> {row.share:.0%}</td>"
            body += f"<tr>{name}{bar}{''.join(f'<td>{cell}</td>' for cell in _cells(row))}</tr>"
        return f"<table class='lesson-progress'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def text(self) -> str:
        width = max(len(row.title) for row in self.rows) + 3
        lines = [f"{HEAD[0]:{width}} {HEAD[1]:{BAR + 5}} " + " ".join(f"{name:>11}" for name in HEAD[2:])]
        for row in self.rows:
            done = f"{bar(row.share)} {row.share:>4.0%}" if row.available else "coming"
            cells = " ".join(f"{cell:>11}" for cell in _cells(row))
            lines.append(f"{row.name:{width}} {done:{BAR + 5}} {cells}".rstrip())
        return "\n".join(lines)


def bar(share: float) -> str:
    """A bar of characters."""
    full = round(share * BAR)
    return "█" * full + "░" * (BAR - full)


def render_terminal(console: Console | None = None) -> None:
    """The same table in a terminal, for ``lesson progress``."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Your progress", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in HEAD:
        table.add_column(name, justify="left" if name in HEAD[:2] else "right", no_wrap=True)
    rows = standings()
    for row in [*rows, together(rows)]:
        if row.available:
            style = "green" if row.share == 1 else ""
            table.add_row(row.name, f"{bar(row.share)} {row.share:>4.0%}", *_cells(row), style=style)
        else:
            table.add_row(row.name, "coming", style="dim")
    console = console or Console()
    console.print(table)
    for row in rows:
        if row.complaint:
            console.print(row.complaint, style="yellow")
