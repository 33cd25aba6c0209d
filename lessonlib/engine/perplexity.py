"""How surprised a model is by a text: what each next token costs it, in nats, bits and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import check_whole, is_whole
from .errors import BadParameter, EmptyPrompt
from .model import Transformer
from .prompts import as_ids, as_prompts, check_ids
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Perplexity:
    """What the predictions of ``tokens`` tokens cost: ``nats``, the sum of −ln p. ``size``: their UTF-8 bytes."""

    nats: float
    tokens: int
    size: int = 0

    @property
    def nats_per_token(self) -> float:
        """The cross-entropy; training calls it the loss."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the nats per token: the model is as unsure as between this many equally likely tokens."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        """The one by which models with different tokenizers can be compared; 8 means no information."""
        if not self.size:
            raise BadParameter("Token ids have no size in bytes; give perplexity the text and its tokenizer.")
        return self.nats / math.log(2) / self.size


@torch.inference_mode()
def perplexity(
    model: Transformer,
    text: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor,
    tokenizer: Tokenizer | None = None,
    stride: int = 512,
    context: int | None = None,
) -> Perplexity:
    """What a text, or several independent ones, cost the model.

    Texts need the tokenizer and are read after the model's begin-of-text token. Of ids, and of the text for a model
    that has no such token, the first is given and not predicted, and its bytes do not count. A long text is read in
    windows of ``context`` tokens (default: all the model can take) that move by ``stride``, so every token but the
    first few is predicted from at least context − stride others.

    Sliding windows: Press et al. 2021 (Shortformer, arXiv:2012.15832 §2).

    Raises EmptyPrompt, TokenOutOfRange, BadParameter.
    """
    longest = model.config.max_position_embeddings
    context = longest if context is None else context
    if not is_whole(context, least=2) or context > longest:
        raise BadParameter(f"context={context!r} has no meaning; it must be from 2 to the model's {longest}.")
    check_whole(stride=stride)
    nats, tokens, size = 0.0, 0, 0
    for one in as_prompts(text)[0]:
        ids, given = _encode(model, one, tokenizer)
        size += len(one.encode()) - given if isinstance(one, str) else 0
        for begin, first, end in _windows(len(ids), context, min(stride, context - 1)):
            window = torch.tensor([ids[begin:end]], device=model.device)
            wanted = torch.arange(first - 1, end - 1, device=model.device) - begin
            logits = model(window[:, :-1], at=wanted).logits[0]
            nats += F.cross_entropy(logits, window[0, first - begin :], reduction="sum").item()
            tokens += end - first
    if tokens == 0:
        raise EmptyPrompt("There is no token to predict; give a text, or two ids or more.")
    return Perplexity(nats, tokens, size)


def _encode(
    model: Transformer, text: str | Sequence[int], tokenizer: Tokenizer | None
) -> tuple[list[int], int]:
    """The ids, and how many bytes of a text are in the first one, which is given."""
    given = 0
    if not isinstance(text, str):
        ids = as_ids(text)
    elif tokenizer is None:
        raise BadParameter("A text needs its tokenizer: perplexity(model, text, tokenizer).")
    else:
        ids, start = tokenizer.encode(text), model.config.bos_token_id
        if start is not None and ids[:1] != [start]:
            ids = [start, *ids]
        elif ids and ids == tokenizer.encode(text, add_special_tokens=False):
            given = _size(tokenizer, ids[0])
    if ids:
        check_ids(model.config, min(ids), max(ids))
    return ids, given


def _size(tokenizer: Tokenizer, token: int) -> int:
    """UTF-8 bytes of a token by itself."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    if "\ufffd" not in text:
        return len(text.encode())
    # Part of a character: a vocabulary writes its bytes as "<0xE2>", or with one letter each.
    spelled = tokenizer.id_to_token(token)
    return 1 if spelled.startswith("<0x") else len(spelled)


def _windows(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, first, end): from ids begin … end the model predicts first … end. Each id but 0 is predicted once."""
    first = 1
    while first < length:
        end = min(length, max(context, first + stride))
        yield max(0, end - context), first, end
        first = end
