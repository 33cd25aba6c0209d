"""LLM on the continuous batcher: many calls share one pool, and none of them leaves anything behind."""

from __future__ import annotations

import contextlib
import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from lessonlib.engine import LLM, SamplingParams, generate
from lessonlib.engine.errors import BadParameter, CacheFull

from .conftest import refuses
from .fakes import check_pool, params

PROMPTS = ["def f(", "import os\n", "class A:\n    def", "x = ", "def f(a, b):\n    return", "import "]


@pytest.fixture(scope="module")
def alone(draft) -> list[list[int]]:
    """The answers of 12 tokens to each prompt, one by one."""
    encoded = [draft.tokenizer.encode(prompt) for prompt in PROMPTS]
    return [generate(draft.model, ids, 12, params=GREEDY)[len(ids) :] for ids in encoded]


GREEDY = params(12, ignore_eos=True)


def narrow(**settings) -> LLM:
    """An engine that has to preempt, share and wait."""
    return LLM("pico-draft", **{"num_kv_blocks": 8, "block_size": 4, "max_num_seqs": 3, **settings})


def empty(llm: LLM) -> bool:
    """Nobody holds a block, and nobody waits."""
    check_pool(llm.batcher.scheduler.pool)
    return not (llm.batcher.unfinished or llm.batcher.scheduler.running)


def tokens(outputs) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_batched_tokens": 4},
        {"enable_prefix_caching": False},
        {"block_size": 1, "num_kv_blocks": 32},
        {"max_num_seqs": 1},
        {"max_num_seqs": 32, "num_kv_blocks": None},
        {"scheduling_policy": "priority", "num_kv_blocks": 6},
    ],
    ids=str,
)
def test_no_setting_changes_the_answers(alone, settings):
    llm = narrow(**settings)
    for _ in range(2):
        assert tokens(llm.generate(PROMPTS, GREEDY)) == alone
        assert empty(llm)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_call_holds_nothing_and_the_next_one_is_right(alone, error):
    for at in (1, 2, 5, 9):
        llm = narrow()
        left = at

        def interrupt(*_, error=error):
            nonlocal left
            left -= 1
            if left == 0:
                raise error

        hook = llm.model.layers[1].register_forward_hook(interrupt)
        with pytest.raises(error):
            llm.generate(PROMPTS, params(12, ignore_eos=True, n=2))
        hook.remove()
        assert empty(llm)
        assert tokens(llm.generate(PROMPTS, GREEDY)) == alone


def test_an_interrupted_call_takes_nothing_from_an_open_stream(draft, alone):
    llm = narrow()
    stream = llm.stream(PROMPTS[0], GREEDY)
    text = next(stream)
    hook = llm.model.layers[0].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS[1:3], GREEDY)
    hook.remove()
    assert text + "".join(stream) == draft.tokenizer.decode(alone[0])
    assert empty(llm)


def test_streams_in_turns_with_calls_between_them(draft, alone):
    texts = [draft.tokenizer.decode(answer) for answer in alone]
    for seed in range(12):
        random, llm = Random(seed), narrow(num_kv_blocks=12)
        streams = {number: llm.stream(PROMPTS[number], GREEDY) for number in range(4)}
        got = dict.fromkeys(streams, "")
        while streams:
            number = random.choice(list(streams))
            piece = next(streams[number], None)
            if piece is None:
                streams.pop(number)
            else:
                got[number] += piece
            if random.random() < 0.1:
                assert tokens(llm.generate(PROMPTS[4:], GREEDY)) == alone[4:]
        assert [got[number] for number in range(4)] == texts[:4]
        assert empty(llm)


def test_a_stream_that_ended_during_another_call_still_has_its_text(draft, alone):
    llm = narrow()
    stream = llm.stream(PROMPTS[0], GREEDY)
    first = next(stream)
    assert tokens(llm.generate(PROMPTS, GREEDY)) == alone  # runs the stream's request to its end, too
    assert empty(llm)
    assert first + "".join(stream) == draft.tokenizer.decode(alone[0])


