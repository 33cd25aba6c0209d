"""Views of a text: what it says once disguises are taken off. Every view knows where its characters came from.

The first view is the *folded* text: NFKC, invisible characters gone, look-alike letters replaced. From it come, one
inside the other if need be, texts with escapes (HTML, percent, ``\\x41``), base64, hexadecimal or binary decoded, with
spread-out letters joined, digits read as letters, and words that make sense only reversed or in ROT13 put right. A view
exists only where something was found, so a plain text has one. What only the eye cannot see (Unicode tags, variation
selectors) is decoded to a view of its own.

Depth, number and total size of the views are bounded, and each is made in one pass, so the time is linear in the length
of the text whatever it holds.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .confusables import CONFUSABLES
from .segment import segment
from .words import WITH_ENDINGS, WORDS

MAX_DEPTH, MAX_VIEWS, MAX_GROWTH = 3, 10, 3


@dataclass(frozen=True, eq=False)
class View:
    """A text and where it is from: character i stands for ``original[starts[i]:ends[i]]``.

    names: how it was made, in order. A reversed text has falling starts; elsewhere they rise.
    """

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    names: tuple[str, ...] = ()

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Where in the original the characters from ``start`` to before ``stop`` are."""
        if start >= stop:
            return 0, 0
        return int(self.starts[start:stop].min()), int(self.ends[start:stop].max())

    def replaced(self, name: str, pieces: Iterable[tuple[int, int, str]]) -> View | None:
        """The view with pieces (start, stop, new text; in order) replaced, or None when there are none.

        A piece of the same length keeps a place for each character; else its characters share it out evenly.
        """
        pieces = list(pieces)
        if not pieces:
            return None
        texts: list[str] = []
        at = 0
        for start, stop, new in pieces:
            texts += [self.text[at:start], new]
            at = stop
        text = "".join([*texts, self.text[at:]])
        # What lies between the pieces is a piece too, replaced by itself.
        bounds = np.array([(start, stop) for start, stop, _ in pieces], np.int64).ravel()
        bounds = np.concatenate([[0], bounds, [len(self.text)]])
        old, new_sizes = np.diff(bounds), np.diff(bounds)
        new_sizes[1::2] = [len(new) for _, _, new in pieces]
        begin, size, new_size = (np.repeat(part, new_sizes) for part in (bounds[:-1], old, new_sizes))
        place = np.arange(len(text)) - np.repeat(np.cumsum(new_sizes) - new_sizes, new_sizes)
        first = begin + place * size // new_size
        last = np.maximum(first, begin + ((place + 1) * size - 1) // new_size)
        return View(text, self.starts[first], self.ends[last], (*self.names, name))


def views(text: str) -> list[View]:
    """The folded text first, then whatever else it can be read as."""
    folded = fold(text)
    found = [folded]
    hidden = smuggled(text)
    if hidden is not None:
        found.append(hidden)
    seen = {view.text for view in found}
    left = MAX_GROWTH * len(folded.text) + 2000
    waiting = [(view, 0) for view in found]
    while waiting:
        view, depth = waiting.pop(0)
        for transform in TRANSFORMS if depth < MAX_DEPTH else ():
            made = transform(view)
            if made is None or not made.text.strip() or made.text in seen:
                continue
            left -= len(made.text)
            if left < 0 or len(found) >= MAX_VIEWS:
                return found
            seen.add(made.text)
            found.append(made)
            waiting.append((made, depth + 1))
    return found


# ---------------------------------------------------------------- characters


def fold(text: str) -> View:
    """NFKC, look-alikes to Latin letters, accents off, nothing invisible. Case is kept: base64 needs it."""
    if text.isascii() and not _CONTROL.search(text):
        places = np.arange(len(text), dtype=np.int64)
        return View(text, places, places + 1)
    pieces = [_fold_character(character) for character in text]
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    places = np.repeat(np.arange(len(text), dtype=np.int64), lengths)
    return View("".join(pieces), places, places + 1)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@lru_cache(maxsize=10_000)
def _fold_character(character: str) -> str:
    if character in "\n\t\r":
        return character
    if (
        unicodedata.category(character) in ("Cf", "Cc", "Mn", "Me", "Cs", "Co", "Cn")
        or character in _INVISIBLE
    ):
        return ""
    wide = unicodedata.normalize("NFKC", character)
    if len(wide) > 4:  # one character may not become a sentence
        wide = character
    folded = ""
    for letter in wide:
        base = (
            unicodedata.normalize("NFD", letter)[0] if letter.isalpha() and ord(letter) < 0x1EFF else letter
        )
        base = CONFUSABLES.get(base, base)
        folded += base if len(base.lower()) == len(base) else "i"  # İ, which is longer in lower case
    return " " if folded.isspace() else folded


_INVISIBLE = "\u115f\u1160\u3164\uffa0\u2800\u180e\u034f"


def smuggled(text: str) -> View | None:
    """ASCII written in tag characters (U+E0000 …) or bytes in variation selectors: invisible to people only."""
    if text.isascii():
        return None
    letters, places = [], []
    for place, character in enumerate(text):
        point = ord(character)
        if 0xE0020 <= point < 0xE007F:
            letter = chr(point - 0xE0000)
        elif 0xFE00 <= point <= 0xFE0F:
            letter = chr(point - 0xFE00)
        elif 0xE0100 <= point <= 0xE01EF:
            letter = chr(point - 0xE0100 + 16)
        else:
            continue
        if letter.isprintable() and letter.isascii():
            letters.append(letter)
            places.append(place)
    if len(letters) < 8:  # a flag of a region takes six
        return None
    at = np.array(places, np.int64)
    return View("".join(letters), at, at + 1, ("invisible characters",))


# ---------------------------------------------------------------- encodings

_ESCAPE = re.compile(
    r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});|(?:%[0-9a-fA-F]{2})+"
    r"|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}|\\[0-7]{3}|</?[a-zA-Z][^<>]{0,80}>"
)


