"""The browser's batching is the engine's: the same steps, to the last token, block and preemption, on any trace."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from lessonlib import LLM, SamplingParams
from lessonlib.engine.errors import CacheFull
from lessonlib.engine.simulator import StepCost
from lessonlib.explorers import traces
from lessonlib.explorers.traces import BLOCK_SIZE, DEVICES, LLAMA_8B, NO_LIMIT, STEPS, Run, Wish

SIM = "shared/batching_sim.js"
CLOCKS = [STEPS, *[traces.roofline(LLAMA_8B, device) for device in DEVICES.values()]]


def as_js(cost: StepCost) -> dict[str, float]:
    return {"fixed": cost.fixed, "perToken": cost.per_token, "perKvToken": cost.per_kv_slot}


def in_js(node, cases: list[tuple[list[Wish], dict[str, int], StepCost]]) -> list[dict[str, Any]]:
    """All three policies on every case, run by the browser's simulator."""
    given = [
        {
            "requests": [wish._asdict() for wish in wishes],
            "settings": settings,
            "setting": {"cost": as_js(cost), "blockSize": BLOCK_SIZE, "noLimit": NO_LIMIT},
        }
        for wishes, settings, cost in cases
    ]
    return node(SIM, "input.map((x) => m.simulate(x.requests, x.settings, x.setting))", given)


def as_told(run: Run) -> dict[str, Any]:
    """A replay of the engine, in the browser's words."""
    timeline = run.timeline
    return {
        "tokens": timeline.tokens,
        "steps": [
            {
                "start": step.start,
                "end": step.end,
                "ran": [list(pair) for pair in step.ran],
                "computed": step.computed,
                "kvTokens": kv_tokens,
                "waiting": step.waiting,
                "blocks": blocks,
                "preempted": list(step.preempted),
            }
            for step, kv_tokens, blocks in zip(timeline.steps, run.kv_tokens, run.blocks, strict=True)
        ],
        "cells": [[cell._asdict() for cell in row] for row in traces.cells(timeline)],
        "again": run.again,
    }


