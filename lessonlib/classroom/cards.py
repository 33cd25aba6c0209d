"""Cards: what the classroom shows, as HTML and as the same thing in plain text.

A card is built from blocks. Text written by the course is Markdown; anything that comes from a student or a
measurement goes in as text and is escaped. The same content always renders to the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import resources
from typing import Any, Protocol

TONES = {"good": "✓", "retry": "✗", "start": "○", "info": "▸", "guess": "✎"}


class Block(Protocol):
    def html(self) -> str: ...
    def text(self) -> str: ...


@dataclass(frozen=True)
class Card:
    """A titled card. Its tone ("good", "retry", "start", "info", "guess") shows in icon, words and colour."""

    tone: str
    title: str
    blocks: Sequence[Block] = field(default=())
    spaced: bool = False  # blank lines between the blocks of the text

    def html(self) -> str:
        title = escape(self.title)
        body = "".join(block.html() for block in self.blocks)
        return (
            f"{style()}<section class='lesson-card lesson-{self.tone}' aria-label='{title}'>"
            f"<h3><span aria-hidden='true'>{TONES[self.tone]}</span> {title}</h3>{body}</section>"
        )

    def text(self) -> str:
        return ("\n\n" if self.spaced else "\n").join(
            [f"{TONES[self.tone]} {self.title}", *(block.text() for block in self.blocks)]
        )

    def bundle(self) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def show(self) -> None:
        """Display in a notebook; print anywhere else."""
        if in_ipython():
            from IPython.display import display

            display(self.bundle(), raw=True)
        else:
            print(self.text())


@dataclass(frozen=True)
class Prose:
    """Markdown written by the course."""

    source: str

    def html(self) -> str:
        return markdown(self.source)

    def text(self) -> str:
        return self.source.strip()


@dataclass(frozen=True)
class Code:
    """Labelled text in a fixed-width font, shown exactly as it is."""

    label: str
    source: str

    def html(self) -> str:
        return f"<p class='lesson-label'>{escape(self.label)}</p><pre>{escape(self.source)}</pre>"

    def text(self) -> str:
        return f"{self.label}\n{_indent(self.source)}"


@dataclass(frozen=True)
class Pair:
    """Two texts side by side: expected and got, predicted and measured."""

    left: tuple[str, str]
    right: tuple[str, str]

    def html(self) -> str:
        cells = "".join(
            f"<div><p class='lesson-label'>{escape(label)}</p><pre>{escape(value)}</pre></div>"
            for label, value in (self.left, self.right)
        )
        return f"<div class='lesson-pair'>{cells}</div>"

    def text(self) -> str:
        width = max(len(self.left[0]), len(self.right[0])) + 1
        return "\n".join(f"{label + ':':<{width}} {value}" for label, value in (self.left, self.right))


@dataclass(frozen=True)
class Shares:
    """A table of shares of 1 with bars: (label, expected, got)."""

    rows: Sequence[tuple[str, float, float]]
    caption: str = ""

    def html(self) -> str:
        def cell(share: float, kind: str) -> str:
            bar = (
                f"<span class='lesson-bar lesson-{kind}' style='width:{share * 90:.0f}px' aria-hidden='true'>"
            )
            return f"<td><span class='lesson-number'>{share:.1%}</span>{bar}</span></td>"

        body = "".join(
            f"<tr><th scope='row'>{escape(label)}</th>{cell(expected, 'expected')}{cell(got, 'got')}</tr>"
            for label, expected, got in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        head = "<tr><th scope='col'></th><th scope='col'>expected</th><th scope='col'>yours</th></tr>"
        return f"<table class='lesson-shares'>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"

    def text(self) -> str:
        width = max(len(label) for label, _, _ in self.rows)
        lines = [f"{'':{width}}  expected   yours"]
        lines += [f"{label:{width}}  {expected:>8.1%}  {got:>6.1%}" for label, expected, got in self.rows]
        return "\n".join([*lines, self.caption] if self.caption else lines)


@dataclass(frozen=True)
class Mistake:
    """The suspected misconception by name, with its explanation (Markdown)."""

    name: str
    why: str

    def html(self) -> str:
        name = f"<p><b>This looks like: {escape(self.name)}.</b></p>"
        return f"<div class='lesson-mistake'>{name}{markdown(self.why)}</div>"

    def text(self) -> str:
        return f"This looks like: {self.name}.\n{self.why}".rstrip()


@dataclass(frozen=True)
class Foot:
    """The last line, in smaller letters (Markdown)."""

    source: str

    def html(self) -> str:
        return f"<div class='lesson-foot'>{markdown(self.source)}</div>"

    def text(self) -> str:
        return self.source


def markdown(source: str) -> str:
    """Markdown of the course as HTML; raw HTML in it is escaped."""
    return str(_renderer().render(source.strip()))


@cache
def _renderer() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


@cache
def style() -> str:
    """The cards' style sheet as a style element, on one line."""
    css = resources.files(__package__).joinpath("card.css").read_text(encoding="utf-8")
    return "<style>" + " ".join(css.split()) + "</style>"


def in_ipython() -> bool:
    """Whether there is an IPython (notebook or terminal) to display things in."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return get_ipython() is not None  # type: ignore[no-untyped-call]


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
