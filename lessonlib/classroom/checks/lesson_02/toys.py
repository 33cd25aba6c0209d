"""One head of attention, small enough to look at: vectors of toy tokens, and rotary positions."""

from __future__ import annotations

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