def any_case(random: Random) -> tuple[list[Wish], dict[str, int], StepCost]:
    longest = random.choice([4, 40, 300])
    wishes = [
        Wish(random.choice([0, 0, random.randint(0, 40)]), random.randint(1, longest), random.randint(1, 40))
        for _ in range(random.randint(1, 14))
    ]
    needed = max(-(-(wish.prompt + wish.output - 1) // BLOCK_SIZE) for wish in wishes)
    settings = {
        "slots": random.choice([1, 2, 3, 6, 12]),
        "chunk": random.choice([1, 3, 16, 64, 1024]),
        "blocks": needed + random.choice([0, 0, 1, 3, 8, 200]),
    }
    return wishes, settings, random.choice(CLOCKS)


def test_every_step_of_any_trace_is_that_of_the_engine(node):
    cases = [any_case(random) for random in map(Random, range(400))]
    cases += [
        (list(preset.requests), {"slots": preset.slots, "chunk": preset.chunk, "blocks": preset.blocks}, cost)
        for preset in traces.PRESETS.values()
        for cost in CLOCKS
    ]
    preemptions = recomputed = queued = partial = 0
    for (wishes, settings, cost), told in zip(cases, in_js(node, cases), strict=True):
        for policy in traces.POLICIES:
            run = traces.run(policy, wishes, cost, **settings)
            expected = as_told(run)
            assert {key: told[policy][key] for key in expected} == expected, (policy, wishes, settings, cost)
            preemptions += run.preemptions
            recomputed += run.again
            queued += any(step.waiting for step in run.timeline.steps)
            partial += any(count > 1 for step in run.timeline.steps for _, count in step.ran[1:])
    # Or the traces were too kind to show a difference.
    assert preemptions > 300 and recomputed > 3000 and queued > 600 and partial > 300


def test_the_figures_are_those_of_the_engine(node):
    cases = [any_case(random) for random in map(Random, range(1000, 1080))]
    for (wishes, settings, cost), told in zip(cases, in_js(node, cases), strict=True):
        for policy in traces.POLICIES:
            run = traces.run(policy, wishes, cost, **settings)
            timeline, facts = run.timeline, told[policy]["facts"]
            assert facts["ttft"] == pytest.approx(timeline.ttft)
            assert facts["tpot"] == pytest.approx([t for t in timeline.tpot if t is not None])
            assert facts["latency"] == pytest.approx(timeline.latency)
            assert facts["throughput"] == pytest.approx(timeline.throughput)
            assert facts["duration"] == pytest.approx(run.duration)
            assert facts["pause"] == pytest.approx(run.pause)
            assert facts["idleShare"] == pytest.approx(run.idle_share)
            assert facts["idle"] == timeline.idle_slot_steps
            assert facts["preemptions"] == run.preemptions
            assert facts["peak"] == max(run.blocks)


def test_percentiles_are_those_of_the_engine(node):
    timeline = traces.run("continuous", traces.PRESETS["rush"].requests, STEPS, slots=3, chunk=64, blocks=90)
    for q in (0, 1, 50, 90, 99, 100):
        expected = timeline.timeline.percentile("ttft", q)
        values = timeline.timeline.ttft
        assert node(SIM, f"m.percentile(input, {q})", values) == pytest.approx(expected)
    assert node(SIM, "m.percentile([], 50)") is None


def test_a_pass_takes_what_the_slower_of_computing_and_reading_takes():
    for device in DEVICES.values():
        cost = traces.roofline(LLAMA_8B, device)
        ridge = cost.fixed / cost.per_token  # tokens from which on computing is the slower one
        assert ridge == pytest.approx(device.flops / device.bandwidth, rel=0.08)
        assert cost(1, 0) == cost.fixed == cost(int(ridge), 0)
        assert cost(10_000, 0) == 10_000 * cost.per_token
        assert cost(1, 1000) > cost.fixed
    assert STEPS(1, 1) == STEPS(2048, 9999) == 1


def test_cells_have_a_row_each_and_nobody_changes_it_between_preemptions():
    for random in map(Random, range(100)):
        wishes, settings, cost = any_case(random)
        for policy in traces.POLICIES:
            timeline = traces.run(policy, wishes, cost, **settings).timeline
            row_of: dict[int, int] = {}
            for step, cells in zip(timeline.steps, traces.cells(timeline), strict=True):
                for place in step.preempted:
                    del row_of[place]
                rows = [cell.slot for cell in cells]
                assert len(set(rows)) == len(rows) and all(0 <= row < settings["slots"] for row in rows)
                assert [cell.place for cell in cells] == [place for place, _ in step.ran]
                for cell in cells:
                    assert row_of.setdefault(cell.place, cell.slot) == cell.slot


def test_what_never_fits_is_refused_by_the_engine_and_raised_in_the_browser(node):
    wishes = [Wish(0, 100, 30)]
    with pytest.raises(CacheFull):
        traces.run("continuous", wishes, STEPS, slots=2, chunk=64, blocks=8)
    assert node(SIM, "m.blocksNeeded(input, 16)", [wish._asdict() for wish in wishes]) == 9


def test_the_recorded_trace_is_what_pico_does():
    np = pytest.importorskip("numpy")
    texts = [text for text, _, _ in traces.RECORDED]
    params = SamplingParams(temperature=0, max_tokens=64, stop=["\n\n"])
    outs = LLM("pico").generate(texts, params)
    assert [len(out.prompt_token_ids) for out in outs] == [prompt for _, prompt, _ in traces.RECORDED]
    same = sum(
        len(out.outputs[0].token_ids) == answer
        for out, (_, _, answer) in zip(outs, traces.RECORDED, strict=True)
    )
    assert same >= len(outs) - 1  # another processor may round a near tie the other way
    times = np.random.default_rng(0).exponential(2, len(texts)).cumsum().round()
    assert times.tolist() == list(traces.RECORDED_ARRIVALS)
