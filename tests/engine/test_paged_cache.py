"""PagedCache: wherever the blocks lie and however the tokens come in, each query sees its own past and no other."""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch

from lessonlib.engine import DenseCache, Transformer
from lessonlib.engine.errors import BadParameter, PromptTooLong
from lessonlib.engine.paged_cache import PagedCache, Span

from .conftest import random_model, refuses, some_ids, tiny_config

SHORT = {"max_position_embeddings": 40, "hidden_size": 32, "num_hidden_layers": 2}
MODELS = {
    "plain": random_model(tiny_config(**SHORT)),
    "window": random_model(tiny_config(**SHORT, sliding_window=4)),
    "window in one layer, one KV head": random_model(
        tiny_config(**SHORT, num_key_value_heads=1, sliding_window=3, window_layers=(1,))
    ),
    "a KV head each": random_model(tiny_config(**SHORT, num_key_value_heads=4)),
}


def alone(model: Transformer, ids: list[int]) -> torch.Tensor:
    """Logits (length, vocab) of one sequence without any cache."""
    return model(torch.tensor([ids])).logits[0]


def soiled(cache: PagedCache) -> PagedCache:
    """What nobody wrote is large, so that it shows where it is seen."""
    for part in (cache.keys, cache.values):
        part.fill_(50)
    return cache


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_any_batch_of_any_pieces_equals_the_uncached_forward(name):
    """Sequences in scattered blocks get pieces of different lengths in any order, some tokens again (rewind)."""
    model = MODELS[name]
    for seed in range(40):
        random = Random(seed)
        size = random.choice([1, 2, 3, 4, 16])
        blocks = list(range(-(-40 // size) * 4))
        random.shuffle(blocks)
        per_row = len(blocks) // 4
        tables = [blocks[row * per_row : (row + 1) * per_row] for row in range(4)]
        cache = soiled(PagedCache(model.config, len(blocks), size))
        held: list[list[int]] = [[] for _ in tables]
        for _ in range(5):
            spans, ids, rows = [], [], []
            for row in random.sample(range(4), random.randint(1, 4)):
                start = random.choice([len(held[row]), len(held[row]), random.randint(0, len(held[row]))])
                count = min(random.choice([1, 1, 2, 3, 8]), 39 - start)
                if count < 1:
                    continue
                new = [random.randrange(97) for _ in range(count)]
                held[row] = held[row][:start] + new
                spans.append(
                    Span(tables[row][: random.randint(-(-(start + count) // size), per_row)], start, count)
                )
                rows.append(row)
                ids += new
            if not spans:
                continue
            cache.plan(spans)
            logits = model(torch.tensor([ids]), cache=cache).logits[0]
            assert torch.equal(
                cache.positions[0], torch.tensor([p for s in spans for p in range(s[1], s[1] + s[2])])
            )
            assert cache.slots_written == len(ids)
            assert cache.slots_read == sum(len(held[row]) for row in rows)
            first = 0
            for row, span in zip(rows, spans, strict=True):
                expected = alone(model, held[row])[span.start :]
                assert (logits[first : first + span.count] - expected).abs().max() < 1e-4
                first += span.count


@torch.inference_mode()
def test_a_token_lies_where_its_block_table_says():
    model = MODELS["plain"]
    cache = soiled(PagedCache(model.config, 6, 4))
    table, ids = [5, 0, 3], some_ids(10)
    cache.plan([Span(table, 0, 7)])
    model(ids[:, :7], cache=cache)
    assert cache.slots.tolist() == [20, 21, 22, 23, 0, 1, 2]
    cache.plan([Span(table, 7, 3)])
    model(ids[:, 7:], cache=cache)
    assert cache.slots.tolist() == [3, 12, 13]
    dense = DenseCache(model.config, 1)
    model(ids, cache=dense)
    slots = [table[p // 4] * 4 + p % 4 for p in range(10)]
    for ours, theirs in ((cache.keys, dense.keys), (cache.values, dense.values)):
        assert ours.shape == (2, 24, 2, 16)
        # (layers, slots, kv_heads, head_dim) against (layers, kv_heads, slots, head_dim)
        assert (ours[:, slots] - theirs[:, 0, :, :10].transpose(1, 2)).abs().max() < 1e-5
        others = [slot for slot in range(24) if slot not in slots]
        assert (ours[:, others] == 50).all()  # and nothing anywhere else


@torch.inference_mode()
def test_two_tables_may_share_a_beginning_until_one_of_them_writes():
    model = MODELS["plain"]
    cache = soiled(PagedCache(model.config, 6, 4))
    prompt, one, two = some_ids(7)[0].tolist(), [11, 12, 13], [21, 22, 23]
    cache.plan([Span([0, 1], 0, 7)])
    model(torch.tensor([prompt]), cache=cache)
    cache.copy([(1, 4)])
    cache.plan([Span([0, 1, 2], 7, 3), Span([0, 4, 5], 7, 3)])
    logits = model(torch.tensor([one + two]), cache=cache).logits[0]
    for part, answer in ((logits[:3], one), (logits[3:], two)):
        assert (part - alone(model, prompt + answer)[7:]).abs().max() < 1e-4


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_copies_take_everything_along_in_their_order(quantization):
    config = MODELS["plain"].config
    cache = PagedCache(config, 5, 2, quantization=quantization)
    parts = [part for group in cache.store.parts for part in group]
    assert len(parts) == (2 if quantization is None else 4)  # keys and values, and their scales
    for part in parts:
        fresh = torch.randint(0, 100, part.shape, generator=torch.Generator().manual_seed(1))
        part.copy_(fresh)
    before = [part.clone() for part in parts]
    cache.copy([(0, 3), (1, 4), (3, 2)])
    for part, old in zip(parts, before, strict=True):
        blocks, was = part.unflatten(1, (5, 2)), old.unflatten(1, (5, 2))
        for block, source in enumerate((0, 1, 0, 0, 1)):
            assert torch.equal(blocks[:, block], was[:, source])
    cache.reset()
    assert not any(part.any() for part in parts)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("name", ["plain", "window in one layer, one KV head"])
@torch.inference_mode()
def test_a_quantized_cache_gives_the_same_whatever_the_pieces(name, quantization):
    """What is read is what was stored, in every case: as in the dense cache, and in any batch."""
    model = copy.deepcopy(MODELS[name]).double()  # so that no code is rounded up here and down there
    rows = [some_ids(12, seed=seed) for seed in range(3)]
    dense = DenseCache(model.config, 3, dtype=torch.float64, quantization=quantization)
    expected = model(torch.cat(rows), cache=dense).logits
    exact = model(torch.cat(rows)).logits
    assert (expected - exact).abs().max() > 1e-3  # it is quantized
    for pieces in ([12], [5, 7], [1] * 12, [11, 1]):
        cache = PagedCache(model.config, 12, 4, torch.float64, quantization=quantization)
        got, start = [], 0
        for count in pieces:
            cache.plan([Span([row, row + 3, row + 6], start, count) for row in range(3)])
            ids = torch.cat([row[:, start : start + count] for row in rows], dim=1)
            got.append(model(ids, cache=cache).logits.unflatten(1, (3, count))[0])
            start += count
        assert (torch.cat(got, dim=1) - expected).abs().max() < 1e-5
    whole = PagedCache(model.config, 12, 4)
    assert cache.nbytes < whole.nbytes == 2 * 2 * 48 * whole.keys.shape[2] * 16 * 4


@torch.inference_mode()
def test_the_logits_that_are_asked_for():
    model = MODELS["plain"]
    cache = PagedCache(model.config, 8, 4)
    ids = torch.cat([some_ids(5), some_ids(3)], dim=1)
    spans = [Span([0, 1], 0, 5), Span([2], 0, 3)]
    cache.plan(spans)
    every = model(ids, cache=cache).logits
    cache.plan(spans)
    last = model(ids, cache=cache, at=torch.tensor([4, 7])).logits
    assert last.shape == (1, 2, 97)
    assert (last[0] - every[0, [4, 7]]).abs().max() < 1e-5


@torch.inference_mode()
def test_a_pass_that_was_not_announced_is_refused():
    model = MODELS["plain"]
    cache = PagedCache(model.config, 4, 4)
    ids = some_ids(5)
    with refuses(BadParameter, match="plan announced 0 tokens"):
        model(ids, cache=cache)
    cache.plan([Span([0, 1], 0, 5)])
    model(ids, cache=cache)
    with refuses(BadParameter, match="plan announced 0 tokens"):  # one plan, one pass
        model(ids, cache=cache)
    cache.plan([Span([0, 1], 0, 4)])
    for wrong, lengths in ((ids, None), (some_ids(2, batch=2), None), (ids[:, :4], [4])):
        with refuses(BadParameter, match="plan announced 4 tokens"):
            model(wrong, cache=cache, lengths=lengths)
    # An error leaves a pass half done; the next plan begins anew.
    cache.plan([Span([2, 3], 0, 5)])
    assert (model(ids, cache=cache).logits[0] - alone(model, ids[0].tolist())).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "dtype", "match"),
    [
        ({}, torch.bfloat16, "dtype=model.dtype"),
        ({"num_key_value_heads": 1}, torch.float32, "made for another model"),
        ({"head_dim": 32}, torch.float32, "made for another model"),
        ({"num_hidden_layers": 1}, torch.float32, "made for another model"),
    ],
    ids=str,
)
@torch.inference_mode()
def test_the_cache_of_another_model_is_refused(changes, dtype, match):
    cache = PagedCache(tiny_config(**{**SHORT, **changes}), 4, 4, dtype)
    cache.plan([Span([0, 1], 0, 5)])
    with refuses(BadParameter, match=match):
        MODELS["plain"](some_ids(5), cache=cache)


@pytest.mark.parametrize(
    "span", [([0], 0, 5), ([0], 4, 1), ([], 0, 1), ([0], 0, 0), ([0], -1, 1), ([0, 1], 6, 3)]
)
def test_tables_that_are_too_short_are_refused(span):
    cache = PagedCache(MODELS["plain"].config, 4, 4)
    with refuses(BadParameter, match="grow the table first"):
        cache.plan([Span([3], 0, 4), Span(*span)])


def test_plans_beyond_the_pool_or_the_context_are_refused():
    cache = PagedCache(tiny_config(), 40, 4)
    for table, wrong in (([40], 40), ([3, 10**7], 10**7), ([-1], -1), ([-1, 2], -1), ([1, 50, 60], 50)):
        with refuses(BadParameter, match=f"points to block {wrong}, and the cache has blocks 0 to 39"):
            cache.plan([Span(table, 0, 3)])
    cache.plan([Span(list(range(32)), 120, 8)])
    with refuses(PromptTooLong, match="context of 128"):
        cache.plan([Span(list(range(40)), 125, 4)])
    for sizes in ((0, 4), (3, 0), (2.5, 4)):
        with refuses(BadParameter, match="num_blocks|block_size"):
            PagedCache(tiny_config(), *sizes)


def test_an_unknown_number_format_is_refused():
    with refuses(BadParameter, match="'int2'"):
        PagedCache(MODELS["plain"].config, 4, 4, quantization="int2")
