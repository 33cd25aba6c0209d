"""Regular expressions put together from parts, so that each also knows the beginnings of what it matches.

A filter on a stream has to ask two things of its newest text: is a secret in it, and could a secret just be starting?
The second is another regular expression, "some beginning of a match, up to the end of the text", and every part here
builds it together with the first. Written for RE2, and for bytes in which each character is one ASCII byte.
"""

from __future__ import annotations

from typing import NamedTuple

import re2

DIGIT, LOWER, UPPER = "0-9", "a-z", "A-Z"
HEX, ALNUM = "0-9a-f", "0-9A-Za-z"
WORD, URLSAFE, BASE64 = ALNUM + "_", ALNUM + r"_\-", ALNUM + "+/"


class Shape(NamedTuple):
    """regex: what is matched. beginning: any beginning of it, the empty one and the whole included.

    longest: characters of the longest match.
    """

    regex: str
    beginning: str
    longest: int


def text(literal: str, ignore_case: bool = False) -> Shape:
    """These very characters."""
    beginning = ""
    for character in reversed(literal):
        beginning = f"(?:{re2.escape(character)}{beginning})?"
    flag = "i" if ignore_case else ""
    return Shape(f"(?{flag}:{re2.escape(literal)})", f"(?{flag}:{beginning})", len(literal))


def some(characters: str, least: int, most: int | None = None) -> Shape:
    """From ``least`` to ``most`` characters of a class, as many as there are. characters: as between [ and ]."""
    most = least if most is None else most
    return Shape(f"[{characters}]{{{least},{most}}}", f"[{characters}]{{0,{most}}}", most)


def seq(*parts: Shape | str) -> Shape:
    """One after the other; a str stands for itself."""
    shapes = [text(part) if isinstance(part, str) else part for part in parts]
    beginning = ""
    for shape in reversed(shapes):
        beginning = f"(?:{shape.beginning}|{shape.regex}{beginning})" if beginning else shape.beginning
    return Shape("".join(s.regex for s in shapes), beginning, sum(s.longest for s in shapes))


def one_of(*parts: Shape | str) -> Shape:
    """The first that fits; a str stands for itself."""
    shapes = [text(part) if isinstance(part, str) else part for part in parts]
    return Shape(
        f"(?:{'|'.join(s.regex for s in shapes)})",
        f"(?:{'|'.join(s.beginning for s in shapes)})",
        max(s.longest for s in shapes),
    )


def times(part: Shape, least: int, most: int) -> Shape:
    """A part again and again."""
    return Shape(
        f"(?:{part.regex}){{{least},{most}}}",
        f"(?:(?:{part.regex}){{0,{most - 1}}}{part.beginning})",
        part.longest * most,
    )


def maybe(*parts: Shape | str) -> Shape:
    """A sequence, or nothing."""
    return times(seq(*parts), 0, 1)


def secret(*parts: Shape | str) -> Shape:
    """The part of a match that must not be seen; without one it is the whole match."""
    shape = seq(*parts)
    return shape._replace(regex=f"({shape.regex})")


# Where a token may start: at the edge of a word, or behind a line break written as in JSON and source code.
_ESCAPE = seq("\\", some("nrt", 1))
EDGE = Shape(rf"(?:\b|{_ESCAPE.regex})", _ESCAPE.beginning, _ESCAPE.longest)


def words(*alternatives: str) -> Shape:
    """Any of these, in capitals or not; a space stands for "_", "-", a space or nothing."""
    gap = some("_ -", 0, 1)
    spelled = []
    for words in alternatives:
        parts: list[Shape] = []
        for word in words.split():
            parts += [gap, text(word, ignore_case=True)] if parts else [text(word, ignore_case=True)]
        spelled.append(seq(*parts))
    return one_of(*spelled)


# Between a name and its value: "name": "value", NAME=value, --name value, name is `value`, | name | value |.
_CLOSED = some("\"'`*)\\]\\\\", 0, 4)
_OPENED = some("\"'`*(<\\\\", 0, 4)
_SPACE = some(" \\t", 0, 3)
_WHOSE = seq(
    " ", one_of("for", "of", "on", "in", "to", "at"), maybe(" the"), " ", some(ALNUM + r"_.'\-", 1, 24)
)
IS = seq(
    _CLOSED,
    one_of(
        seq(_SPACE, maybe(":", _SPACE, one_of("str", "string"), _SPACE), some("=:|>", 1, 2), _SPACE),
        seq(maybe(_WHOSE), " ", one_of("is", "was", "to", "are"), some(" :", 1, 2)),
        seq(some(" ,", 1, 2)),
    ),
    _OPENED,
)
