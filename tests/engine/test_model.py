"""One forward pass: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import pytest
import torch

from lessonlib.engine import DenseCache, Transformer
from lessonlib.engine.errors import BadParameter, EmptyPrompt, PromptTooLong, TokenOutOfRange

from .conftest import random_model, refuses, some_ids, tiny_config


def test_ids_in_logits_out(tiny):
    for dtype in (torch.int64, torch.int32):
        logits = tiny(some_ids(5, batch=2).to(dtype)).logits
        assert logits.shape == (2, 5, 97)
        assert logits.dtype == torch.float32
    assert random_model(tiny_config()).bfloat16()(some_ids(3)).logits.dtype == torch.float32


def test_a_token_sees_only_what_stands_before_it(tiny):
    ids = some_ids(20)
    changed = ids.clone()
    changed[0, 12] = (ids[0, 12] + 1) % 97
    before, after = tiny(ids).logits[0], tiny(changed).logits[0]
    assert torch.equal(before[:12], after[:12])
    assert ((before[12:] - after[12:]).abs().amax(-1) > 1e-3).all()  # and everything after it does see it


def test_a_window_ends_what_a_token_sees():
    """Two layers with a window of 3 carry information over at most 2 * (3 - 1) tokens."""
    model = random_model(tiny_config(num_hidden_layers=2, sliding_window=3))
    ids = some_ids(20)
    changed = ids.clone()
    changed[0, 5] = (ids[0, 5] + 1) % 97
    moved = (model(ids).logits - model(changed).logits)[0].abs().amax(-1) > 1e-4
    assert moved.nonzero().flatten().tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 1, "head_dim": 24},
        {"attention_bias": True, "output_bias": True, "mlp_bias": True},
        {"family": "qwen3", "qk_norm": True},
    ],
    ids=str,
)
def test_the_number_of_parameters_is_told_without_building_the_model(changes):
    config = tiny_config(**changes)
    assert sum(p.numel() for p in Transformer(config).parameters()) == config.num_parameters


@torch.no_grad()
def test_runs_without_weights_on_the_meta_device():
    """The meta device computes shapes only, and refuses every tensor that was made on another device."""
    with torch.device("meta"):
        model = Transformer(tiny_config(sliding_window=4))
    ids = torch.zeros(2, 9, dtype=torch.int64, device="meta")
    cache = DenseCache(model.config, 2, device="meta")
    for kind in (None, cache, cache):
        assert model(ids, cache=kind, lengths=[9, 4], last_only=True).logits.shape == (2, 1, 97)


@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        ([[1, 2]], BadParameter, "not list"),
        (torch.ones(1, 3) / 2, BadParameter, "torch.float32"),
        (torch.ones(1, 3, dtype=torch.bool), BadParameter, "torch.bool"),
        (torch.ones(1, 3, dtype=torch.uint8), BadParameter, "torch.uint8"),
        (torch.tensor([1, 2]), EmptyPrompt, "shape"),
        (torch.zeros(0, 3, dtype=torch.int64), EmptyPrompt, "at least one"),
        (torch.zeros(1, 129, dtype=torch.int64), PromptTooLong, "129 tokens do not fit .* 128"),
        (torch.tensor([[1, 97]]), TokenOutOfRange, "97 is outside the vocabulary .0 to 96"),
        (torch.tensor([[1, -2]]), TokenOutOfRange, "-2 is outside"),
    ],
    ids=str,
)
def test_what_are_no_ids_is_refused(tiny, ids, error, match):
    with refuses(error, match=match):
        tiny(ids)
