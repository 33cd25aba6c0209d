"""One head of attention, small enough to look at: vectors of toy tokens, rotary positions, caches right and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ....engine.model import rotate


def qkv(tokens: Sequence[int], dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of each toy token, float32 (new, dim); the same token always has the same three."""
    place = torch.arange(dim)
    ids = torch.tensor(list(tokens))[:, None]
    q, k, v = (((7 * ids + 5 * place + part + ids * place * (part + 2)) % 13) / 4 - 1.5 for part in (1, 4, 6))
    return q, k, v


def kv(tokens: Sequence[int], dim: int = 2) -> tuple[Tensor, Tensor]:
    """Keys and values one can read, float32 (new, dim): token 5 has the key [5, 5] and the value [-5, -5]."""
    keys = torch.tensor(list(tokens), dtype=torch.float32)[:, None].repeat(1, dim)
    return keys, -keys


def rope(x: Tensor, positions: Tensor) -> Tensor:
    """x (new, dim) with each row turned according to its position, (new,): rotary position embedding.

    Source: Su et al. 2021 (RoPE, arXiv:2104.09864 §3.4); the pairs are those of the engine's model.
    """
    dim = x.shape[-1]
    angles = torch.outer(positions.float(), 10_000.0 ** (-torch.arange(0, dim, 2) / dim)).repeat(1, 2)
    return rotate(x, angles.cos(), angles.sin())


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
