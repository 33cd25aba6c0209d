"""The browser's arithmetic is the engine's: same work, step by step, for every kind of model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lessonlib import explorers
from lessonlib.engine import ModelConfig, costs
from lessonlib.explorers.pictures.autoregressive import coefficients

from .tiny import CONFIG

WINDOWED = replace(CONFIG, sliding_window=6, window_layers=(0, 2))
QWEN_LIKE = ModelConfig(
    vocab_size=1000,
    hidden_size=48,
    intermediate_size=100,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=1,
    head_dim=16,
    attention_bias=True,
    qk_norm=True,
)
PICTURE = "pictures/autoregressive.js"
WORK = "shared/work.js"


@pytest.mark.parametrize("config", [CONFIG, WINDOWED, QWEN_LIKE], ids=["dense", "windowed", "mqa"])
@pytest.mark.parametrize("cached", [False, True], ids=["without", "with"])
def test_the_work_is_that_of_the_engine(node, config: ModelConfig, cached: bool):
    cases = [(1, 1), (1, 9), (5, 12), (16, 3)]
    expected = [
        [
            {
                "tokens": step.tokens,
                "linear": step.linear_flops,
                "attention": step.attention_flops,
                "flops": step.flops,
            }
            for step in costs.predict(config, prompt, new, use_cache=cached).steps
        ]
        for prompt, new in cases
    ]
    given = {"costs": coefficients(config), "cases": cases, "cached": cached}
    assert (
        node(WORK, "input.cases.map(([p, n]) => m.allSteps(input.costs, p, n, input.cached))", given)
        == expected
    )


def test_totals_add_up(node):
    given = {"costs": coefficients(CONFIG)}
    work = costs.predict(CONFIG, 7, 20, use_cache=False)
    total = node(WORK, "m.sum(m.allSteps(input.costs, 7, 20, false))", given)
    assert total == {
        "tokens": work.tokens,
        "linear": work.linear_flops,
        "attention": work.attention_flops,
        "flops": work.flops,
    }
    assert node(WORK, "m.runningTotal([1, 2, 3])") == [1, 3, 6]


def test_growth_is_quadratic_and_cubic_without_a_cache(node):
    """Doubling N from a one-token prompt: linear ×4 and attention ×8 without a cache, ×2 and ×4 with one."""
    ratios = node(
        WORK,
        """[false, true].map((cached) => {
            const [once, twice] = [512, 1024].map((n) => m.sum(m.allSteps(input, 1, n, cached)));
            return [twice.tokens / once.tokens, twice.attention / once.attention];
        })""",
        coefficients(CONFIG),
    )
    assert ratios[0] == pytest.approx([4, 8], rel=0.01)
    assert ratios[1] == pytest.approx([2, 4], rel=0.01)


def test_the_lanes_show_what_is_recomputed_and_what_is_reused(node):
    first, later = "m.runs(5, 1, input)", "m.runs(5, 4, input)"
    assert node(PICTURE, first, False) == node(PICTURE, first, True) == [[0, 5, "fresh"]]
    assert node(PICTURE, later, False) == [[0, 7, "again"], [7, 8, "fresh"]]
    assert node(PICTURE, later, True) == [[0, 7, "reused"], [7, 8, "fresh"]]


def test_the_sentence_is_the_same_in_python_and_javascript(node):
    widget = explorers.autoregressive(CONFIG, prompt_tokens=36, new_tokens=40, step=12)
    expected = "Step 12: without a cache 47 tokens are processed, with a cache 1."
    assert widget.summary().startswith(expected)
    steps = "[false, true].map((cached) => m.stepWork(input, 36, 12, cached))"
    parts = node(PICTURE, "m.titleParts(12, ...input)", node(WORK, steps, coefficients(CONFIG)))
    assert "".join(part if isinstance(part, str) else part[0] for part in parts) == expected


def test_numbers_outside_the_sliders_are_brought_inside():
    widget = explorers.autoregressive(CONFIG, prompt_tokens=10_000, new_tokens=0, step=99)
    assert widget.data["defaults"] | {"count": "", "axis": ""} == {
        "prompt": 128,
        "newTokens": 1,
        "step": 1,
        "count": "",
        "axis": "",
    }


@pytest.mark.parametrize("step", [1, 12, 32])
def test_no_label_is_cut_off_on_paper(step: int):
    figure = explorers.autoregressive(CONFIG, step=step).figure()
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        for label in ax.texts:
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, label.get_text()