@pytest.mark.parametrize("how", ["close", "drop", "never begun", "in a cycle"])
def test_a_stream_left_half_way_holds_nothing(alone, how):
    llm = narrow()
    stream = llm.stream(PROMPTS[0], GREEDY)
    if how != "never begun":
        next(stream)
        assert not empty_now(llm)
    if how == "close":
        stream.close()
    elif how == "in a cycle":
        ring = [stream]
        ring.append(ring)
        del ring, stream
        gc.collect()
    else:
        del stream
    assert empty(llm)
    assert tokens(llm.generate(PROMPTS, GREEDY)) == alone


def empty_now(llm: LLM) -> bool:
    return llm.batcher.unfinished == 0


def test_several_answers_share_their_prompt_and_equal_single_ones(draft):
    prompt = draft.tokenizer.encode(PROMPTS[4])
    wanted = SamplingParams(n=3, seed=7, max_tokens=9, ignore_eos=True)
    singles = [
        draft.generate([prompt], SamplingParams(seed=7 + i, max_tokens=9, ignore_eos=True))[0]
        .outputs[0]
        .token_ids
        for i in range(3)
    ]
    for settings in ({"num_kv_blocks": 30}, {"enable_prefix_caching": False, "num_kv_blocks": 30}, {}):
        llm = narrow(**settings)
        output = llm.generate([prompt], wanted)[0]
        assert [answer.token_ids for answer in output.outputs] == singles
        assert empty(llm)
        metrics = output.metrics
        assert metrics.tokens_computed + metrics.tokens_cached >= 3 * (len(prompt) + 8)
        if settings:
            assert metrics.tokens_cached == 2 * (len(prompt) - 1)
            assert metrics.tokens_computed == len(prompt) + 2 + 3 * 8
            assert metrics.preemptions == 0


def test_metrics_add_up():
    llm = narrow(num_kv_blocks=64)
    passes = []
    hook = llm.model.embed_tokens.register_forward_hook(lambda _, given, __: passes.append(given[0].numel()))
    prompt = list(range(5, 18))
    for cached in (0, 12):
        passes.clear()
        metrics = llm.generate([prompt], params(6, ignore_eos=True))[0].metrics
        # 13 tokens of the prompt and 5 of the answer had to be in the cache; whole blocks of 4 were found there.
        assert (metrics.tokens_computed, metrics.tokens_cached) == (18 - cached, cached)
        assert (metrics.drafted, metrics.accepted, metrics.preemptions) == (0, 0, 0)
        assert sum(passes) == metrics.tokens_computed and len(passes) == 6
    llm.generate([[7, 7, 7]], params(3, ignore_eos=True))
    passes.clear()
    small = narrow(num_kv_blocks=5, max_num_seqs=3, enable_prefix_caching=False)
    small.model.embed_tokens.register_forward_hook(lambda _, given, __: passes.append(given[0].numel()))
    outputs = small.generate([[5, 6, 7], [8, 9], [10]], params(12, ignore_eos=True))
    assert sum(output.metrics.preemptions for output in outputs) > 0
    assert sum(passes) == sum(output.metrics.tokens_computed for output in outputs)
    for output in outputs:
        needed = len(output.prompt_token_ids) + 11
        assert (output.metrics.tokens_computed > needed) == (output.metrics.preemptions > 0)
    hook.remove()


def test_prompts_that_begin_alike_are_computed_once_across_calls(draft):
    llm = narrow(num_kv_blocks=64, max_num_seqs=8)
    stem = list(range(20, 40))
    first = llm.generate([[*stem, 1]], GREEDY)[0]
    later = llm.generate([[*stem, number] for number in range(2, 6)], GREEDY)
    assert first.metrics.tokens_cached == 0
    assert [output.metrics.tokens_cached for output in later] == [20] * 4
    for output in later:
        assert output.prompt_token_ids + output.outputs[0].token_ids == generate(
            draft.model, output.prompt_token_ids, 12, params=GREEDY
        )


@pytest.mark.parametrize("way", [{}, {"speculative_model": "ngram"}])
def test_threads_may_share_an_engine(alone, way):
    llm = narrow(num_kv_blocks=40, **way)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(llm.generate, [prompt], GREEDY) for _ in range(3) for prompt in PROMPTS]
        said = [tokens(answer.result())[0] for answer in answers]
    assert said == alone * 3
    assert empty(llm)


