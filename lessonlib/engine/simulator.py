"""Replaying a trace of arrivals without a model: the real scheduler, a pretended clock.

The scheduler cannot tell the difference: requests arrive, get blocks, are prefilled in chunks, preempted and retired
by the code that serves the model. Only the forward pass is replaced, by a formula for how long it would take.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .config import check_whole, is_whole
from .errors import BadParameter
from .generate import advance
from .prompts import as_ids
from .sampling import Choice, SamplingParams
from .scheduler import Request, Scheduler


@dataclass(frozen=True)
class Arrival:
    """A request of a trace: when it comes (seconds), its prompt (number of tokens, or the ids), tokens it will want."""

    time: float
    prompt: int | Sequence[int]
    output: int
    priority: int = 0


@dataclass(frozen=True)
class StepCost:
    """Seconds of one forward pass: reading the weights, plus work for each token, plus each KV slot that is read."""

    fixed: float = 5e-3
    per_token: float = 1e-4
    per_kv_slot: float = 0.0

    def __post_init__(self) -> None:
        seconds = self.fixed, self.per_token, self.per_kv_slot
        if not (all(0 <= s < math.inf for s in seconds) and self.fixed + self.per_token > 0):
            raise BadParameter(f"{self} makes no sense; a step takes time, and no part of it less than none.")

    def __call__(self, tokens: int, kv_slots: int) -> float:
        return self.fixed + self.per_token * tokens + self.per_kv_slot * kv_slots


@dataclass(frozen=True)
class Step:
    """One forward pass. ``ran``: (request, its tokens in this pass) by place in the trace.

    computed: tokens that went through the model, padding and idle rows included. waiting: requests in the queue.
    blocks: KV blocks in use. preempted: requests that lost theirs.
    """

    start: float
    end: float
    ran: tuple[tuple[int, int], ...]
    computed: int
    waiting: int
    blocks: int = 0
    preempted: tuple[int, ...] = ()


@dataclass
class Timeline:
    """What happened: every step, and for each request the times (seconds) at which its tokens came out."""

    trace: Sequence[Arrival]
    capacity: int  # requests that could have run together
    tokens: list[list[float]]
    steps: list[Step] = field(default_factory=list)

    @property
    def ttft(self) -> list[float]:
        """Time to first token of each request, from its arrival on."""
        return [times[0] - arrival.time for times, arrival in zip(self.tokens, self.trace, strict=True)]

    @property
    def tpot(self) -> list[float | None]:
        """Average time per output token after the first; None for a single token."""
        return [(t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else None for t in self.tokens]

    @property
    def latency(self) -> list[float]:
        """From arrival to the last token."""
        return [times[-1] - arrival.time for times, arrival in zip(self.tokens, self.trace, strict=True)]

    @property
    def throughput(self) -> float:
        """Output tokens a second, from the first arrival to the last token."""
        begin = min(arrival.time for arrival in self.trace)
        return sum(map(len, self.tokens)) / (max(times[-1] for times in self.tokens) - begin)

    @property
    def idle_slot_steps(self) -> int:
        """Places in the batch that did nothing for anybody, summed over the steps."""
        return sum(self.capacity - len(step.ran) for step in self.steps)

    def percentile(self, name: str, q: float) -> float:
        """The q-th percentile (0 … 100) of "ttft", "tpot" or "latency", in seconds."""
        if name not in ("ttft", "tpot", "latency"):
            raise BadParameter(f"There is no {name!r} to take a percentile of; choose ttft, tpot or latency.")
        values = [value for value in getattr(self, name) if value is not None]
        if not values or not 0 <= q <= 100:
            raise BadParameter(
                f"There is no {q}th percentile of {len(values)} values of {name}; choose 0 to 100 of some."
            )
        return float(np.percentile(values, q))


def _requests(trace: Sequence[Arrival]) -> list[Request]:
    if not trace:
        raise BadParameter("A trace without arrivals has nothing to replay; give at least one.")
    requests = []
    for number, arrival in enumerate(trace):
        if is_whole(arrival.prompt):
            # Prompts that share no prefix: each begins with a token of its own, which no other prompt has.
            size = int(arrival.prompt)  # type: ignore[arg-type]
            prompt = [-1 - number, *[0] * (size - 1)][: max(0, size)]
        else:
            prompt = as_ids(arrival.prompt)
        if not prompt or not np.isfinite(arrival.time):
            raise BadParameter(
                f"{arrival} makes no sense; a request comes at some time with at least one token."
            )
        params = SamplingParams(temperature=0, max_tokens=arrival.output, ignore_eos=True)
        requests.append(Request(prompt, params, priority=arrival.priority))
    return requests


def replay(trace: Sequence[Arrival], scheduler: Scheduler, cost: StepCost | None = None) -> Timeline:
    """Run a trace through a (fresh) scheduler. Raises CacheFull for a request that never fits."""
    cost = cost or StepCost()
    requests = _requests(trace)
    order = deque(sorted(range(len(trace)), key=lambda i: trace[i].time))
    places = {id(request): i for i, request in enumerate(requests)}
    timeline = Timeline(trace, scheduler.max_num_seqs, [[] for _ in trace])
    pool = scheduler.pool
    clock = -math.inf
    while order or scheduler.unfinished:
        if not scheduler.unfinished:
            clock = max(clock, trace[order[0]].time)
        while order and trace[order[0]].time <= clock:
            scheduler.add(requests[order.popleft()])
        running = [(request, request.preemptions) for request in scheduler.running]
        slots = scheduler.schedule()
        computed = sum(slot.count for slot in slots)
        end = clock + cost(computed, sum(slot.start + slot.count for slot in slots))
        timeline.steps.append(
            Step(
                clock,
                end,
                tuple((places[id(slot.request)], slot.count) for slot in slots),
                computed,
                len(scheduler.waiting),
                pool.num_blocks - pool.free,
                tuple(places[id(request)] for request, before in running if request.preemptions > before),
            )
        )
        for slot in slots:
            request = slot.request
            if slot.reaches_end:
                advance(request, Choice(0), (), scheduler.context or 10**12)
                timeline.tokens[places[id(request)]].append(end)
            scheduler.complete(slot)
            if request.finish_reason is not None:
                scheduler.retire(request)
        clock = end
    return timeline


def replay_static(trace: Sequence[Arrival], batch_size: int, cost: StepCost | None = None) -> Timeline:
    """The same trace with static batches: whoever is there starts together, and the rest waits for the slowest."""
    cost = cost or StepCost()
    check_whole(batch_size=batch_size)
    prompts = [len(request.prompt) for request in _requests(trace)]
    order = sorted(range(len(trace)), key=lambda i: trace[i].time)
    timeline = Timeline(trace, batch_size, [[] for _ in trace])
    times = [trace[i].time for i in order]
    clock, first = -math.inf, 0
    while first < len(order):
        clock = max(clock, times[first])
        until = bisect_right(times, clock, first, min(first + batch_size, len(order)))
        batch, first = order[first:until], until
        longest = max(prompts[i] for i in batch)
        for step in range(max(trace[i].output for i in batch)):
            active = [i for i in batch if trace[i].output > step]
            width = 1 if step else longest
            end = clock + cost(len(batch) * width, len(batch) * (longest + step))
            waiting = bisect_right(times, clock, first) - first
            ran = tuple((i, 1 if step else prompts[i]) for i in active)
            timeline.steps.append(Step(clock, end, ran, len(batch) * width, waiting))
            for i in active:
                timeline.tokens[i].append(end)
            clock = end
    return timeline
