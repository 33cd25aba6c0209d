"""The KV cache's picture: the browser's bytes, FLOPs and users are the engine's, for every kind of model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lessonlib import explorers
from lessonlib.engine import DenseCache, ModelConfig, costs
from lessonlib.engine.errors import BadParameter
from lessonlib.explorers.pictures.kv_cache import (
    CARDS,
    FORMATS,
    PRESETS,
    STEPS,
    bytes_text,
    shape,
    users_that_fit,
)

from .tiny import CONFIG

PICTURE, KV = "pictures/kv_cache.js", "shared/kv.js"
MODELS = {
    "grouped": CONFIG,
    "tied, one KV head, biases": replace(
        CONFIG,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "QK norm, wide heads": replace(CONFIG, head_dim=32, num_key_value_heads=4, qk_norm=True),
    "window": replace(CONFIG, sliding_window=6, window_layers=(0, 2)),
    "window everywhere": replace(CONFIG, sliding_window=4),
}


def state(config: ModelConfig, **more: Any) -> dict[str, Any]:
    return explorers.kv_cache(config).data["defaults"] | more


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_counted_as_the_engine_counts_them(node, name: str):
    config = MODELS[name]
    assert node(KV, "m.parameters(input)", shape(config)) == config.num_parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", FORMATS)
def test_bytes_are_those_of_a_real_cache(node, name: str, format: str):
    config = MODELS[name]
    stored: dict[str, Any] = (
        {"quantization": format} if format.startswith("int") else {"dtype": getattr(torch, format)}
    )
    cache = DenseCache(config, batch=3, max_length=10, **stored)
    given = [shape(config), format]
    assert node(KV, "m.kvBytesPerToken(...input)", given) == cache.nbytes / 30
    assert (
        node(KV, "m.needs(input[0], {format: input[1], context: 10, users: 3}, []).all", given)
        == cache.nbytes
    )


@pytest.mark.parametrize("name", MODELS)
def test_flops_saved_and_bytes_held_are_those_of_the_engine(node, name: str):
    config = MODELS[name]
    without, cached = (costs.predict(config, 7, STEPS, use_cache=use).steps for use in (False, True))
    gained = node(
        KV, "m.gains(input[0], {prompt: 7, steps: input[1], format: 'float16'})", [shape(config), STEPS]
    )
    assert gained["held"] == [step.tokens * costs.kv_bytes_per_token(config) for step in without]
    saved = [a.flops - b.flops for a, b in zip(without, cached, strict=True)]
    assert gained["saved"] == [sum(saved[: i + 1]) for i in range(STEPS)]
    at_20 = node(KV, "m.needs(input, {format: 'float16', context: 20, users: 1}, []).saved", shape(config))
    one, other = (costs.predict(config, 19, 2, use_cache=use).steps[1].flops for use in (False, True))
    assert at_20 == one - other


@pytest.mark.parametrize("cached", [False, True])
def test_cells_are_the_pairs_of_tokens_that_attention_computes(node, cached: bool):
    pairs = [
        step.attention_flops // costs.attention_flops_per_pair(CONFIG)
        for step in costs.predict(CONFIG, 5, 6, use_cache=cached).steps
    ]
    steps = [[5, step, cached] for step in range(1, 7)]
    assert node(KV, "input.map((a) => m.cellsAt(...a))", steps) == pairs
    # What is painted as computed at this step has so many cells.
    rows = node(KV, "input.map((a) => m.rowsAt(...a))", steps)
    painted = [
        sum(sum(range(first + 1, last + 1)) for first, last, fill in step if fill != "reused")
        for step in rows
    ]
    assert painted == pairs


def test_the_presets_are_the_real_models():
    """Parameters as the model cards give them; bytes a token as everybody quotes them."""
    assert {name: config.num_parameters for name, config in PRESETS.items()} == {
        "Llama-2-7B": 6_738_415_616,
        "Llama-3.1-8B": 8_030_261_248,
        "Llama-2-70B": 68_976_648_192,
    }
    kib = {name: costs.kv_bytes_per_token(config) / 1024 for name, config in PRESETS.items()}
    assert kib == {"Llama-2-7B": 512, "Llama-3.1-8B": 128, "Llama-2-70B": 320}


@pytest.mark.parametrize("name", [*PRESETS, "window"])
def test_as_many_users_fit_as_python_says(node, name: str):
    config = {**PRESETS, **MODELS}[name]
    for context in (100, 4096):
        given = [shape(config), {"format": "float16", "context": context, "users": 1}, CARDS]
        fit = [users_that_fit(config, card["bytes"], context) for card in CARDS]
        assert node(KV, "m.needs(...input).fit", given) == fit
        for card, users in zip(CARDS, fit, strict=True):
            used = 2 * config.num_parameters + (users or 0) * context * costs.kv_bytes_per_token(config)
            more = used + context * costs.kv_bytes_per_token(config)
            assert (used > card["bytes"]) == (users is None)
            assert more > card["bytes"]


def test_memory_is_written_alike_in_python_and_javascript(node):
    amounts = [
        0,
        1,
        1023,
        2688,
        102_912,
        1024,
        1536,
        6144,
        79872,
        2**20 - 1,
        2**20,
        327680 * 13,
        5.5 * 2**30,
        3 * 2**50,
    ]
    assert node("shared/numbers.js", "input.map(m.bytesText)", amounts) == [bytes_text(a) for a in amounts]
    assert bytes_text(327680) == "320 KiB" and bytes_text(1.5 * 2**20) == "1.5 MiB"


@pytest.mark.parametrize("step", [1, 6, 12])
def test_the_sentence_is_the_same_in_python_and_javascript(node, step: int):
    widget = explorers.kv_cache(CONFIG, step=step, prompt_tokens=9)
    title = node(PICTURE, "m.reuseTitle(input, input.defaults)", dict(widget.data))
    assert widget.summary().startswith(title)


def test_the_other_title_says_what_one_token_costs_and_who_fits(node):
    data = explorers.kv_cache(CONFIG).data

    def title(**more: Any) -> str:
        given = [dict(data), dict(data["defaults"]) | more]
        return node(
            PICTURE, "m.costTitle(input[0], {...input[1], ...m.fromModel(input[0], input[1].model)})", given
        )

    assert title(model="Llama-2-7B") == (
        "Llama-2-7B: 512 KiB a token. A 24 GB card holds 4 users of 4,096 tokens."
    )
    assert title(model="Llama-2-70B") == (
        "Llama-2-70B: 320 KiB a token. A 141 GB card holds 2 users of 4,096 tokens."
    )
    huge = {"models": {"big": shape(replace(PRESETS["Llama-2-70B"], num_hidden_layers=200))}, "cards": CARDS}
    given = [
        huge | {"contexts": []},
        state(CONFIG, model="big", layers=200, heads=64, kvHeads=8, headDim=128),
    ]
    assert node(PICTURE, "m.costTitle(...input)", given).endswith("too large for each of these cards.")


def test_a_folder_goes_by_its_name_and_other_views_are_refused(tiny):
    widget = explorers.kv_cache(tiny, view="cost", step=99, prompt_tokens=0)
    assert list(widget.data["models"]) == ["tiny", *PRESETS]
    at = widget.data["defaults"]
    assert (at["view"], at["step"], at["prompt"], at["context"]) == ("cost", STEPS, 1, 256)
    with pytest.raises(BadParameter, match="choose 'reuse' or 'cost'"):
        explorers.kv_cache(CONFIG, view="costs")


@pytest.mark.parametrize("step", [1, 6, 12])
def test_no_label_is_cut_off_on_paper(step: int):
    figure = explorers.kv_cache(CONFIG, step=step).figure()
    renderer = figure.canvas.get_renderer()
    for label in [*figure.texts, *(label for ax in figure.axes for label in ax.texts)]:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, label.get_text()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, label.get_text()
