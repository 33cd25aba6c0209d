"""The forward pass on an NVIDIA GPU: the same model, with merged products, paged attention and recorded decodes.

A decode step is a few hundred small kernels. Launched one by one from Python they cost more time than they run, so
they are recorded once for each batch size (a CUDA graph) and replayed: what changes from step to step stands in
tensors that stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ..kv_cache import Cache
from ..model import Layer, Output, RMSNorm, Transformer, rope_frequencies
from ..paged_cache import PagedCache
from .attention import Attention
from .linear import Projection, repack
from .plan import Spans, bucket, cut, gather, spread


class _FusedLayer:
    """A layer whose small operations ride along with its products."""

    def __init__(self, layer: Layer):
        attention = layer.self_attn
        self.number = attention.layer
        self.norms = tuple(
            norm if isinstance(norm, RMSNorm) else None for norm in (attention.q_norm, attention.k_norm)
        )
        self.before, self.between = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv = Projection(attention, "q_proj", "k_proj", "v_proj")
        self.out = Projection(attention, "o_proj")
        self.gate_up = Projection(layer.mlp, "gate_proj", "up_proj")
        self.down = Projection(layer.mlp, "down_proj")


class _Recorded:
    """One recorded decode step: replay it, and ``logits`` (rows, vocab) are new."""

    def __init__(self, graph: torch.cuda.CUDAGraph, logits: Tensor):
        self.graph, self.logits = graph, logits


class CudaTransformer(nn.Module):
    """A Transformer with the same ``forward``, made for a PagedCache in the model's own dtype; with any other cache
    it runs the plain model. ``cuda_model`` makes one.

    model: its modules become views into merged weights, and INT4 ones are stored in another order. max_batch: decodes
    up to so many rows are recorded. graphs: False launches every kernel one by one.
    """

    def __init__(self, model: Transformer, max_batch: int = 256, graphs: bool = True):
        super().__init__()
        self.model: Transformer
        self.model, self.max_batch, self.graphs = model, max_batch, graphs
        config = self.config = model.config
        repack(model)
        self._fused = [_FusedLayer(layer) for layer in cast(Iterable[Layer], model.layers)]
        self._head = Projection(model, "lm_head")
        products = [p for layer in self._fused for p in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        for product, after in pairwise([*products, self._head, products[0]]):
            product.following = after.weight
        for layer in self._fused:
            layer.qkv.following = None  # attention comes between, and asks for what follows it
        steps = torch.arange(config.max_position_embeddings, dtype=torch.float32)
        angles = torch.outer(steps, rope_frequencies(config))
        cos, sin = (t.to(self.device, self.dtype) for t in (angles.cos(), angles.sin()))
        self._attention = Attention(config, cos, sin, max_batch)
        # For each cache its recorded steps, which know where that cache lies.
        self._recorded: WeakKeyDictionary[PagedCache, dict[int, _Recorded]] = WeakKeyDictionary()
        self._step = torch.zeros(0, dtype=torch.int32, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def input_device(self) -> torch.device:
        """Where ids and ``at`` are best made: from there they travel together with everything else."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def quantization(self) -> str | None:
        return self.model.quantization

    @torch.inference_mode()
    def forward(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        lengths: Sequence[int] | None = None,
        last_only: bool = False,
        at: Tensor | None = None,
    ) -> Output:
        """As Transformer.forward. In a pure decode step the ids are trusted to be tokens of this model."""
        if not self._fits(ids, cache, lengths):
            ids, at = ids.to(self.device), None if at is None else at.to(self.device)
            return self.model(ids, cache, lengths, last_only, at)
        assert isinstance(cache, PagedCache)
        spans, count = gather(cache.spans), ids.shape[1]
        if last_only:
            at = torch.tensor([count - 1])
        if at is not None and at.device != self.device:
            at = None if at.tolist() == list(range(count)) else at.to(self.device)
        if len(spans.counts) == count <= self.max_batch:
            logits = self._decode(ids[0], cache, spans)
            logits = logits[:count].clone() if at is None else logits[at]
        else:
            self.model._check(ids, lengths)
            x = self._run(ids[0].to(self.device), cache, *self._mixed(cache, spans))
            logits = self._logits(x if at is None else x[at])
        cache.slots_written = ids.shape[1]
        cache.slots_read = int((spans.starts + spans.counts).sum())
        cache.end()
        return Output(logits[None])

    def _fits(self, ids: Tensor, cache: Cache | None, lengths: Sequence[int] | None) -> bool:
        """Is this a pass that the kernels know, and one that the plain model would not refuse?"""
        return (
            isinstance(cache, PagedCache)
            and cache.store.quantization is None
            and cache.store.dtype == self.dtype
            and cache.keys.device == self.device
            and lengths is None
            and ids.dim() == 2
            and ids.dtype == torch.int64
            and 0 < ids.numel() == ids.shape[1] == sum(span.count for span in cache.spans)
        )

    def _run(self, ids: Tensor, cache: PagedCache, kernel, *step: Tensor) -> Tensor:
        """Hidden states (tokens, hidden) of the last layer, before the last norm."""
        x = self.model.embed_tokens(ids)
        for layer in self._fused:
            keys, values = cache.keys[layer.number], cache.values[layer.number]
            qkv = layer.qkv(x, layer.before)
            ahead = {"following": layer.out.weight} if len(x) == 1 else {}
            y = kernel(layer.number, qkv, layer.norms, keys, values, *step, cache.block_size, **ahead)
            x = layer.out(y, residual=x)
            x = layer.down(layer.gate_up(x, layer.between, gated=True), residual=x)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self._head(x, self.model.norm, dtype=torch.float32)

    def _mixed(self, cache: PagedCache, spans: Spans) -> tuple:
        parts = [*spread(spans, cache.block_size), cut(spans, self._attention.piece), spans.tables]
        sent = torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(self.device)
        positions, slots, pieces, tables = sent.split([part.size for part in parts])
        return self._attention.attend, positions, slots, pieces.view(-1, 4), tables

    def _decode(self, ids: Tensor, cache: PagedCache, spans: Spans) -> Tensor:
        """Logits (rows or more, vocab) of one new token a row; the next step overwrites them."""
        count = len(ids)
        rows = bucket(count, self.max_batch)
        idle = np.full(rows - count, -1, np.int32)
        known = ids.numpy() if ids.device.type == "cpu" else np.zeros(count)
        step = np.concatenate(
            [known, 0 * idle, spans.starts, idle, spans.offsets, idle, spans.tables],
            dtype=np.int32,
            casting="unsafe",
        )
        if step.size > len(self._step):  # at the first step, or for a cache with smaller blocks
            longest = -(-self.config.max_position_embeddings // cache.block_size) + 1
            size = max(step.size, self.max_batch * (3 + longest))
            self._step = torch.zeros(size, dtype=torch.int32, device=self.device)
            self._recorded.clear()
        recorded = self._recorded.setdefault(cache, {})
        self._step[: step.size].copy_(torch.from_numpy(step))
        if ids.device.type != "cpu":
            self._step[:count].copy_(ids)
        if not self.graphs:
            return self._decode_rows(rows, cache)
        if rows not in recorded:
            recorded[rows] = self._record(rows, cache)
        recorded[rows].graph.replay()
        return recorded[rows].logits

    def _decode_rows(self, rows: int, cache: PagedCache) -> Tensor:
        ids, positions, offsets = self._step[: 3 * rows].split(rows)
        tables = self._step[3 * rows :]
        return self._logits(self._run(ids, cache, self._attention.decode, positions, offsets, tables))

    def _record(self, rows: int, cache: PagedCache) -> _Recorded:
        self._decode_rows(rows, cache)  # compiles the kernels; what it writes, the replay writes again
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for held in self._recorded.values() for other in held.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            logits = self._decode_rows(rows, cache)
        return _Recorded(graph, logits)