@pytest.mark.parametrize("way", [{}, {"speculative_model": "ngram"}, {"speculative_model": "pico-draft"}])
def test_an_interrupted_request_keeps_its_random_numbers(way):
    """After an error in on_token, a seeded request goes on as if nothing had happened."""
    llm = LLM("pico-draft", **way)
    how = SamplingParams(temperature=0.9, seed=3, max_tokens=24, ignore_eos=True)
    expected = llm.generate(["def f("], how)[0].outputs[0].token_ids
    (request,) = llm._requests(llm._encode("def f("), how)
    calls = 0

    def fails_now_and_then(other):
        nonlocal calls
        calls += 1
        other.follow()
        if calls % 4 == 0:
            raise KeyboardInterrupt

    llm.batcher.add(request)
    while llm.batcher.unfinished:
        with contextlib.suppress(KeyboardInterrupt):
            llm.batcher.step(fails_now_and_then)
    assert request.output == expected


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("late", [False, True])
def test_another_call_s_interrupt_takes_no_text_from_a_stream(draft, monkeypatch, at, late):
    """Ctrl-C in generate, just when a token of the open stream is taken in; the last one too."""
    llm = narrow(num_kv_blocks=40)
    how = params(6, ignore_eos=True)
    expected = draft.generate("def f(", how)[0].outputs[0]
    requests = []
    original = llm._requests
    monkeypatch.setattr(llm, "_requests", lambda *given: requests.append(original(*given)) or requests[-1])
    stream = llm.stream("def f(", how)
    said = [next(stream)]
    (request,) = requests[0]
    add, left = request.detokenizer.add, at

    def interrupted(token, final=False):
        nonlocal left
        left -= 1
        if left == 0 and not late:
            raise KeyboardInterrupt
        text = add(token, final)
        if left == 0:
            raise KeyboardInterrupt
        return text

    request.detokenizer.add = interrupted
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS[1], params(40, ignore_eos=True))
    said += stream
    assert "".join(said) == expected.text
    assert (request.output, request.finish_reason) == (expected.token_ids, "length")
    assert len(request.times) == 6
    assert empty(llm)


def test_tenants_with_salts_of_their_own_share_nothing(draft):
    llm = narrow(num_kv_blocks=64)
    prompt = list(range(20, 40))
    cached = [
        llm.generate([prompt], GREEDY, cache_salt=salt)[0].metrics.tokens_cached
        for salt in ("", "a", "b", "a", "")
    ]
    assert cached == [0, 0, 0, 16, 16]
    with refuses(BadParameter, match="cache_salt=7"):
        llm.generate([prompt], GREEDY, cache_salt=7)


def test_who_has_priority_is_answered_first(draft):
    """One at a time, all asked at once."""
    for policy, order in (("priority", [1, 2, 0]), ("fcfs", [0, 1, 2])):
        llm = narrow(max_num_seqs=1, scheduling_policy=policy)
        outputs = llm.generate([[5], [6], [7]], params(3, ignore_eos=True), priority=[4, -1, 0])
        first = [output.metrics.time_to_first_token for output in outputs]
        assert sorted(range(3), key=lambda i: first[i]) == order
    for wrong in ([1], [1, 2, 3], "high", 0.5):
        with refuses(BadParameter, match="priorit"):
            llm.generate([[5], [6]], GREEDY, priority=wrong)


def test_a_request_that_can_never_fit_is_refused_and_its_call_leaves_nothing(alone):
    llm = narrow()
    with refuses(CacheFull):
        llm.generate([[5], [5] * 30], params(12))
    assert empty(llm)
    assert tokens(llm.generate(PROMPTS, GREEDY)) == alone


def test_an_engine_copied_with_an_open_pool_is_its_own(alone):
    llm = narrow()
    llm.generate(PROMPTS, GREEDY)
    twin = copy.deepcopy(llm)
    assert tokens(twin.generate(PROMPTS, GREEDY)) == tokens(llm.generate(PROMPTS, GREEDY)) == alone
