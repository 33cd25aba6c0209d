"""Eighteen ways to write a text so that a filter does not read it, while a model still does."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable

_CYRILLIC = str.maketrans("aceopxyiAEOPCTHKM", "асеорхуіАЕОРСТНКМ")
_LEET = str.maketrans("aeiost", "43105" + "7")


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _mathematical(text: str) -> str:
    def bold(c: str) -> str:
        if "a" <= c <= "z":
            return chr(0x1D41A + ord(c) - ord("a"))
        return chr(0x1D400 + ord(c) - ord("A")) if "A" <= c <= "Z" else c

    return "".join(map(bold, text))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


OBFUSCATIONS: dict[str, Callable[[str], str]] = {
    "full-width letters": _wide,
    "mathematical letters": _mathematical,
    "Cyrillic look-alikes": lambda text: text.translate(_CYRILLIC),
    "accents": lambda text: "".join(c + "\u0301" if c in "aeiou" else c for c in text),
    "zero-width spaces": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "Unicode tags": lambda text: "Hi!" + "".join(chr(0xE0000 + ord(c)) for c in text if c.isascii()),
    "spaced letters": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "dotted letters": lambda text: ".".join("".join(text.split())),
    "leet": lambda text: text.translate(_LEET),
    "reversed": lambda text: text[::-1],
    "reversed words": lambda text: " ".join(word[::-1] for word in text.split()),
    "ROT13": lambda text: codecs.encode(text, "rot13"),
    "base64": _base64,
    "base64 twice": lambda text: _base64(_base64(text)),
    "hexadecimal": lambda text: text.encode().hex(),
    "HTML entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "percent escapes": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
}
