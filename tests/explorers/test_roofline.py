"""The roofline's FLOPs and bytes are those of the engine, counted and predicted; the browser computes the same."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from lessonlib import explorers
from lessonlib.engine import DenseCache, ModelConfig, Transformer, costs, load_config
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize import quantize_model
from lessonlib.explorers.pictures import roofline as room
from lessonlib.explorers.pictures.kv_cache import PRESETS

from .tiny import CONFIG

MODULE = "shared/roofline.js"
PICTURE = "pictures/roofline.js"
BIASED = replace(CONFIG, attention_bias=True, tie_word_embeddings=True)
WINDOWED = replace(CONFIG, sliding_window=6, window_layers=(0, 2))
H100 = room.CHIPS["H100 SXM"]


def test_a_decode_step_is_what_the_engine_counts():
    torch.manual_seed(0)
    model = Transformer(CONFIG).bfloat16()
    batch, context = 3, 10
    cache = DenseCache(CONFIG, batch, 16, model.dtype)
    with torch.inference_mode(), costs.count(model) as work:
        model(torch.ones(batch, context - 1, dtype=torch.int64), cache=cache, last_only=True)
        model(torch.ones(batch, 1, dtype=torch.int64), cache=cache, last_only=True)
    step = room.decode_step(CONFIG, "bf16", batch, context, H100)
    assert (step.flops, step.bytes) == (work.steps[1].flops, work.steps[1].bytes)
    one = room.prefill_step(CONFIG, "bf16", context - 1, H100)
    assert batch * one.flops == work.steps[0].flops
    assert (
        batch * (one.bytes - costs.weight_bytes(CONFIG)) + costs.weight_bytes(CONFIG) == work.steps[0].bytes
    )


@pytest.mark.parametrize("scheme", room.WEIGHTS)
@pytest.mark.parametrize("config", [load_config("pico"), BIASED], ids=["pico", "biased"])
def test_weights_weigh_what_the_engine_stores(config: ModelConfig, scheme: str):
    model = Transformer(config).bfloat16()
    stored = quantize_model(model, {"bf16": "bfloat16"}.get(scheme, scheme))
    assert room.weight_bytes(config, scheme) == costs.stored_weight_bytes(stored)
    assert room.embedding_bytes(config, scheme) == 0


def test_an_embedding_of_its_own_is_held_but_not_read():
    model = quantize_model(Transformer(CONFIG).bfloat16(), "int8")
    both = room.weight_bytes(CONFIG, "int8") + room.embedding_bytes(CONFIG, "int8")
    assert both == costs.stored_weight_bytes(model)
    assert room.embedding_bytes(CONFIG, "bf16") == 2 * CONFIG.vocab_size * CONFIG.hidden_size


@pytest.mark.parametrize("config", [CONFIG, BIASED, WINDOWED, *PRESETS.values()])
def test_the_browser_computes_the_same(node, config: ModelConfig):
    cases = [
        (weights, batch, context, chip)
        for weights in room.WEIGHTS
        for batch in (1, 16, 1024)
        for context in (128, 256)
        for chip in ("H100 SXM", "Laptop CPU, DDR5")
    ]
    given = {
        "model": room._sent(config),
        "cases": cases,
        "chips": {n: asdict(c) for n, c in room.CHIPS.items()},
    }
    found = node(
        MODULE,
        """input.cases.map(([weights, batch, context, chip]) => [
            m.decodeStep(input.model, weights, batch, context, input.chips[chip]),
            m.prefillStep(input.model, weights, context, input.chips[chip])])""",
        given,
    )
    for (weights, batch, context, chip), both in zip(cases, found, strict=True):
        expected = (
            room.decode_step(config, weights, batch, context, room.CHIPS[chip]),
            room.prefill_step(config, weights, context, room.CHIPS[chip]),
        )
        for step, js in zip(expected, both, strict=True):
            assert (js["flops"], js["bytes"], js["bound"]) == (step.flops, step.bytes, step.bound)
            assert js["seconds"] == pytest.approx(step.seconds, rel=1e-12)


@pytest.mark.parametrize("context", [16, 128, 256, 1024])
@pytest.mark.parametrize("weights", room.WEIGHTS)
def test_the_ridge_is_where_both_take_equally_long(node, weights: str, context: int):
    config = PRESETS["Llama-3.1-8B"]
    given = {"model": room._sent(config), "chip": asdict(H100), "weights": weights, "context": context}
    ridge = node(MODULE, "String(m.ridgeBatch(input.model, input.weights, input.context, input.chip))", given)
    if ridge == "Infinity":
        assert context == 1024
        assert room.decode_step(config, weights, 100_000, context, H100).bound == "memory"
        return
    below, above = int(float(ridge)), int(float(ridge)) + 1
    assert room.decode_step(config, weights, below, context, H100).bound == "memory"
    assert room.decode_step(config, weights, above, context, H100).bound == "compute"


def test_what_fits_is_what_is_held(node):
    config = PRESETS["Llama-2-70B"]
    given = {"model": room._sent(config), "chip": asdict(room.CHIPS["H200"]), "small": asdict(H100)}
    most, at, over, none = node(
        MODULE,
        """(() => {
            const most = m.mostSequences(input.model, "int4", 4096, input.chip);
            return [most, m.held(input.model, "int4", most, 4096), m.held(input.model, "int4", most + 1, 4096),
                    m.mostSequences(input.model, "bf16", 4096, input.small)];
        })()""",
        given,
    )
    assert at <= 141e9 < over and most > 0
    assert none < 0, "140 GB of weights do not fit on 80 GB"


def test_fewer_bits_speed_up_decoding_and_not_prefill():
    config = PRESETS["Llama-3.1-8B"]

    def gain(of, *more):
        return of(config, "bf16", *more, H100).seconds / of(config, "int4", *more, H100).seconds

    assert gain(room.decode_step, 1, 256) > 3
    assert gain(room.decode_step, 1024, 256) == 1
    assert gain(room.prefill_step, 2048) == 1


@pytest.mark.parametrize(
    "start", [{}, {"batch": 1024}, {"model": "pico", "chip": "Laptop CPU, DDR5", "batch": 1}]
)
def test_the_sentence_is_the_same_in_python_and_javascript(node, start: dict):
    widget = explorers.roofline(**start)
    at = widget.data["defaults"]
    given = {"model": widget.data["models"][at["model"]], "chip": widget.data["chips"][at["chip"]], "at": at}
    step = node(
        MODULE,
        "m.decodeStep(input.model, input.at.weights, input.at.batch, input.at.context, input.chip)",
        given,
    )
    title = node(PICTURE, "m.titleText(input[0], input[1])", [at["batch"], step])
    assert widget.summary().startswith(title)


def test_times_read_the_same_in_both_languages(node):
    times = [2.3e-7, 9.994e-6, 9.9951e-4, 0.0051234, 0.0512, 0.512, 1, 12.3, 500]
    assert node(PICTURE, "input.map(m.duration)", times) == [room.duration(seconds) for seconds in times]


def test_numbers_between_two_stops_and_bad_names():
    at = explorers.roofline(CONFIG, batch=20, context=9999).data["defaults"]
    assert (at["model"], at["batch"], at["context"]) == ("your model", 16, 256)
    with pytest.raises(BadParameter, match="choose one of H100 SXM"):
        explorers.roofline(chip="abacus")
    with pytest.raises(BadParameter, match="choose one of bf16"):
        explorers.roofline(weights="int3")
