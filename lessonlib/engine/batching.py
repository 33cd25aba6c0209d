"""Running many requests at once: the static batch, and the continuous one that refills itself at every step.

Both have the same face: ``add`` requests, call ``step`` until nothing is ``unfinished``; every step is one forward pass
for all the requests in it, and returns those that got a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .config import check_whole
from .generate import advance, run
from .model import Transformer
from .paged_cache import PagedCache, Span
from .prompts import check_prompt
from .sampling import Choice, choose, uniform
from .scheduler import Request, Scheduler, Slot

if TYPE_CHECKING:
    from .speculative import Speculator

OnToken = Callable[[Request], str | None]


class ContinuousBatcher:
    """One step: the scheduler says which tokens run, one forward pass runs them, each request takes its next token.

    Several Python threads may use it: one steps at a time, for the requests of all.
    """

    def __init__(
        self,
        model: Transformer,
        cache: PagedCache,
        scheduler: Scheduler,
        speculator: Speculator | None = None,
    ):
        self.model, self.cache, self.scheduler, self.speculator = model, cache, scheduler, speculator
        self._lock = threading.RLock()
        self._telling: Request | None = None  # who gets a token that on_token has not seen yet

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def unfinished(self) -> int:
        return self.scheduler.unfinished

    def add(self, request: Request) -> None:
        """Queue a request. Raises EmptyPrompt, PromptTooLong, TokenOutOfRange, CacheFull."""
        check_prompt(self.model, request.prompt, request.params)
        if self.speculator is not None:
            request.lookahead = self.speculator.lookahead
        with self._lock:
            self.scheduler.add(request)

    def abort(self, request: Request) -> None:
        """End a request; its blocks are free when this returns."""
        with self._lock:
            self.scheduler.abort(request)

    @torch.inference_mode()
    def step(self, on_token: OnToken | None = None) -> list[Request]:
        """One forward pass over everything that is to run now; returns the requests that got tokens, or ended.

        ``on_token`` sees a request after each new token and may end it by returning a reason. After an exception,
        Ctrl-C included, the requests can go on or be aborted: nothing is lost but the time to run their tokens again.
        """
        with self._lock:
            try:
                return self._step(on_token)
            except BaseException:
                self.scheduler.recover()
                raise

    def tell_again(self, on_token: OnToken | None) -> list[Request]:
        """After an exception in ``on_token``, tell it of the same request once more; returns whom that ends.

        A step begins so, since a token that comes behind a stop text is one too many.
        """
        with self._lock:
            request, self._telling = self._telling, None
            if request is None or on_token is None or request.finish_reason == "abort":
                return []
            running = request.finish_reason is None
            request.finish_reason = on_token(request) or request.finish_reason
            if request.finish_reason is None:
                return []
            self.scheduler.retire(request)
            return [request] if running else []

    def _step(self, on_token: OnToken | None) -> list[Request]:
        if ended := self.tell_again(on_token):
            return ended
        slots = self.scheduler.schedule()
        if not slots:
            return []
        self.cache.copy(self.scheduler.copies)
        drafts: list[list[int]] = [[] for _ in slots]
        if self.speculator is not None:
            drafts = self.speculator.propose(slots)
            slots = [
                slot._replace(count=slot.count - slot.drafts + len(guess), drafts=len(guess))
                for slot, guess in zip(slots, drafts, strict=True)
            ]
        logits = self._forward(slots, drafts)
        likeliest = logits.argmax(
            -1
        ).tolist()  # one call, and one wait for the device, for all who want no more
        served = []
        first = 0
        for slot, guess in zip(slots, drafts, strict=True):
            stood = 0
            if slot.reaches_end:
                last = first + len(guess) + 1
                with _own_luck(slot.request):
                    choices = self._choose(slot.request, guess, logits[first:last], likeliest[first:last])
                    stood = self._append(slot.request, choices, on_token)
                slot.request.drafted += len(guess)
                slot.request.accepted += min(stood, len(choices) - 1)  # the last choice is the target's own
                first = last
                if stood:
                    served.append(slot.request)
            # All that stood but the last are drafts, whose keys and values are right. The rejected ones do not count
            # as computed: what comes next overwrites them.
            self.scheduler.complete(slot, rejected=len(guess) - max(0, stood - 1))
            if slot.request.finish_reason is not None:
                self.scheduler.retire(slot.request)
        return served

    def _forward(self, slots: Sequence[Slot], drafts: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the tokens after which something is to be chosen, (those tokens, vocab)."""
        ids: list[int] = []
        at: list[int] = []
        for slot, guess in zip(slots, drafts, strict=True):
            ids += slot.request.span(slot.start, slot.start + slot.count - slot.drafts)
            ids += guess
            if slot.reaches_end:
                at += range(len(ids) - len(guess) - 1, len(ids))
        self.cache.plan([Span(slot.request.table, slot.start, slot.count) for slot in slots])
        device = getattr(self.model, "input_device", self.model.device)
        # Chunks of prompts ask for no logits at all; one is computed then, since not every kernel can do none.
        wanted = torch.tensor(at or [0], device=device)
        return self.model(torch.tensor([ids], device=device), cache=self.cache, at=wanted).logits[0]

    def _choose(
        self, request: Request, drafts: Sequence[int], logits: Tensor, likeliest: Sequence[int]
    ) -> list[Choice]:
        if drafts:
            assert self.speculator is not None
            return self.speculator.verify(request, drafts, logits, likeliest)
        if request.params.takes_likeliest:
            return [Choice(likeliest[0])]
        return [choose(logits[0], request.params, request.generator, request.prompt, request.output)]

    def _append(self, request: Request, choices: Sequence[Choice], on_token: OnToken | None) -> int:
        """Give a request its tokens; returns how many it took: what was drafted behind its end is void."""
        config = self.model.config
        if request.finish_reason is not None:  # aborted by the on_token of another one
            return 0
        for taken, choice in enumerate(choices, start=1):
            self._telling = request
            advance(request, choice, config.eos_token_ids, config.max_position_embeddings)
            if on_token is not None:
                request.finish_reason = on_token(request) or request.finish_reason
            self._telling = None
            if request.finish_reason is not None:
                return taken
        return len(choices)


