"""The simulator: nothing is lost or made up, and its clock is that of the scheduler it runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from lessonlib.engine.batching import StaticBatcher
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.errors import BadParameter, CacheFull
from lessonlib.engine.scheduler import Request, Scheduler
from lessonlib.engine.simulator import Arrival, StepCost, Timeline, replay, replay_static

from .conftest import refuses
from .fakes import Recall, batcher, params


def scheduler(
    num_blocks: int = 1000, block_size: int = 16, prefix_caching: bool = True, **settings
) -> Scheduler:
    return Scheduler(BlockPool(num_blocks, block_size, prefix_caching), **settings)


def any_trace(random: Random, count: int, longest: int = 20) -> list[Arrival]:
    trace = [
        Arrival(
            random.choice([0.0, random.uniform(0, 0.2), random.uniform(5, 6)]),
            random.randint(1, longest),
            random.randint(1, longest),
            priority=random.randint(0, 2),
        )
        for _ in range(count)
    ]
    random.shuffle(trace)
    return trace


def check(timeline: Timeline) -> None:
    """What holds for any scheduler: all tokens come, none before its request, at the ends of steps that ran it."""
    trace = timeline.trace
    assert [len(times) for times in timeline.tokens] == [arrival.output for arrival in trace]
    ends: Counter[tuple[int, float]] = Counter()
    for step in timeline.steps:
        assert step.start < step.end
        assert len({number for number, _ in step.ran}) == len(step.ran) <= timeline.capacity
        assert all(trace[number].time <= step.start and tokens >= 1 for number, tokens in step.ran)
        assert step.computed >= sum(tokens for _, tokens in step.ran)
        ends.update((number, step.end) for number, _ in step.ran)
    for before, later in pairwise(timeline.steps):
        assert before.end <= later.start
        if before.end < later.start:  # idle: because nobody was there
            assert before.waiting == 0 and later.start in [arrival.time for arrival in trace]
    for number, times in enumerate(timeline.tokens):
        assert all(a < b for a, b in pairwise(times))
        assert all(ends[number, time] == 1 for time in times)


COST = StepCost(1e-3, 1e-4, 1e-5)


def test_a_replay_keeps_every_promise():
    preemptions = 0
    for seed in range(150):
        random = Random(seed)
        trace = any_trace(random, random.randint(1, 15))
        budget = random.choice([1, 5, 16, 500])
        planner = scheduler(
            random.choice([14, 14, 18, 200]),
            3,
            max_num_seqs=random.choice([1, 3, 8]),
            max_num_batched_tokens=budget,
            policy=random.choice(["fcfs", "priority"]),
        )
        timeline = replay(trace, planner, COST)
        check(timeline)
        for step in timeline.steps:
            slots = sum(1 for _ in step.ran)
            assert step.end - step.start >= 1e-3 + 1e-4 * step.computed + 1e-5 * slots - 1e-9
            assert step.computed == sum(tokens for _, tokens in step.ran) <= budget
            assert 0 < step.blocks <= planner.pool.num_blocks
        lost = Counter(number for step in timeline.steps for number in step.preempted)
        assert sum(lost.values()) == planner.preemptions
        preemptions += planner.preemptions
        assert planner.pool.free == planner.pool.num_blocks
        # Everything but the last token of each runs once, and again only after a preemption.
        ran: Counter[int] = Counter()
        for step in timeline.steps:
            ran.update(dict(step.ran))
        for number, arrival in enumerate(trace):
            once = arrival.prompt + arrival.output - 1
            assert ran[number] == once or (ran[number] > once and lost[number])
            if not lost[number]:
                assert ran[number] == once
    assert preemptions > 30


def test_a_static_replay_keeps_every_promise_and_counts_its_waste():
    for seed in range(150):
        random = Random(seed)
        trace = any_trace(random, random.randint(1, 15))
        size = random.choice([1, 2, 5, 20])
        timeline = replay_static(trace, size, COST)
        check(timeline)
        # The same, counted from the outside: batches of those who are there, as long as the longest of them.
        order = sorted(range(len(trace)), key=lambda number: trace[number].time)
        clock, idle, steps = float("-inf"), 0, 0
        while order:
            clock = max(clock, trace[order[0]].time)
            batch = [number for number in order[:size] if trace[number].time <= clock]
            order = order[len(batch) :]
            widest = max(trace[number].prompt for number in batch)
            for step in range(max(trace[number].output for number in batch)):
                active = [number for number in batch if step < trace[number].output]
                idle += size - len(active)
                computed = len(batch) * (widest if step == 0 else 1)
                clock += 1e-3 + 1e-4 * computed + 1e-5 * len(batch) * (widest + step)
                here = timeline.steps[steps]
                assert here.computed == computed
                assert dict(here.ran) == {n: 1 if step else trace[n].prompt for n in active}
                assert here.end == pytest.approx(clock)
                assert here.waiting == sum(trace[number].time <= here.start for number in order)
                steps += 1
        assert (timeline.idle_slot_steps, len(timeline.steps)) == (idle, steps)


def test_equal_requests_that_come_together_take_equally_long_either_way():
    trace = [Arrival(0.0, 10, 7) for _ in range(8)]
    static = replay_static(trace, 8, COST)
    continuous = replay(trace, scheduler(max_num_seqs=8), COST)
    assert continuous.tokens == static.tokens
    assert [(s.start, s.end, s.computed, s.waiting) for s in continuous.steps] == [
        (s.start, s.end, s.computed, s.waiting) for s in static.steps
    ]
    assert continuous.idle_slot_steps == static.idle_slot_steps == 0
    # Chunks of the prefill move tokens between steps, and nothing else.
    chunked = replay(trace, scheduler(max_num_seqs=8, max_num_batched_tokens=16), COST)
    assert sum(step.computed for step in chunked.steps) == sum(step.computed for step in static.steps)
    assert len(chunked.steps) > len(static.steps)


def test_the_steps_are_those_of_the_real_batchers():
    """The same requests through a model: as many forwards, with as many tokens each."""
    for seed in range(10):
        random = Random(seed)
        trace = [Arrival(0.0, random.randint(1, 9), random.randint(1, 9)) for _ in range(9)]
        settings = {"max_num_seqs": 4, "max_num_batched_tokens": random.choice([3, 8, 100])}
        for static in (False, True):
            model = Recall(vocab=20)
            engine = StaticBatcher(model, 4) if static else batcher(model, num_blocks=12, **settings)
            for number, arrival in enumerate(trace):
                wanted = params(arrival.output, ignore_eos=True)
                engine.add(Request([number, *[0] * (arrival.prompt - 1)], wanted))
            while engine.unfinished:
                engine.step()
            planner = scheduler(12, 4, context=64, **settings)
            timeline = replay_static(trace, 4) if static else replay(trace, planner)
            assert [step.computed for step in timeline.steps] == model.passes


def heavy_tailed(count: int, gap: float, seed: int = 0) -> list[Arrival]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(gap, count))
    prompts = np.clip(rng.lognormal(4.0, 0.9, count), 4, 600).astype(int)
    outputs = np.clip(rng.pareto(1.1, count) * 12 + 4, 4, 500).astype(int)
    return [Arrival(float(t), int(p), int(o)) for t, p, o in zip(times, prompts, outputs, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_continuous_batching_doubles_the_throughput_of_a_mixed_trace(seed):
    trace = heavy_tailed(400, 0.02, seed)
    continuous = replay(trace, scheduler(1500, max_num_seqs=16, max_num_batched_tokens=512))
    static = replay_static(trace, 16)
    assert continuous.throughput >= 2 * static.throughput
    assert continuous.percentile("ttft", 95) < static.percentile("ttft", 95) / 2
    assert continuous.idle_slot_steps < static.idle_slot_steps / 2
    assert (
        replay(trace, scheduler(1500, max_num_seqs=16, max_num_batched_tokens=512)).tokens
        == continuous.tokens
    )


def work(run: Callable[[], Timeline]) -> int:
    """Instructions of the engine's own code: what time is made of, without a clock."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(previous)
    return count


