"""The checks of lesson 04 know what they talk about: they agree with the engine, and their inputs can tell."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from grader import keys
from grader.exercises import define, planted
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_04 import allocator, batcher, latencies, pad_left
from lessonlib.classroom.checks.lesson_04 import allocator_mistakes as blocks
from lessonlib.classroom.checks.lesson_04 import batcher_mistakes as batches
from lessonlib.classroom.exercises import exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.classroom.toys import ToyModel
from lessonlib.engine import BlockPool, ModelConfig, Request, SamplingParams, Scheduler, Transformer
from lessonlib.engine.simulator import Arrival, StepCost, replay, replay_static

TINY = ModelConfig(16, 8, 8, 2, 2, 1, 4, max_position_embeddings=32)
Steps = list[list[Any]]


def generated(make: Any, seed: int) -> dict[str, Any]:
    return next(filter(None, (make(random.Random(seed + i)) for i in range(50_000))))


class Told:
    """Attention with the positions and the mask it is told."""

    slots_written = slots_read = 0

    def __init__(self, positions: torch.Tensor, mask: torch.Tensor):
        self.positions, self.mask = positions, mask

    def begin(self, *_: Any) -> torch.Tensor:
        return self.positions

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask[:, None], enable_gqa=True)

    def end(self) -> None:
        pass


@given(st.integers(0, 10**6))
def test_the_expected_mask_and_positions_make_a_batch_like_each_prompt_alone(seed: int):
    inputs = generated(pad_left.making("mask", [], (1, 4)), seed)
    torch.manual_seed(0)
    model = Transformer(TINY)
    right = pad_left.padded(inputs)
    mask = torch.tensor([[[c == "1" for c in row] for row in rows] for rows in right["mask"]])
    told: Any = Told(torch.tensor(right["positions"]), mask)
    with torch.inference_mode():
        together = model(torch.tensor(right["ids"]), cache=told).logits[:, -1]
        alone = [model(torch.tensor([prompt])).logits[0, -1] for prompt in inputs["prompts"]]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def schedule(inputs: dict[str, Any]) -> list[set[str]]:
    """Who runs at each step, by the engine's own scheduler; the answers' lengths are those of the toy model."""
    scheduler = Scheduler(BlockPool(500), max_num_seqs=inputs["size"])
    wanted = answer_lengths(inputs)
    names: dict[int, str] = {}
    found: list[set[str]] = []
    for step in inputs["steps"]:
        if step[0] == "add":
            request = Request(list(step[2]), SamplingParams(max_tokens=wanted[step[1]]))
            names[id(request)] = step[1]
            scheduler.add(request)
            continue
        slots = scheduler.schedule()
        found.append({names[id(slot.request)] for slot in slots})
        for slot in slots:
            slot.request.output.append(0)
            scheduler.complete(slot)
            if len(slot.request.output) == slot.request.params.max_tokens:
                scheduler.retire(slot.request)
    return found


def answer_lengths(inputs: dict[str, Any]) -> dict[str, int]:
    lengths = {}
    for step in (s for s in inputs["steps"] if s[0] == "add"):
        ids, new = list(step[2]), 0
        while new < step[3]:
            logits = ToyModel(64)(torch.tensor([ids])).logits
            ids.append(int(logits[0, -1].argmax()))
            new += 1
            if ids[-1] == inputs["eos_id"]:
                break
        lengths[step[1]] = new
    return lengths


@given(st.integers(0, 10**6), st.booleans())
def test_the_expected_batches_are_the_engines(seed: int, ends_early: bool):
    inputs = generated(batcher.making([], (1, 4), (1, 7), ends_early=ends_early), seed)
    expected = [a for a in batches.answers(inputs) if a is not None]
    assert [{*answer["tokens"]} for answer in expected] == schedule(inputs)
    assert all(answer["passes"] == bool(answer["tokens"]) for answer in expected)
    following = [*schedule(inputs)[1:], None]
    late = any(step[0] == "add" for step in inputs["steps"][inputs["steps"].index(["step"]) :])
    if not late:  # then nobody comes between two steps, and the batch afterwards is the next one
        assert all(n is None or {*a["batch"]} == n for a, n in zip(expected, following, strict=True))


@given(st.integers(0, 10**6))
def test_the_expected_tables_are_the_pools(seed: int):
    """As many blocks as the engine's pool lends, shared where the engine shares."""
    methods = ["grow", "share", "grow", "release", "grow", "grow", "release", "available"]
    inputs = generated(allocator.making([], methods, (4, 16)), seed)
    pool = BlockPool(inputs["num_blocks"], inputs["block_size"], enable_prefix_caching=False)
    tables: dict[str, list[int]] = {}
    ours: dict[str, list[int]] = {}
    for step, answer in zip(inputs["steps"], blocks.answers(inputs), strict=True):
        if step[0] == "grow":
            grown = pool.grow(tables.setdefault(step[1], []), step[2])
            assert grown == (answer != blocks.RAISES)
            if grown:
                ours[step[1]] = answer
                assert len(tables[step[1]]) == len(answer)
        elif step[0] == "share":
            tables[step[1]] = pool.share(tables[step[2]][: step[3] // inputs["block_size"]])
            ours[step[1]] = answer
        elif step[0] == "release":
            pool.release(tables.pop(step[1]))
            ours.pop(step[1])
        else:
            assert answer == pool.free
        # The engine takes blocks in another order: compare who shares with whom, not the numbers.
        for name, other in [(n, o) for n in ours for o in ours]:
            together = {*tables[name]} & {*tables[other]}
            assert len(together) == len({*ours[name]} & {*ours[other]})


@given(st.integers(0, 10**6))
def test_the_expected_latencies_are_the_timelines(seed: int):
    rng = random.Random(seed)
    trace = [
        Arrival(rng.randint(0, 900) / 1000, rng.randint(1, 60), rng.randint(1, 8))
        for _ in range(rng.randint(1, 6))
    ]
    for timeline in (
        replay_static(trace, 2),
        replay(trace, Scheduler(BlockPool(500, enable_prefix_caching=False), 2)),
    ):
        log: list[list[Any]] = []
        for i, (arrival, times) in enumerate(zip(trace, timeline.tokens, strict=True)):
            begin = next(step.start for step in timeline.steps if i in dict(step.ran))
            log += [[1000 * arrival.time, "arrives", i], [1000 * begin, "starts", i]]
            log += [[1000 * time, "token", i] for time in times]
        log.sort(key=lambda line: line[0])
        found = latencies.summary({"log": log, "q": 75})
        assert found["ttft"] == pytest.approx(1000 * timeline.percentile("ttft", 75))
        assert found["throughput"] == pytest.approx(timeline.throughput)
        if any(len(times) > 1 for times in timeline.tokens):
            assert found["tpot"] == pytest.approx(1000 * timeline.percentile("tpot", 75))
        else:
            assert found["tpot"] is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.integers(0, 100))
def test_percentiles_are_numpys(numbers: list[float], q: int):
    assert latencies.percentile(numbers, q) == pytest.approx(np.percentile(numbers, q))


@pytest.mark.parametrize("exercise", exercises("04"), ids=lambda e: e.id)
def test_every_input_is_valid_and_can_be_pasted(exercise):
    right = next(a for a in planted(exercise.id) if a.expect == "pass")
    made = define(exercise, right.source)
    for case in exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert case.valid(inputs), inputs
            names = {"ToyModel": ToyModel, exercise.name: made}
            for line in exercise.call_text(inputs).splitlines():
                try:
                    exec(line, names)
                except MemoryError:
                    assert blocks.RAISES in case.expected(inputs)


@pytest.mark.parametrize("exercise", exercises("04"), ids=lambda e: e.id)
def test_every_named_mistake_can_be_told_apart(exercise):
    inputs = [(c, i) for c in exercise.cases for i in (*c.examples, *c.generated(random.Random(3)))]
    for mistake in (m for m in exercise.misconceptions if m.gives is not None):

        def differs(case, given_inputs, mistake=mistake):
            given = mistake.gives(given_inputs)
            options = given if isinstance(given, tuple) else (given,)
            right = case.expected(given_inputs)
            return all(case.distance(given_inputs, right, option) > 1 for option in options)

        assert any(differs(case, i) for case, i in inputs), mistake.name


def test_a_card_of_a_class_can_be_read():
    source = next(a.source for a in planted("04.ContinuousBatcher") if a.name == "pass_each")
    exercise = find("04.ContinuousBatcher")
    text = card(run(exercise, define(exercise, source))).text()
    assert "one forward pass for each request" in text
    assert "batcher.add(" in text and "batcher.step(), batcher.batch()" in text
    assert "'passes': 1" in text and "'passes': 2" in text


def test_a_refused_name_does_not_stop_the_check():
    """A mistaken allocator may refuse to share; what is asked of that name afterwards must not break the diagnosis."""
    steps = [["grow", "a", 4], ["grow", "b", 4], ["share", "c", "a", 4], ["release", "c"]]
    inputs = {"num_blocks": 2, "block_size": 4, "steps": steps}
    assert allocator.valid(inputs)
    assert blocks.answers(inputs, blocks.COPIES)[-2:] == [blocks.RAISES, "raises KeyError"]


def idle(answers: list[int], slots: int) -> int:
    return replay_static([Arrival(0.0, 1, n) for n in answers], slots).idle_slot_steps


def test_the_figures_of_the_quiz_are_right():
    practice, graded = load("04"), keys.load_key("04")
    assert practice.question("idle-steps").answer == idle([10, 2, 3, 8, 1, 1], 3)
    padded = pad_left.padded({"prompts": [[1] * n for n in (12, 3, 7, 10)], "pad_id": 0})["ids"]
    assert practice.question("padding").answer == sum(row.count(0) for row in padded)
    tokens = [(time, "token", "a") for time in (500, 540, 580, 650)]
    log = [(200, "arrives", "a"), (450, "starts", "a"), *tokens]
    assert practice.question("tpot").answer == latencies.summary({"log": log, "q": 50})["tpot"]
    pool = BlockPool(9, 16)
    assert practice.question("blocks").answer == sum(map(pool.blocks_for, (33, 16, 5)))

    def passes(answers: list[int], slots: int, way: Any) -> int:
        return len(way([Arrival(0.0, 1, n) for n in answers], slots).steps)

    def continuous(trace: list[Arrival], slots: int) -> Any:
        return replay(trace, Scheduler(BlockPool(500), slots))

    assert graded["passes"].answer == passes([6, 2, 3, 1], 2, continuous)
    assert {w.answer: w.mistake for w in graded["passes"].wrong}[9.0] == "counts static batches"
    assert passes([6, 2, 3, 1], 2, replay_static) == 9
    for answers, same in (([30] * 8, True), ([*range(8, 0, -1)], False), ([30, 10] * 4, False)):
        assert (passes(answers, 4, continuous) == passes(answers, 4, replay_static)) == same
    spread, clock = [Arrival(3.0 * i, 1, 30) for i in range(8)], StepCost(1.0, 0.0)
    always = replay(spread, Scheduler(BlockPool(500), 4), clock)
    assert len(replay_static(spread, 4, clock).steps) > len(always.steps)
    steps: Steps = [
        ["grow", "a", 10],
        ["share", "b", "a", 8],
        ["grow", "b", 9],
        ["release", "a"],
        ["available"],
    ]
    found = blocks.answers({"num_blocks": 10, "block_size": 4, "steps": steps})
    assert graded["last-holder"].answer == found[-1]
    assert graded["median-wait"].answer == pytest.approx(np.percentile([0.1, 0.1, 0.2, 9.0], 50))
    batch = {"a": [10, 1, 1, 1], "b": [20] * 4, "c": [40, 30, 30, 30], "d": [10, 9, 9, 9]}
    assert graded["least-idle"].answer == sorted(batch, key=lambda name: idle(batch[name], 4))
