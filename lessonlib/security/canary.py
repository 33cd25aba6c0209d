"""Does an answer give away the system prompt, or a canary in it: spelled out, backwards, in base64, hex or rot13?

Everything is *folded* first: letters and digits only, in lower case, without accents, look-alikes as Latin letters. A
text that was spaced out, re-cased or re-wrapped folds into the same characters. What an encoding makes of the prompt is
folded too and belongs to the same fingerprint, so that nothing in the answer needs to be decoded. The fingerprint is
the set of its runs of 32 letters, some six words (16 for canaries), in each encoding.

What it cannot find: a prompt that was translated, summarised, encrypted, encoded twice, or encoded in a way not listed
in ``encodings``; pieces of it shorter than a window; letters more than GAP characters apart.
"""

from __future__ import annotations

import base64
import json
import secrets
import string
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lessonlib.engine.errors import BadParameter

GRAM = 8
WIDTHS = (1, 2, 3, 4)  # characters of an encoding for each letter
GAP = 24  # characters between two letters of a leak, at most
PROMPT_WINDOW = 32  # letters in a row, some six words: shorter pieces occur in innocent answers too
TOKEN_WINDOW = 16
MAX_PROMPT = 50_000

_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁһкмтвнɡαορνικτ", "aeopcyxijsdhkmtbngaopvikt")
_POWERS = np.array([pow(0x100000001B3, i, 2**64) for i in range(4 * PROMPT_WINDOW)], np.uint64)
_ROWS, _COLUMNS = np.arange(64)[:, None], np.arange(4 * PROMPT_WINDOW)
_SLAB = 4096
_TOP = np.uint64(32)  # shifts down to the better half of a hash
_ROT13 = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[13:] + string.ascii_lowercase[:13])


