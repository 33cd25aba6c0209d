"""What the browser stores for a weight is what the engine stores, to the last bit."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonlib import explorers
from lessonlib.engine import load_model, load_tokenizer
from lessonlib.engine.costs import stored_weight_bytes
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.perplexity import perplexity
from lessonlib.engine.quantize import int4, nf4, quantize_model
from lessonlib.engine.quantize.int8 import Int8Linear, quantize_int8
from lessonlib.explorers.pictures import quantization as room

FORMATS = "shared/quantize.js"
PICTURE = "pictures/quantization.js"


def engine(weights: torch.Tensor, scheme: str, group: int, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Weights (rows, columns) after a way there and back, ``group`` neighbours of a row sharing a scale."""
    if scheme == "fp16":
        return weights.half().float()
    if scheme == "int8":  # the engine's groups are whole rows
        codes, scales = quantize_int8(weights.reshape(-1, group))
        return (codes.float() * scales.float()[:, None]).view_as(weights)
    if scheme == "int4":
        monkeypatch.setattr(int4, "GROUP_SIZES", (group,))
        codes, scales, zeros = int4.quantize_int4(weights, group, symmetric=False)
        values = (codes.unflatten(1, (-1, group)).float() - 8) * scales.float()[..., None]
        return (values + zeros.float()[..., None]).view_as(weights)
    monkeypatch.setattr(nf4, "BLOCK", group)
    return nf4.dequantize_nf4(nf4.quantize_nf4(weights), weights.numel()).view_as(weights)


def browser(node, weights: torch.Tensor, scheme: str, group: int) -> torch.Tensor:
    raw = base64.b64encode(weights.numpy().astype("<f4").tobytes()).decode()
    given = {"weights": raw, "scheme": scheme, "group": group}
    out = node(
        FORMATS,
        """Buffer.from(m.stored(
            new Float32Array(Uint8Array.from(Buffer.from(input.weights, "base64")).buffer),
            input.scheme, input.group).buffer).toString("base64")""",
        given,
    )
    return torch.from_numpy(np.frombuffer(base64.b64decode(out), dtype="<f4").copy()).view_as(weights)


def trying(seed: int) -> torch.Tensor:
    """Rows of all kinds: normal, tiny, huge, outliers, zeros, constants, halves between two codes."""
    rows = torch.randn(15, 256, generator=torch.Generator().manual_seed(seed))
    rows[1] *= 1e-4
    rows[2] *= 300
    rows[3, 40] *= 60
    rows[4] = 0
    rows[5] = 0.37
    rows[7] = rows[7].abs()
    rows[8] = rows[8].bfloat16().float() * 0.05
    rows[9] *= 1e-7  # float16 has few numbers left here
    rows[10, ::3] = 0
    halves = torch.arange(256) % 14 / 2 - 3
    rows[6] = torch.where(torch.arange(256) % 16 == 0, 127, halves)  # INT8: scale 1
    rows[11] = torch.where(torch.arange(256) % 16 == 0, -8, halves)  # INT4: scale 1, zero 0
    rows[11, 1::16] = 7
    rows[12] = torch.arange(2048, 2304)  # float16 has every second one
    rows[13] = torch.tensor([1.0, *nf4.MIDPOINTS]).repeat(16)
    return rows


