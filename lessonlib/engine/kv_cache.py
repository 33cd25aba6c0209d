"""Where keys and values live between steps, and what a query is allowed to see.

A layer calls ``cache.attend(layer, q, k, v)`` and knows no more than that. One rule decides visibility in
every cache: a query at position p sees the positions 0 … p. In a DenseCache a token's place in memory, its *slot*,
is its position; a PagedCache finds the slot through a block table. Whatever lies beyond (padding, a finished row's
leftovers, tokens taken back by ``rewind``) is never seen, so rows of different lengths share one batch without any
left padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig, is_whole
from .errors import BadParameter, CacheFull, PromptTooLong


class Cache(Protocol):
    """What the model asks of a cache, in this order: ``begin``, ``attend`` once a layer, ``end``."""

    positions: Tensor  # of the tokens of this pass, int64 (batch, new)
    slots_written: int  # slots that each layer of this pass fills and fetches, all rows together
    slots_read: int

    def begin(self, batch: int, new: int, lengths: Sequence[int] | None, device: torch.device) -> Tensor:
        """Make room for ``new`` tokens a row; return their positions, int64 (batch, new).

        ``lengths`` says how many of each row's new tokens are real (the rest is right padding); None: all.
        """
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q (batch, heads, new, head_dim) over this row's past and k, v (batch, kv_heads, new,
        head_dim); returns the shape of q."""
        ...

    def end(self) -> None:
        """The forward pass is complete: its tokens now belong to the past."""
        ...


def visible(positions: Tensor, slots: int, window: int | None) -> Tensor:
    """Which slots each query may see: bool (batch, 1, new, slots), from positions (batch, new)."""
    slot = torch.arange(slots, device=positions.device)
    query = positions[:, None, :, None]
    mask = slot <= query
    return mask if window is None else mask & (slot > query - window)


