"""A small grammar of sentences: templates with choices and named slots, expanded at random.

A file holds families. ``== name`` starts one; every other line is a template, or ``slot = one | two`` for the whole
file. In a template ``{a|b}`` chooses, ``{slot}`` fills in, and backslashes escape ``{ } | \\`` and write ``\\n``.
Lines that start with ``%%`` are comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

Parts = list  # of Part
_SLOT = re.compile(r"([a-z_]+) = (.+)")
_ESCAPES = {"n": "\n"}


@dataclass
class Family:
    """Templates from one idea; the unit that is held out together."""

    name: str
    source: str
    templates: list[Parts] = field(default_factory=list)
    slots: Mapping[str, Parts] = field(default_factory=dict)

    def draw(self, random: Random) -> str:
        """One text of the family."""
        return expand(pick(self.templates, random), self.slots, random).strip()


def pick(choices, random: Random):
    """One of them; only random() is promised to give the same numbers in every Python."""
    return choices[int(random.random() * len(choices))]


def expand(parts: Parts, slots: Mapping[str, Parts], random: Random) -> str:
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
            continue
        chosen = pick(part, random)
        if len(part) == 1 and len(chosen) == 1 and isinstance(chosen[0], str) and chosen[0] in slots:
            chosen = slots[chosen[0]]
        out.append(expand(chosen, slots, random))
    return "".join(out)


def parse(text: str, slot: bool = False) -> Parts:
    """A template as nested parts; a choice is a tuple of sequences.

    Outside braces a bar is a bar; in a slot's value, one with a space on either side separates.
    """
    choices, end = _choices(text, 0, " | " if slot else "")
    if end != len(text):
        raise ValueError(f"A brace is closed that was never opened, before {text[end : end + 40]!r}.")
    return [tuple(_stripped(choice) for choice in choices)] if slot else choices[0]


def _stripped(parts: Parts) -> Parts:
    parts = list(parts)
    if parts and isinstance(parts[0], str):
        parts[0] = parts[0].lstrip(" ")
    if parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].rstrip(" ")
    return parts


def _choices(text: str, at: int, bar: str = "|") -> tuple[tuple[Parts, ...], int]:
    """Sequences separated by ``bar``, up to the closing brace (or the end), and where that is."""
    choices: list[Parts] = [[]]
    letters: list[str] = []

    def close() -> None:
        if letters:
            choices[-1].append("".join(letters))
            letters.clear()

    while at < len(text) and text[at] != "}":
        mark = text[at]
        if mark == "\\":
            at += 1
            letters.append(_ESCAPES.get(text[at], text[at]))
        elif bar and text.startswith(bar, at):
            close()
            choices.append([])
            at += len(bar) - 1
        elif mark == "{":
            close()
            inner, at = _choices(text, at + 1)
            if at == len(text):
                raise ValueError(f"A brace is never closed in {text[:60]!r}.")
            choices[-1].append(inner)
        else:
            letters.append(mark)
        at += 1
    close()
    return tuple(choices), at


def read(text: str, source: str, shared: Mapping[str, Parts]) -> tuple[list[Family], dict[str, Parts]]:
    """The families of a file, and its slots (those of ``shared`` included)."""
    slots: dict[str, Parts] = dict(shared)
    families: list[Family] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("%%"):
            continue
        if line.startswith("== "):
            families.append(Family(line[3:].strip(), source, [], slots))
        elif match := _SLOT.fullmatch(line):
            slots[match[1]] = parse(match[2], slot=True)
        else:
            families[-1].templates.append(parse(line))
    return families, slots
