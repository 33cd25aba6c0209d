"""Attention with a KV cache for one head of toy tokens: right, and wrong in every way that ``find_bug`` knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .toys import rope


class ToyCache:
    """Attention with a KV cache for one head; ``kind`` is one of ``find_bug.KINDS``.

    attend(q, k, v): each (new, dim), not turned yet; returns (new, dim). reset(): forget everything.
    """

    def __init__(self, kind: str = "right"):
        self._kind, self._calls = kind, 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        held = 0 if self._keys is None else self._keys.shape[0]
        start = {"from 0": 0, "counts calls": self._calls, "one behind": max(held - 1, 0)}.get(
            self._kind, held
        )
        positions = start + torch.arange(len(q))
        q, k = rope(q, positions), rope(k, positions)
        self._calls += 1
        if self._kind == "one more batch":
            return self._as_batch(q, k, v)
        along = 1 if self._kind == "longer vectors" else 0
        self._keys = k if self._keys is None else torch.cat([self._keys, k], dim=along)
        self._values = v if self._values is None else torch.cat([self._values, v], dim=along)
        mask = torch.arange(len(self._keys)) <= held + torch.arange(len(q))[:, None]
        scores = (q @ self._keys.T / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ self._values

    def reset(self) -> None:
        left = {
            "reset does nothing": slice(None),
            "reset leaves the first": slice(1),
            "reset leaves the last": slice(-1, None),
        }.get(self._kind)
        self._calls = 0
        self._keys = None if left is None or self._keys is None else self._keys[left]
        self._values = None if left is None or self._values is None else self._values[left]

    def _as_batch(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """New tokens become a new row of a batch: equally many each time run without an error."""
        self._keys = k[None] if self._keys is None else torch.cat([self._keys, k[None]], dim=0)
        self._values = v[None] if self._values is None else torch.cat([self._values, v[None]], dim=0)
        mask = torch.ones(len(q), len(q)).tril().bool()
        scores = (q @ self._keys.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
        return (scores.softmax(-1) @ self._values).squeeze(0)


class ToySlab(ToyCache):
    """The right cache with all its memory taken at once, for ``room`` tokens: written differently, says the same."""

    def __init__(self, room: int = 64):
        super().__init__()
        self._room, self._held = room, 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self._keys is None or self._values is None:
            self._keys, self._values = (torch.zeros(self._room, q.shape[-1]) for _ in range(2))
        new = slice(self._held, self._held + len(q))
        positions = torch.arange(new.start, new.stop)
        self._keys[new], self._values[new] = rope(k, positions), v
        hidden = torch.arange(self._room) > positions[:, None]
        scores = (
            (rope(q, positions) @ self._keys.T).div(math.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf)
        )
        self._held = new.stop
        return scores.softmax(-1) @ self._values

    def reset(self) -> None:
        self._held = 0


def toy_cache(kind: str) -> ToyCache:
    """A fresh cache of this kind (see ``find_bug.KINDS``)."""
    return ToySlab() if kind == "right, in a slab" else ToyCache(kind)
