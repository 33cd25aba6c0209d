"""What the linear model sees of a text: characters, words, and which concept comes before which.

Three blocks of columns, each with its own norm, so that none drowns the others:

- ``chars``: hashed 3-, 4- and 5-grams of the lower-case characters;
- ``words``: hashed words, pairs of neighbours, and pairs with one word between;
- ``pairs``: concepts, and ordered pairs of them (near or far), unhashed: "drop" before "order" is not "order" before
  "drop".

A long text is read through overlapping windows, so that an attack in a long document is not thinned out. All of it is
linear in the length of the text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .concepts import NAMES, concept

CHAR_COLUMNS, WORD_COLUMNS = 2**15, 2**16
CONCEPTS = len(NAMES)
NEAR, FAR, REACH = 3, 12, 8  # distances in words; how many concepts on the second of a pair may come
PAIR_COLUMNS = CONCEPTS + 2 * CONCEPTS**2
COLUMNS = CHAR_COLUMNS + WORD_COLUMNS + PAIR_COLUMNS
SCALES = (0.7, 1.0, 1.2)  # chars, words, pairs
WINDOW, STEP = 900, 450  # characters

_WORD = re.compile(
    r"<\|[a-z_]{1,20}\|>|\[/?inst\]|<</?sys>>|</?s>|[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|#{3,}|-{3,}|={3,}|[^\w\s]"
)
_MIX = np.uint32(0x9E3779B1)


class Features(NamedTuple):
    """One window: which columns are not zero, their values, and where in the window's text each comes from.

    columns, values: (n,). starts, ends, owners: one entry for every occurrence; ``owners`` says of which column (as a
    place in ``columns``) it is one.
    """

    columns: NDArray[np.int64]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owners: NDArray[np.int64]


class Reading:
    """A text with its n-grams hashed once, from which windows are cut."""

    def __init__(self, text: str):
        """text: any; its length must not change in lower case (``views.fold`` sees to that)."""
        self.text = text.lower()
        self._chars = _char_grams(self.text)
        self._words = _word_grams(self.text)

    def windows(self) -> Iterator[tuple[int, int]]:
        """Where windows begin and end, in characters; a text of one and a half windows is still one."""
        size = len(self.text)
        if size <= WINDOW + STEP:
            yield 0, size
            return
        for start in range(0, size - STEP, STEP):
            yield start, min(size, start + WINDOW)

    def features(self, start: int, stop: int) -> Features:
        """Of a window. A block's values are alike and have its scale as their norm."""
        blocks = []
        for scale, grams in zip(SCALES, (*self._chars_within(start, stop), *self._words), strict=True):
            columns, starts, ends = grams
            low, high = np.searchsorted(starts, (start, stop))
            columns, starts, ends = columns[low:high], starts[low:high], ends[low:high]
            found, owners = np.unique(columns, return_inverse=True)
            values = np.full(len(found), scale / np.sqrt(max(len(found), 1)), np.float32)
            blocks.append(Features(found, values, starts, ends, owners))
        before = np.cumsum([0, *(len(block.columns) for block in blocks)])
        return Features(
            np.concatenate([block.columns for block in blocks]),
            np.concatenate([block.values for block in blocks]),
            np.concatenate([block.starts for block in blocks]),
            np.concatenate([block.ends for block in blocks]),
            np.concatenate([block.owners + offset for block, offset in zip(blocks, before, strict=False)]),
        )

    def _chars_within(self, start: int, stop: int):
        """The character block, its three lengths sorted together only for this window."""
        cut = [
            (
                columns[max(0, start) : stop],
                np.arange(start, min(stop, start + len(columns[start:stop]))),
                size,
            )
            for size, columns in self._chars
        ]
        columns = np.concatenate([c for c, _, _ in cut])
        starts = np.concatenate([s for _, s, _ in cut])
        ends = np.concatenate([s + size for _, s, size in cut])
        order = np.argsort(starts, kind="stable")
        return ((columns[order], starts[order], ends[order]),)


def _char_grams(text: str) -> list[tuple[int, NDArray]]:
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).copy()
    points[(points == 10) | (points == 9)] = 32
    grams = []
    rolled = points * _MIX
    for size in (2, 3, 4, 5):
        rolled = (
            (rolled[:-1] ^ (rolled[:-1] >> np.uint32(15))) * _MIX + points[size - 1 :]
            if len(rolled)
            else rolled
        )
        if size > 2:
            grams.append((size, _bucket(rolled, CHAR_COLUMNS)))
    return grams


def _bucket(hashes: NDArray[np.uint32], columns: int) -> NDArray[np.int64]:
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    return ((hashes ^ (hashes >> np.uint32(13))) % np.uint32(columns)).astype(np.int64)


@lru_cache(maxsize=20_000)
def _hash(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _word_grams(text: str):
    """The word block and the pair block: (columns, starts, ends) each, ordered by starts."""
    matches = list(_WORD.finditer(text))
    words = [match[0][:40] for match in matches]
    starts = np.array([match.start() for match in matches], np.int64)
    ends = np.array([match.end() for match in matches], np.int64)
    hashes = np.array([_hash("0" if word.isdigit() else word) for word in words], np.uint32)
    numbers = np.array([concept(word) for word in words], np.int64)
    return _word_block(hashes, starts, ends), _pair_block(numbers, starts, ends)


def _word_block(hashes: NDArray[np.uint32], starts: NDArray, ends: NDArray):
    columns, begins, stops = [_bucket(hashes, WORD_COLUMNS)], [starts], [ends]
    for gap in (1, 2):
        if len(hashes) > gap:
            joined = hashes[:-gap] * _MIX + hashes[gap:] * np.uint32(0xC2B2AE35) + np.uint32(gap)
            columns.append(_bucket(joined, WORD_COLUMNS))
            begins.append(starts[:-gap])
            stops.append(ends[gap:])
    return _ordered(columns, begins, stops, CHAR_COLUMNS)


def _pair_block(numbers: NDArray[np.int64], starts: NDArray, ends: NDArray):
    places = np.flatnonzero(numbers >= 0)
    concepts = numbers[places]
    columns, begins, stops = [concepts], [starts[places]], [ends[places]]
    for lag in range(1, REACH + 1):
        distance = places[lag:] - places[:-lag]
        keep = distance <= FAR
        if not keep.any():
            continue
        pair = (concepts[:-lag] * CONCEPTS + concepts[lag:]) * 2 + (distance > NEAR)
        columns.append(CONCEPTS + pair[keep])
        begins.append(starts[places[:-lag]][keep])
        stops.append(ends[places[lag:]][keep])
    return _ordered(columns, begins, stops, CHAR_COLUMNS + WORD_COLUMNS)


def _ordered(columns: list, starts: list, ends: list, offset: int):
    begins = np.concatenate(starts)
    order = np.argsort(begins, kind="stable")
    return np.concatenate(columns)[order] + offset, begins[order], np.concatenate(ends)[order]
