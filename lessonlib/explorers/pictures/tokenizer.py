"""tokenizer: a playground where text falls into tokens while it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lessonlib.engine import Tokenizer

from ..base import Explorer
from ..sources import as_tokenizer
from ..text import definition, pieces, printable, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEEDED = ("added_tokens", "normalizer", "pre_tokenizer", "model")
TINTS = (("#56B4E9", "#d9eefa"), ("#E69F00", "#faecd0"), ("#009E73", "#d0ece4"), ("#CC79A7", "#f4e2ec"))
LINES, COLUMNS = 7, 104  # the most that the figure shows


class TokenizerPlayground(Explorer):
    picture = "tokenizer"

    def __init__(self, tokenizer: Tokenizer, text: str):
        self._tokenizer = tokenizer
        content = definition(tokenizer)
        super().__init__(data={"definition": {name: content.get(name) for name in NEEDED}, "text": text})

    def _tokens(self) -> list[tuple[str, int]]:
        ids = self._tokenizer.encode(self.data["text"], add_special_tokens=False)
        return list(zip(map(visible, pieces(self._tokenizer, ids)), ids, strict=True))

    def _title(self) -> str:
        text, count = self.data["text"], len(self._tokens())
        size = len(text.encode())
        each = f"{size / count:.1f} bytes a token" if count else "nothing to see"
        return f"{len(text):,} characters ({size:,} bytes) become {count:,} tokens: {each}."

    def summary(self) -> str:
        listed = ", ".join(f"“{piece}” {token}" for piece, token in self._tokens()[:12])
        more = ", …" if len(self._tokens()) > 12 else ""
        return f"{self._title()} Tokens and their ids: {listed}{more}."

    def figure(self) -> Figure:
        from matplotlib.patches import FancyBboxPatch

        from ..figure import INK, MUTED, new_figure

        lines = _lines(self._tokens())
        height = 0.75 + 0.42 * len(lines)
        figure = new_figure(9.4, height, self._title())
        ax = figure.add_axes((0.012, 0.02, 0.976, (height - 0.5) / height))
        ax.set(xlim=(0, COLUMNS), ylim=(len(lines), 0))
        ax.axis("off")
        for y, line in enumerate(lines):
            for x, width, piece, token, tint in line:
                edge, fill = TINTS[tint]
                box = FancyBboxPatch(
                    (x, y + 0.1), width, 0.8, "round,pad=0,rounding_size=0.2", mutation_aspect=0.3
                )
                box.set(facecolor=fill, edgecolor=edge, linewidth=1)
                ax.add_patch(box)
                middle = x + width / 2
                ax.text(
                    middle, y + 0.36, piece, ha="center", va="center", color=INK, family="DejaVu Sans Mono"
                )
                ax.text(middle, y + 0.73, str(token), ha="center", va="center", color=MUTED, fontsize=6)
        return figure


def _lines(tokens: list[tuple[str, int]]) -> list[list[tuple[float, float, str, int, int]]]:
    """Tokens laid out as the text was, line by line: (x, width, piece, id, tint) of each."""
    lines: list[list[tuple[float, float, str, int, int]]] = [[]]
    x = 0.0
    for i, (piece, token) in enumerate(tokens):
        piece = printable(piece)
        width = max(len(piece), 0.75 * len(str(token))) + 1.0
        if x + width > COLUMNS:
            lines.append([])
            x = 0.0
        lines[-1].append((x, width, piece, token, i % len(TINTS)))
        x += width + 0.4
        if "↵" in piece:
            lines.append([])
            x = 0.0
    return [line for line in lines if line][:LINES]


def tokenizer(tok: str | Path | Tokenizer = "pico", text: str = "def fib(n):") -> TokenizerPlayground:
    """Explorer of tokenization: type, and see tokens, ids, bytes a token, and what a smaller vocabulary does.

    ``tok``: a model's name or folder, or a Tokenizer. The browser runs its own byte-level BPE from its
    vocabulary and merges; it says so when a tokenizer is of another kind.
    """
    return TokenizerPlayground(as_tokenizer(tok), text)
