"""PagedCache: keys and values in blocks, for any number of sequences whose tokens run as one flat batch.

What ``blocks.py`` decides, this module stores and reads: position p of a sequence lives in slot
``table[p // block_size] * block_size + p % block_size`` (PagedAttention, Kwon et al. 2023, arXiv:2309.06180 §4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig, check_whole
from .errors import BadParameter
from .kv_cache import KVStore, check_context, check_fit, visible


class Span(NamedTuple):
    """The part of one sequence that runs in this pass: positions ``start`` … ``start + count - 1``."""

    table: Sequence[int]
    start: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, unused here


class _Group(NamedTuple):
    """Spans with equally many new tokens: a rectangle, which is what SDPA needs, and so one attention call.

    rows: place of each new token among the flat ones, (spans, new). slots: of every visible position, (spans, longest);
    None: the new tokens see only each other. mask: (spans, 1, new, longest); None: everything, or the causal triangle.
    """

    rows: Tensor
    slots: Tensor | None
    mask: Tensor | None


class PagedCache:
    """A pool of ``num_blocks`` blocks of KV memory.

    ``keys`` and ``values`` are (layers, slots, kv_heads, head_dim). Before each pass ``plan`` says whose tokens run:

    >>> cache.plan([Span(table=[7, 2], start=0, count=20), Span(table=[4], start=9, count=1)])
    >>> model(ids, cache=cache)     # ids (1, 21): the tokens of the first span, then that of the second

    quantization: None (numbers as ``dtype``), "int8" or "int4". A pass of another model raises BadParameter.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        quantization: str | None = None,
    ):
        check_whole(num_blocks=num_blocks, block_size=block_size)
        self.config, self.num_blocks, self.block_size = config, num_blocks, block_size
        places = (config.num_hidden_layers, num_blocks * block_size, config.num_key_value_heads)
        self.store = KVStore(places, config.head_dim, dtype, device, quantization)
        self.keys, self.values, self.nbytes = self.store.keys, self.store.values, self.store.nbytes
        self.spans: Sequence[Span] = ()

    def plan(self, spans: Sequence[Span]) -> None:
        """Say which tokens the next pass holds, in order."""
        for table, start, count in spans:
            check_context(self.config, start + count)
            if table and not 0 <= min(table) <= max(table) < self.num_blocks:
                beyond = next(block for block in table if not 0 <= block < self.num_blocks)
                raise BadParameter(
                    f"A block table points to block {beyond}, and the cache has blocks 0 to {self.num_blocks - 1}; "
                    "take blocks from a BlockPool of that size."
                )
            if count < 1 or start < 0 or start + count > len(table) * self.block_size:
                raise BadParameter(
                    f"A block table of {len(table)} blocks of {self.block_size} tokens cannot take {count} new tokens "
                    f"at position {start}; grow the table first, and give each span at least one token."
                )
        self.spans = spans

    def begin(self, batch: int, new: int, lengths: Sequence[int] | None, device: torch.device) -> Tensor:
        planned = sum(span.count for span in self.spans)
        if (batch, new) != (1, planned) or lengths is not None:
            raise BadParameter(
                f"plan announced {planned} tokens, but the pass has ids of shape {(batch, new)}; a paged cache takes "
                "all tokens as one flat row (1, tokens)."
            )
        size = self.block_size
        positions = [p for _, start, count in self.spans for p in range(start, start + count)]
        slots = [
            table[p // size] * size + p % size
            for table, start, count in self.spans
            for p in range(start, start + count)
        ]
        self.positions, self.slots = torch.tensor([positions, slots], device=device).split(1)
        self.slots = self.slots[0]
        self._groups: list[_Group] | None = None
        self.slots_written = new
        self.slots_read = sum(span.start + span.count for span in self.spans)
        return self.positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Made when first needed: a compiled path reads the block tables itself.
        self._groups = self._groups or self._group(q.device)
        if layer == 0 or layer >= len(self.keys):  # a model's layers are all alike
            check_fit(self.config, self.store, layer, k)
        k, v = k[0].transpose(0, 1), v[0].transpose(0, 1)  # (tokens, kv_heads, head_dim), as stored
        self.store.write((layer, self.slots), k, v)
        window, q = self.config.window(layer), q[0].transpose(0, 1)
        out = torch.empty_like(q)
        for rows, slots, mask in self._groups:
            keys, values = (k[rows], v[rows]) if slots is None else self.store.read((layer, slots))
            if window is not None and window < keys.shape[1]:
                mask = visible(self.positions[0][rows], keys.shape[1], window)
            out[rows] = _attention(q[rows], keys, values, mask, causal=slots is None and mask is None)
        return out.transpose(0, 1)[None]

    def end(self) -> None:
        self.spans = ()

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the content of whole blocks, (from, to) each: the second half of copy-on-write."""
        for old, new in pairs:
            source, target = (
                slice(block * self.block_size, (block + 1) * self.block_size) for block in (old, new)
            )
            for part in chain.from_iterable(self.store.parts):
                part[:, target] = part[:, source]

    def reset(self) -> None:
        """Forget everything."""
        self.store.zero()

    def _group(self, device: torch.device) -> list[_Group]:
        by_count: dict[tuple[int, bool], list[tuple[int, Span]]] = {}
        first = 0
        # Else: read what was stored, so that chunks change no more than rounding does (which may flip a code).
        exact = self.store.quantization is None
        for span in self.spans:
            by_count.setdefault((span.count, exact and span.start == 0), []).append((first, span))
            first += span.count
        return [self._rectangle(new, fresh, members, device) for (new, fresh), members in by_count.items()]

    def _rectangle(
        self, new: int, fresh: bool, members: Sequence[tuple[int, Span]], device: torch.device
    ) -> _Group:
        rows = torch.tensor([first for first, _ in members], device=device)[:, None]
        rows = rows + torch.arange(new, device=device)
        if fresh:  # nothing came before: the new tokens are all there is to see
            return _Group(rows, None, None)
        ends = [span.start + new for _, span in members]
        longest = max(ends)
        width = -(-longest // self.block_size)
        tables = torch.tensor(
            [[*span.table[:width], *[0] * (width - len(span.table))] for _, span in members], device=device
        )
        within = torch.arange(self.block_size, device=device)
        slots = (tables[:, :, None] * self.block_size + within).flatten(1)[:, :longest]
        if new == 1 and min(ends) == longest:
            return _Group(rows, slots, None)
        return _Group(rows, slots, visible(self.positions[0][rows], longest, None))


def _attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention of q (spans, new, heads, head_dim) over keys, values (spans, slots, kv_heads, head_dim)."""
    spans, new, heads, head_dim = q.shape
    if new > 1:
        q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, keys, values, mask, is_causal=causal, enable_gqa=True)
        return y.transpose(1, 2)
    # The queries that share a KV head stand side by side, as if they were several tokens; SDPA would otherwise copy
    # each key once for each of them.
    q = q.view(spans, keys.shape[2], -1, head_dim)
    y = F.scaled_dot_product_attention(q, keys.transpose(1, 2), values.transpose(1, 2), mask)
    return y.reshape(spans, 1, heads, head_dim)
