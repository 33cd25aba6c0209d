"""Which tokens run in the next step: admission, chunked prefill, preemption, fairness. Never how they run.

One idea carries all of it. A request has *known* tokens (prompt and output so far) and *computed* ones (their keys and
values are in the cache), and every step lets some of the missing ones run. Far behind: a prefill, whole or in chunks.
One behind: a decode. Back at zero after a preemption: recompute. Drafted tokens ride behind the last known one.

Sources: Yu et al. 2022 (Orca: iteration-level scheduling, OSDI §3); Kwon et al. 2023 (PagedAttention: preemption by
recompute, arXiv:2309.06180 §4.5); Agrawal et al. 2024 (Sarathi-Serve: chunked prefill, arXiv:2403.02310 §4).
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

from .blocks import BlockPool, chain
from .config import check_whole
from .errors import BadParameter, CacheFull
from .generate import Row


@dataclass(eq=False)
class Request(Row):
    """A row on its way through the scheduler.

    priority: lower runs earlier (as in vLLM). salt: requests share prefixes only with the same one. leader: the request
    whose prompt this one repeats (``n`` > 1): it is computed once. lookahead: drafted tokens wanted next time.
    table: its blocks. names: hashes of its full blocks so far. computed: known tokens whose keys and values are in the
    cache; draft_computed: the same in the draft model's; reached: the most that ever were, whatever a preemption took.
    rank: (priority × patience + step at which it came, number of its arrival), the smaller first. cached (tokens that
    others had computed), drafted, accepted (tokens) and preemptions are counted for its metrics.
    """

    priority: int = 0
    salt: str = ""
    leader: Request | None = None
    lookahead: int = 0
    table: list[int] = field(default_factory=list)
    computed: int = 0
    draft_computed: int = 0
    reached: int = 0
    rank: tuple[int, int] = (0, 0)
    cached: int = 0
    drafted: int = 0
    accepted: int = 0
    preemptions: int = 0
    names: list[bytes] = field(default_factory=list)

    @property
    def known(self) -> int:
        return len(self.prompt) + len(self.output)

    def span(self, start: int, stop: int) -> list[int]:
        """Known tokens from ``start`` to before ``stop``."""
        split = len(self.prompt)
        return self.prompt[start:stop] + self.output[max(0, start - split) : max(0, stop - split)]

    @property
    def in_prefill(self) -> bool:
        return self.computed < self.known - 1


class Slot(NamedTuple):
    """Part of a step: ``count`` tokens of a request from position ``start`` on, the last ``drafts`` of them guessed."""

    request: Request
    start: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    drafts: int

    @property
    def reaches_end(self) -> bool:
        """Does the last known token run, so that a new one comes out?"""
        return self.start + self.count - self.drafts == self.request.known


class Scheduler:
    """Continuous batching over a pool of KV blocks.

    max_num_seqs: requests that run at a time. max_num_batched_tokens: tokens of one step at most; a longer prompt is
    prefilled in chunks. policy: "fcfs" (first come, first served) or "priority". context: longest sequence.
    patience: with "priority", how many steps one level of priority is worth: whoever has waited that much longer goes
    first all the same, so nobody starves.

    A step is ``schedule``, a forward pass over its slots, and ``complete`` for each slot; ``retire`` ends a request.
    """

    def __init__(
        self,
        pool: BlockPool,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 2048,
        policy: str = "fcfs",
        context: int | None = None,
        patience: int = 1000,
    ):
        check_whole(
            max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, patience=patience
        )
        if policy not in ("fcfs", "priority"):
            raise BadParameter(f"policy {policy!r} is not known; choose 'fcfs' or 'priority'.")
        self.pool, self.policy, self.patience = pool, policy, patience
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.context = context
        self.waiting: list[Request] = []  # both in the order of their ranks
        self.running: list[Request] = []
        self.copies: list[tuple[int, int]] = []  # blocks to copy before the pass of this step
        self.steps = self.preemptions = 0
        self._arrivals = itertools.count()

    @property
    def unfinished(self) -> int:
        """Requests that wait or run."""
        return len(self.waiting) + len(self.running)

    def check(self, request: Request) -> None:
        """Raise CacheFull for a request that could not finish even with the whole pool to itself."""
        longest = len(request.prompt) + request.params.max_tokens - 1  # the last token chosen is never run
        if self.context is not None:
            longest = max(len(request.prompt), min(longest, self.context - 1))
        if self.pool.blocks_for(longest) > self.pool.num_blocks:
            raise CacheFull(
                f"This request can grow to {longest} tokens, and the whole KV cache holds "
                f"{self.pool.num_blocks * self.pool.block_size}; ask for fewer tokens or give the cache more blocks."
            )

    def add(self, request: Request) -> None:
        """Queue a request. Raises CacheFull when it can never fit."""
        self.check(request)
        level = request.priority if self.policy == "priority" else 0
        request.rank = (level * self.patience + self.steps, next(self._arrivals))
        self._queue(request)

    def schedule(self) -> list[Slot]:
        """Decide on a step. Blocks for all its tokens, the drafted ones included, are in the tables when it returns."""
        self.steps += 1
        self.copies = []
        budget = self.max_num_batched_tokens
        slots: list[Slot] = []
        pending = sorted(self.running, key=lambda request: (request.in_prefill, request.rank))
        preempted = False
        # Decodes first: a long prompt may not hold up those who are already reading their answer.
        while pending and budget:
            request = pending.pop(0)
            slot = self._extend(request, budget, len(pending))
            while slot is None:  # only a decode grows, and only as far as there are blocks
                victim = max([request, *pending], key=lambda other: other.rank)
                self._preempt(victim)
                preempted = True
                if victim is request:
                    break
                pending.remove(victim)
                slot = self._extend(request, budget, len(pending))
            if slot is not None:
                slots.append(slot)
                budget -= slot.count
        if not preempted:  # blocks are short: nobody new
            slots += self._admit(budget)
        return slots

    def complete(self, slot: Slot, rejected: int = 0) -> None:
        """The slot's tokens went through the model, and the last ``rejected`` of its drafts did not stand."""
        request = slot.request
        request.processed += slot.count
        # What it never had and did not run came from others; its own blocks, found again, are nothing saved.
        request.cached += max(0, slot.start - request.reached)
        request.reached = max(request.reached, slot.start + slot.count - rejected)
        if request.finish_reason == "abort":  # while the step ran: it holds no block any more
            return
        request.computed = slot.start + slot.count - rejected
        size = self.pool.block_size
        if self.pool.enable_prefix_caching:
            named, full = len(request.names), request.computed // size
            if full > named:
                request.names = chain(request.span(0, full * size), size, request.salt, request.names)
            for i in range(slot.start // size, full):
                self.pool.name(request.table[i], request.names[i])

    def retire(self, request: Request) -> None:
        """Take a finished or aborted request out, wherever it is; its blocks are free at once."""
        for queue in (self.running, self.waiting):
            if request in queue:
                queue.remove(request)
                break
        self.pool.release(request.table)
        request.computed = request.draft_computed = 0

    def abort(self, request: Request) -> None:
        """End a request that nobody wants any more."""
        if request.finish_reason is None:
            request.finish_reason = "abort"
        self.retire(request)

    def recover(self) -> None:
        """After an exception in the middle of a step: nothing is believed, every unfinished request runs again."""
        everyone = {id(request): request for request in (*self.running, *self.waiting)}
        self.running, self.waiting, self.copies = [], [], []
        self.pool.reset()
        for request in everyone.values():
            request.table = []
            request.computed = request.draft_computed = 0
            if request.finish_reason is None:
                self._queue(request)

    def _queue(self, request: Request) -> None:
        bisect.insort(self.waiting, request, key=lambda other: other.rank)

    def _extend(self, request: Request, budget: int, others: int) -> Slot | None:
        """A slot for a running request, with the blocks it needs; None when there are not enough."""
        missing = request.known - request.computed
        # Guesses may not cost any of the others its turn.
        wanted = max(0, min(self._lookahead(request), budget - missing - others))
        for drafts in (wanted, 0):  # rather no drafts than somebody preempted for them
            count = min(missing + drafts, budget)
            if self.pool.grow(request.table, request.computed + count):
                return Slot(request, request.computed, count, drafts)
        return None

    def _lookahead(self, request: Request) -> int:
        """Drafts that can be of use: none in a prefill, none beyond the last token that may come out."""
        if request.in_prefill:
            return 0
        left = request.params.max_tokens - len(request.output) - 1
        if self.context is not None:
            left = min(left, self.context - request.known - 1)
        return max(0, min(request.lookahead, left))

    def _preempt(self, request: Request) -> None:
        """Take the blocks away; later, all its known tokens run again (or are still found in the prefix cache)."""
        self._queue(request)  # first: an exception may come at any moment, and nobody may be in neither queue
        self.running.remove(request)
        self.pool.release(request.table)
        request.computed = request.draft_computed = 0
        request.preemptions += 1
        self.preemptions += 1

    def _admit(self, budget: int) -> list[Slot]:
        slots = []
        for request in list(self.waiting):
            if not budget or len(self.running) >= self.max_num_seqs:
                break
            leader = request.leader
            if leader is not None and leader.finish_reason is None and not request.output:
                if leader.computed < len(leader.prompt):
                    continue  # its prompt is on the way: wait, rather than compute it twice
                begun = self._fork(request, leader)
            else:
                begun = self._begin(request)
            if not begun:
                break  # the next one may be smaller, but would then overtake for ever
            bisect.insort(self.running, request, key=lambda other: other.rank)
            self.waiting.remove(request)
            count = min(request.known - request.computed, budget)
            slots.append(Slot(request, request.computed, count, 0))
            budget -= count
        return slots

    def _begin(self, request: Request) -> bool:
        """Give a request blocks for all its known tokens, the beginning from the prefix cache where it is there."""
        pool, known = self.pool, request.known
        shared: list[int] = []
        if pool.enable_prefix_caching:
            request.names = chain(request.ids, pool.block_size, request.salt, request.names)
            # The last known token must run in any case: it is what the next one comes from.
            shared = pool.find(request.names[: (known - 1) // pool.block_size])
        # One block is left for everyone who runs: they may need it at the next step, and would push this one out again.
        if pool.blocks_for(known) - len(shared) + len(self.running) > pool.available(shared):
            return False
        request.table = pool.share(shared)
        pool.grow(request.table, known)
        request.computed = len(shared) * pool.block_size
        return True

    def _fork(self, request: Request, leader: Request) -> bool:
        """Share the leader's prompt, except for its last token, which has to run once more for each."""
        last = len(request.prompt) - 1
        if self.pool.free <= len(self.running):  # one for the copy of the block in which both go on
            return False
        request.table = self.pool.share(leader.table[: self.pool.blocks_for(last + 1)])
        if pair := self.pool.own(request.table, last // self.pool.block_size):
            self.copies.append(pair)
        request.computed = last
        return True
