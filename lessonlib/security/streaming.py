"""The output filter on a stream: text goes out as soon as no secret can begin in it any more.

What is held back is only what could still become a match, asked of the very patterns that match (``shapes.py``): in
prose, little more than the word that is being written. What has been decided never changes with more text, so the same
text gives the same answer, cut into pieces in any way, and a whole text is only a stream of one piece.
"""

from __future__ import annotations

import bisect
import unicodedata
from dataclasses import dataclass

from lessonlib.engine.errors import BadParameter

from .canary import Canaries
from .rules import RuleBook, Searcher, book
from .secrets_patterns import RULES

MODES = ("redact", "block", "log")
BLOCK = 16_384  # characters searched at a time: what a search costs must not depend on the length of the text
MAX_FINDINGS = 1000  # kept of one text; the others are redacted and counted all the same


@dataclass(frozen=True)
class Finding:
    """Something that must not be shown. start, end: characters of the original text. The secret itself is not in it."""

    kind: str
    start: int
    end: int


@dataclass(order=True)
class _Span:
    """A match on its way to being a finding; with equal starts, the more telling rule comes first."""

    start: int
    priority: int
    end: int
    kind: str


def _as_ascii() -> dict[int, str]:
    """Full-width letters and digits, and the spaces, dashes and quotes of typography, as their ASCII twins."""
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    table |= {code: " " for code in range(0x80, 0x3001) if unicodedata.category(chr(code)) == "Zs"}
    table |= dict.fromkeys((8208, 8209, 8210, 8211, 8212, 8213, 8722), "-")
    return table | dict.fromkeys((8216, 8217), "'") | dict.fromkeys((8220, 8221, 8222), '"')


_AS_ASCII = _as_ascii()


def view_of(text: str) -> bytes:
    """The text with one ASCII byte for each character, "?" where there is none: what is searched."""
    return text.encode() if text.isascii() else text.translate(_AS_ASCII).encode("ascii", "replace")


