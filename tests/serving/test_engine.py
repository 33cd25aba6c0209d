"""The asynchronous engine by itself: same tokens as LLM.generate, and nothing held by anybody who is gone."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from lessonlib import LLM, SamplingParams
from lessonlib.engine.errors import CacheFull, PromptTooLong
from lessonlib.serving.engine import PATIENCE, AsyncEngine, Generation
from lessonlib.serving.errors import ClientGone, EngineFailed, EngineStopped
from tests.engine.fakes import check_pool

from .conftest import NAME, run

PROMPTS = ["def f(", "import os\n", "class A:\n    def", "x = "]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def narrow() -> LLM:
    """Room for two and a bit: it has to queue and to preempt."""
    return LLM(NAME, num_kv_blocks=12, block_size=4, max_num_seqs=3)


@asynccontextmanager
async def started(llm: LLM):
    engine = AsyncEngine(llm)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
        assert not engine.alive
        assert (engine.sequences, engine.blocks_in_use, llm.batcher.unfinished) == (0, 0, 0)
        check_pool(engine.scheduler.pool)


async def read(generation: Generation) -> list[tuple[str, list[int], str | None]]:
    """(text, tokens, finish_reason) of each sequence."""
    await generation.admitted()
    found: list[tuple[str, list[int], str | None]] = [("", [], None) for _ in generation.requests]
    async for delta in generation.deltas():
        text, tokens, reason = found[delta.index]
        assert reason is None, "nothing comes after the end"
        found[delta.index] = (
            text + delta.text,
            tokens + [token.choice.token for token in delta.tokens],
            delta.finish_reason,
        )
    return found


def right(llm: LLM, ids: list[list[int]], params: SamplingParams):
    outputs = [output for each in llm.generate(ids, params) for output in each.outputs]
    return [(output.text, output.token_ids, output.finish_reason) for output in outputs]


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        SamplingParams(max_tokens=9, seed=5, n=3, ignore_eos=True),
        SamplingParams(temperature=0, max_tokens=40, stop=["\n", "return"]),
    ],
    ids=["greedy", "n", "stop"],
)
def test_what_comes_in_pieces_is_what_generate_returns(narrow, twin, params):
    ids = [twin.tokenizer.encode(prompt) for prompt in PROMPTS]

    async def work():
        async with started(narrow) as engine:
            together = await read(engine.open(ids, params))
            each = await asyncio.gather(*(read(engine.open([prompt], params)) for prompt in ids))
            return together, [sequence for found in each for sequence in found]

    together, each = run(work())
    assert together == each == right(twin, ids, params)


def test_calls_that_come_and_go_at_any_moment_leave_nothing_and_disturb_nobody(narrow, twin):
    ids = [twin.tokenizer.encode(prompt) for prompt in PROMPTS]
    expected = right(twin, ids, GREEDY)

    async def leave(engine, random):
        generation = engine.open([random.choice(ids)], SamplingParams(max_tokens=25, n=random.randint(1, 3)))
        await asyncio.sleep(random.random() * 0.05)
        generation.abort()
        generation.abort()  # twice does no harm
        with suppress(ClientGone):  # unless it was over before
            assert await read(generation)

    async def stay(engine, random):
        await asyncio.sleep(random.random() * 0.1)
        number = random.randrange(len(ids))
        assert await read(engine.open([ids[number]], GREEDY)) == [expected[number]]

    async def work():
        random = Random(1)
        async with started(narrow) as engine:
            await asyncio.gather(*(random.choice((leave, stay))(engine, random) for _ in range(40)))

    run(work())


def test_what_the_engine_refuses_comes_at_once_and_costs_the_others_nothing(narrow, twin):
    ids = twin.tokenizer.encode(PROMPTS[0])

    async def work():
        async with started(narrow) as engine:
            with pytest.raises(PromptTooLong):
                await engine.open([ids, [5] * 3000], GREEDY).admitted()
            with pytest.raises(CacheFull):
                await engine.open([ids], SamplingParams(max_tokens=500)).admitted()
            found = await read(engine.open([ids] * 4, GREEDY))
            assert found == right(twin, [ids], GREEDY) * 4
        with pytest.raises(EngineStopped):
            engine.open([ids], GREEDY)

    run(work())


def failing(engine: AsyncEngine, at: set[int]):
    """Steps of these numbers fail, after the model has done its work for them."""
    complete, number = engine.scheduler.complete, 0

    def fail(slot, rejected=0):
        nonlocal number
        number += 1
        complete(slot, rejected)
        if number in at:
            raise RuntimeError("a fault in the machine")

    engine.scheduler.complete = fail


@pytest.mark.parametrize("at", [{1}, {3, 4}, {12}, {5, 11, 17}], ids=str)
def test_a_step_that_fails_is_made_up_for(twin, at):
    ids = [twin.tokenizer.encode(prompt) for prompt in PROMPTS[:2]]

    async def work():
        async with started(LLM(NAME, num_kv_blocks=20, block_size=4)) as engine:
            failing(engine, at)
            found = await asyncio.gather(*(read(engine.open([prompt], GREEDY)) for prompt in ids))
            return [each[0] for each in found], engine.failed_steps

    found, failed = run(work())
    assert found == right(twin, ids, GREEDY)
    assert failed == len(at)


def test_when_every_step_fails_the_calls_end_with_an_error_and_the_engine_goes_on(twin):
    ids = twin.tokenizer.encode(PROMPTS[0])

    async def work():
        async with started(LLM(NAME, num_kv_blocks=20)) as engine:
            step = engine.batcher.step
            engine.batcher.step = lambda _: 1 / 0
            for _ in range(2):
                with pytest.raises(EngineFailed, match="ZeroDivisionError"):
                    await read(engine.open([ids], GREEDY))
            assert engine.failed_steps == 2 * PATIENCE and engine.blocks_in_use == 0
            engine.batcher.step = step
            assert await read(engine.open([ids], GREEDY)) == right(twin, [ids], GREEDY)

    run(work())


def test_stopping_ends_what_runs_with_an_error(narrow, twin):
    async def work():
        async with started(narrow) as engine:
            generation = engine.open([[5]], SamplingParams(max_tokens=40, ignore_eos=True))
            await generation.admitted()
            await engine.stop()
            with pytest.raises(EngineStopped, match="again"):
                async for _ in generation.deltas():
                    pass

    run(work())


def test_who_leaves_at_the_very_end_is_not_remembered(narrow):
    async def work():
        async with started(narrow) as engine:
            generation = engine.open([[5]], SamplingParams(max_tokens=40, ignore_eos=True))
            stopping = asyncio.create_task(engine.stop())
            await asyncio.sleep(0)  # it has begun
            generation.abort()
            await stopping
            seen = weakref.ref(generation)
            del generation
            gc.collect()
            assert seen() is None

    run(work())


def test_without_a_seed_two_calls_differ(twin):
    params = SamplingParams(temperature=2, max_tokens=20, n=2)

    async def work():
        async with started(LLM(NAME, num_kv_blocks=50)) as engine:
            return [*await read(engine.open([[5]], params)), *await read(engine.open([[5]], params))]

    texts = {text for text, _, _ in run(work())}
    assert len(texts) == 4
