"""Tokens made visible: what a piece of text looks like when spaces and half characters must be seen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from lessonlib.engine import Tokenizer

CONTROL = {code: f"⟨{code:02x}⟩" for code in (*range(0x20), *range(0x7F, 0xA0))}
SHOWN = CONTROL | {ord(" "): "·", ord("\n"): "↵", ord("\t"): "→", ord("\r"): "←"}


def visible(piece: str) -> str:
    """A token's text with a mark for every space (·), line end (↵) and tab (→); other controls as ⟨1b⟩."""
    return piece.translate(SHOWN)


def brief(piece: str, length: int = 24) -> str:
    """The same in little room: at most ``length`` characters, five spaces or more counted (·×8)."""
    short = re.sub("·{5,}", lambda spaces: f"·×{len(spaces[0])}", visible(piece))
    return short if len(short) <= length else f"{short[: length - 1]}…"


def percent(share: float) -> str:
    """A share with one decimal, 42.0%; what is not quite nothing or all does not look like it: <0.1%, >99.9%."""
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``tokenizer.json``."""
    return json.loads(tokenizer.to_json())


def byte_alphabet() -> dict[str, int]:
    """Printable character -> byte, as byte-level BPE writes bytes down (Radford et al. 2019, GPT-2, §2.2).

    Bytes that print by themselves stand for themselves; the other 68 borrow characters from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    borrowed = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(borrowed)}


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Text of each token by itself; a token that is only part of a character shows its bytes, ⟨e2 80⟩."""
    alphabet = byte_alphabet()
    shown = []
    for token, piece in zip(ids, tokenizer.tokens(ids), strict=True):
        if "\ufffd" in piece:
            written = tokenizer.id_to_token(token)
            piece = f"⟨{' '.join(f'{alphabet[c]:02x}' for c in written if c in alphabet)}⟩"
        shown.append(piece)
    return shown


def printable(text: str, otherwise: str = "\N{WHITE SQUARE}") -> str:
    """A text for the figures, whose font draws no emoji and few scripts: what it lacks becomes a square."""
    return "".join(c if ord(c) < 0x250 or c in "·×↵→←⟨⟩…“”–" else otherwise for c in text)