class StreamingOutputFilter:
    """Takes a text in pieces and gives back what may be shown.

    >>> stream = StreamingOutputFilter()
    >>> shown = [stream.push(piece) for piece in pieces] + [stream.finish()]

    mode: "redact" puts ``[REDACTED:kind]`` in the place of a secret. "block" ends the text there with
    ``[BLOCKED:kind]``; what came before has been shown. "log" changes and holds back nothing.
    canaries: what of one's own must not be given away. rules: what to look for.
    Raises BadParameter for an unknown mode.

    findings: up to MAX_FINDINGS, in their order; those that overlap are one, named after the first. total: how many
    there were. blocked: the text was cut off. max_held: no more characters than these are ever held back.
    """

    def __init__(self, mode: str = "redact", canaries: Canaries | None = None, rules: RuleBook | None = None):
        if mode not in MODES:
            raise BadParameter(f"Mode {mode!r} is not known; choose 'redact', 'block' or 'log'.")
        self.mode = mode
        self.blocked = False
        self.total = 0
        self._rules = rules if rules is not None else book(RULES)
        self._canaries = canaries.scan() if canaries and canaries.prints else None
        self.max_held = max(self._rules.longest, canaries.max_held if canaries else 0)
        self._text, self._view = (
            "",
            b"",
        )  # from self._base on: a little of what is decided, and all that is not
        self._base = 0
        self._settled = 0  # below it, everything is decided
        self._shown = 0  # below it, everything has been given out or redacted
        self._next = [0] * len(self._rules.searchers)  # where each rule goes on
        self._tails: list[tuple[Searcher, int, _Span]] = []  # open ones, with their limits
        self._waiting: list[_Span] = []  # in their order
        self._spans: list[_Span] = []  # the first findings, the end of the last may still move
        self._last: _Span | None = None
        self._finished = False

    @property
    def findings(self) -> list[Finding]:
        return [Finding(span.kind, span.start, span.end) for span in self._spans]

    @property
    def held(self) -> int:
        """Characters held back now."""
        return 0 if self.mode == "log" else max(0, self._base + len(self._text) - self._shown)

    def push(self, piece: str) -> str:
        """More text; what of it, and of the text held back, may be shown now. Raises BadParameter after ``finish``."""
        if self._finished:
            raise BadParameter("This stream is finished; make a new filter for the next text.")
        out = [self._feed(piece[i : i + BLOCK]) for i in range(0, len(piece), BLOCK)]
        return piece if self.mode == "log" else "".join(out)

    def finish(self) -> str:
        """The rest of the text, now that nothing more comes. A second time, it is empty."""
        out = "" if self._finished else self._feed("", final=True)
        self._finished = True
        return "" if self.mode == "log" else out

    def _feed(self, piece: str, final: bool = False) -> str:
        self._text += piece
        self._view += view_of(piece)
        end = self._base + len(self._text)
        settled = end if final else self._base + self._rules.settled(self._view, self._settled - self._base)
        if self._canaries:
            for kind, start, stop in self._canaries.feed(piece):
                bisect.insort(self._waiting, _Span(start, -1, stop, kind))
            settled = settled if final else min(settled, self._canaries.settled())
        self._extend_tails()
        self._search(settled)
        out: list[str] = []
        while self._waiting and self._waiting[0].start < settled:
            self._accept(self._waiting.pop(0), out)
        if self._shown < settled:
            self._show(settled, out)
        self._settled = settled
        self._forget(max(0, settled - self._rules.look_behind - self._base))
        return "".join(out)

    def _search(self, stop: int) -> None:
        """All matches that start between what was decided before and ``stop``."""
        base, start = self._base, self._settled
        first = self._rules.any.search(self._view, start - base)
        if not first or base + first.start() >= stop:
            return
        open_rules = {searcher for searcher, _, _ in self._tails}
        start = base + first.start()
        for searcher in self._rules.starting(self._view[start - base : stop - base]):
            at = max(start, self._next[searcher.priority])
            while searcher not in open_rules and (
                found := searcher.first(self._view, at - base, stop - base)
            ):
                span = _Span(base + found[0], searcher.priority, base + found[1], searcher.rule.kind)
                if searcher.rule.tail:
                    limit = span.end + searcher.rule.tail.limit
                    if self._extend(searcher, limit, span):
                        self._tails.append((searcher, limit, span))
                        open_rules.add(searcher)
                bisect.insort(self._waiting, span)
                at = span.end
            self._next[searcher.priority] = at

    def _extend(self, searcher: Searcher, limit: int, span: _Span) -> bool:
        """Let a span grow by its tail; can it grow more with more text?"""
        end, more = searcher.tail(self._view, span.end - self._base, limit - span.end)
        span.end = self._base + end
        return more

    def _extend_tails(self) -> None:
        still = []
        for searcher, limit, span in self._tails:
            more = self._extend(searcher, limit, span)
            if span not in self._waiting and self._last:
                self._last.end = max(self._last.end, span.end)
                self._shown = max(self._shown, span.end)
            if more:
                still.append((searcher, limit, span))
            else:
                self._next[searcher.priority] = span.end
        self._tails = still

    def _accept(self, span: _Span, out: list[str]) -> None:
        if self._last and span.start < self._last.end:
            self._last.end = max(self._last.end, span.end)
        else:
            self._show(span.start, out)
            self._last = _Span(span.start, span.priority, span.end, span.kind)
            self.total += 1
            if len(self._spans) < MAX_FINDINGS:
                self._spans.append(self._last)
            if not self.blocked:
                out.append(f"[{'BLOCKED' if self.mode == 'block' else 'REDACTED'}:{span.kind}]")
            self.blocked = self.mode == "block"
        self._shown = max(self._shown, span.end)

    def _show(self, stop: int, out: list[str]) -> None:
        """Give out the text up to ``stop``, unless it is blocked."""
        if not self.blocked:
            out.append(self._text[self._shown - self._base : stop - self._base])
        self._shown = stop

    def _forget(self, count: int) -> None:
        self._text, self._view = self._text[count:], self._view[count:]
        self._base += count
