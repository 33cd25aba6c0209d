"""A model card tells of the weights beside it, not of an earlier training's."""

from __future__ import annotations

import re

import pytest

from lessonlib.engine import load_config
from lessonlib.engine.checkpoint import ZOO
from lessonlib.zoo.recipe import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_card_recipe_and_weights_are_of_one_training(name):
    config, recipe = load_config(name), RECIPES[name]
    card = (ZOO / name / "README.md").read_text()
    assert config == recipe.config
    assert f"| shape | {config.num_hidden_layers} layers, hidden {config.hidden_size}, " in card
    assert f"FFN {config.intermediate_size}, vocabulary {config.vocab_size}, " in card
    assert f"A {config.num_parameters / 1e6:.1f} M-parameter" in card
    size = (ZOO / name / "model.safetensors").stat().st_size
    assert f"| stored | bfloat16, {size / 1e6:.1f} MB |" in card
    assert f"{recipe.steps:,} steps of {recipe.batch_tokens:,} tokens" in card


def test_both_were_trained_on_the_same_corpus():
    """The draft imitates pico: it must not have read what pico's licences left out."""
    digests = {re.search(r"SHA-256 `(\w{64})`", (ZOO / n / "README.md").read_text())[1] for n in RECIPES}
    assert len(digests) == 1
