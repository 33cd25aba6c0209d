"""How good a model is: bits per byte on unseen code, and agreement between a draft and its target."""

from __future__ import annotations

import lzma
from collections.abc import Iterable

import torch

from lessonlib.engine import Tokenizer, Transformer, generate
from lessonlib.engine.perplexity import perplexity


def bits_per_byte(model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], stride: int = 512) -> float:
    """Average bits the model needs per byte of UTF-8; lower is better, 8 is no idea at all.

    Each text is read after the model's begin-of-text token in windows of the full context that move by ``stride``
    tokens, so that every token but the first few is predicted from at least context - stride others. Without such
    a token, a text's first one is given, and neither its bits nor its bytes count.
    """
    return perplexity(model, list(texts), tokenizer, stride).bits_per_byte


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
