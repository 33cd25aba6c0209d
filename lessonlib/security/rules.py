"""What one line of the table of secrets says, and the table made ready for searching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import re2

from .shapes import EDGE, WORD, Shape, one_of, seq

# For the automata of RE2; when they need more, it goes on without them: slower, never wrong.
_MEMORY = 64 << 20
NEAR = 80


@dataclass(frozen=True)
class Tail:
    """What goes on behind a match: characters of a class, ``limit`` of them at most, up to and with ``end``."""

    characters: str
    limit: int
    end: Shape | None = None


@dataclass(frozen=True)
class Rule:
    """One thing to look for.

    kind: its name in findings. shape: what it looks like. check: how many of the secret's bytes are the real thing, 0
    for none. edge: it starts where a word starts. before, after: characters, as between [ and ], that may not stand
    right in front of the match and right behind the secret. tail: what goes on behind it. unless: a match does not
    count when this regular expression is found before it on its line, at most NEAR characters back.
    """

    kind: str
    shape: Shape
    check: Callable[[bytes], int] = len
    edge: bool = True
    before: str = ""
    after: str = WORD
    tail: Tail | None = None
    unless: str = ""


def compiled(pattern: str, captures: bool = True) -> re2._Regexp:
    """For bytes. Without captures RE2 needs no second pass."""
    options = re2.Options()
    options.max_mem = _MEMORY
    options.never_capture = not captures
    return re2.compile(pattern.encode(), options)


class Searcher:
    """A rule, ready to search bytes in which each byte is one character."""

    def __init__(self, rule: Rule, priority: int):
        self.rule, self.priority = rule, priority
        edge = EDGE.regex if rule.edge else ""
        self._regex = compiled(f"{edge}({rule.shape.regex})")
        self._group = self._regex.groups  # the secret if the shape says which part it is, otherwise all of it
        self._before, self._after = _class(rule.before), _class("" if rule.tail else rule.after)
        self._tail = compiled(f"[{rule.tail.characters}]*") if rule.tail else None
        self._end = compiled(rule.tail.end.regex, captures=False) if rule.tail and rule.tail.end else None
        self._unless = compiled(rule.unless, captures=False) if rule.unless else None
        self.look_behind = (
            rule.tail.end.longest if rule.tail and rule.tail.end else NEAR if rule.unless else 2
        )

    def first(self, view: bytes, start: int, stop: int) -> tuple[int, int] | None:
        """The first secret (start, end) whose match starts in [start, stop)."""
        while (match := self._regex.search(view, start)) and match.start() < stop:
            begin, (at, end) = match.start(), match.span(self._group)
            before, after = view[max(0, begin - 1) : begin], view[end : end + 1]
            alone = before not in self._before and after not in self._after
            if alone and (real := self.rule.check(view[at:end])) and not self._excused(view, begin):
                return at, at + real
            start = begin + 1
        return None

    def _excused(self, view: bytes, begin: int) -> bool:
        if self._unless is None:
            return False
        line = view[max(0, begin - NEAR) : begin].rpartition(b"\n")[2]
        return self._unless.search(line) is not None

    def tail(self, view: bytes, at: int, room: int) -> tuple[int, bool]:
        """Where the tail from ``at`` on ends, and whether more text could still belong to it."""
        assert self._tail is not None  # asked only of rules that have one
        stop = min(len(view), at + room)
        end = self._tail.match(view, at, stop).end()
        if self._end:
            marker = self._end.search(view, max(0, at - self.look_behind), end)
            if marker and marker.end() > at:
                return marker.end(), False
        return end, end == len(view) and end - at < room


def _class(characters: str) -> frozenset[bytes]:
    if not characters:
        return frozenset()
    regex = compiled(f"[{characters}]")
    return frozenset(byte for i in range(128) if regex.fullmatch(byte := bytes([i])))


def _first_bytes(rule: Rule) -> frozenset[int]:
    shape = seq(EDGE, rule.shape) if rule.edge else rule.shape
    beginning = compiled(shape.beginning, captures=False)
    return frozenset(byte for byte in range(128) if beginning.fullmatch(bytes([byte])))


class RuleBook:
    """Rules, ready to search: one by one, all at once, and for what could still become a match.

    longest: characters of the longest match, tails apart.
    """

    def __init__(self, rules: tuple[Rule, ...]):
        self.searchers = [Searcher(rule, i) for i, rule in enumerate(rules)]
        self.longest = EDGE.longest + max(rule.shape.longest for rule in rules)
        self.look_behind = max(2, *(searcher.look_behind for searcher in self.searchers))
        edged = [rule.shape for rule in rules if rule.edge]
        others = [rule.shape for rule in rules if not rule.edge]
        shape = one_of(*([seq(EDGE, one_of(*edged))] if edged else []), *others)
        self.any = compiled(shape.regex, captures=False)
        self._open = compiled(shape.beginning, captures=False)
        self._first = [_first_bytes(rule) for rule in rules]

    def starting(self, view: bytes) -> list[Searcher]:
        """Those whose matches may start somewhere in these bytes: of the few that a stream brings, few."""
        here = frozenset(view)
        pairs = zip(self._first, self.searchers, strict=True)
        return [searcher for first, searcher in pairs if not first.isdisjoint(here)]

    def settled(self, view: bytes, start: int) -> int:
        """The place from which on more text could still make a match, not before ``start``.

        Asked place by place: in a search for the first one, RE2 would run backwards from the end of the text, where
        every counter of every pattern may stand anywhere. A place that is passed is never asked about again.
        """
        at = max(start, len(view) - self.longest)
        while at < len(view) and not self._open.fullmatch(view, at):
            at += 1
        return at


@lru_cache(maxsize=16)
def book(rules: tuple[Rule, ...]) -> RuleBook:
    return RuleBook(rules)