def escapes(view: View) -> View | None:
    """HTML entities, percent and backslash escapes decoded, and tags between letters taken out."""
    return view.replaced("escapes", _changed(view.text, _ESCAPE, _unescape))


def _unescape(piece: str) -> str | None:
    if piece[0] == "<":
        return ""
    if piece[0] == "&":
        decoded = html.unescape(piece)
    elif piece[0] == "%":
        decoded = bytes.fromhex(piece.replace("%", "")).decode("utf-8", "replace")
    elif piece[1] in "xu":
        point = int(piece[2:].strip("{}"), 16)
        decoded = chr(point) if point < 0x110000 else ""
    else:
        decoded = chr(int(piece[1:], 8))
    return None if decoded == piece else "".join(_fold_character(letter) for letter in decoded)


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}(?:[\r\n]{1,2}[A-Za-z0-9+/_-]{8,})*={0,2}")
_HEX = re.compile(r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[\s,:]{0,2}){6,}")
_BINARY = re.compile(r"(?:[01]{8}[\s,]{0,2}){4,}")


def decode_base64(view: View) -> View | None:
    return view.replaced("base64", _changed(view.text, _BASE64, _from_base64))


def _from_base64(piece: str) -> str | None:
    packed = "".join(piece.split()).rstrip("=").replace("-", "+").replace("_", "/")
    packed = packed[: len(packed) - (len(packed) % 4 == 1)]
    try:
        return _plain(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    except binascii.Error:
        return None


def decode_hex(view: View) -> View | None:
    return view.replaced("hex", _changed(view.text, _HEX, _from_hex))


def _from_hex(piece: str) -> str | None:
    digits = re.sub(r"0x|\\x|[\s,:]", "", piece)
    return _plain(bytes.fromhex(digits)) if len(digits) % 2 == 0 else None


def decode_binary(view: View) -> View | None:
    return view.replaced("binary", _changed(view.text, _BINARY, _from_binary))


def _from_binary(piece: str) -> str | None:
    bits = re.sub(r"[\s,]", "", piece)
    return _plain(bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8)))


