"""From logits to a token: SamplingParams says how, ``distribution`` shapes, ``draw`` picks.

Order of operations (that of transformers, tested against it): penalties, biases, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .config import is_whole
from .errors import BadParameter

PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
LARGE = 1e6  # of a penalty or bias: beyond any logit, and safe to compute with


@dataclass(frozen=True)
class SamplingParams:
    """How one request wants its tokens. Same names and meaning as vLLM's class.

    temperature: 0 is greedy; 1 the model's own distribution. top_k: keep the k likeliest (0: all).
    top_p: keep the smallest set of likeliest tokens that reaches this probability (Holtzman et al. 2020).
    min_p: keep tokens at least this fraction as likely as the likeliest. max_tokens: new tokens at most.
    stop: texts that end the output (not part of it). seed: same seed, same tokens, whatever else is in the batch (in
    float32, or compiled; other kernels round differently when more rows run together, and so does a quantized KV cache,
    whose codes turn on the last digit). n: how many outputs for this prompt. logprobs: report this many top
    log-probabilities (of the raw logits). repetition_penalty (CTRL): divides positive logits of seen tokens, multiplies
    negative ones; presence and frequency penalty (OpenAI): subtract once, or once for each occurrence, for tokens of
    the *output*. logit_bias: added to the logits of these token ids, after the penalties.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 16
    stop: Sequence[str] = field(default=())
    stop_token_ids: Sequence[int] = field(default=())
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _as_tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", _as_tuple(self.stop_token_ids))
        bias = {} if self.logit_bias is None else self.logit_bias
        object.__setattr__(self, "logit_bias", dict(bias) if isinstance(bias, Mapping) else bias)
        for name in ("temperature", "top_p", "min_p", *PENALTIES):
            if _real(value := getattr(self, name)):
                object.__setattr__(self, name, float(value))
        rules = [
            ("temperature", _real(self.temperature, 0), "0 (greedy) or more"),
            ("top_p", _real(self.top_p, 0, 1) and self.top_p > 0, "above 0 and at most 1"),
            ("top_k", is_whole(self.top_k, 0), "0 (off) or more, and whole"),
            ("min_p", _real(self.min_p, 0, 1), "between 0 and 1"),
            ("max_tokens", is_whole(self.max_tokens, 1), "1 or more, and whole"),
            ("n", is_whole(self.n, 1), "1 or more, and whole"),
            ("seed", self.seed is None or is_whole(self.seed), "None or a whole number"),
            (
                "logprobs",
                self.logprobs is None or is_whole(self.logprobs, 0),
                "None, or 0 or more, and whole",
            ),
            (
                "repetition_penalty",
                _real(self.repetition_penalty, 1 / LARGE, LARGE),
                "above 0, and below a million",
            ),
            ("presence_penalty", _real(self.presence_penalty, -LARGE, LARGE), "a number below a million"),
            ("frequency_penalty", _real(self.frequency_penalty, -LARGE, LARGE), "a number below a million"),
            ("stop", all(isinstance(s, str) and s for s in self.stop), "made of non-empty texts"),
            ("stop_token_ids", all(map(is_whole, self.stop_token_ids)), "made of whole numbers"),
            (
                "logit_bias",
                isinstance(bias, Mapping)
                and all(is_whole(t) and _real(bias[t], -LARGE, LARGE) for t in bias),
                "a number for each of some token ids",
            ),
        ]
        for name, holds, must in rules:
            if not holds:
                value = reprlib.repr(getattr(self, name))
                raise BadParameter(f"{name}={value} has no meaning; it must be {must}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def takes_likeliest(self) -> bool:
        """Is the next token simply the likeliest of the raw logits, with nothing else to report?"""
        return self.greedy and not self.penalized and self.logprobs is None

    @property
    def penalized(self) -> bool:
        """Are there penalties or biases?"""
        penalties = self.repetition_penalty - 1, self.presence_penalty, self.frequency_penalty
        return any(penalties) or bool(self.logit_bias)


def _real(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:  # whole, and larger than any float
        return False
    return math.isfinite(number) and low <= number <= high


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """One thing, several, or None -> a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


GREEDY = SamplingParams(temperature=0.0)


def penalize(logits: Tensor, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Logits (vocab,) made less fond of tokens already seen, and biased as asked; a new tensor."""
    logits = logits.clone()
    if params.repetition_penalty != 1 and (seen := sorted({*prompt, *output})):
        score = logits[seen]
        logits[seen] = torch.where(
            score > 0, score / params.repetition_penalty, score * params.repetition_penalty
        )
    if output:
        counts = torch.bincount(torch.tensor(output, device=logits.device), minlength=len(logits))
        logits -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    if params.logit_bias:
        tokens, biases = list(params.logit_bias), list(params.logit_bias.values())
        logits[tokens] += torch.tensor(biases, dtype=logits.dtype, device=logits.device)
    return logits


def distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities (…, vocab) from which the next token is drawn, given logits (…, vocab).

    Greedy is a distribution too: all of it on the first of the largest logits.
    """
    if params.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # Shifting by the largest first keeps a tiny temperature from overflowing to inf - inf; one too tiny for
    # float32 would be 0 and give 0 / 0.
    temperature = max(params.temperature, torch.finfo(torch.float32).tiny)
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if 0 < params.top_k < logits.shape[-1]:
        kth = logits.topk(params.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if params.top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        p = ranked.softmax(-1)
        surplus = p.cumsum(-1) - p >= params.top_p  # reached before this token: it is not needed
        surplus[..., 0] = False  # rounding may say so of the likeliest one
        logits = logits.masked_fill(torch.zeros_like(surplus).scatter(-1, order, surplus), -torch.inf)
    if params.min_p > 0:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < params.min_p * p.amax(-1, keepdim=True), -torch.inf)
    return logits.softmax(-1)


def uniform(generator: torch.Generator | None = None) -> float:
    """One random number, from 0 to before 1."""
    place = "cpu" if generator is None else generator.device  # whatever torch's default device may be
    return torch.rand((), dtype=torch.float64, generator=generator, device=place).item()


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> int:
    """One token id from probabilities (vocab,), by inverting their cumulative sum at one uniform number.

    One number a token: the result depends on the generator and these probabilities, not on the batch.
    """
    cumulative = probabilities.double().cumsum(-1)
    u = uniform(generator) * cumulative[-1].item()
    return min(int(torch.searchsorted(cumulative, u, right=True)), len(cumulative) - 1)


@dataclass(frozen=True)
class Choice:
    """A chosen token with its log-probability under the raw logits, and the top alternatives asked for."""

    token: int
    logprob: float | None = None
    top: dict[int, float] | None = None


def report(token: int, logits: Tensor, params: SamplingParams) -> Choice:
    """A token chosen from these raw logits (vocab,), with the log-probabilities that were asked for."""
    if params.logprobs is None:
        return Choice(token)
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(min(params.logprobs, len(logprobs)))
    return Choice(token, float(logprobs[token]), dict(zip(ids.tolist(), values.tolist(), strict=True)))


def choose(
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator | None,
    prompt: Sequence[int],
    output: Sequence[int],
) -> Choice:
    """The next token of one sequence from its raw logits (vocab,)."""
    shaped = penalize(logits, params, prompt, output) if params.penalized else logits
    token = int(shaped.argmax()) if params.greedy else draw(distribution(shaped, params), generator)
    return report(token, logits, params)
