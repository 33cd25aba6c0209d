"""CompiledTransformer: the same model, with one call into compiled code where forward was."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from ctypes import byref

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import BadParameter
from ..kv_cache import Cache, DenseCache
from ..model import Output, Transformer
from ..paged_cache import PagedCache, Span
from . import pack
from .build import library


def compile_model(model: Transformer) -> CompiledTransformer:
    """A copy of the model for this CPU, with float32, bfloat16, int8 or int4 weights as the model has them.

    It needs a C++ compiler the first time. The weights are held once more, in another order; later changes to the
    model's own do not reach them. Raises NoCompiler, BadParameter.
    """
    return CompiledTransformer(model)


class CompiledTransformer(Transformer):
    """Computes what its Transformer computes, faster, over a PagedCache or DenseCache in float32 or bfloat16.

    Any other cache goes through the plain modules, which it shares with the original. With quantized weights, tokens
    are quantized too, to int8 with one scale for 128 numbers: logits differ a little from the plain path's.
    """

    def __init__(self, model: Transformer):
        nn.Module.__init__(self)
        self.config, self.quantization, self._turns = model.config, model.quantization, None
        for name, child in model.named_children():
            self.add_module(name, child)
        self._library = library()
        self._model, self._held = pack.pack_model(model)

    def forward(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        lengths: Sequence[int] | None = None,
        last_only: bool = False,
        at: Tensor | None = None,
    ) -> Output:
        if not isinstance(cache, PagedCache | DenseCache) or not _readable(cache, self.config):
            return super().forward(ids, cache, lengths, last_only, at)
        self._check(ids, lengths)
        batch, new = ids.shape
        if isinstance(cache, PagedCache):
            spans = list(cache.spans)
        else:
            counts = [new] * batch if lengths is None else lengths
            spans = [Span([row], cache.lengths[row], count) for row, count in enumerate(counts) if count]
        cache.begin(batch, new, lengths, ids.device)
        if last_only:
            last = [new] * batch if lengths is None else [max(n, 1) for n in lengths]
            at = torch.tensor([row * new + n - 1 for row, n in enumerate(last)])
        wanted = torch.arange(batch * new) if at is None else _places(at, batch * new)
        flat = ids.flatten().long()
        if lengths is None or min(lengths) == new:
            logits = self._run(flat, spans, cache, wanted)
        else:  # what is padding goes without: its logits are zeros
            real = torch.tensor(
                [row * new + i for row, n in enumerate(lengths) for i in range(n)], dtype=torch.long
            )
            where = torch.full((batch * new,), -1)
            where[real] = torch.arange(len(real))
            asked = where[wanted] >= 0
            logits = torch.zeros(len(wanted), self.config.vocab_size)
            logits[asked] = self._run(flat[real], spans, cache, where[wanted][asked])
        cache.end()
        shape = (batch, 1) if last_only else (batch, new) if at is None else (1, len(wanted))
        return Output(logits.view(*shape, self.config.vocab_size))

    def _run(self, ids: Tensor, spans: Sequence[Span], cache: PagedCache | DenseCache, at: Tensor) -> Tensor:
        """Logits (len(at), vocab) of the tokens ``at`` among ids (tokens,)."""
        if not len(at):  # the kernels cannot do none
            return self._run(ids, spans, cache, torch.zeros(1, dtype=torch.int64))[:0]
        logits = torch.empty(len(at), self.config.vocab_size)
        at = at.contiguous()
        starts, counts, width, tables = (array("q") for _ in range(4))
        for table, start, count in spans:
            starts.append(start)
            counts.append(count)
            width.append(len(table))
            tables.extend(table)
        addresses = (part.buffer_info()[0] for part in (starts, counts, tables, width))
        sizes = len(ids), len(spans), len(at), torch.get_num_threads()
        step = pack.Pass(*sizes, ids.data_ptr(), *addresses, at.data_ptr(), logits.data_ptr())
        self._library.forward(byref(self._model), byref(_described(cache)), byref(step))
        return logits


def _places(at: Tensor, tokens: int) -> Tensor:
    """``at`` as the kernels trust it: int64 from 0 to before ``tokens``, whatever PyTorch takes for an index."""
    at = at.flatten()
    at = at.nonzero().flatten() if at.dtype == torch.bool else at.to("cpu", torch.int64)
    at = torch.where(at < 0, at + tokens, at)
    if len(at) and not 0 <= int(at.min()) <= int(at.max()) < tokens:
        raise BadParameter(
            f"at points beyond the {tokens} tokens of this pass; give places from 0 to {tokens - 1}."
        )
    return at


def _readable(cache: PagedCache | DenseCache, config: ModelConfig) -> bool:
    """Can the kernels use what is in there? If not, the plain modules do, and say what is wrong if anything is."""
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim")
    fits = all(getattr(cache.config, name) == getattr(config, name) for name in names)
    plain = cache.store.quantization is None and cache.keys.dtype in (torch.float32, torch.bfloat16)
    return fits and plain and cache.keys.device.type == "cpu"


def _described(cache: PagedCache | DenseCache) -> pack.Cache:
    """Where in memory the cache keeps what. A dense row is one long block."""
    keys = cache.keys
    if isinstance(cache, PagedCache):
        size, (layer, slot, head, _) = cache.block_size, keys.stride()
        block = size * slot
    else:
        size, (layer, block, head, slot, _) = cache.max_length, keys.stride()
    half = keys.dtype == torch.bfloat16
    return pack.Cache(half, size, layer, block, slot, head, keys.data_ptr(), cache.values.data_ptr())
