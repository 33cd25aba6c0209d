"""The batchers over real caches: each request gets the tokens it would get alone, one forward a step."""

from __future__ import annotations

from random import Random

import pytest
import torch

from lessonlib.engine import generate, load_model
from lessonlib.engine.batching import StaticBatcher
from lessonlib.engine.errors import BadParameter, CacheFull, EmptyPrompt, PromptTooLong, TokenOutOfRange
from lessonlib.engine.scheduler import Request

from .conftest import random_model, refuses, some_ids, tiny_config
from .fakes import (
    Recall,
    any_engine,
    any_group,
    batcher,
    check_pool,
    check_queues,
    drain,
    expected,
    params,
)

KINDS = {
    "plain": {},
    "window": {"window": 3},
    "window in one layer": {"window": 2, "window_layers": (1,)},
    "end of text": {"eos": (0,)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_gets_the_tokens_it_gets_alone(kind):
    """Random arrivals, aborts and pools; any slot that is stale, missing, doubled or foreign changes the tokens."""
    preemptions = cached = 0
    for seed in range(50):
        random = Random(seed)
        engine = any_engine(random, **KINDS[kind])
        requests: list[Request] = []
        for _ in range(random.randint(1, 7)):
            for request in any_group(random, engine, requests):
                engine.add(request)
                requests.append(request)
            for _ in range(random.choice([0, 1, 4])):
                engine.step()
                alive = [request for request in requests if request.finish_reason is None]
                if alive and random.random() < 0.1:
                    engine.abort(random.choice(alive))
                check_queues(engine.scheduler)
        drain(engine)
        check_pool(engine.scheduler.pool)
        assert torch.equal(engine.cache.keys, engine.cache.values)
        for request in requests:
            right = expected(engine, request)
            if request.finish_reason == "abort":
                right = right[: len(request.output)]
            assert request.output == right
        preemptions += engine.scheduler.preemptions
        cached += sum(request.cached for request in requests)
    assert preemptions > 10 and cached > 100


def test_one_forward_a_step_for_prefill_and_decode_together():
    engine = batcher(Recall(context=64), num_blocks=64, max_num_batched_tokens=8)
    requests = [Request([number] * length, params(4)) for number, length in enumerate((1, 3, 20, 5), start=1)]
    for request in requests:
        engine.add(request)
    mixed = steps = 0
    while engine.unfinished:
        before = {id(r): (r.processed, r.in_prefill, bool(r.output)) for r in requests}
        served = engine.step()
        steps += 1
        assert len(engine.model.passes) == steps
        ran = [r for r in requests if r.processed > before[id(r)][0]]
        assert engine.model.passes[-1] == sum(r.processed - before[id(r)][0] for r in ran) <= 8
        assert {id(r) for r in served} <= {id(r) for r in ran}
        kinds = {before[id(r)][2] for r in ran}
        mixed += kinds == {True, False}
    assert mixed >= 3
    assert sum(engine.model.passes) == sum(r.processed for r in requests) == 29 + 4 * 3


def test_the_static_and_the_continuous_batch_say_the_same():
    for seed in range(25):
        random = Random(seed)
        model = Recall(context=24, eos=(0,) if seed % 2 else ())
        prompts = [[random.randrange(7) for _ in range(random.randint(1, 9))] for _ in range(7)]
        wanted = [params(random.randint(1, 9)) for _ in prompts]
        outputs = []
        for engine in (StaticBatcher(model, batch_size=random.randint(1, 4)), batcher(model, num_blocks=12)):
            requests = [Request(list(p), w) for p, w in zip(prompts, wanted, strict=True)]
            for request in requests:
                engine.add(request)
            drain(engine)
            outputs.append([(r.output, r.finish_reason) for r in requests])
        assert outputs[0] == outputs[1]
        assert [output for output, _ in outputs[0]] == [
            model.alone(p, w.max_tokens) for p, w in zip(prompts, wanted, strict=True)
        ]


def test_a_static_batch_waits_for_its_slowest():
    model = Recall()
    engine = StaticBatcher(model, batch_size=2)
    requests = [Request([1, 2], params(wanted)) for wanted in (1, 5, 2)]
    for request in requests:
        engine.add(request)
    served = []
    while engine.unfinished:
        served.append([requests.index(request) for request in engine.step()])
    assert served == [[0, 1], [1], [1], [1], [1], [2], [2]]
    assert model.passes == [4, 2, 2, 2, 2, 2, 1]  # the finished row stays in as an idle one
    for wrong in (0, -1, 1.5, True):
        with refuses(BadParameter, match="batch_size"):
            StaticBatcher(model, wrong)


def test_aborts_in_a_static_batch():
    engine = StaticBatcher(Recall(), batch_size=2)
    requests = [Request([1, number], params(4)) for number in range(4)]
    for request in requests:
        engine.add(request)
    engine.step()
    engine.abort(requests[0])
    engine.abort(requests[2])
    drain(engine)
    assert [len(request.output) for request in requests] == [1, 4, 0, 4]


@pytest.mark.parametrize("window", [None, 5])
@torch.inference_mode()
def test_a_real_model_in_float32_says_what_it_says_alone(window):
    model = random_model(tiny_config(hidden_size=32, num_hidden_layers=2, sliding_window=window))
    for seed in range(10):
        check_against_generate(model, Random(seed))


def check_against_generate(model, random: Random) -> None:
    engine = batcher(
        model,
        num_blocks=random.choice([6, 12, 40]),
        block_size=random.choice([1, 4, 8]) if random.random() < 0.5 else 8,
        prefix_caching=random.random() < 0.7,
        max_num_seqs=random.choice([2, 4, 8]),
        max_num_batched_tokens=random.choice([3, 9, 200]),
    )
    room = engine.cache.num_blocks * engine.cache.block_size
    stem = some_ids(16, seed=random.randrange(99))[0].tolist()
    requests: list[Request] = []
    for _ in range(6):
        length = min(random.randint(1, 24), room - 1)
        prompt = (stem[: random.choice([0, 8, 16])] + some_ids(24, seed=random.randrange(99))[0].tolist())[
            :length
        ]
        wanted = params(min(random.randint(1, 16), room - length + 1))
        leader = Request(prompt, wanted)
        requests += [leader, Request(list(prompt), wanted, leader=leader)][: random.randint(1, 2)]
    for request in requests:
        engine.add(request)
        if random.random() < 0.5:
            engine.step()
    drain(engine)
    for request in requests:
        assert request.ids == generate(model, request.prompt, request.params.max_tokens)


def test_pico_says_what_it_says_alone():
    model = load_model("pico")
    for seed in range(2):
        check_against_generate(model, Random(seed))


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_cache_does_not_depend_on_the_batch(quantization):
    """Preempted, in chunks, from shared blocks or alone: the same numbers were stored."""
    model = random_model(tiny_config(hidden_size=32, num_hidden_layers=2)).double()
    outputs = []
    for settings in (
        {"num_blocks": 40},
        {"num_blocks": 7, "max_num_batched_tokens": 3},
        {"num_blocks": 9, "prefix_caching": False, "max_num_batched_tokens": 5},
        {"num_blocks": 40, "max_num_seqs": 1},
    ):
        engine = batcher(model, quantization=quantization, **settings)
        stem = some_ids(9)[0].tolist()
        requests = [Request([*stem, number, number][number:], params(12)) for number in range(5)]
        for request in requests:
            engine.add(request)
        drain(engine)
        outputs.append([request.output for request in requests])
    assert outputs[1] == outputs[2] == outputs[3] == outputs[0]


def test_a_step_may_hold_more_tokens_than_one_context():
    """The context limits each sequence, not the batch."""
    model = random_model(tiny_config(hidden_size=32, num_hidden_layers=2, max_position_embeddings=24))
    engine = batcher(model, num_blocks=80, block_size=4, max_num_seqs=8, max_num_batched_tokens=500)
    requests = [Request(some_ids(20, seed=seed)[0].tolist(), params(4)) for seed in range(8)]
    for request in requests:
        engine.add(request)
    engine.step()
    assert all(len(request.output) == 1 for request in requests)
    drain(engine)
    for request in requests:
        assert request.ids == generate(model, request.prompt, 4)


def test_on_token_may_end_its_request_and_abort_others():
    engine = batcher(Recall(), num_blocks=30, block_size=2)
    requests = [Request([1, 2, number], params(6)) for number in range(5)]
    for request in requests:
        engine.add(request)

    def on_token(request: Request) -> str | None:
        if request is requests[1] and len(request.output) == 2:
            for other in (
                requests[0],
                requests[1],
                requests[3],
            ):  # served before, now, and later in this step
                engine.abort(other)
        return "stop" if request is requests[4] and len(request.output) == 3 else None

    drain(engine, on_token=on_token)
    assert [r.finish_reason for r in requests] == ["abort", "abort", "length", "abort", "stop"]
    assert [len(r.output) for r in requests] == [2, 2, 6, 1, 3]
    assert all(r.output == expected(engine, r)[: len(r.output)] for r in requests)
    check_pool(engine.scheduler.pool)


def test_on_token_in_a_static_batch():
    engine = StaticBatcher(Recall(), batch_size=3)
    requests = [Request([1, 2, number], params(6)) for number in range(3)]
    for request in requests:
        engine.add(request)
    engine.step()

    def on_token(request: Request) -> str | None:
        if request is requests[0] and len(request.output) == 2:
            engine.abort(requests[1])  # its turn would come later in this step
        return "stop" if request is requests[0] and len(request.output) == 4 else None

    served = engine.step(on_token)
    assert served == [requests[0], requests[2]]
    drain(engine, on_token=on_token)
    assert [(r.finish_reason, len(r.output)) for r in requests] == [("stop", 4), ("abort", 1), ("length", 6)]


def test_what_cannot_be_served_is_refused_and_changes_nothing():
    engine = batcher(Recall(vocab=5, context=16), num_blocks=2, block_size=4)
    for prompt, wanted, error in (
        ([], 1, EmptyPrompt),
        ([1] * 16, 1, PromptTooLong),
        ([5], 1, TokenOutOfRange),
        ([1] * 9, 1, CacheFull),
        ([1] * 4, 6, CacheFull),
    ):
        with refuses(error):
            engine.add(Request(prompt, params(wanted)))
    assert engine.unfinished == 0
    assert engine.step() == []
    engine.add(request := Request([1] * 4, params(5)))
    drain(engine)
    assert request.output == expected(engine, request)