def test_a_longer_queue_costs_no_more_for_each_request():
    """All arrive at once: a scan of the whole queue, or of the whole trace, in every step would show."""
    few, many = ([Arrival(0.0, 3, 1 + number % 4) for number in range(count)] for count in (60, 360))
    for run in (
        lambda trace: replay(trace, scheduler(max_num_seqs=4)),
        lambda trace: replay_static(trace, 4),
    ):
        assert work(lambda: run(many)) < 7 * work(lambda: run(few))  # noqa: B023


def test_the_numbers_of_a_timeline():
    trace = [Arrival(1.0, 3, 3), Arrival(0.0, 2, 1), Arrival(9.0, [5, 5], 2)]
    timeline = replay(trace, scheduler(max_num_seqs=2), StepCost(1.0, 0.0))
    # The second runs from 0 to 1; the first begins then and takes three steps; the third finds an empty house.
    assert timeline.tokens == [[2.0, 3.0, 4.0], [1.0], [10.0, 11.0]]
    assert timeline.ttft == [1.0, 1.0, 1.0]
    assert timeline.tpot == [1.0, None, 1.0]
    assert timeline.latency == [3.0, 1.0, 2.0]
    assert timeline.throughput == pytest.approx(6 / 11)
    assert timeline.idle_slot_steps == 6
    assert timeline.percentile("tpot", 50) == 1.0
    assert timeline.percentile("latency", 100) == 3.0
    assert timeline.steps[0].ran == ((1, 2),)
    with refuses(BadParameter, match="'speed'"):
        timeline.percentile("speed", 50)


