"""The loop over token ids: alone or in a batch, with or without a cache, the same tokens and the right end."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import SamplingParams, generate
from lessonlib.engine.errors import BadParameter, EmptyPrompt, PromptTooLong, TokenOutOfRange
from lessonlib.engine.generate import Row, pad, run

from .conftest import QUIET, random_model, refuses, some_ids, tiny_config

# Every eighth token ends the text, so that the rows of a batch stop at different steps.
ENDING = random_model(tiny_config(eos_token_ids=tuple(range(0, 97, 8)), max_position_embeddings=40))
PROMPT = st.lists(st.integers(0, 96), min_size=1, max_size=12)


def finished(model, prompt: list[int], params: SamplingParams) -> Row:
    row = Row(prompt, params)
    for _ in run(model, [row]):
        pass
    return row


@QUIET
@given(
    st.lists(PROMPT, min_size=1, max_size=5),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.7, 1.5]),
    st.booleans(),
)
def test_a_batch_equals_each_row_alone_cached_or_not(prompts, max_tokens, temperature, ignore_eos):
    params = SamplingParams(temperature=temperature, top_p=0.95, seed=7, ignore_eos=ignore_eos)
    together = generate(ENDING, prompts, max_tokens, params=params)
    assert together == generate(ENDING, prompts, max_tokens, use_cache=False, params=params)
    assert together == [generate(ENDING, prompt, max_tokens, params=params) for prompt in prompts]


@QUIET
@given(PROMPT, st.integers(1, 40))
def test_a_row_ends_at_its_first_end_of_text_or_limit(prompt, max_tokens):
    eos, context = ENDING.config.eos_token_ids, ENDING.config.max_position_embeddings
    row = finished(ENDING, prompt, SamplingParams(temperature=0, max_tokens=max_tokens))
    free = finished(ENDING, prompt, SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True))
    limit = min(max_tokens, context - len(prompt))
    assert len(free.output) == limit
    assert free.finish_reason == "length"
    ends = [i for i, token in enumerate(free.output) if token in eos]
    assert row.output == (free.output[: ends[0] + 1] if ends else free.output)
    assert row.finish_reason == ("stop" if ends else "length")


def test_rows_of_one_batch_really_do_stop_at_different_steps():
    """Otherwise the tests above would prove little."""
    rows = generate(ENDING, some_ids(4, batch=8).tolist(), 30)
    assert len({len(row) for row in rows}) >= 4


def test_stop_token_ids_end_a_row_even_when_the_end_of_text_is_ignored():
    free = generate(ENDING, [5, 6], 20, params=SamplingParams(temperature=0, ignore_eos=True))[2:]
    stop = free[6]
    params = SamplingParams(temperature=0, ignore_eos=True, stop_token_ids=[stop], max_tokens=20)
    row = finished(ENDING, [5, 6], params)
    assert row.output == free[: free.index(stop) + 1]
    assert row.finish_reason == "stop"


def test_each_forward_pass_yields_the_rows_that_got_a_token():
    rows = [Row(prompt, SamplingParams(temperature=0, max_tokens=n)) for prompt, n in [([5], 1), ([6, 7], 4)]]
    steps = [[len(row.output) for row in got] for got in run(ENDING, rows)]
    assert steps == [[1, 1], [2], [3], [4]][: len(steps)]
    assert len(steps) == len(rows[1].output)


def test_an_observer_can_end_a_row():
    row = Row([5], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    for _ in run(ENDING, [row], on_token=lambda row: "stop" if len(row.output) == 3 else None):
        pass
    assert (len(row.output), row.finish_reason) == (3, "stop")


def test_the_context_is_filled_to_the_brim_and_no_further(tiny):
    context = tiny.config.max_position_embeddings
    for use_cache in (True, False):
        assert len(generate(tiny, [5] * (context - 1), 10, use_cache=use_cache)) == context
    assert len(generate(tiny, [5] * (context - 3), 10**12)) == context
    rows = generate(tiny, [[5] * (context - 1), [6, 7]], 10)
    assert [len(row) for row in rows] == [context, 12]
    assert rows[1] == generate(tiny, [6, 7], 10)
    with refuses(PromptTooLong, match="128 tokens and this model's context is 128"):
        generate(tiny, [5] * context, 1)


def test_prompts_come_in_every_shape(tiny):
    one = generate(tiny, [3, 4, 5], 6)
    other = generate(tiny, [6, 7, 8], 6)
    for prompt in [
        (3, 4, 5),
        range(3, 6),
        np.array([3, 4, 5]),
        torch.tensor([3, 4, 5]),
        [np.int64(3), 4, torch.tensor(5)],
    ]:
        assert generate(tiny, prompt, 6) == one
    both = [[3, 4, 5], [6, 7, 8]]
    shapes = [
        np.array(both),
        torch.tensor(both),
        tuple(map(tuple, both)),
        list(np.array(both)),
        list(torch.tensor(both)),
    ]
    for prompts in shapes:
        assert generate(tiny, prompts, 6) == [one, other]
    assert generate(tiny, torch.tensor([[3, 4, 5]], dtype=torch.uint8), 6) == [one]  # a batch stays a batch
    given = [3, 4, 5]
    generate(tiny, given, 6)
    assert given == [3, 4, 5]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ([], EmptyPrompt),
        ([[]], EmptyPrompt),
        ([[1], []], EmptyPrompt),
        (torch.zeros(1, 0, dtype=torch.long), EmptyPrompt),
        ("text", BadParameter),
        (b"bytes", BadParameter),
        (7, BadParameter),
        (None, BadParameter),
        (torch.tensor(3), BadParameter),
        ([1.7, 2.0], BadParameter),
        (torch.rand(2, 3), BadParameter),
        ([True, False], BadParameter),
        (torch.ones(1, 3, dtype=torch.bool), BadParameter),
        ([[[1, 2]]], BadParameter),
        (np.zeros((1, 2, 3)), BadParameter),
        ([[1], 2], BadParameter),
        ([1, [2]], BadParameter),
        (["a", "b"], BadParameter),
        ({1: 2}, BadParameter),
        ([1, 97], TokenOutOfRange),
        ([[1], [-1]], TokenOutOfRange),
        ([2**70], TokenOutOfRange),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(tiny, prompt, error):
    with refuses(error):
        generate(tiny, prompt, 3)


@pytest.mark.parametrize("max_tokens", [0, -1, 2.5, None, "3"])
def test_senseless_limits_are_refused(tiny, max_tokens):
    with refuses(BadParameter, match="^max_tokens="):
        generate(tiny, [1], max_tokens)


@pytest.mark.parametrize(
    "params", [[SamplingParams()], {"temperature": 0}, SamplingParams(stop="x"), SamplingParams(n=2)], ids=str
)
def test_settings_that_only_texts_can_have_are_refused(tiny, params):
    with refuses(BadParameter):
        generate(tiny, [1, 2], 3, params=params)


def test_no_rows_no_work(tiny):
    assert list(run(tiny, [])) == []


def test_padding_is_on_the_right():
    assert pad([[1, 2, 3], [4], []]).tolist() == [[1, 2, 3], [4, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_generates_on_a_cpu(tiny, dtype):
    model = copy.deepcopy(tiny).to(dtype)
    params = SamplingParams(temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=1, repetition_penalty=1.1)
    for settings in (None, params):
        for use_cache in (True, False):
            out = generate(model, [[3, 4], [5]], 8, use_cache, settings)
            assert [len(row) for row in out] == [10, 9]


def test_without_a_seed_torch_manual_seed_decides(tiny):
    torch.manual_seed(3)
    first = generate(tiny, [1, 2], 12, params=SamplingParams())
    assert generate(tiny, [1, 2], 12, params=SamplingParams()) != first
    torch.manual_seed(3)
    assert generate(tiny, [1, 2], 12, params=SamplingParams()) == first


def test_two_threads_do_not_disturb_each_other(tiny):
    prompts = [some_ids(n, seed=4)[0].tolist() for n in (3, 17)]
    expected = [generate(tiny, prompt, 40) for prompt in prompts]
    got: list = [None, None]

    def work(i: int) -> None:
        got[i] = [generate(tiny, prompts[i], 40) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[out] * 3 for out in expected]


def test_interrupted_in_the_middle_the_model_is_as_before(tiny):
    model = copy.deepcopy(tiny)
    expected = generate(model, [1, 2], 10)
    calls = 0

    def press_ctrl_c(*_):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    hook = model.norm.register_forward_hook(press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        generate(model, [1, 2], 10)
    hook.remove()
    assert not torch.is_inference_mode_enabled()
    assert generate(model, [1, 2], 10) == expected


def test_models_can_be_copied_pickled_and_trained_after_generating(tiny):
    expected = generate(tiny, [1, 2], 10)
    copied = copy.deepcopy(tiny)
    assert generate(copied, [1, 2], 10) == expected
    assert copied.lm_head.weight is copied.embed_tokens.weight  # still tied
    assert generate(pickle.loads(pickle.dumps(tiny)), [1, 2], 10) == expected
    copied.requires_grad_(True)
    copied(torch.tensor([[1, 2]])).logits.sum().backward()
    assert copied.embed_tokens.weight.grad.abs().sum() > 0
    assert generate(copied.bfloat16().float(), [1, 2], 10)[:2] == [
        1,
        2,
    ]  # the rotation table follows the dtype
