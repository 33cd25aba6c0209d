"""One forward pass, opened up: the shapes and probabilities are the model's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonlib import explorers
from lessonlib.engine import load_model, load_tokenizer
from lessonlib.explorers.text import percent

PROMPT = "def f(x):\n    return x"


def test_predictions_and_shapes_are_the_model_own(tiny: Path):
    widget = explorers.next_token(tiny, tiny, PROMPT, k=5)
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    ids = tokenizer.encode(PROMPT)
    p = model(torch.tensor([ids])).logits[0].softmax(-1)
    n = len(ids)
    assert widget.data["shapes"] == {
        "ids": [1, n],
        "embeddings": [1, n, 32],
        "layers": [1, n, 32],
        "logits": [1, n, 512],
    }
    for position, row in enumerate(widget.data["predictions"]):
        assert len(row) == 5
        for _, share, token in row:
            assert share == pytest.approx(p[position, token].item(), abs=1e-5)
        assert row[0][2] == int(p[position].argmax())


def test_no_hook_stays_on_the_model(tiny: Path):
    model = load_model(tiny)
    explorers.next_token(model, tiny, PROMPT)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_guess_that_comes_true_is_marked(node):
    bars = node(
        "pictures/next_token.js",
        "m.guesses(input.tokens, input.predictions, 1).map(({fill}) => fill)",
        {
            "tokens": [["a", 1], ["b", 2]],
            "predictions": [[["b", 0.6, 2], ["c", 0.3, 3]], [["d", 0.5, 4]]],
        },
    )
    assert bars == ["reused", "fresh"]
    assert node("pictures/next_token.js", "[m.shapeText([1, 7, 256]), m.shapeText([4096])]") == [
        "(1, 7, 256)",
        "(4096,)",
    ]


def test_nearly_all_and_nearly_nothing_do_not_look_like_all_and_nothing():
    assert [percent(p) for p in (1, 0.99996, 0.996, 0.42, 0.001, 0.0004)] == [
        "100.0%",
        ">99.9%",
        "99.6%",
        "42.0%",
        "0.1%",
        "<0.1%",
    ]
