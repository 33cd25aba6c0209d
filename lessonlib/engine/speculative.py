"""Speculative decoding: somebody cheap guesses the next tokens, and one pass of the target model judges them all.

Decoding waits for weights, not for arithmetic, so a pass over the last token and k guesses costs little more than one
over the last token alone, and brings between 1 and k + 1 tokens. How much more depends on the kernels: for four guesses
some percent in bfloat16, a third with PyTorch's int4 kernel on a CPU, where speculation can lose. Which guesses stand
is decided so that the output follows the target's own distribution exactly: bad guesses cost time, never quality.

Sources: ``acceptance.py`` has the rules and where they are from; Saxena 2023 (prompt lookup decoding: the n-grams).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .acceptance import Costs, Pace, accept, agree
from .config import is_whole
from .errors import BadParameter, TokenizerMismatch
from .model import Transformer
from .paged_cache import PagedCache, Span
from .sampling import Choice, distribution, draw, penalize, report
from .scheduler import Request, Slot


class Speculator:
    """How many drafts each request gets, and which of them stand. Where they come from is for the subclasses to say.

    k: drafts at a time, at most. costs: draft only as many as pay, request by request; None: always k.
    """

    RETRY = 16  # steps after which a request whose drafts did not pay may try again

    def __init__(self, k: int, costs: Costs | None):
        if not is_whole(k, least=1):
            raise BadParameter(f"{k!r} drafts at a time make no sense; give a whole number from 1 on.")
        self.k, self.costs = k, costs
        self.lookahead = k if costs is None else self._wanted(Pace())
        self._paces: WeakKeyDictionary[Request, Pace] = WeakKeyDictionary()
        self._q: WeakKeyDictionary[Request, Tensor] = WeakKeyDictionary()  # of the drafts under way

    def propose(self, slots: Sequence[Slot]) -> list[list[int]]:
        """Drafts for each slot, ``slot.drafts`` at most."""
        for request in (slot.request for slot in slots if slot.reaches_end and not slot.request.lookahead):
            pace = self._paces.setdefault(request, Pace())
            pace.rested += 1
            if pace.rested == self.RETRY:
                self._paces[request] = Pace(judged=1.0, accepted=0.5)  # with less hope than the first time
                request.lookahead = self._wanted(self._paces[request])
        return self._guess(slots)

    def _wanted(self, pace: Pace) -> int:
        """How many drafts to try, one at least."""
        return 1 if self.costs is None else max(1, self.costs.best_k(pace.acceptance, self.k))

    def _guess(self, slots: Sequence[Slot]) -> list[list[int]]:
        raise NotImplementedError

    def verify(
        self, request: Request, drafts: Sequence[int], logits: Tensor, likeliest: Sequence[int]
    ) -> list[Choice]:
        """The tokens that stand: accepted drafts, then one of the target's own.

        logits: the target's, (len(drafts) + 1, vocab). likeliest: the argmax of each row.
        """
        params, shaped = request.params, logits
        if params.penalized:  # each draft is part of the past by which the next one is judged
            pasts = [[*request.output, *drafts[:i]] for i in range(len(drafts) + 1)]
            rows = zip(logits, pasts, strict=True)
            shaped = torch.stack([penalize(row, params, request.prompt, past) for row, past in rows])
            likeliest = shaped.argmax(-1).tolist()
        q = self._q.pop(request, None)
        if params.greedy:
            tokens = agree(drafts, likeliest)
        else:
            tokens = accept(drafts, q, distribution(shaped, params), request.generator)
        if self.costs is not None:
            pace = self._paces.setdefault(request, Pace())
            pace.observe(len(tokens) - 1, len(drafts))
            request.lookahead = self.costs.best_k(pace.acceptance, self.k)
        return [report(token, row, params) for token, row in zip(tokens, logits, strict=False)]


class NgramSpeculator(Speculator):
    """Guesses for nothing: what came next the last time that the text read as it does now.

    max_n, min_n: how many of the latest tokens have to be found again; the more are, the better the guess.
    """

    def __init__(self, k: int = 4, costs: Costs | None = None, max_n: int = 4, min_n: int = 1):
        super().__init__(k, costs)
        if not (is_whole(min_n, least=1) and is_whole(max_n, least=min_n)):
            raise BadParameter(
                f"min_n={min_n!r} and max_n={max_n!r} make no range; give whole numbers from 1 on."
            )
        self.max_n, self.min_n = max_n, min_n
        self._indexes: WeakKeyDictionary[Request, NgramIndex] = WeakKeyDictionary()

    def _guess(self, slots: Sequence[Slot]) -> list[list[int]]:
        drafts: list[list[int]] = [[] for _ in slots]
        for (request, _, _, room), guess in zip(slots, drafts, strict=True):
            if room:
                if (index := self._indexes.get(request)) is None:
                    index = self._indexes[request] = NgramIndex(self.max_n, self.min_n)
                index.extend(request.span(len(index.tokens), request.known))
                guess += index.continuation(room)
        return drafts


class NgramIndex:
    """Where each run of ``min_n`` to ``max_n`` tokens was last seen with something behind it. Grows with its text."""

    def __init__(self, max_n: int, min_n: int):
        self.max_n, self.min_n = max_n, min_n
        self.tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """Take in more text. The runs that ended where it begins now have something behind them."""
        for token in tokens:
            end = len(self.tokens)
            for n in range(self.min_n, min(self.max_n, end) + 1):
                self._behind[tuple(self.tokens[end - n :])] = end
            self.tokens.append(token)

    def continuation(self, count: int) -> list[int]:
        """What came next where the longest end of the text was seen before; nothing if no end was."""
        size = len(self.tokens)
        for n in range(min(self.max_n, size), self.min_n - 1, -1):
            place = self._behind.get(tuple(self.tokens[-n:]))
            if place is not None:
                found = self.tokens[place : place + count]
                # Reaching the end of the text, it goes round: what repeats itself is expected to go on so.
                return list(itertools.islice(itertools.cycle(found), count))
        return []


# What runs through the draft model: a request, a position in it, and the tokens from there on.
_Part = tuple[Request, int, list[int]]


@dataclass
class _Draft:
    """Tokens under way for one request, and q of each one that was drawn from it."""

    request: Request
    room: int
    generator: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    q: list[Tensor] = field(default_factory=list)


class DraftModelSpeculator(Speculator):
    """Guesses of a smaller model with the same vocabulary, one pass a token for all requests together.

    It uses the target's block tables with a cache of its own that has as many blocks, so that a request which gets,
    shares or loses blocks does so in both. num_blocks, block_size: those of the target's cache.

    A request with a seed of its own gets the very tokens that it gets without drafts, whatever else is in the batch:
    its drafts are drawn with the random numbers that the target will use. They agree less often than rejection sampling
    would accept, and that is the price of the promise. It holds as far as SamplingParams's seed does: not where a
    quantized KV cache turns rounding into other codes.

    Raises TokenizerMismatch, BadParameter.
    """

    def __init__(
        self,
        draft: Transformer,
        target: Transformer,
        num_blocks: int,
        block_size: int = 16,
        k: int = 4,
        costs: Costs | None = None,
    ):
        super().__init__(k, costs)
        self.model, config = draft, draft.config
        if config.vocab_size != target.config.vocab_size:
            raise TokenizerMismatch(
                f"The draft model knows {config.vocab_size} tokens and its target {target.config.vocab_size}; "
                "choose a draft model with the target's tokenizer."
            )
        self.context = config.max_position_embeddings
        self.cache = PagedCache(config, num_blocks, block_size, draft.dtype, draft.device)
        self._held: dict[int, bytes] = {}  # the names of the full blocks that are in this cache too

    @torch.inference_mode()
    def _guess(self, slots: Sequence[Slot]) -> list[list[int]]:
        drafts = [self._begin(slot.request, slot.drafts) for slot in slots]
        growing = [draft for draft in drafts if draft.room > 0]
        parts = self._catch_up([draft.request for draft in growing])
        while growing:
            logits = self._run(parts)
            for draft, row, likeliest in zip(growing, logits, logits.argmax(-1).tolist(), strict=True):
                draft.tokens.append(self._next(draft, row, likeliest))
            growing = [draft for draft in growing if len(draft.tokens) < draft.room]
            parts = [(d.request, d.request.known + len(d.tokens) - 1, d.tokens[-1:]) for d in growing]
        self._q = WeakKeyDictionary({draft.request: torch.stack(draft.q) for draft in drafts if draft.q})
        return [draft.tokens for draft in drafts]

    def _begin(self, request: Request, room: int) -> _Draft:
        generator = request.generator
        if generator is not None and request.params.seed is not None:
            generator = generator.clone_state()
        return _Draft(request, min(room, self.context - request.known + 1), generator)

    def _catch_up(self, requests: Sequence[Request]) -> list[_Part]:
        """The latest known tokens of each request: the part that its first draft comes out of.

        Whoever is further behind (a new prompt, a rest, a preemption) has the older ones run at once, in passes of at
        most one context.
        """
        for request in requests:
            self._resume(request)
        while behind := [request for request in requests if request.known - request.draft_computed > 2]:
            parts, budget = [], self.context
            for request in behind:
                start, stop = request.draft_computed, min(request.known - 1, request.draft_computed + budget)
                if start < stop:
                    parts.append((request, start, request.span(start, stop)))
                    budget -= stop - start
            self._run(parts)
            for request, start, tokens in parts:
                request.draft_computed = start + len(tokens)
        return [(r, r.draft_computed, r.span(r.draft_computed, r.known)) for r in requests]

    def _resume(self, request: Request) -> None:
        """Go on behind what is computed: for this request or, when it begins, for another one that began alike."""
        table, names, size = request.table, request.names, self.cache.block_size
        start = request.draft_computed
        if start == 0:
            usable = names[: (request.known - 1) // size]  # the last known token has to run in any case
            alike = itertools.takewhile(
                lambda pair: self._held.get(pair[0]) == pair[1], zip(table, usable, strict=False)
            )
            start = sum(size for _ in alike)
        for i in range(max(0, start - self.k) // size, len(table)):
            if i < len(names):
                self._held[table[i]] = names[i]
            else:
                self._held.pop(table[i], None)
        request.draft_computed = start

    def _run(self, parts: Sequence[_Part]) -> Tensor:
        """Logits (parts, vocab) behind the last token of each part."""
        ids = [token for _, _, tokens in parts for token in tokens]
        ends = itertools.accumulate(len(tokens) for _, _, tokens in parts)
        self.cache.plan([Span(request.table, start, len(tokens)) for request, start, tokens in parts])
        flat = torch.tensor([ids], device=self.model.device)
        last = torch.tensor([end - 1 for end in ends], device=self.model.device)
        return self.model(flat, cache=self.cache, at=last).logits[0]

    def _next(self, draft: _Draft, logits: Tensor, likeliest: int) -> int:
        request, params = draft.request, draft.request.params
        if params.penalized:
            logits = penalize(logits, params, request.prompt, [*request.output, *draft.tokens])
        if params.greedy:
            return int(logits.argmax()) if params.penalized else likeliest
        q = distribution(logits, params)
        if draft.generator is request.generator:
            draft.q.append(q)
        return draw(q, draft.generator)

    def verify(
        self, request: Request, drafts: Sequence[int], logits: Tensor, likeliest: Sequence[int]
    ) -> list[Choice]:
        choices = super().verify(request, drafts, logits, likeliest)
        # To rewind a cache, it is enough to count less. (The last draft has not run here at all.)
        request.draft_computed = request.known + min(len(choices), len(drafts)) - 1
        return choices
