"""A leaderboard on this machine only: the student's own attempts beside the reference engines of a lesson.

An attempt is one line of the lesson's log, so it is kept as safely as everything else (see ``store``), and nothing
leaves the student's folder. What counts is work, in counters, never the clock: the same engine always gets the same
place. Ranked by work per token, in units of "one token run": a pass counts as much as PASS of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from .cards import Card, Foot
from .store import log_for

ATTEMPT = "leaderboard"  # the kind of event in the log
PASS = 50  # lesson 04's formula: 5 ms to read the weights in a pass, 0.1 ms for each token in it
HEAD = ("", "engine", "passes", "tokens run", "made", "work")


@dataclass(frozen=True)
class Work:
    """What an engine did: passes, tokens that went through the model, and new tokens that came out (1 or more)."""

    passes: int
    run: int
    made: int

    def __post_init__(self) -> None:
        numbers = (self.passes, self.run, self.made)
        if not all(type(n) is int and n >= 0 for n in numbers) or not self.made:
            raise ValueError(
                f"Work is counted in whole numbers, with at least one token made; it got {numbers}."
            )

    @property
    def per_token(self) -> float:
        return (PASS * self.passes + self.run) / self.made


@dataclass(frozen=True)
class Entry:
    """One line of the board. ``attempt``: the student's first, second …; 0 for a reference."""

    name: str
    work: Work
    attempt: int = 0

    @property
    def title(self) -> str:
        return f"you, attempt {self.attempt}: {self.name}" if self.attempt else self.name


def enter(board: str, name: str, work: Work) -> Entry:
    """Remember one attempt on the board ("08.engine"). Raises StoreError where it cannot be written."""
    log_for(board).append(ATTEMPT, board, name=name, passes=work.passes, run=work.run, made=work.made)
    return attempts(board)[-1]


def attempts(board: str) -> list[Entry]:
    """The student's attempts in the order in which they were made; lines that are no attempt are left out."""
    found: list[Entry] = []
    for event in log_for(board).events(ATTEMPT, board):
        name, numbers = event.data.get("name"), [event.data.get(k) for k in ("passes", "run", "made")]
        try:
            work = Work(*numbers)  # type: ignore[arg-type]
        except ValueError:
            continue
        if isinstance(name, str):
            found.append(Entry(name, work, len(found) + 1))
    return found


def standings(board: str, references: Mapping[str, Work]) -> list[Entry]:
    """References and attempts, the least work per token first; of equals, whoever was there before."""
    entries = [*(Entry(name, work) for name, work in references.items()), *attempts(board)]
    return sorted(entries, key=lambda entry: entry.work.per_token)


def leaderboard(board: str, references: Mapping[str, Work]) -> None:
    """Show the board as a table, in a notebook or a terminal."""
    card(standings(board, references), log_for(board).complaint()).show()


def card(entries: list[Entry], complaint: str | None = None) -> Card:
    own = [entry for entry in entries if entry.attempt]
    notes = [Foot(f"Work: {PASS} for each pass and 1 for each token run, divided by the tokens made.")]
    if not own:
        notes.append(Foot("No engine of yours is on it yet."))
    if complaint:
        notes.append(Foot(complaint))
    return Card("info", "Leaderboard on this machine", [_Table(entries), *notes])


def _cells(place: int, entry: Entry) -> tuple[str, ...]:
    work = entry.work
    counts = (f"{n:,}" for n in (work.passes, work.run, work.made))
    return (str(place), entry.title, *counts, f"{work.per_token:,.1f}")


@dataclass(frozen=True)
class _Table:
    entries: list[Entry]

    def html(self) -> str:
        head = "".join(f"<th scope='col'>{name}</th>" for name in HEAD)
        rows = ""
        for place, entry in enumerate(self.entries, 1):
            cells = [escape(cell) for cell in _cells(place, entry)]
            if entry.attempt:
                cells[1] = f"<b>{cells[1]}</b>"
            body = "".join(f"<td>{cell}</td>" for cell in (cells[0], *cells[2:]))
            first, rest = body.split("</td>", 1)
            rows += f"<tr>{first}</td><th scope='row'>{cells[1]}</th>{rest}</tr>"
        table = f"<table class='lesson-progress'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<div style='overflow-x:auto'>{table}</div>"  # a long name must not burst the card

    def text(self) -> str:
        lines = [HEAD, *(_cells(place, entry) for place, entry in enumerate(self.entries, 1))]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 1 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
