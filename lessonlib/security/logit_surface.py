"""Which log-probabilities an answer may show, and to whom: the surface through which an output layer can be copied.

A model's logits are W h: a few hundred hidden numbers h, spread by the output layer W over thousands of tokens. Whoever
can read many *full* rows of logits therefore learns the hidden size, and W up to one small matrix (``attacks.py``).
Top-k answers hide full rows, unless a bias lifts any token into the top: then k rows more are read at every query.

Three lines; the first two end the attack each by itself:
- the tokens shown, and their values, come from the logits *before* the bias, so that a bias moves the answer but not
  what is reported of it. This goes for the chosen token too: forced by a bias, it would report any logit one likes;
- the bias of one user may touch fewer distinct tokens than the model has hidden numbers, while log-probabilities are
  returned: a matrix with so few columns has no rank to betray;
- at most ``top_k`` values, rounded. With k - 1 below the hidden size, each prompt brings more unknowns (its h) than
  equations, so unbiased answers do not add up to W, however many. Against a bias this does nothing: few values only
  cost the attacker more queries, and rounding is noise.

What it does not stop: reading logits by bisection, from nothing but which token wins under which bias (Carlini et al.;
dozens of queries a logit), and several users who pool their budgets. Both need volume (``ExtractionDetector``).

Sources: Carlini et al. 2024 (arXiv:2403.06634, attacks and mitigations); Finlayson et al. 2024 (arXiv:2403.09539).
"""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lessonlib.engine.config import is_whole
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.sampling import Choice, SamplingParams, report


@dataclass(frozen=True)
class Decision:
    """True when the request may run; else ``reason`` says, in one sentence, why not."""

    allowed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.allowed


class _Biased:
    """The distinct tokens one user biased of late, with the time of each one's last use: 16 bytes a token."""

    __slots__ = ("times", "tokens")

    def __init__(self) -> None:
        self.tokens, self.times = array("q"), array("d")

    def since(self, start: float) -> dict[int, float]:
        return {token: at for token, at in zip(self.tokens, self.times, strict=True) if at > start}

    def keep(self, used: Mapping[int, float]) -> None:
        self.tokens, self.times = array("q", used), array("d", used.values())


class LogitSurfacePolicy:
    """Decides what of the logits leaves the house.

    top_k: log-probabilities of one token's answer at most. decimals: to which they are rounded (None: not at all).
    before_bias: choose and value them before any logit bias. max_biased_tokens: distinct tokens that one user may bias
    within ``window`` seconds in requests that return log-probabilities (None: any number); keep it below the hidden
    size. max_users: users remembered, the least recently seen are forgotten; more than there are API keys.
    """

    def __init__(
        self,
        top_k: int = 20,
        decimals: int | None = 2,
        before_bias: bool = True,
        max_biased_tokens: int | None = 64,
        window: float = 86_400.0,
        max_users: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ):
        for name, value, least in (
            ("top_k", top_k, 0),
            ("decimals", decimals, 0),
            ("max_biased_tokens", max_biased_tokens, 0),
            ("max_users", max_users, 1),
        ):
            optional = name in ("decimals", "max_biased_tokens")
            if not (is_whole(value, least) or (optional and value is None)):
                raise BadParameter(f"{name}={value!r} has no meaning; it must be {least} or more, and whole.")
        if not window > 0:
            raise BadParameter(f"window={window!r} has no meaning; it must be a number of seconds above 0.")
        self.top_k, self.decimals, self.before_bias = top_k, decimals, before_bias
        self.max_biased_tokens, self.window, self.max_users = max_biased_tokens, window, max_users
        self._clock = clock
        self._users: OrderedDict[bytes, _Biased] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def off(cls, top_k: int = 20) -> LogitSurfacePolicy:
        """The surface of the APIs of 2023: values after the bias, in full precision, for anyone. For teaching."""
        return cls(top_k, decimals=None, before_bias=False, max_biased_tokens=None)

    def admit(self, user_id: str, logit_bias: Mapping[int, float] | None, logprobs: int | None) -> Decision:
        """May this request run? Its biased tokens count from now on if so, and not at all if not.

        user_id: from the API key, never from the body. logprobs: how many are asked for; None: none.
        """
        if not logit_bias or logprobs is None or self.max_biased_tokens is None:
            return Decision(True)
        user = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            now = self._clock()
            biased = self._users.setdefault(user, _Biased())
            self._users.move_to_end(user)
            used = biased.since(now - self.window) | dict.fromkeys(logit_bias, now)
            allowed = len(used) <= self.max_biased_tokens
            if allowed:
                biased.keep(used)
            while len(self._users) > self.max_users:
                self._users.popitem(last=False)
        if allowed:
            return Decision(True)
        return Decision(
            False,
            f"Requests with logprobs may bias {self.max_biased_tokens} distinct tokens in {self.window:g} seconds, and "
            "this one would exceed that; leave out logit_bias or logprobs.",
        )

    def report(
        self, token: int, logits: Tensor, logit_bias: Mapping[int, float] | None, wanted: int | None
    ) -> Choice:
        """What may be said of a token chosen from these logits (vocab,), which carry no bias yet.

        wanted: log-probabilities asked for; None: none. The chosen token has a value only if it is among the ``top_k``.
        """
        if wanted is None:
            return Choice(token)
        if logit_bias and not self.before_bias:
            logits = logits.clone()
            for biased, bias in logit_bias.items():
                logits[biased] += bias
        return self.limit(report(token, logits, SamplingParams(logprobs=self.top_k)), wanted)

    def limit(self, choice: Choice, wanted: int) -> Choice:
        """The same for what the engine has reported: its ``top_k`` likeliest raw log-probabilities, in any order.

        Run the engine with ``logprobs=policy.top_k``, however few the client wants. The chosen token may stand among
        them out of its rank, as in ``CompletionOutput.logprobs``: being the least likely, it falls off the end.
        """
        ranked = sorted((choice.top or {}).items(), key=lambda item: -item[1])[: self.top_k]
        top = {token: self._round(value) for token, value in ranked}
        chosen = top.get(choice.token)
        if chosen is None and not self.before_bias and choice.logprob is not None:
            chosen = self._round(choice.logprob)
        return Choice(choice.token, chosen, dict(list(top.items())[:wanted]))

    def _round(self, logprob: float) -> float:
        return logprob if self.decimals is None else round(logprob, self.decimals)
