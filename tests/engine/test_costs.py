"""costs: what is counted is what was predicted, and what PyTorch's own counter sees."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lessonlib.engine import DenseCache, SamplingParams, Transformer, costs, generate
from lessonlib.engine.errors import BadParameter, CacheFull

from .conftest import QUIET, random_model, refuses, some_ids, tiny_config

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 40}
MODELS = {
    "plain": random_model(tiny_config(**SMALL)),
    "MQA, untied, wide heads": random_model(
        tiny_config(**SMALL, num_key_value_heads=1, tie_word_embeddings=False, head_dim=24)
    ),
    "window": random_model(tiny_config(**SMALL, sliding_window=6)),
    "window in one layer": random_model(tiny_config(**SMALL, sliding_window=3, window_layers=(1,))),
    "biases": random_model(tiny_config(**SMALL, attention_bias=True, output_bias=True, mlp_bias=True)),
}


@pytest.mark.parametrize("name", MODELS)
@QUIET
@given(prompt=st.integers(1, 20), new=st.integers(1, 20), use_cache=st.booleans(), half=st.booleans())
def test_counted_equals_predicted(name, prompt, new, use_cache, half):
    model = copy.deepcopy(MODELS[name]).bfloat16() if half else MODELS[name]
    with costs.count(model) as work:
        generate(model, [5] * prompt, new, use_cache, ENDLESS)
    predicted = costs.predict(model.config, prompt, new, use_cache, bytes_per_number=2 if half else 4)
    assert work == predicted
    assert len(work.steps) == work.forward_calls == new
    assert work.flops == work.linear_flops + work.attention_flops == sum(step.flops for step in work.steps)
    assert work.bytes == work.weight_bytes + work.kv_bytes_read + work.kv_bytes_written


def test_a_prediction_by_hand():
    """2 layers, hidden 32, 4 heads of 16, 2 KV heads, FFN 96, vocabulary 97; 3 tokens in, 2 out."""
    config = tiny_config(**SMALL)
    body = 2 * 2 * (32 * 64 + 2 * 32 * 32 + 64 * 32 + 3 * 32 * 96)
    head = 2 * 32 * 97
    pair = 2 * 2 * 2 * 4 * 16  # layers, score and sum, multiply and add, heads, numbers
    assert costs.body_flops_per_token(config) == body
    assert costs.head_flops_per_token(config) == head
    assert costs.attention_flops_per_pair(config) == pair
    cached, uncached = (costs.predict(config, 3, 2, use_cache) for use_cache in (True, False))
    assert [step.tokens for step in cached.steps] == [3, 1]
    assert [step.tokens for step in uncached.steps] == [3, 4]
    assert cached.linear_flops == 4 * body + 2 * head
    assert uncached.linear_flops == 7 * body + 2 * head
    assert cached.attention_flops == (1 + 2 + 3 + 4) * pair
    assert uncached.attention_flops == (1 + 2 + 3 + 1 + 2 + 3 + 4) * pair
    kv = 2 * 2 * 2 * 16 * 4  # K and V, layers, KV heads, numbers, bytes
    assert [step.kv_bytes_written for step in cached.steps] == [3 * kv, kv]
    assert [step.kv_bytes_read for step in cached.steps] == [3 * kv, 4 * kv]
    assert uncached.kv_bytes_read == uncached.kv_bytes_written == 0


@torch.no_grad()
def test_linear_flops_are_those_of_pytorch_s_counter():
    for model in MODELS.values():
        for cache in (None, DenseCache(model.config)):
            for length in (10, 1, 5):
                with FlopCounterMode(display=False) as theirs, costs.count(model) as ours:
                    model(some_ids(length), cache=cache)
                # On a CPU, PyTorch has no formula for the fused attention and counts the matrix products alone.
                assert theirs.get_total_flops() == ours.linear_flops


@torch.no_grad()
def test_attention_flops_are_pytorch_s_without_what_the_mask_hides():
    """On the meta device PyTorch counts attention too: every query with every key, visible or not.

    We count visible pairs: what a kernel that skips the masked half has to do. The ratio of the two is known.
    """
    model = Transformer(tiny_config())
    ghost = copy.deepcopy(model).to("meta")  # shapes without numbers: only theirs can count there
    cache, ghost_cache, held = DenseCache(model.config), DenseCache(model.config, device="meta"), 0
    for length in (10, 1, 5):  # prefill, decode, a piece
        ids = some_ids(length)
        with FlopCounterMode(display=False) as theirs:
            ghost(ids.to("meta"), cache=ghost_cache)
        with costs.count(model) as ours:
            model(ids, cache=cache)
        attention = theirs.get_total_flops() - ours.linear_flops
        everything = length * (held + length)
        visible = sum(held + i + 1 for i in range(length))
        assert attention > 0
        assert attention * visible == ours.attention_flops * everything
        held += length


def test_a_ragged_batch_counts_padding_and_idle_rows_as_the_work_they_are():
    config = tiny_config(**SMALL)
    model = MODELS["plain"]
    with costs.count(model) as work:
        generate(model, [[5] * 7, [6] * 2], 4, params=ENDLESS)
    assert [step.tokens for step in work.steps] == [14, 2, 2, 2]
    per_slot = costs.kv_bytes_per_token(config, 4)
    # First step: both rows from the start, seven slots each. Then one token a row; the slab is read up to the
    # longest row, for both.
    assert [step.kv_bytes_written // per_slot for step in work.steps] == [14, 2, 2, 2]
    assert [step.kv_bytes_read // per_slot for step in work.steps] == [14, 16, 18, 20]
    body, head = costs.body_flops_per_token(config), costs.head_flops_per_token(config)
    assert [step.linear_flops for step in work.steps] == [14 * body + 2 * head] + [2 * body + 2 * head] * 3
    assert {step.weight_bytes for step in work.steps} == {costs.weight_bytes(config, 4)}  # shared by all rows


def test_padding_that_is_not_stored_is_not_counted_as_written():
    model = MODELS["plain"]
    cache = DenseCache(model.config, 2)
    model(some_ids(4, batch=2), cache=cache, lengths=[4, 1])
    with costs.count(model) as work:
        model(some_ids(6, batch=2), cache=cache, lengths=[6, 2])
    assert work.kv_bytes_written == 8 * costs.kv_bytes_per_token(model.config, 4)
    assert work.kv_bytes_read == 2 * 10 * costs.kv_bytes_per_token(model.config, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_tensors(dtype):
    """Every weight but the norms is read once a pass; the embedding is a lookup unless it is the output layer."""
    for model in MODELS.values():
        model, size = copy.deepcopy(model).to(dtype), dtype.itemsize
        norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
        lookup = 0 if model.config.tie_word_embeddings else model.embed_tokens.weight.numel()
        stored = sum(p.numel() for p in model.parameters())
        with costs.count(model) as work:
            model(some_ids(3), cache=DenseCache(model.config, dtype=dtype))
        assert work.weight_bytes == size * (stored - norms - lookup) == costs.weight_bytes(model.config, size)
        slab = DenseCache(model.config, 1, 3, dtype)
        assert work.kv_bytes_written == slab.nbytes == 3 * costs.kv_bytes_per_token(model.config, size)


def test_counting_leaves_nothing_behind(tiny):
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.modules())

    assert hooks() == 0
    before = tiny(some_ids(5)).logits
    with costs.count(tiny) as work:
        assert hooks() > 0
        assert torch.equal(tiny(some_ids(5)).logits, before)
    assert hooks() == 0
    tiny(some_ids(5))
    assert work.forward_calls == 1
    with pytest.raises(KeyboardInterrupt), costs.count(tiny):
        raise KeyboardInterrupt
    assert hooks() == 0


def test_counts_nest_and_take_the_model_however_it_is_called(tiny):
    with costs.count(tiny) as outer:
        tiny(ids=some_ids(5))
        with costs.count(tiny) as inner:
            tiny(some_ids(3), None, None, True)
    assert (outer.forward_calls, outer.tokens) == (2, 8)
    assert (inner.forward_calls, inner.tokens) == (1, 3)
    assert outer.steps[1] == inner.steps[0]


def test_a_model_that_runs_other_code_than_its_layers_cannot_be_counted(tiny):
    class Faster(Transformer):
        def forward(self, *args, **named):
            return super().forward(*args, **named)

    with refuses(BadParameter, match="plain model"), costs.count(Faster(tiny.config)):
        pass


def test_a_pass_that_fails_is_not_counted(tiny):
    cache = DenseCache(tiny.config, max_length=4)
    with costs.count(tiny) as work:
        tiny(some_ids(4), cache=cache)
        with pytest.raises(CacheFull):
            tiny(some_ids(1), cache=cache)
    assert work.tokens == 4