@pytest.mark.parametrize("group", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("scheme", ["fp16", "int8", "int4", "nf4"])
def test_the_browser_stores_what_the_engine_stores(node, monkeypatch, scheme: str, group: int):
    for seed in (1, 2):
        weights = trying(seed)
        assert torch.equal(browser(node, weights, scheme, group), engine(weights, scheme, group, monkeypatch))


@pytest.mark.parametrize("group", [16, 64, 256])
@pytest.mark.parametrize("scheme", ["fp16", "int8", "int4", "nf4"])
def test_the_picture_on_paper_stores_it_too(monkeypatch, scheme: str, group: int):
    weights = trying(3)
    assert torch.equal(room.stored(weights, scheme, group), engine(weights, scheme, group, monkeypatch))


def test_bits_a_weight_are_those_of_the_engine(node):
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    bits = node(
        FORMATS,
        "[['int8', 256], ['int4', 32], ['int4', 128], ['nf4', 64]].map(([f, g]) => m.FORMATS[f].bits(g))",
    )
    assert bits == [
        Int8Linear.from_weight(weight).bits_per_weight,
        int4.Int4Linear.from_weight(weight, group_size=32).bits_per_weight,
        int4.Int4Linear.from_weight(weight, group_size=128).bits_per_weight,
        nf4.NF4Linear.from_weight(weight).bits_per_weight,
    ]
    assert bits[-1] == 4.5
    assert nf4.NF4Linear.from_weight(weight, double=True).bits_per_weight == pytest.approx(4.13, abs=0.01)


def test_the_table_says_what_the_engine_stores_and_how_it_reads():
    text = "def f(x):\n    return x\n" * 30
    widget = explorers.quantization("pico", text=text)
    assert [row["perplexity"] for row in widget.data["stored"]] == [None] * len(room.STORED)
    ids = load_tokenizer("pico").encode(text)
    for i, (row, (_, scheme, options, _)) in enumerate(zip(widget.data["stored"], room.STORED, strict=True)):
        model = quantize_model(load_model("pico"), scheme, **options)
        assert row["bytes"] == stored_weight_bytes(model), row
        layers = [m for m in model.layers.modules() if hasattr(m, "in_features")]
        weights = sum(m.in_features * m.out_features for m in layers)
        size = sum(t.nbytes for m in layers for t in (*m.parameters(False), *m.buffers(False)))
        assert row["bits"] == pytest.approx(8 * size / weights)
        if scheme == "int4":
            assert widget.measure(i) == row["perplexity"] == perplexity(model, ids).perplexity


def test_the_browser_gets_every_perplexity_and_is_told_when_there_are_no_more(tiny: Path, monkeypatch):
    widget = explorers.quantization(tiny, text="def f(x):\n    return x\n" * 20)
    sent: list[dict] = []
    monkeypatch.setattr(widget, "send", sent.append)
    widget._answer(widget, {"do": "measure"}, [])
    assert [message.get("row") for message in sent[:-1]] == list(range(len(room.STORED)))
    assert sent[-1] == {"done": True}
    assert all(message["perplexity"] > 1 for message in sent[:-1])
    short = explorers.quantization(tiny, text="")
    monkeypatch.setattr(short, "send", sent.append)
    short._answer(short, {"do": "measure"}, [])
    assert "no token to predict" in sent[-1]["error"]


@pytest.mark.parametrize(
    "start",
    [
        {"format": "int4", "group": 64, "outlier": 20},
        {"format": "nf4", "group": None, "outlier": 100},
        {"format": "int8", "group": 16, "outlier": 1},
        {"format": "fp16", "group": 16, "outlier": 5},
    ],
)
def test_the_sentence_is_the_same_in_python_and_javascript(node, start: dict):
    widget = explorers.quantization("pico", text="x = 1", **start)
    at, rows = widget.data["defaults"], widget.data["matrices"][0]["rows"]
    first = np.frombuffer(widget.weights, dtype="<f4")[: rows * widget.data["columns"]]
    given = {"weights": first.tolist(), "at": {**at, "marked": widget.data["marked"][0]}}
    titles = node(
        PICTURE,
        """m.titleText(input.at, m.facts(Float32Array.from(input.weights), input.at))""",
        given,
    )
    assert widget.summary().startswith(titles)


def test_the_reader_sees_the_models_own_weights(tiny: Path):
    model = load_model(tiny)
    widget = explorers.quantization(model, tiny, text="x = 1")
    shown = torch.from_numpy(np.frombuffer(widget.weights, dtype="<f4").copy())
    assert widget.data["sizes"] == [16, 32]
    name = widget.data["matrices"][1]
    assert name == {"name": "layer 1, queries", "shape": [32, 32], "rows": 32}
    gate = widget.data["matrices"][0]["rows"] * 32
    assert torch.equal(shown[gate : gate + 1024].view(32, 32), model.layers[0].self_attn.q_proj.weight)


def test_bad_calls_say_what_to_do(tiny: Path):
    with pytest.raises(BadParameter, match="a format of fp16, int8"):
        explorers.quantization(tiny, format="int3", text="x")
    with pytest.raises(BadParameter, match="a group of 16, 32 "):
        explorers.quantization(tiny, group=64, text="x")
    with pytest.raises(BadParameter, match="quantized already"):
        explorers.quantization(quantize_model(load_model(tiny), "int8"), tiny, text="x")
