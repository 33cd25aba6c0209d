"""Toy models for the checks: small enough to predict by hand, strict about what they are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class ToyModel(nn.Module):
    """A "language model" whose next token is (a * sum + b * length + c * last token) mod vocab of the text so
    far.

    Every token, the length and the end count: reading a padded position or losing a token shows at once.
    Called like a real model: ids (batch, length) int64 -> ``.logits`` (batch, length, vocab) float32.
    Position i sees only tokens 0..i. ``forward_calls`` and ``tokens`` count its work.
    """

    def __init__(self, context: int = 16, vocab: int = 10, rule: tuple[int, int, int] = (1, 1, 1)):
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=context, vocab_size=vocab)
        self.rule = rule
        self.forward_calls = 0
        self.tokens = 0
        self.nothing = nn.Parameter(torch.zeros(1))  # so that code which asks for a device finds one

    def forward(self, ids: Tensor, *_: Any, **__: Any) -> SimpleNamespace:
        vocab, context = self.config.vocab_size, self.config.max_position_embeddings
        if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype != torch.int64:
            got = (
                f"shape {tuple(ids.shape)}, {ids.dtype}"
                if isinstance(ids, Tensor)
                else f"a {type(ids).__name__}"
            )
            raise ValueError(
                f"The model takes token ids as a torch.int64 tensor (batch, length); it got {got}."
            )
        if ids.shape[1] == 0:
            raise ValueError("The model got no tokens at all: there is nothing to predict from.")
        if ids.shape[1] > context:
            raise ValueError(f"The model got {ids.shape[1]} tokens, but its context holds only {context}.")
        if ids.min() < 0 or ids.max() >= vocab:
            raise ValueError(f"The model knows only token ids 0 to {vocab - 1}.")
        self.forward_calls += 1
        self.tokens += ids.numel()
        a, b, c = self.rule
        following = (a * ids.cumsum(1) + b * torch.arange(1, ids.shape[1] + 1) + c * ids) % vocab
        distance = (torch.arange(vocab) - following[..., None]) % vocab
        return SimpleNamespace(logits=3.0 - distance.float())

    def __repr__(self) -> str:
        return f"ToyModel(context={self.config.max_position_embeddings})"