@contextmanager
def _own_luck(request: Request) -> Iterator[None]:
    """If something goes wrong half way, the request's random numbers are those of the tokens that it did get.

    With a seed, each token takes exactly one, whether it was drafted or not.
    """
    generator, had = request.generator, len(request.output)
    if generator is None or request.params.seed is None or request.params.greedy:
        yield
        return
    state = generator.get_state()
    try:
        yield
    except BaseException:
        generator.set_state(state)
        for _ in request.output[had:]:
            uniform(generator)
        raise


class StaticBatcher:
    """The batch as it came: up to ``batch_size`` requests start together, and the next ones wait for the slowest.

    Short prompts are padded to the longest, finished requests stay in as idle rows.
    """

    def __init__(self, model: Transformer, batch_size: int = 8):
        check_whole(batch_size=batch_size)
        self.model, self.batch_size = model, batch_size
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._steps: Iterator[list[Request]] | None = None
        self._on_token: OnToken | None = None

    @property
    def unfinished(self) -> int:
        return len(self.waiting) + sum(request.finish_reason is None for request in self.running)

    def add(self, request: Request) -> None:
        """Queue a request. Raises EmptyPrompt, PromptTooLong, TokenOutOfRange."""
        check_prompt(self.model, request.prompt, request.params)
        self.waiting.append(request)

    def abort(self, request: Request) -> None:
        """End a request. Its row is of no use to others until the whole batch is done."""
        if request.finish_reason is None:
            request.finish_reason = "abort"
        if request in self.waiting:
            self.waiting.remove(request)

    def step(self, on_token: OnToken | None = None) -> list[Request]:
        """One forward pass over the whole batch; returns the requests that got a token.

        After an exception, Ctrl-C included, the next step runs the batch again from what it has.
        """
        self._on_token = on_token
        if not any(request.finish_reason is None for request in self.running):
            self.running, self.waiting = self.waiting[: self.batch_size], self.waiting[self.batch_size :]
            self._steps = None
        if self._steps is None:
            rows = [request for request in self.running if request.finish_reason is None]
            self._steps = run(self.model, rows, on_token=self._tell)
        try:
            return next(self._steps, [])
        except BaseException:
            self._steps = None
            raise

    def _tell(self, request: Request) -> str | None:
        return None if self._on_token is None else self._on_token(request)
