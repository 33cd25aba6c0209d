"""DenseCache: whatever way the tokens come in, attention sees what it would have seen without a cache."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import DenseCache, Transformer
from lessonlib.engine.errors import BadParameter, CacheFull
from lessonlib.engine.generate import pad

from .conftest import QUIET, random_model, refuses, some_ids, tiny_config

SHORT = {"max_position_embeddings": 24, "hidden_size": 32, "num_hidden_layers": 2}
MODELS = {
    "plain": random_model(tiny_config(**SHORT)),
    "window": random_model(tiny_config(**SHORT, sliding_window=4)),
    "window in one layer, one KV head": random_model(
        tiny_config(**SHORT, num_key_value_heads=1, sliding_window=3, window_layers=(1,))
    ),
}


def alone(model: Transformer, ids: list[int]) -> torch.Tensor:
    """Logits (length, vocab) of one sequence without any cache."""
    return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("name", MODELS)
@QUIET
@given(data=st.data())
@torch.inference_mode()
def test_any_pieces_and_any_rewinds_equal_the_uncached_forward(name, data):
    """Rows of one batch are fed pieces of different lengths, and taken back, in any order."""
    model = MODELS[name]
    batch = data.draw(st.integers(1, 3), "batch")
    cache = DenseCache(model.config, batch, data.draw(st.integers(12, 24), "max_length"))
    held: list[list[int]] = [[] for _ in range(batch)]
    for _ in range(data.draw(st.integers(1, 5), "steps")):
        if data.draw(st.integers(0, 3), "kind") == 0:
            lengths = [data.draw(st.integers(0, len(row)), "rewind to") for row in held]
            cache.rewind(lengths)
            held = [row[:length] for row, length in zip(held, lengths, strict=True)]
            continue
        room = [min(9, cache.max_length - len(row)) for row in held]
        piece = [data.draw(st.lists(st.integers(0, 96), max_size=n), "piece") for n in room]
        logits = model(pad(piece), cache=cache, lengths=[len(p) for p in piece]).logits
        for row, (past, new) in enumerate(zip(held, piece, strict=True)):
            past.extend(new)
            if new:
                expected = alone(model, past)[-len(new) :]
                assert (logits[row, : len(new)] - expected).abs().max() < 1e-4
        assert cache.lengths == [len(row) for row in held]


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_rows_of_different_lengths_do_not_see_each_other(name):
    model = MODELS[name]
    rows = [some_ids(n, seed=n)[0].tolist() for n in (11, 1, 6)]
    logits = model(pad(rows), lengths=[11, 1, 6]).logits
    cached = model(pad(rows), cache=DenseCache(model.config, 3), lengths=[11, 1, 6]).logits
    last = model(pad(rows), cache=DenseCache(model.config, 3), lengths=[11, 1, 6], last_only=True).logits
    for i, row in enumerate(rows):
        expected = alone(model, row)
        for got in (logits, cached):
            assert (got[i, : len(row)] - expected).abs().max() < 1e-4
        assert last.shape == (3, 1, 97)
        assert (last[i, 0] - expected[-1]).abs().max() < 1e-4


@torch.inference_mode()
def test_reset_is_as_good_as_new(tiny):
    cache = DenseCache(tiny.config, batch=2, max_length=20)

    def fed() -> torch.Tensor:
        first = tiny(some_ids(9, batch=2), cache=cache, lengths=[9, 2]).logits[:, :2]
        return torch.cat([first, tiny(some_ids(6, batch=2), cache=cache, lengths=[6, 2]).logits[:, :2]])

    fresh = fed()
    # Half precision overflows now and then; what it leaves behind must not outlive a reset.
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.inf)
    cache.reset()
    assert cache.lengths == [0, 0]
    assert torch.equal(fed(), fresh)


def test_a_cache_costs_what_it_says():
    cache = DenseCache(tiny_config(), batch=3, max_length=50, dtype=torch.bfloat16)
    assert (
        cache.nbytes == 2 * 3 * 3 * 2 * 50 * 16 * 2
    )  # K and V, layers, rows, KV heads, slots, numbers, bytes
    assert DenseCache(tiny_config()).max_length == 128


def test_full_says_so_and_nothing_is_lost(tiny):
    cache = DenseCache(tiny.config, batch=2, max_length=10)
    ids = some_ids(8, batch=2)
    tiny(ids, cache=cache, lengths=[8, 3])
    with refuses(CacheFull, match="holds 10 tokens a row and 11 are needed"):
        tiny(some_ids(3, batch=2), cache=cache)
    assert cache.lengths == [8, 3]
    more = some_ids(3, batch=2)
    logits = tiny(more, cache=cache, lengths=[2, 3]).logits  # exactly to the brim
    assert (logits[1] - alone(tiny, [*ids[1, :3].tolist(), *more[1].tolist()])[-3:]).abs().max() < 1e-4
    assert cache.lengths == [10, 6]


def test_an_interrupted_forward_can_be_repeated(tiny):
    model, ids = copy.deepcopy(tiny), some_ids(12)
    cache = DenseCache(model.config)
    model(ids[:, :6], cache=cache)

    def press_ctrl_c(*_):
        raise KeyboardInterrupt

    hook = model.layers[1].register_forward_hook(press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        model(ids[:, 6:], cache=cache)
    hook.remove()
    assert cache.lengths == [6]
    assert (model(ids[:, 6:], cache=cache).logits - model(ids).logits[:, 6:]).abs().max() < 1e-4


def test_works_inside_and_outside_of_inference_mode(tiny):
    ids = some_ids(9)
    with torch.inference_mode():
        cache = DenseCache(tiny.config)
        tiny(ids[:, :4], cache=cache)
    logits = tiny(ids[:, 4:], cache=cache).logits
    assert (logits - tiny(ids).logits[:, 4:]).abs().max() < 1e-4
    cache.reset()


def test_the_past_holds_no_graph():
    """Without no_grad, every step would keep every step before it alive."""
    model = Transformer(tiny_config())
    cache = DenseCache(model.config)
    for token in range(3):
        assert model(torch.tensor([[token]]), cache=cache).logits.requires_grad
    assert not cache.keys.requires_grad
    copy.deepcopy(cache)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_cache_equals_half_precision_forward(tiny, dtype):
    model, ids = copy.deepcopy(tiny).to(dtype), some_ids(20)
    cache = DenseCache(model.config, dtype=dtype)
    pieces = torch.cat([model(piece, cache=cache).logits for piece in ids.split([9, 1, 10], 1)], 1)
    exact = tiny(ids).logits
    assert (pieces - exact).abs().mean() < 1.2 * (model(ids).logits - exact).abs().mean()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_length": 0}, "0 tokens a row"),
        ({"max_length": 129}, "context of 128; choose 1 to 128"),
        ({"max_length": 2.0}, "2.0 tokens"),
        ({"batch": 0}, "batch of 0 rows"),
        ({"batch": 1.5}, "batch of 1.5 rows"),
    ],
)
def test_senseless_sizes_are_refused(settings, match):
    with refuses(BadParameter, match=match):
        DenseCache(tiny_config(), **settings)


def test_rewinding_is_checked_and_takes_any_whole_numbers(tiny):
    cache = DenseCache(tiny.config, batch=2)
    tiny(some_ids(7, batch=2), cache=cache)
    with refuses(BadParameter, match="Row 0 holds 7 tokens and cannot be rewound to 8"):
        cache.rewind(8)
    with refuses(BadParameter, match="Row 1 holds 7 tokens and cannot be rewound to -1"):
        cache.rewind([3, -1])
    with refuses(BadParameter, match="2 rows, but 1 lengths"):
        cache.rewind([3])
    assert cache.lengths == [7, 7]
    cache.rewind(np.int64(6))
    cache.rewind(torch.tensor([5, 2]))
    assert cache.lengths == [5, 2]


def test_a_cache_of_another_kind_is_refused(tiny):
    ids = some_ids(3)
    for cache, match in [
        (DenseCache(tiny.config, batch=2), "batch of 2 but got 1"),
        (DenseCache(tiny.config, dtype=torch.bfloat16), "torch.bfloat16.*torch.float32"),
        (DenseCache(tiny.config, device="meta"), "on meta"),
        (DenseCache(tiny_config(num_key_value_heads=1)), "another model"),
        (DenseCache(tiny_config(head_dim=32)), "another model"),
        (DenseCache(tiny_config(num_hidden_layers=2)), "another model"),
    ]:
        with refuses(BadParameter, match=match):
            tiny(ids, cache=cache)
        assert set(cache.lengths) == {0}


@pytest.mark.parametrize("lengths", [[4], [-1], [1, 1], []])
def test_lengths_that_do_not_fit_the_ids_are_refused(tiny, lengths):
    for cache in (None, DenseCache(tiny.config)):
        with refuses(BadParameter, match="does not fit ids of shape"):
            tiny(some_ids(3), cache=cache, lengths=lengths)
