"""What the validator learns from: attacks and benign texts that this repository writes itself.

Families whose file begins with ``attacks`` are attacks. A file is a *source*: evaluation holds out whole files, because
texts from the same slots in training and test flatter by tens of points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from .grammar import Family, pick, read

FOLDER = Path(__file__).parent


class Example(NamedTuple):
    """A text, whether it is an attack, and where it comes from."""

    text: str
    attack: bool
    family: str
    source: str


@cache
def families() -> tuple[Family, ...]:
    """All of them, in the order of their files' names."""
    _, shared = read((FOLDER / "shared.txt").read_text("utf-8"), "shared", {})
    found: list[Family] = []
    for path in sorted(FOLDER.glob("*.txt")):
        if path.stem != "shared":
            found += read(path.read_text("utf-8"), path.stem, shared)[0]
    return tuple(found)


def is_attack(family: Family) -> bool:
    return family.source.startswith("attacks")


def fingerprint() -> str:
    """SHA-256 of all that ``examples`` depends on: the grammar and the code that expands it."""
    digest = hashlib.sha256()
    for path in sorted([*FOLDER.glob("*.txt"), *FOLDER.glob("*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def examples(per_family: int, seed: int = 0, chosen: Sequence[Family] | None = None) -> list[Example]:
    """Different texts of each family (fewer from a small one), some joined to longer ones, some carelessly typed."""
    chosen = families() if chosen is None else chosen
    found = []
    for family in chosen:
        random = Random(f"{seed}/{family.source}/{family.name}")
        # What an attack is put next to, so that length and topic say nothing.
        company = [other for other in chosen if not is_attack(other)]
        seen = set()
        # Templates are unequal in reach: each in turn, so that a rich one does not drown the others.
        for turn in range(per_family):
            parts = Family("", "", [family.templates[turn % len(family.templates)]], family.slots)
            text = careless(surround(parts.draw(random), company, is_attack(family), random), random)
            if text not in seen:
                seen.add(text)
                found.append(Example(text, is_attack(family), family.name, family.source))
    return found


def surround(text: str, company: Sequence[Family], attack: bool, random: Random) -> str:
    """Join a third of the texts with one to five benign ones, before or behind."""
    if not company or random.random() > 0.3:
        return text
    pieces = [text]
    for _ in range(1 + int(random.random() ** 2 * 5)):
        other = pick(company, random).draw(random)
        pieces.insert(0 if random.random() < 0.6 else len(pieces), other)
    return pick(["\n", "\n\n", " ", " "], random).join(pieces)


def careless(text: str, random: Random) -> str:
    """Type some texts as people do: no capitals, no full stop, a letter lost or swapped, shouting."""
    chance = random.random()
    if chance < 0.15:
        text = text.lower()
    elif chance < 0.17:
        text = text.upper()
    if random.random() < 0.15:
        text = text.rstrip(".!")
    if random.random() < 0.15:
        for _ in range(1 + len(text) // 150):
            at = int(random.random() * max(1, len(text) - 2))
            pair = text[at : at + 2]
            if pair.isalpha():
                text = text[:at] + pick([pair[::-1], pair[0], pair[0] + pair], random) + text[at + 2 :]
    return text
