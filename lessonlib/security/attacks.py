"""Teaching code: how the hidden size, and the output layer, of a model are read through its API.

Every row of logits is W h. However many prompts one asks, the rows of logits span only as many dimensions as h has
numbers, so the singular values of a matrix of logits fall off a cliff behind the hidden size; and the right singular
vectors before the cliff are W itself, up to one square matrix (Carlini et al. 2024, arXiv:2403.06634; Finlayson et
al. 2024, arXiv:2403.09539).

An API shows no logits, but k log-probabilities. Lift k tokens by the same large bias and these k are shown; one of
them, the reference, is in every query. The difference of two shown values is a difference of two logits, since the bias
and the normalization cancel: k - 1 new numbers a query, exact to float32. Differences to a reference also keep the
rank at the hidden size, where log-probabilities would add one.

``LogitSurfacePolicy`` is what ends this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lessonlib.engine import Transformer
from lessonlib.engine.config import is_whole
from lessonlib.engine.errors import BadParameter

from .logit_surface import LogitSurfacePolicy

PROMPT_LENGTH = 8  # random tokens: hidden states that have little in common, so the matrix has full rank
CLIFF = 10.0  # a fall by this factor between neighbours, to …
FLOOR = 1e-3  # … below this part of the largest singular value, is rounding and not the model
MARGIN = 8  # values that must lie behind the cliff: the last few of any square matrix are small


class QueryRefused(Exception):
    """The API did not answer."""


class Oracle(Protocol):
    """All that the attack knows of a model: the log-probabilities one answer shows."""

    def __call__(
        self, prompt: Sequence[int], logit_bias: Mapping[int, float], top_k: int
    ) -> Mapping[int, float]:
        """The chosen token and the ``top_k`` likeliest, as far as they are shown. Raises QueryRefused."""
        ...


class ModelOracle:
    """A model behind a policy, answering as an API would, one greedy token at a time. ``queries`` counts."""

    def __init__(self, model: Transformer, policy: LogitSurfacePolicy, user_id: str = "attacker"):
        self.model, self.policy, self.user_id = model, policy, user_id
        self.queries = 0
        # A server would run the model for every query; with this, the lesson takes seconds.
        self._logits: dict[tuple[int, ...], Tensor] = {}

    @torch.inference_mode()
    def __call__(
        self, prompt: Sequence[int], logit_bias: Mapping[int, float], top_k: int
    ) -> dict[int, float]:
        self.queries += 1
        if not (decision := self.policy.admit(self.user_id, logit_bias, top_k)):
            raise QueryRefused(decision.reason)
        key = tuple(prompt)
        if key not in self._logits:
            self._logits[key] = self.model(torch.tensor([key]), last_only=True).logits[0, 0]
        logits = self._logits[key]
        biased = logits.clone()
        for token, bias in logit_bias.items():
            biased[token] += bias
        choice = self.policy.report(int(biased.argmax()), logits, logit_bias, top_k)
        chosen = {} if choice.logprob is None else {choice.token: choice.logprob}
        return chosen | (choice.top or {})


@dataclass(frozen=True)
class Stolen:
    """What an attack learnt, and what it cost.

    hidden_size: None when there is no cliff, or no matrix; ``reason`` says which. gap: how far the singular values fall
    behind it, a factor. layer: (tokens, hidden_size) float64, the rows W[token] - W[reference] of the output layer up
    to one square matrix, for the ``tokens`` probed.
    """

    hidden_size: int | None
    queries: int
    reason: str = ""
    gap: float = 0.0
    singular_values: NDArray[np.float64] | None = None
    reference: int | None = None
    tokens: tuple[int, ...] = ()
    layer: NDArray[np.float64] | None = None


def attack_hidden_size(
    oracle: Oracle,
    vocab_size: int,
    *,
    top_k: int = 20,
    bias: float = 100.0,
    start: int = 64,
    limit: int = 1024,
    seed: int = 0,
) -> Stolen:
    """Count the dimensions of the logits, from what the oracle shows.

    top_k: log-probabilities the API returns at most, 2 or more. bias: as large as the API allows; it must exceed the
    range of the logits. The matrix (prompts x tokens) begins with ``start`` rows and columns and grows by half until
    the cliff is in it, or ``limit`` is reached: about size² / (top_k - 1) queries for the last size. Nothing is asked
    twice. Raises BadParameter.
    """
    for name, value, least in (("top_k", top_k, 2), ("start", start, 2), ("vocab_size", vocab_size, 3)):
        if not is_whole(value, least):
            raise BadParameter(
                f"{name}={value!r} is not enough for the attack; it must be {least} or more, and whole."
            )
    random = np.random.default_rng(seed)
    reference, *tokens = random.permutation(vocab_size).tolist()
    prompts: list[list[int]] = []
    logits = np.zeros((0, 0))
    size, queries = min(start, len(tokens)), 0
    while True:
        prompts += random.integers(vocab_size, size=(size - len(prompts), PROMPT_LENGTH)).tolist()
        rows, columns = logits.shape
        logits = np.pad(logits, ((0, size - rows), (0, size - columns)))
        for row, prompt in enumerate(prompts):
            for first in range(columns if row < rows else 0, size, top_k - 1):
                wanted = tokens[first : min(size, first + top_k - 1)]
                queries += 1
                try:
                    shown = oracle(prompt, dict.fromkeys([reference, *wanted], bias), top_k)
                except QueryRefused as refusal:
                    return Stolen(None, queries, str(refusal))
                if not shown.keys() >= {reference, *wanted}:
                    return Stolen(None, queries, "The answers do not show the tokens that were biased.")
                logits[row, first : first + len(wanted)] = [shown[t] - shown[reference] for t in wanted]
        found = _decompose(logits)
        if found.hidden_size is not None or size >= min(limit, len(tokens)):
            break
        size = min(size + size // 2, limit, len(tokens))
    return replace(found, queries=queries, reference=reference, tokens=tuple(tokens[:size]))


def attack_shown_values(
    oracle: Oracle, vocab_size: int, *, top_k: int = 20, prompts: int = 800, size: int = 400, seed: int = 0
) -> Stolen:
    """The same count from answers without any bias: all that a policy that reports before the bias leaves to see.

    From ``prompts`` answers, the matrix of the ``size`` tokens shown most often. What an answer does not show of them
    is filled in with the smallest value it does show, which it cannot exceed.
    """
    random = np.random.default_rng(seed)
    answers: list[Mapping[int, float]] = []
    try:
        for prompt in random.integers(vocab_size, size=(prompts, PROMPT_LENGTH)).tolist():
            answers.append(oracle(prompt, {}, top_k))
    except QueryRefused as refusal:
        return Stolen(None, len(answers) + 1, str(refusal))
    counts = Counter(token for answer in answers for token in answer)
    if len(counts) < 3:
        return Stolen(None, len(answers), "The answers show no log-probabilities to compare.")
    reference, *tokens = [token for token, _ in counts.most_common(size + 1)]
    rows = [
        [answer.get(token, min(answer.values(), default=0.0)) for token in (reference, *tokens)]
        for answer in answers
    ]
    logprobs = np.array(rows)
    found = _decompose(logprobs[:, 1:] - logprobs[:, :1])
    return replace(found, queries=len(answers), reference=reference, tokens=tuple(tokens))


def _decompose(logits: NDArray[np.float64]) -> Stolen:
    """The cliff in the singular values of differences of logits (prompts, tokens), and the layer before it."""
    _, values, right = np.linalg.svd(logits, full_matrices=False)
    falls = values[:-1] / np.maximum(values[1:], np.finfo(float).tiny)
    falls = np.where(values[1:] < FLOOR * values[0], falls, 0.0)[: max(0, len(values) - MARGIN)]
    gap = float(falls.max(initial=0.0))
    if gap < CLIFF:
        return Stolen(None, 0, "The singular values have no cliff.", gap, values)
    size = int(falls.argmax()) + 1
    return Stolen(size, 0, "", gap, values, layer=right[:size].T * values[:size])