def mint() -> str:
    """A new canary to put into a system prompt: 24 random letters that no innocent answer contains."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(24))


@lru_cache(maxsize=4096)
def _fold_one(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).casefold().translate(_LOOK_ALIKE)
    return "".join(c for c in plain if c.isalnum())


def fold(text: str) -> str:
    """Letters and digits of a text, in lower case, without accents."""
    if text.isascii():
        return "".join(filter(str.isalnum, text.lower()))
    return "".join(map(_fold_one, text))


def encodings(text: str) -> Iterator[tuple[str, int]]:
    """What a text turns into, folded, and how many characters of it stand for a letter.

    As it is and in rot13, forwards and backwards; in JSON and URLs; in base64 and hex, as hex in 0x or x notation, and
    as decimal character codes.
    """
    plain = fold(text)
    for one in (plain, plain.translate(_ROT13)):
        yield from ((one, 1), (one[::-1], 1))
    yield from ((fold(json.dumps(text)), 1), (fold(urllib.parse.quote(text)), 1))
    for form in (text, text.lower(), text[::-1]):
        data = form.encode("utf-8", "replace")
        # By its place in a longer text, and without the characters that what stands before it has a part in.
        for offset, shared in ((0, 0), (1, 2), (2, 3)):
            yield fold(base64.b64encode(bytes(offset) + data).decode()[shared:]), 1
        yield data.hex(), 2
    data = text.encode("utf-8", "replace")
    yield "".join(map(str, data)), 3
    yield "".join(f"x{byte:02x}" for byte in data), 3
    yield "".join(f"0x{byte:02x}" for byte in data), 4


def _codes(folded: str) -> NDArray[np.uint64]:
    return np.frombuffer(folded.encode("utf-32-le"), np.uint32).astype(np.uint64)


def _runs(folded: str, length: int) -> NDArray[np.uint64]:
    """Every run of so many characters, as code points (runs, length)."""
    count = max(0, len(folded) - length + 1)
    rows = _ROWS[:count] if count <= len(_ROWS) else np.arange(count)[:, None]
    return _codes(folded)[rows + _COLUMNS[:length]]


def _hashes(runs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes = runs @ _POWERS[: runs.shape[1]]
    hashes ^= hashes >> np.uint64(29)
    return hashes * np.uint64(0xBF58476D1CE4E5B9)


def _all_hashes(folded: str, length: int) -> NDArray[np.uint64]:
    """Of every run, a slab at a time."""
    slabs = range(0, max(1, len(folded) - length + 1), _SLAB)
    return np.concatenate([_hashes(_runs(folded[i : i + _SLAB + length - 1], length)) for i in slabs])


def _telling(folded: str, length: int) -> NDArray[np.uint64]:
    """Hashes of every run that is not mostly one or two characters in turn; 2d2d2d2d is a dashed line in hex."""
    codes = _codes(folded)
    turns = np.concatenate([[0], np.cumsum(codes[2:] != codes[:-2])])
    runs = max(0, len(codes) - length + 1)
    varied = turns[length - 2 :][:runs] - turns[:runs] >= length // 4
    return _all_hashes(folded, length)[varied]


class Fingerprint:
    """What a text turns into, as hashes of its runs.

    letters: in a row, that make a leak; in hex and the like, the windows are as much longer as the encoding is. Runs of
    GRAM characters are known by one bit each in a table: a run from elsewhere passes with a probability below 1/16, all
    those of a window hardly ever, and then the hash of the whole window decides.
    """

    def __init__(self, texts: Iterable[str], letters: int):
        written = [pair for text in texts for pair in encodings(text)]
        places = np.unique(np.concatenate([_all_hashes(one, GRAM) for one, _ in written]) >> _TOP)
        self._mask = np.uint64((1 << max(12, int(16 * len(places)).bit_length())) - 1)
        self._table = np.zeros(int(self._mask) + 1, bool)
        self._table[places & self._mask] = True
        self.shortest = letters
        self.windows = {  # length -> hashes
            letters * width: np.unique(
                np.concatenate([_telling(one, letters * width) for one, times in written if times == width])
            )
            for width in WIDTHS
        }

    def known(self, folded: str) -> list[bool]:
        """For each run of GRAM characters: is it in the table?"""
        return self._table[_hashes(_runs(folded, GRAM)) >> _TOP & self._mask].tolist()

    def leaks(self, folded: str, length: int, ends: Sequence[int]) -> list[int]:
        """Those of ``ends`` before which a window of this length is from the texts."""
        hashes = _hashes(_codes(folded)[np.array(ends)[:, None] - length + _COLUMNS[:length]])
        known = self.windows[length]
        places = np.searchsorted(known, hashes)
        found = np.take(known, places, mode="clip") == hashes if len(known) else np.zeros(len(ends), bool)
        return [end for end, leak in zip(ends, found, strict=True) if leak]


class Canaries:
    """What must not be given away: a system prompt, and texts of one's own (canaries, passwords, keys).

    system_prompt: up to MAX_PROMPT characters, at least PROMPT_WINDOW letters and digits. secrets: each at least
    TOKEN_WINDOW letters and digits.
    Raises BadParameter for anything shorter or longer.
    """

    def __init__(self, system_prompt: str = "", secrets: Iterable[str] = ()):
        self.prints: list[tuple[str, Fingerprint]] = []
        for kind, window, texts in (
            ("canary", TOKEN_WINDOW, list(secrets)),
            ("system_prompt", PROMPT_WINDOW, [system_prompt] if system_prompt else []),
        ):
            for text in texts:
                if len(fold(text)) < window or len(text) > MAX_PROMPT:
                    raise BadParameter(
                        f"A {kind.replace('_', ' ')} must have at least {window} letters or digits and at most "
                        f"{MAX_PROMPT:,} characters; this one has {len(fold(text))} and {len(text):,}."
                    )
            if texts:
                self.prints.append((kind, Fingerprint(texts, window)))

    @property
    def max_held(self) -> int:
        """Characters of the longest piece that may have to wait for its end."""
        return max((max(print_.windows) for _, print_ in self.prints), default=0) * (GAP + 1)

    def scan(self) -> CanaryScan:
        return CanaryScan(self)


class CanaryScan:
    """One text on its way past the canaries, in pieces of any size."""

    def __init__(self, canaries: Canaries):
        self._prints = canaries.prints
        self._keep = max(max(print_.windows) for _, print_ in self._prints) - 1
        self._folded = ""
        self._places: list[int] = []  # of the folded characters, in the text
        self._runs = [0] * len(self._prints)  # known runs of eight in a row, up to the last
        self._end = 0

    def feed(self, piece: str) -> list[tuple[str, int, int]]:
        """Take in more text; the windows (kind, start, end) of the text that are full now, in their order."""
        fresh = self._fold(piece)
        recent = self._folded[-(fresh + GRAM - 1) :] if fresh else ""
        shift = len(self._folded) - len(recent) + GRAM  # behind the first run of eight
        found = []
        for which, (kind, print_) in enumerate(self._prints):
            run, full = self._runs[which], []
            for end, known in enumerate(print_.known(recent), shift):
                run = run + 1 if known else 0
                if run > print_.shortest - GRAM:
                    full.append((run + GRAM - 1, end))
            self._runs[which] = run
            for length in print_.windows if full else ():
                ends = [end for reached, end in full if reached >= length]
                for end in print_.leaks(self._folded, length, ends) if ends else ():
                    found.append((kind, self._places[end - length], self._places[end - 1] + 1))
        return sorted(found, key=lambda window: window[1:])

    def settled(self) -> int:
        """The place in the text from which on more text could still make a window full."""
        if not self._folded or self._end - self._places[-1] > GAP + 1:
            return self._end
        # As many runs as make no window yet, and the characters that make no run yet.
        open_ = max(
            min(run, max(print_.windows) - GRAM)
            for run, (_, print_) in zip(self._runs, self._prints, strict=True)
        )
        first = max(len(self._folded) - open_ - GRAM + 1, self._folded.rfind("\0") + 1, 0)
        return self._places[first] if first < len(self._places) else self._end

    def _fold(self, piece: str) -> int:
        """Append a piece, folded; how many characters that made. A wide gap becomes a character that fits nothing."""
        self._folded, self._places = self._folded[-self._keep :], self._places[-self._keep :]
        folded, places = [], []
        last = self._places[-1] if self._places else self._end
        letters = (
            ((i, c) for i, c in enumerate(piece.lower(), self._end) if c.isalnum())
            if piece.isascii()
            else ((i, c) for i, one in enumerate(piece, self._end) for c in _fold_one(one))
        )
        for place, character in letters:
            if place - last > GAP + 1:
                folded.append("\0")
                places.append(place)
            folded.append(character)
            places.append(place)
            last = place
        self._folded += "".join(folded)
        self._places += places
        self._end += len(piece)
        return len(folded)
