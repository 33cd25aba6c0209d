"""A prefix cache that tenants share tells them of each other; a salt for each tenant, and how to measure the leak.

A prompt whose beginning is in the KV cache is answered sooner. So whoever guesses a prompt, and times one answer,
learns whether somebody asked it before (Song et al. 2024, arXiv:2409.20002; Gu et al. 2025, arXiv:2502.07776). The
engine names a block by all that stands before it and by a *salt*: with a salt for each tenant, the names of two tenants
never meet, and each still finds its own.

What a salt does not hide: that others are at work at all (queues, blocks evicted), and anything between two users of
one tenant; where that matters, let the tenant be the user.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lessonlib.engine.config import is_whole
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.llm import LLM, RequestOutput
from lessonlib.engine.sampling import SamplingParams

SECRET_BYTES = 32


class TenantSalt:
    """Salts for ``Request.salt`` and ``LLM.generate(cache_salt=…)``: one a tenant, and nobody else can work it out.

    secret: 16 bytes or more; processes that share a cache need the same one. None: a random one. period: seconds after
    which all salts change by themselves, so that nothing is found for longer than that (None: never).

    A salt is HMAC-SHA256(secret, period number and tenant) in hexadecimal: the tenant's name is not in it. It is only
    compared within the engine, and belongs in no answer and no log.
    """

    def __init__(
        self,
        secret: bytes | None = None,
        period: float | None = 86_400.0,
        clock: Callable[[], float] = time.time,
    ):
        if period is not None and not period > 0:
            raise BadParameter(f"period={period!r} has no meaning; it must be seconds above 0, or None.")
        self.period, self._clock = period, clock
        self.rotate(secret)

    def rotate(self, secret: bytes | None = None) -> None:
        """Change every salt, now: after a leak, or when a tenant asks to be forgotten. None: a new random secret."""
        if secret is None:
            secret = secrets.token_bytes(SECRET_BYTES)
        if not isinstance(secret, bytes) or len(secret) < 16:
            raise BadParameter(
                "The secret of a TenantSalt must be 16 bytes or more; leave it out to have one made."
            )
        self._secret = secret

    def salt(self, tenant: str) -> str:
        """The tenant's salt at this moment. Raises BadParameter for no tenant: strangers must not share one salt."""
        if not isinstance(tenant, str) or not tenant:
            raise BadParameter(
                f"tenant={tenant!r} names nobody; give the tenant that the API key belongs to."
            )
        epoch = 0 if self.period is None else int(self._clock() // self.period)
        message = epoch.to_bytes(8, "big", signed=True) + tenant.encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, message, "sha256").hex()


def tokens(output: RequestOutput) -> float:
    """What the audit sees without any noise: prompt tokens that had to be computed."""
    return output.metrics.tokens_computed


def seconds(output: RequestOutput) -> float:
    """What an attacker sees: the time to the first token."""
    return output.metrics.time_to_first_token


@dataclass(frozen=True)
class TimingAudit:
    """What one probe tells: measurements of probes for prompts the victim had asked (hits) and had not (misses).

    auc: the chance that a hit looks faster than a miss, ties half: 1 tells all, 0.5 nothing. error: its standard error
    where there is nothing to tell. reused: tokens the *victim* finds of its own prompt, asked again: what caching is
    for must survive. In the unit of ``observe``.
    """

    auc: float
    error: float
    hits: tuple[float, ...]
    misses: tuple[float, ...]
    reused: int


def timing_audit(
    llm: LLM,
    salts: TenantSalt | None = None,
    *,
    blocks: int = 15,
    trials: int = 100,
    observe: Callable[[RequestOutput], float] = tokens,
) -> TimingAudit:
    """Play an attacker who has one probe: did the other tenant ask this prompt?

    In each of ``trials`` trials the victim asks a prompt of ``blocks`` full KV blocks and one token, and the attacker,
    another tenant, asks the same one (a hit) and another one (a miss), in random order. Prompts are random tokens, new
    in every trial and every audit (hence no seed): a probe leaves traces too, so each prompt can be probed once.

    salts: None shares the cache among all. observe: ``tokens`` (no noise, for tests) or ``seconds``, or any reading of
    the probe's output.
    """
    for name, value in (("blocks", blocks), ("trials", trials)):
        if not is_whole(value, 1):
            raise BadParameter(f"{name}={value!r} has no meaning; it must be 1 or more, and whole.")
    random = np.random.default_rng()
    length = blocks * llm.batcher.scheduler.pool.block_size + 1
    params = SamplingParams(temperature=0, max_tokens=1)

    def ask(tenant: str, prompt: Sequence[int]) -> RequestOutput:
        return llm.generate([prompt], params, cache_salt="" if salts is None else salts.salt(tenant))[0]

    seen: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(trials):
        asked, other = random.integers(llm.model.config.vocab_size, size=(2, length)).tolist()
        ask("victim", asked)
        for hit in random.permutation([True, False]).tolist():
            seen[hit].append(observe(ask("attacker", asked if hit else other)))
    return TimingAudit(
        auc(seen[True], seen[False]),
        ((2 * trials + 1) / (12 * trials * trials)) ** 0.5,
        tuple(seen[True]),
        tuple(seen[False]),
        ask("victim", asked).metrics.tokens_cached,
    )


def auc(hits: Sequence[float], misses: Sequence[float]) -> float:
    """The chance that a hit, drawn at random, is smaller than a miss; a tie counts half (Mann-Whitney U / n m)."""
    pairs = np.asarray(hits)[:, None] - np.asarray(misses)[None, :]
    return float((pairs < 0).mean() + (pairs == 0).mean() / 2)