def _plain(data: bytes) -> str | None:
    """Text, if these bytes are one that somebody may have written."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    good = sum(letter.isalnum() or letter in " \n.,:;!?'\"-=+/" for letter in text)
    if len(text) < 3 or good < 0.9 * len(text):
        return None
    return "".join(_fold_character(letter) for letter in text)


def _changed(text: str, pattern: re.Pattern, change: Callable[[str], str | None]):
    for match in pattern.finditer(text):
        new = change(match[0])
        if new is not None:
            yield match.start(), match.end(), new


# ---------------------------------------------------------------- letters

_BETWEEN = r"[ \t.\-_*|/,+~·•!?:;\"'()]"
_SPREAD = re.compile(rf"(?<![^\W_])[^\W_](?:{_BETWEEN}{{1,4}}[^\W_](?![^\W_])){{4,}}")
_GAP = re.compile(rf"([^\W_])({_BETWEEN}*)")


def despaced(view: View) -> View | None:
    """``i g n o r e`` joined. A wider gap parts words; letters without one are parted by a list of words."""
    return view.replaced("despaced", _changed(view.text, _SPREAD, _join))


def _join(piece: str) -> str:
    letters = _GAP.findall(piece)
    usual = min(len(gap) for _, gap in letters[:-1])
    joined = "".join(letter + (" " if len(gap) > usual else "") for letter, gap in letters)
    return " ".join(word if word.lower() in WITH_ENDINGS else segment(word) for word in joined.split())


_LEET = str.maketrans("013457@$!|+", "oieastasiit")
_LEET_WORD = re.compile(r"(?<![\w@$!|+])[A-Za-z013457@$!|+]{2,24}(?![\w@$])")


def leet(view: View) -> View | None:
    """Digits read as letters, in words that then make sense; two at least, for there are names like that."""
    found = []
    for match in _LEET_WORD.finditer(view.text):
        word = match[0].rstrip("!|")
        read = word.translate(_LEET)
        if read != word and not word.isdigit() and read.lower() in WITH_ENDINGS:
            found.append((match.start(), match.start() + len(word), read))
    return view.replaced("leet", found) if len(found) >= 2 else None


def rot13(view: View) -> View | None:
    """Words that are none, turned by 13 where enough of them then are."""
    return _reread(view, "rot13", lambda word: codecs.encode(word, "rot13"))


def mirrored(view: View) -> View | None:
    """Words spelled backwards, each in its place."""
    return _reread(view, "reversed words", lambda word: word[::-1])


def flipped(view: View) -> View | None:
    """The lines with such words read from right to left, which turns the order of the words round as well."""
    if (made := mirrored(view)) is None:
        return None
    places = [at for at in range(len(view.text)) if view.text[at] != made.text[at]]
    start = view.text.rfind("\n", 0, places[0]) + 1
    stop = view.text.find("\n", places[-1])
    stop = len(view.text) if stop < 0 else stop
    order = np.arange(len(view.text))
    order[start:stop] = order[start:stop][::-1]
    text = view.text[:start] + view.text[start:stop][::-1] + view.text[stop:]
    return View(text, view.starts[order], view.ends[order], (*view.names, "reversed"))


_LETTERS = re.compile(r"[A-Za-z]{2,24}")


def _reread(view: View, name: str, change: Callable[[str], str]) -> View | None:
    """The view with strange words read differently, if three of them, and a third of all, then make sense."""
    strange = [match for match in _LETTERS.finditer(view.text) if match[0].lower() not in WORDS]
    hits = sum(len(match[0]) > 2 and change(match[0].lower()) in WORDS for match in strange)
    if hits < 3 or (3 * hits < len(strange) and hits < 6):
        return None
    return view.replaced(name, [(match.start(), match.end(), change(match[0])) for match in strange])


TRANSFORMS: tuple[Callable[[View], View | None], ...] = (
    escapes,
    decode_binary,
    decode_hex,
    decode_base64,
    despaced,
    leet,
    flipped,
    mirrored,
    rot13,
)
