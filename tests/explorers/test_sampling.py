"""The browser cuts as the engine does, and draws what it says it draws."""

from __future__ import annotations

import itertools

import pytest
import torch

from lessonlib import explorers
from lessonlib.engine import SamplingParams
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.sampling import distribution

MODULE = "pictures/sampling.js"
SETTINGS = [
    dict(zip(("temperature", "topK", "topP", "minP"), values, strict=True))
    for values in itertools.product(
        (0.0, 0.3, 1.0, 1.7), (0, 1, 7, 10_000), (0.2, 0.9, 1.0), (0.0, 0.15, 1.0)
    )
]


def engine(logits: torch.Tensor, setting: dict[str, float]) -> list[float]:
    params = SamplingParams(
        temperature=setting["temperature"],
        top_k=int(setting["topK"]),
        top_p=setting["topP"],
        min_p=setting["minP"],
    )
    return distribution(logits, params).tolist()


def assert_same_as_engine(node, logits: torch.Tensor) -> None:
    found = node(
        MODULE,
        """input.settings.map((setting) =>
            Array.from(m.distribution(input.logits, m.ranking(input.logits), setting).final))""",
        {"logits": logits.tolist(), "settings": SETTINGS},
    )
    for setting, probabilities in zip(SETTINGS, found, strict=True):
        assert probabilities == pytest.approx(engine(logits, setting), abs=2e-6), setting


@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_the_distribution_is_that_of_the_engine(node, spread: float):
    generator = torch.Generator().manual_seed(int(spread * 10))
    assert_same_as_engine(node, torch.randn(300, generator=generator) * spread)


def test_ties_are_settled_as_the_engine_settles_them(node):
    assert_same_as_engine(node, torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0, 1.0]))


def test_each_cut_token_says_which_rule_cut_it(node):
    def fates(shares: list[float], top_k: int = 0, top_p: float = 1, min_p: float = 0) -> list[str]:
        return node(
            MODULE,
            """Array.from(m.distribution(input.logits, m.ranking(input.logits), input.setting).fate,
                          (fate) => m.FATES[fate])""",
            {
                "logits": torch.tensor(shares).log().tolist(),
                "setting": {"temperature": 1, "topK": top_k, "topP": top_p, "minP": min_p},
            },
        )

    shares = [0.5, 0.25, 0.15, 0.06, 0.04]
    assert fates(shares, top_k=4, top_p=0.9, min_p=0.2) == ["kept", "kept", "kept", "top-p", "top-k"]
    assert fates(shares, min_p=0.4) == ["kept", "kept", "min-p", "min-p", "min-p"]


def test_draws_follow_the_distribution_and_repeat(node):
    p = [0.5, 0.0, 0.3, 0.2]
    many = "[...m.drawMany(input, [0, 2, 3, 1], 20000, 7)]"
    counts = dict(node(MODULE, many, p))
    assert sum(counts.values()) == 20_000
    assert counts.get(1, 0) == 0
    for token, share in enumerate(p):
        assert counts.get(token, 0) / 20_000 == pytest.approx(share, abs=0.015)
    assert node(MODULE, many, p) == node(MODULE, many, p)
    assert dict(node(MODULE, "[...m.drawMany(input, [0, 2, 3, 1], 20000, 8)]", p)) != counts


def test_entropy_in_bits(node):
    assert node(MODULE, "m.entropy(Float64Array.from(input))", [0.25] * 4) == pytest.approx(2)
    assert node(MODULE, "m.entropy(Float64Array.from(input))", [1, 0, 0]) == pytest.approx(0)


def test_from_a_model_and_from_given_logits(tiny):
    widget = explorers.sampling(tiny, tiny, "def f(x):")
    assert len(widget.data["pieces"]) == 20
    assert len(widget.logits) == 4 * 512
    assert "of 512 tokens can be drawn" in widget.summary()

    given = explorers.sampling(logits=torch.tensor([2.0, 0.0, 1.0]), tokens=["a", "b", " c"], top_p=1.0)
    assert given.data["pieces"] == ["a", " c", "b"]
    assert "3 of 3 tokens" in given.summary() and "“·c” 24%" in given.summary()


def test_bad_calls_say_what_to_do():
    with pytest.raises(BadParameter, match="give the text of every token"):
        explorers.sampling(logits=torch.zeros(5))
    with pytest.raises(BadParameter, match="temperature"):
        explorers.sampling(logits=torch.zeros(2), tokens=["a", "b"], temperature=-1)
