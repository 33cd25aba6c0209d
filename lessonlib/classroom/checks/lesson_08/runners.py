"""The model as lesson 08's engine sees it: parts of texts in, logits out, keys and values in the student's caches.

``model(parts)`` is one forward pass. A part is ``(tokens, caches)``: the new tokens of one text, and one cache for each
layer, which hold everything of that text before them. A cache is anything like ``KVCache`` of lesson 02:
``append(k, v)`` with both (new, dim) returns all that is held, ``rewind(length)``, and ``length``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lessonlib.engine import Transformer
from lessonlib.engine.kv_cache import visible

Part = tuple[Sequence[int], Sequence[Any]]


class Cache:
    """Keys and values of one layer of one text, in memory that is taken once; the course's own ``KVCache``."""

    def __init__(self, size: int, dim: int):
        self.keys, self.values = torch.zeros(size, dim), torch.zeros(size, dim)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v (new, dim) -> all keys and values held, each (held, dim). Raises ValueError where it is full."""
        end = self.length + len(k)
        if end > len(self.keys):
            raise ValueError(f"The cache has room for {len(self.keys)} tokens; {end} were to be held.")
        self.keys[self.length : end], self.values[self.length : end] = k, v
        self.length = end
        return self.keys[:end], self.values[:end]

    def rewind(self, length: int) -> None:
        """Keep the first ``length`` tokens. Raises ValueError where fewer are held."""
        if not 0 <= length <= self.length:
            raise ValueError(f"The cache holds {self.length} tokens; it cannot go back to {length}.")
        self.length = length


class Runner:
    """One forward pass for all parts; ``forward_calls`` and ``tokens`` count the work, ``widest`` the most parts.

    layers: caches that each text needs; dim: numbers in a key or a value. vocab: number of tokens.
    """

    layers: int
    dim: int
    vocab: int

    def __init__(self) -> None:
        self.forward_calls = self.tokens = self.widest = 0

    def new_caches(self, size: int) -> list[Cache]:
        """Empty caches of a text with room for ``size`` tokens, one for each layer."""
        return [Cache(size, self.dim) for _ in range(self.layers)]

    def __call__(self, parts: Sequence[Part]) -> list[Tensor]:
        """For each part its logits, float32 (new, vocab). Raises ValueError for parts that make no sense."""
        parts = [(list(tokens), list(caches)) for tokens, caches in parts]
        self._check(parts)
        self.forward_calls += 1
        self.tokens += sum(len(tokens) for tokens, _ in parts)
        self.widest = max(self.widest, len(parts))
        return self._run(parts)

    def _run(self, parts: Sequence[Part]) -> list[Tensor]:
        raise NotImplementedError

    def _check(self, parts: Sequence[Part]) -> None:
        if not parts:
            raise ValueError("The model got no parts at all: there is nothing to run.")
        for tokens, caches in parts:
            if not tokens:
                raise ValueError("A part has no tokens: there is nothing to predict from.")
            if not all(isinstance(t, int) and 0 <= t < self.vocab for t in tokens):
                raise ValueError(f"Tokens are whole numbers from 0 to {self.vocab - 1}; it got {tokens}.")
            if len(caches) != self.layers:
                raise ValueError(f"Each part needs {self.layers} caches, one a layer; it got {len(caches)}.")
            if len({cache.length for cache in caches}) > 1:
                raise ValueError(
                    "The caches of one text hold different numbers of tokens: rewind all of them."
                )
        everything = [id(cache) for _, caches in parts for cache in caches]
        if len({*everything}) < len(everything):
            raise ValueError("Two parts share a cache: every text needs caches of its own.")


class ToyRunner(Runner):
    """The next token is (sum of all held + how many + the last one again) mod 10: whatever a cache holds counts."""

    layers, dim, vocab = 2, 2, 10

    def _run(self, parts: Sequence[Part]) -> list[Tensor]:
        return [self._logits(tokens, caches) for tokens, caches in parts]

    def _logits(self, tokens: Sequence[int], caches: Sequence[Any]) -> Tensor:
        new = torch.tensor(tokens, dtype=torch.float32)[:, None].expand(-1, self.dim)
        keys, values = caches[0].append(new, -new)
        _, last = caches[1].append(new, -new)
        total = keys[:, 0].cumsum(0)[-len(tokens) :]
        count = torch.arange(len(values) - len(tokens), len(values)) + 1
        following = (total + count - last[-len(tokens) :, 0]) % self.vocab
        return 3.0 - ((torch.arange(self.vocab) - following[:, None]) % self.vocab)

    def __repr__(self) -> str:
        return "ToyRunner()"


class PicoRunner(Runner):
    """A real model of the course behind the same door. dim: all KV heads of a layer side by side."""

    def __init__(self, model: Transformer):
        super().__init__()
        config = model.config
        self.model, self.heads = model, config.num_key_value_heads
        self.layers, self.vocab = config.num_hidden_layers, config.vocab_size
        self.dim = self.heads * config.head_dim

    @torch.inference_mode()
    def _run(self, parts: Sequence[Part]) -> list[Tensor]:
        row = torch.tensor([[token for tokens, _ in parts for token in tokens]])
        logits = self.model(row, cache=_Held(self, parts)).logits[0]
        return list(logits.split([len(tokens) for tokens, _ in parts]))


class _Held:
    """What the model asks of a cache (``lessonlib.engine.kv_cache.Cache``), answered by the parts' own caches."""

    def __init__(self, runner: PicoRunner, parts: Sequence[Part]):
        self.runner, self.parts = runner, parts
        self.counts = [len(tokens) for tokens, _ in parts]
        starts = [caches[0].length for _, caches in parts]
        self.places = [torch.arange(s, s + n) for s, n in zip(starts, self.counts, strict=True)]
        self.positions = torch.cat(self.places)[None]
        self.slots_written = sum(self.counts)
        self.slots_read = sum(starts) + self.slots_written

    def begin(self, *_: Any) -> Tensor:
        return self.positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window = self.runner.model.config.window(layer)
        found = []
        pieces = zip(*(x.split(self.counts, dim=2) for x in (q, k, v)), strict=True)
        for (_, caches), places, (mine, new_k, new_v) in zip(self.parts, self.places, pieces, strict=True):
            flat = (x[0].transpose(0, 1).reshape(-1, self.runner.dim) for x in (new_k, new_v))
            keys, values = (
                x.view(len(x), self.runner.heads, -1).transpose(0, 1)[None]
                for x in caches[layer].append(*flat)
            )
            mask = visible(places[None], keys.shape[2], window)
            found.append(F.scaled_dot_product_attention(mine, keys, values, attn_mask=mask, enable_gqa=True))
        return torch.cat(found, dim=2)

    def end(self) -> None:
        pass
