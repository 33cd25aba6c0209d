"""How good a model is: bits per byte on unseen code, and agreement between a draft and its target."""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterable

import torch

from lessonlib.engine import Tokenizer, Transformer, generate


@torch.inference_mode()
def bits_per_byte(model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], stride: int = 512) -> float:
    """Average bits the model needs per byte of UTF-8; lower is better, 8 is no idea at all.

    Each text is read after an end-of-text token in windows of the full context that move by ``stride``
    tokens, so that every token but the first few is predicted from at least context - stride others.
    """
    nats, size = 0.0, 0
    context = model.config.max_position_embeddings
    stride = min(stride, context - 1)
    for text in texts:
        ids = [0, *tokenizer.encode(text)]
        size += len(text.encode())
        done = 1  # tokens already scored (the end-of-text token needs no prediction)
        while done < len(ids):
            end = min(len(ids), max(context, done + stride))
            begin = max(0, end - context)
            window = torch.tensor([ids[begin:end]], device=model.device)
            logits = model(window[:, :-1]).logits[0, done - begin - 1 :]
            targets = window[0, done - begin :]
            nats += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            done = end
    return nats / math.log(2) / size


def xz_bits_per_byte(texts: Iterable[str]) -> float:
    """The same figure for ``xz -9``, a compressor that knows no Python: the texts are packed as one."""
    data = "".join(texts).encode()
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)


@torch.inference_mode()
def greedy_agreement(
    draft: Transformer, target: Transformer, tokenizer: Tokenizer, texts: Iterable[str]
) -> float:
    """Share of positions in the texts where both models think the same token likeliest."""
    same = total = 0
    context = target.config.max_position_embeddings
    for text in texts:
        ids = [0, *tokenizer.encode(text)]
        for begin in range(0, len(ids), context):
            window = torch.tensor([ids[begin : begin + context]], device=target.device)
            same += int((draft(window).logits.argmax(-1) == target(window).logits.argmax(-1)).sum())
            total += window.numel()
    return same / total


def samples(
    model: Transformer, tokenizer: Tokenizer, prompts: Iterable[str], max_tokens: int = 48
) -> list[str]:
    """Greedy continuations, prompt included."""
    return [tokenizer.decode(generate(model, tokenizer.encode(p), max_tokens)) for p in prompts]