def check_context(config: ModelConfig, tokens: int) -> None:
    """Raise PromptTooLong for a sequence of more tokens than the model can take."""
    if tokens > config.max_position_embeddings:
        raise PromptTooLong(
            f"{tokens} tokens do not fit in this model's context of {config.max_position_embeddings}; "
            "shorten the prompt."
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros rather than uninitialised memory: a masked slot is multiplied by 0, and 0 × NaN is NaN."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # NumPy's zeros become memory only where something is written: a large pool costs what is used of it.
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


class KVStore:
    """The memory under a cache: one vector of ``head_dim`` numbers for a key and one for a value in every place.

    ``keys`` and ``values`` are (*places, head_dim) in ``dtype``; quantized ("int8" | "int4"), they hold codes, with the
    scales beside them. ``nbytes`` counts all of it.
    """

    def __init__(
        self,
        places: Sequence[int],
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
        quantization: str | None = None,
    ):
        if quantization not in (None, "int8", "int4"):
            raise BadParameter(
                f"A KV cache cannot be quantized as {quantization!r}; choose 'int8', 'int4' or None."
            )
        self.head_dim, self.dtype, self.quantization = head_dim, dtype, quantization
        sample = self._encode(torch.zeros(1, head_dim, dtype=dtype))
        # Tensors that can be written inside and outside of inference mode, wherever the cache was made.
        with torch.inference_mode(False):
            self.parts = [
                [_zeros((*places, *part.shape[1:]), part.dtype, device) for part in sample] for _ in range(2)
            ]
        self.keys, self.values = (parts[0] for parts in self.parts)
        self.nbytes = sum(part.nbytes for part in chain.from_iterable(self.parts))

    def write(self, index: tuple[Any, ...], k: Tensor, v: Tensor) -> None:
        """Store k and v at ``index``, which points into the places."""
        for parts, new in zip(self.parts, (k, v), strict=True):
            for part, piece in zip(parts, self._encode(new), strict=True):
                part[index] = piece

    def read(self, index: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """Keys and values at ``index``: views where that is possible, else copies."""
        keys, values = (self._decode([part[index] for part in parts]) for parts in self.parts)
        return keys, values

    def zero(self) -> None:
        """Forget the content."""
        for part in chain.from_iterable(self.parts):
            part.zero_()

    def _encode(self, x: Tensor) -> Sequence[Tensor]:
        if self.quantization is None:
            return (x,)
        # Not at the top: quantize comes later in the course, and knows the model.
        from .quantize.kv import quantize_kv

        return quantize_kv(x, int(self.quantization[3:]))

    def _decode(self, parts: Sequence[Tensor]) -> Tensor:
        if self.quantization is None:
            return parts[0]
        from .quantize.kv import dequantize_kv

        codes, scales = parts
        return dequantize_kv(codes, scales, self.head_dim, self.dtype)


def check_fit(config: ModelConfig, store: KVStore, layer: int, k: Tensor) -> None:
    """Raise BadParameter unless keys (batch, kv_heads, new, head_dim) of this layer belong in this model's store."""
    place = store.keys.device
    layers, heads, head_dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    if (k.dtype, k.device) != (store.dtype, place):
        raise BadParameter(
            f"The cache holds {store.dtype} on {place} but the model works with {k.dtype} on {k.device}; "
            "make it with dtype=model.dtype and device=model.device."
        )
    if layer >= layers or (k.shape[1], k.shape[3]) != (heads, head_dim):
        raise BadParameter(
            f"This cache was made for another model ({layers} layers with {heads} KV heads of {head_dim}); "
            "make one from this model's config."
        )


class NoCache:
    """Attention over the tokens of this call and nothing else: every step starts from the beginning."""

    slots_written = slots_read = 0

    def __init__(self, config: ModelConfig):
        self.config = config

    def begin(self, batch: int, new: int, lengths: Sequence[int] | None, device: torch.device) -> Tensor:
        check_context(self.config, new)
        self.positions = torch.arange(new, device=device).expand(batch, new)
        return self.positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window = self.config.window(layer)
        if window is None or window >= q.shape[2]:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        mask = visible(self.positions[:1], k.shape[2], window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    def end(self) -> None:
        pass


class DenseCache:
    """One preallocated slab of keys and values a layer: nothing is copied when a sequence grows.

    ``keys`` and ``values`` are (layers, batch, kv_heads, max_length, head_dim); ``lengths[row]`` counts the
    tokens held. quantization: None (numbers as ``dtype``), "int8" or "int4". Raises CacheFull instead of growing.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        quantization: str | None = None,
    ):
        self.config = config
        self.batch = batch
        self.max_length = config.max_position_embeddings if max_length is None else max_length
        if not is_whole(self.max_length, least=1) or self.max_length > config.max_position_embeddings:
            raise BadParameter(
                f"A cache of {self.max_length} tokens a row makes no sense for a model with a context of "
                f"{config.max_position_embeddings}; choose 1 to {config.max_position_embeddings}."
            )
        if not is_whole(batch, least=1):
            raise BadParameter(f"A cache for a batch of {batch} rows makes no sense; choose 1 or more.")
        places = (config.num_hidden_layers, batch, config.num_key_value_heads, self.max_length)
        self.store = KVStore(places, config.head_dim, dtype, device, quantization)
        self.keys, self.values, self.nbytes = self.store.keys, self.store.values, self.store.nbytes
        self.lengths = [0] * batch

    def begin(self, batch: int, new: int, lengths: Sequence[int] | None, device: torch.device) -> Tensor:
        if batch != self.batch:
            raise BadParameter(
                f"This cache was made for a batch of {self.batch} but got {batch} rows; make a cache of that size."
            )
        check_context(self.config, new)
        self._new = [new] * batch if lengths is None else list(lengths)
        needed = max(have + more for have, more in zip(self.lengths, self._new, strict=True))
        if needed > self.max_length:
            raise CacheFull(
                f"The KV cache holds {self.max_length} tokens a row and {needed} are needed; "
                "make it with a larger max_length or generate fewer tokens."
            )
        start = torch.tensor(self.lengths, device=device)[:, None]
        positions = start + torch.arange(new, device=device)
        # Padding may point past the end: let it fall on the last slot, where only a later token could see it.
        self.positions = positions.clamp_(max=self.max_length - 1)
        # Every row holds equally many tokens: one slice writes them all.
        self._together = min(self.lengths) == max(self.lengths) and self.lengths[0] + new <= self.max_length
        self._slots = min(max(self.lengths) + new, self.max_length)
        self.slots_written = batch * new if self._together else sum(self._new)
        self.slots_read = batch * self._slots  # masked or not, the kernel fetches them
        return self.positions

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (batch, kv_heads, new, head_dim) at their positions; return views of all slots in use.

        Raises BadParameter when the cache was made for another model, number format or device.
        """
        check_fit(self.config, self.store, layer, k)
        k, v = k.detach(), v.detach()  # the past is data: no gradient flows into it, no graph grows with it
        if self._together:
            start = self.lengths[0]
            self.store.write((layer, slice(None), slice(None), slice(start, start + k.shape[2])), k, v)
        else:
            for row, count in enumerate(self._new):  # padding is not stored: it could push out a real token
                place = (layer, row, slice(None), slice(self.lengths[row], self.lengths[row] + count))
                self.store.write(place, k[row, :, :count], v[row, :, :count])
        return self.store.read((layer, slice(None), slice(None), slice(self._slots)))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.update(layer, k, v)
        new, window = q.shape[2], self.config.window(layer)
        sees_all = window is None or window >= self._slots
        if self._together and sees_all and new in (1, self._slots):  # one new token, or a prefill from zero
            return F.scaled_dot_product_attention(q, keys, values, is_causal=new > 1, enable_gqa=True)
        mask = visible(self.positions, self._slots, window)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)

    def end(self) -> None:
        self.lengths = [have + more for have, more in zip(self.lengths, self._new, strict=True)]

    def rewind(self, lengths: int | Sequence[int]) -> None:
        """Forget every token from position ``lengths`` (one number, or one a row) on. Nothing is copied."""
        plain: Any = lengths.tolist() if hasattr(lengths, "tolist") else lengths
        wanted = list(plain) if isinstance(plain, Iterable) else [plain] * self.batch
        if len(wanted) != self.batch:
            raise BadParameter(
                f"The cache has {self.batch} rows, but {len(wanted)} lengths to rewind to were given."
            )
        for row, (have, want) in enumerate(zip(self.lengths, wanted, strict=True)):
            if not is_whole(want, least=0) or want > have:
                raise BadParameter(f"Row {row} holds {have} tokens and cannot be rewound to {want}.")
        self.lengths = [int(length) for length in wanted]

    def reset(self) -> None:
        """Forget everything and be as good as new."""
        self.rewind(0)
        # An overflow left behind would live on: a masked slot is multiplied by 0, and 0 × inf is NaN.
        self.store.zero()
