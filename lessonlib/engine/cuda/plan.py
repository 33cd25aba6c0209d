"""What the kernels have to be told about one step, as arrays of numbers: no tensors, no device.

The block tables of all sequences lie one behind the other in ``tables``; ``offsets`` says where each begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..paged_cache import Span

Ints = NDArray[np.int32]


class Spans(NamedTuple):
    """The spans of a step as arrays, int32: (spans,) each, and the tables of all of them."""

    starts: Ints
    counts: Ints
    offsets: Ints
    tables: Ints


def gather(spans: Sequence[Span]) -> Spans:
    """The numbers of all spans."""
    starts, counts, sizes = (
        np.fromiter(numbers, np.int32, len(spans))
        for numbers in (
            (span.start for span in spans),
            (span.count for span in spans),
            (len(span.table) for span in spans),
        )
    )
    ends = np.cumsum(sizes, dtype=np.int32)
    tables = np.fromiter(chain.from_iterable(span.table for span in spans), np.int32, int(ends[-1]))
    return Spans(starts, counts, ends - sizes, tables)


def spread(spans: Spans, block_size: int) -> tuple[Ints, Ints]:
    """Position and slot of every new token, in order."""
    which, nth = _numbered(spans.counts)
    positions = spans.starts[which] + nth
    blocks = spans.tables[spans.offsets[which] + positions // block_size]
    return positions, blocks * block_size + positions % block_size


def cut(spans: Spans, size: int) -> Ints:
    """Pieces of up to ``size`` neighbouring new tokens: (pieces, 4) with the first token's place in the step, its
    position, the number of tokens, and where the block table begins."""
    which, nth = _numbered(-(-spans.counts // size))
    firsts = np.cumsum(spans.counts, dtype=np.int32) - spans.counts
    before = nth * size
    counts = np.minimum(size, spans.counts[which] - before)
    pieces = np.stack(
        [firsts[which] + before, spans.starts[which] + before, counts, spans.offsets[which]], axis=1
    )
    return pieces.astype(np.int32)


def _numbered(counts: Ints) -> tuple[Ints, Ints]:
    """For counts 2, 3: which row, 0 0 1 1 1, and which one of its row, 0 1 0 1 2."""
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    firsts = np.cumsum(counts, dtype=np.int32) - counts
    return which, np.arange(len(which), dtype=np.int32) - firsts[which]


def bucket(rows: int, most: int) -> int:
    """Batch sizes for which a graph is recorded: 1, 2, 4, 8, 16, 32, then every 32; rows that are missing idle."""
    size = 1 << (rows - 1).bit_length() if rows <= 32 else -(-rows // 32) * 32
    return min(size, most)
