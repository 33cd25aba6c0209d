"""The attack on the output layer works where nothing stops it, to the last dimension, and on any model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lessonlib.engine import ModelConfig, Transformer, load_model
from lessonlib.engine.errors import BadParameter
from lessonlib.security.attacks import ModelOracle, Stolen, attack_hidden_size
from lessonlib.security.logit_surface import LogitSurfacePolicy

from ..engine.conftest import refuses


def random_model(hidden_size: int, vocab_size: int, seed: int = 0, tied: bool = False) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(
        ModelConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    )
    model.initialize(std=0.3)
    return model.eval().requires_grad_(False)


def layer_error(model: Transformer, stolen: Stolen) -> float:
    """How much of the true output layer the stolen one lacks, after the best square matrix between them."""
    assert stolen.layer is not None and stolen.reference is not None
    weight = model.lm_head.weight.double().numpy()
    true = weight[list(stolen.tokens)] - weight[stolen.reference]
    square = np.linalg.lstsq(stolen.layer, true, rcond=None)[0]
    return float(np.linalg.norm(stolen.layer @ square - true) / np.linalg.norm(true))


@pytest.fixture(scope="module")
def pico() -> Transformer:
    return load_model("pico")


def test_pico_s_hidden_size_and_output_layer_are_read_through_top_20(pico):
    oracle = ModelOracle(pico, LogitSurfacePolicy.off())
    stolen = attack_hidden_size(oracle, pico.config.vocab_size)
    assert stolen.hidden_size == pico.config.hidden_size == 256
    assert stolen.gap > 1000
    assert stolen.queries == oracle.queries < 6000
    assert stolen.layer is not None and stolen.layer.shape == (len(stolen.tokens), 256)
    assert layer_error(pico, stolen) < 1e-4
    assert (
        layer_error(pico, Stolen(255, 0, "", 0, None, stolen.reference, stolen.tokens, stolen.layer[:, :255]))
        > 1e-3
    )


@pytest.mark.parametrize(
    ("hidden_size", "vocab_size", "top_k", "tied"),
    [(24, 97, 20, False), (24, 97, 2, True), (64, 200, 5, True), (63, 200, 5, False), (96, 150, 11, False)],
)
def test_any_model_s_hidden_size_is_read(hidden_size, vocab_size, top_k, tied):
    model = random_model(hidden_size, vocab_size, tied=tied)
    oracle = ModelOracle(model, LogitSurfacePolicy.off(top_k))
    stolen = attack_hidden_size(oracle, vocab_size, top_k=top_k, start=16, bias=1000)
    assert stolen.hidden_size == hidden_size
    assert layer_error(model, stolen) < 1e-3
    size = len(stolen.tokens)
    assert stolen.queries <= size * (math.ceil(size / (top_k - 1)) + 5)  # nothing asked twice


def test_without_a_cliff_nothing_is_claimed():
    wide = random_model(96, vocab_size=97)  # as many dimensions as differences of logits: nothing to see
    stolen = attack_hidden_size(ModelOracle(wide, LogitSurfacePolicy.off()), 97, bias=1000)
    assert (stolen.hidden_size, stolen.layer, stolen.reason) == (
        None,
        None,
        "The singular values have no cliff.",
    )
    narrow = random_model(24, vocab_size=97)
    stopped = attack_hidden_size(
        ModelOracle(narrow, LogitSurfacePolicy.off()), 97, start=16, limit=24, bias=1000
    )
    assert stopped.hidden_size is None and len(stopped.tokens) == 24


def test_a_bias_too_small_to_reach_the_top_is_noticed():
    model = random_model(24, vocab_size=97)
    stolen = attack_hidden_size(ModelOracle(model, LogitSurfacePolicy.off(5)), 97, top_k=5, bias=0.01)
    assert stolen.hidden_size is None and "do not show" in stolen.reason


def test_too_little_to_begin_with_is_refused():
    oracle = ModelOracle(random_model(24, vocab_size=97), LogitSurfacePolicy.off(5))
    for settings in ({"top_k": 1}, {"start": 1}, {"start": 2.5}):
        with refuses(BadParameter):
            attack_hidden_size(oracle, 97, **settings)
    assert attack_hidden_size(oracle, 97, top_k=5, start=2, bias=1000).hidden_size == 24
    assert oracle.queries > 0
