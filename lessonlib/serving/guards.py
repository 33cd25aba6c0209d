"""What of ``lessonlib.security`` is switched on, and how each guard says no over HTTP.

``security`` decides; this module only asks it, in the right order and with the right name: that of the API key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING

from lessonlib.engine import SamplingParams
from lessonlib.security.admission import AdmissionLimits, TenantSlots
from lessonlib.security.extraction import ExtractionDetector
from lessonlib.security.logit_surface import LogitSurfacePolicy
from lessonlib.security.output_filter import OutputFilter
from lessonlib.security.tenants import TenantSalt
from lessonlib.security.validator import InputValidator, Verdict

from .errors import ApiError

if TYPE_CHECKING:
    from lessonlib.security.rate_limiter import Limiter

    from .wire import Exchange

COOL_DOWN = 60.0  # seconds that a suspect waits; then one more answer is judged
log = logging.getLogger(__name__)


@dataclass
class Guards:
    """The guards of one server; None: off.

    limits: what a request may bring and cost. limiter: requests and tokens a minute. salts: of the prefix cache, one a
    caller; None: all share it. validator: of what clients say, in its mode. output: the filter of answers. surface: of
    log-probabilities. detector: of who copies the model; it only speaks of it, unless ``detector_blocks``. clock: in
    seconds, for the time that a suspect waits.
    """

    limits: AdmissionLimits = field(default_factory=AdmissionLimits)
    limiter: Limiter | None = None
    salts: TenantSalt | None = field(default_factory=TenantSalt)
    validator: InputValidator | None = None
    output: OutputFilter | None = None
    surface: LogitSurfacePolicy = field(default_factory=LogitSurfacePolicy)
    detector: ExtractionDetector | None = None
    detector_blocks: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        most = self.limits.tenant_requests
        self._slots = None if most is None else TenantSlots(most)
        self._suspects: dict[
            str, tuple[float, str]
        ] = {}  # until when, and why; no more than there are API keys

    @classmethod
    def off(cls, queue: int = AdmissionLimits.queue) -> Guards:
        """The bare server, to be attacked: only what keeps the machine itself alive. queue: sequences that wait."""
        limits = AdmissionLimits(kv_percent=None, deadline=None, queue=queue)
        return cls(limits, salts=None, surface=LogitSurfacePolicy.off())

    def slot(self, caller: str) -> AbstractContextManager:
        """A place among the requests that one caller may have under way. Raises Refused."""
        return nullcontext() if self._slots is None else self._slots.acquire(caller)

    def reserve(self, caller: str, tokens: int) -> Callable[[int], None]:
        """Count the most that a request can use; returns what to call (again does no harm) with what it did use.

        May wait for another machine. Raises ApiError.
        """
        if self.limiter is None:
            return lambda used: None
        try:
            held = self.limiter.reserve(caller, tokens)
        except RuntimeError as error:  # LimiterUnavailable, which only those who have redis can import
            log.error("%s", error)
            raise ApiError("unavailable", "This server cannot count requests now; ask again later.") from None
        if not held:
            assert held.reason is not None
            if held.retry_after is None:  # never: no client should try again, as they do after a 429
                message = f"{held.message.removesuffix('.')} (a smaller max_tokens, or a shorter prompt)."
                raise ApiError("invalid", message, "max_tokens", reason=held.reason.value)
            raise ApiError("rate_limit", held.message, retry_after=held.retry_after, reason=held.reason.value)
        return partial(self.limiter.settle, held)

    def judge(self, texts: Sequence[Sequence[str]]) -> Verdict | None:
        """The worst verdict on what a client said; takes milliseconds. Raises ApiError in the mode "block"."""
        if self.validator is None:
            return None
        verdicts = [self.validator.analyze(text) for each in texts for text in each]
        worst = max(verdicts, key=lambda verdict: verdict.score, default=None)
        if worst is None or worst.action != "block":
            return worst
        places = ", ".join(f"{match.start} to {match.end}" for match in worst.matches[:3])
        raise ApiError(
            "invalid",
            f"The input was taken for an attempt to take over the model: {worst.reason[0].lower()}"
            f"{worst.reason[1:].rstrip('.')}{f' (characters {places})' if places else ''}; word it differently.",
            reason="validator",
        )

    def admit_logprobs(self, caller: str, params: SamplingParams) -> None:
        """Raises ApiError when a caller has biased too many tokens whose log-probabilities are shown.

        And where there is a system prompt to keep, for a repetition penalty that would copy it (below 1), or tell which
        tokens are in it (together with a bias).
        """
        penalty = params.repetition_penalty
        if self.output is not None and self.output.keeps_prompt:
            if penalty < 1:
                said = (
                    "A repetition penalty below 1 would copy the server's system prompt; ask for 1 or more."
                )
                raise ApiError("invalid", said, "repetition_penalty", reason="copying")
            if penalty > 1 and params.logit_bias:
                said = "A logit_bias beside a repetition penalty would tell what the system prompt has; leave one out."
                raise ApiError("invalid", said, "logit_bias", reason="copying")
        if not (decision := self.surface.admit(caller, params.logit_bias, params.logprobs)):
            raise ApiError("invalid", decision.reason, "logit_bias", reason="logit_surface")

    def check_suspect(self, caller: str) -> None:
        """Raises ApiError for a caller who was found to copy the model a moment ago."""
        until, why = self._suspects.get(caller, (0.0, ""))
        if (left := until - self.clock()) > 0:
            raise ApiError("rate_limit", why, retry_after=left, reason="extraction")

    def watch(self, caller: str, prompt: str, *answers: str) -> str:
        """Take in what was asked once and all that was answered to it; why it is suspicious, or ""."""
        if self.detector is None:
            return ""
        why = self.detector.check(caller, prompt, *answers)["reason"]
        if why and self.detector_blocks:
            self._suspects[caller] = self.clock() + COOL_DOWN, why
        return why

    def salt(self, caller: str, exchange: Exchange | None = None) -> str:
        """Of the prefix cache, for this caller and this kind of prompt.

        Where the server has a system prompt, whoever writes the beginning of a prompt (as text, as token ids) could
        guess it block by block: the usage names the cached tokens. So prompts only meet those of the same class of
        Exchange, which begin alike. ``Exchange.prefix`` tells kinds within a class; None: meets nothing at all.
        """
        kind = ""
        if exchange is not None and exchange.model.system_prompt:
            prefix = getattr(exchange, "prefix", "")
            if prefix is None:
                return token_hex(16)
            kind = f"{type(exchange).__module__}.{type(exchange).__qualname__}.{prefix} "
        return kind if self.salts is None else self.salts.salt(kind + caller)