def test_shared_prompts_are_found_and_numbers_of_tokens_share_nothing():
    shared = [Arrival(float(i), [7] * 33, 2) for i in range(3)]
    computed = [step.computed for step in replay(shared, scheduler()).steps]
    assert computed == [33, 1, 1, 1, 1, 1]
    # Nor with prompts that are given as ids, even those that look like the ones made up for numbers.
    apart = [Arrival(float(i), 33, 2) for i in range(2)] + [
        Arrival(2.0 + i, [i] + [0] * 32, 2) for i in range(2)
    ]
    assert [step.computed for step in replay(apart, scheduler()).steps] == [33, 1] * 4


def test_a_trace_may_be_made_of_numpy_s_numbers():
    plain = [Arrival(0.0, 5, 2), Arrival(1.0, [1, 2, 3], 2)]
    theirs = [
        Arrival(np.float64(0), np.int64(5), np.int32(2)),
        Arrival(np.float32(1), np.array([1, 2, 3]), np.int64(2)),
    ]
    assert replay(theirs, scheduler()).tokens == replay(plain, scheduler()).tokens
    assert replay_static(theirs, 2).tokens == replay_static(plain, 2).tokens


def test_a_clock_may_begin_anywhere():
    for start in (-50.0, 0.0, 1e6):
        trace = [Arrival(start + 2, 2, 2), Arrival(start, 2, 2)]
        for timeline in (
            replay(trace, scheduler(), StepCost(0.5, 0)),
            replay_static(trace, 2, StepCost(0.5, 0)),
        ):
            assert timeline.ttft == [0.5, 0.5]
            assert timeline.throughput == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "trace",
    [
        [],
        [Arrival(0.0, 0, 1)],
        [Arrival(0.0, [], 1)],
        [Arrival(0.0, -3, 1)],
        [Arrival(0.0, True, 1)],
        [Arrival(0.0, "text", 1)],
        [Arrival(0.0, 1.5, 1)],
        [Arrival(float("nan"), 1, 1)],
        [Arrival(float("inf"), 1, 1)],
        [Arrival(0.0, 1, 0)],
        [Arrival(0.0, 1, 1.5)],
    ],
    ids=str,
)
def test_senseless_traces_are_refused(trace):
    with refuses(BadParameter):
        replay(trace, scheduler())
    with refuses(BadParameter):
        replay_static(trace, 4)


def test_what_never_fits_is_refused():
    with refuses(CacheFull):
        replay([Arrival(0.0, 30, 4)], scheduler(2, 16))
    with refuses(CacheFull):
        replay([Arrival(0.0, 40, 4)], scheduler(2, 16, context=20))
    with refuses(BadParameter, match="batch_size"):
        replay_static([Arrival(0.0, 1, 1)], 0)


def test_senseless_costs_and_percentiles_are_refused():
    for cost in (
        {"fixed": float("nan")},
        {"fixed": -1.0},
        {"per_token": float("inf")},
        {"fixed": 0.0, "per_token": 0.0},
    ):
        with refuses(BadParameter, match="makes no sense"):
            StepCost(**cost)
    timeline = replay([Arrival(0.0, 3, 1)], Scheduler(BlockPool(8)))
    with refuses(BadParameter, match="0 values of tpot"):
        timeline.percentile("tpot", 50)
    with refuses(BadParameter, match="150th"):
        timeline.percentile("ttft", 150)
