"""Sampling: an independent reference in plain Python, the edges of float32, and draws that obey their odds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lessonlib.engine import SamplingParams
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.sampling import choose, distribution, draw, penalize

from .conftest import QUIET, refuses

# Quarters, all different: ties and near-ties at a threshold would test rounding, not the rule.
LOGITS = st.lists(st.integers(-60, 60), min_size=2, max_size=40, unique=True).map(
    lambda x: [i / 4 for i in x]
)
WITH_GAPS = st.tuples(LOGITS, st.sets(st.integers(0, 39), max_size=10)).map(
    lambda drawn: [-math.inf if i in drawn[1] and i else x for i, x in enumerate(drawn[0])]
)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.25, 0.7, 1.0, 1.9]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.03, 0.31, 0.62, 0.93, 1.0]),
    min_p=st.sampled_from([0.0, 0.011, 0.17, 0.83]),
)


def softmax(logits: list[float]) -> list[float]:
    peak = max(logits)
    weights = [math.exp(x - peak) for x in logits]
    return [w / sum(weights) for w in weights]


def reference(logits: list[float], params: SamplingParams) -> list[float]:
    """Temperature, top-k, top-p, min-p as the definitions say, one token at a time, in double precision."""
    kept = {i: x / params.temperature for i, x in enumerate(logits)}
    ranked = sorted(kept, key=lambda i: -kept[i])
    if params.top_k:
        ranked = ranked[: params.top_k]
    p = dict(zip(ranked, softmax([kept[i] for i in ranked]), strict=True))
    if params.top_p < 1:
        reached, count = 0.0, 0
        while reached < params.top_p and count < len(ranked):
            reached += p[ranked[count]]
            assume(abs(reached - params.top_p) > 1e-5)
            count += 1
        ranked = ranked[:count]
        p = dict(zip(ranked, softmax([kept[i] for i in ranked]), strict=True))
    if params.min_p:
        assume(all(abs(q - params.min_p * p[ranked[0]]) > 1e-6 for q in p.values()))
        ranked = [i for i in ranked if p[i] >= params.min_p * p[ranked[0]]]
        p = dict(zip(ranked, softmax([kept[i] for i in ranked]), strict=True))
    return [p.get(i, 0.0) for i in range(len(logits))]


@QUIET
@given(WITH_GAPS, PARAMS)
def test_equals_the_definitions(logits, params):
    mine = distribution(torch.tensor(logits), params)
    torch.testing.assert_close(
        mine.double(), torch.tensor(reference(logits, params)).double(), atol=1e-5, rtol=1e-4
    )
    assert mine.sum().item() == pytest.approx(1, abs=1e-5)
    assert (mine[torch.tensor(logits) == -math.inf] == 0).all()


@QUIET
@given(LOGITS, st.integers(1, 45))
def test_top_k_keeps_exactly_the_k_likeliest(logits, k):
    kept = distribution(torch.tensor(logits), SamplingParams(top_k=k)).nonzero().flatten().tolist()
    assert sorted(kept) == sorted(sorted(range(len(logits)), key=lambda i: -logits[i])[:k])


@QUIET
@given(LOGITS, st.floats(0.001, 1, exclude_max=True))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, top_p):
    before = distribution(torch.tensor(logits), SamplingParams()).double()
    kept = distribution(torch.tensor(logits), SamplingParams(top_p=top_p)) > 0
    assert before[kept].sum() >= top_p - 1e-5
    assert before[kept].sum() - before[kept].min() < top_p + 1e-5  # without its last member it falls short
    assert kept.all() or before[kept].min() >= before[~kept].max()


@QUIET
@given(LOGITS, st.floats(0, 1))
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(logits, min_p):
    before = distribution(torch.tensor(logits), SamplingParams()).double()
    share = before / before.max()
    assume(((share - min_p).abs() > 1e-5).all() or min_p in (0, 1))
    after = distribution(torch.tensor(logits), SamplingParams(min_p=min_p))
    assert ((after > 0) == (share >= min_p) & (before.float() > 0)).all()


def test_ties_at_the_edge():
    even = torch.zeros(4)
    assert (distribution(even, SamplingParams(top_k=2)) > 0).sum() == 4  # no reason to prefer any two of them
    assert distribution(even, SamplingParams(top_p=0.5)).tolist() == [0.5, 0.5, 0, 0]  # two reach a half
    assert distribution(even, SamplingParams(min_p=1.0)).tolist() == [0.25] * 4
    assert distribution(even, SamplingParams(temperature=0)).tolist() == [1, 0, 0, 0]


@QUIET
@given(WITH_GAPS, PARAMS, st.integers(-200, 200))
def test_a_constant_added_to_all_logits_changes_nothing(logits, params, shift):
    reference(logits, params)  # leaves out thresholds met to the last digit
    moved = distribution(torch.tensor(logits) + shift, params)
    torch.testing.assert_close(moved, distribution(torch.tensor(logits), params), atol=2e-5, rtol=2e-4)


@QUIET
@given(LOGITS)
def test_temperature_falling_to_zero_becomes_greedy(logits):
    tensor = torch.tensor(logits)
    greedy = distribution(tensor, SamplingParams(temperature=0))
    for temperature in (1e-3, 1e-10, 1e-30, 1e-45, 1e-300):
        assert torch.equal(distribution(tensor, SamplingParams(temperature=temperature)), greedy)
    hot = distribution(tensor, SamplingParams(temperature=1e30))
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / len(logits)))


@pytest.mark.parametrize(
    "settings", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}, {"temperature": 1e-3}, {"temperature": 0}]
)
@pytest.mark.parametrize(
    "logits",
    [
        [3e38, -3e38, 0.0],
        [-3e38, -3.1e38],
        [1e4, 1e4 - 1],
        [-math.inf, 5.0, -math.inf],
        [-math.inf, -1e30],
        [0.0],
    ],
)
def test_extreme_logits_stay_a_distribution(logits, settings):
    p = distribution(torch.tensor(logits), SamplingParams(**settings))
    assert p.isfinite().all()
    assert p.sum().item() == pytest.approx(1)
    assert p.argmax() == torch.tensor(logits).argmax()
    assert (p[torch.tensor(logits) == -math.inf] == 0).all()


def test_each_row_is_shaped_by_itself():
    logits = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0)) * 4
    for params in (
        SamplingParams(temperature=0.8, top_k=9, top_p=0.8, min_p=0.01),
        SamplingParams(temperature=0),
    ):
        whole = distribution(logits, params)
        for a in range(2):
            for b in range(3):
                torch.testing.assert_close(whole[a, b], distribution(logits[a, b], params))


def test_shaping_leaves_the_logits_alone():
    logits = torch.randn(20)
    before = logits.clone()
    distribution(logits, SamplingParams(temperature=0.5, top_k=3, top_p=0.5, min_p=0.1))
    penalize(logits, SamplingParams(repetition_penalty=2, frequency_penalty=1), [1], [2, 2])
    assert torch.equal(logits, before)


@QUIET
@given(st.lists(st.sampled_from([0.0, 0.0, 1e-12, 0.3, 1.0]), min_size=1, max_size=20), st.integers(0, 2**63))
def test_draw_never_picks_the_impossible(weights, seed):
    assume(sum(weights) > 0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        assert weights[draw(torch.tensor(weights), generator)] > 0


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_draw_never_picks_the_impossible_even_at_the_ends_of_the_die(monkeypatch, number):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(number, dtype=torch.float64))
    for weights in ([0.0, 0.0, 0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.0, 1e-30, 3.0, 0.0]):
        assert weights[draw(torch.tensor(weights))] > 0


def test_draw_obeys_the_odds():
    p = [0.0, 0.4, 0.05, 0.0, 0.25, 0.2, 0.1, 0.0]
    generator, n = torch.Generator().manual_seed(11), 5000
    seen = Counter(draw(torch.tensor(p), generator) for _ in range(n))
    assert set(seen) == {i for i, q in enumerate(p) if q}
    chi_squared = sum((seen[i] - n * q) ** 2 / (n * q) for i, q in enumerate(p) if q)
    assert chi_squared < 18.47, (
        "an honest sampler exceeds this once in a thousand seeds (4 degrees of freedom)"
    )


def test_draw_takes_one_number_whatever_the_distribution():
    """The tenth token of a request must not depend on how the first nine were shaped."""
    a, b = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    for size in (1, 7, 1000):
        draw(torch.rand(size), a)
        draw(torch.rand(3), b)
    assert torch.equal(a.get_state(), b.get_state())


def test_draw_does_not_care_about_the_default_device():
    """A notebook that sets torch's default device must not break requests with a seed."""
    p = torch.tensor([0.2, 0.8])
    expected = draw(p, torch.Generator().manual_seed(3))
    with torch.device("meta"):
        assert draw(p, torch.Generator("cpu").manual_seed(3)) == expected
        assert draw(p) in (0, 1)


@QUIET
@given(LOGITS, st.lists(st.integers(0, 1), max_size=6), st.lists(st.integers(0, 1), max_size=6))
def test_penalties_follow_their_formulas(logits, prompt, output):
    params = SamplingParams(repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=0.5)
    mine = penalize(torch.tensor(logits), params, prompt, output).tolist()
    for token, x in enumerate(logits):
        if token in prompt or token in output:
            x = x / 1.5 if x > 0 else x * 1.5
        x -= 0.5 * output.count(token) + 0.25 * (token in output)
        assert mine[token] == pytest.approx(x, rel=1e-5, abs=1e-5)


def test_penalties_change_the_choice_but_logprobs_tell_of_the_raw_logits():
    logits = torch.tensor([5.0, 4.0, 1.0])
    params = SamplingParams(temperature=0, frequency_penalty=2.0, logprobs=2)
    choice = choose(logits, params, None, [], [0])
    assert choice.token == 1
    assert choice.logprob == pytest.approx(logits.log_softmax(-1)[1].item())
    assert list(choice.top) == [0, 1]


def test_biases_are_added_last_and_change_nothing_else():
    logits = torch.tensor([5.0, 4.0, 1.0])
    params = SamplingParams(
        temperature=0, logit_bias={2: 6.5, np.int64(0): -1}, frequency_penalty=2.0, logprobs=1
    )
    assert penalize(logits, params, [], [0]).tolist() == [2.0, 4.0, 7.5]
    choice = choose(logits, params, None, [], [0])
    assert choice.token == 2 and list(choice.top) == [0]  # what is reported is raw
    assert not params.takes_likeliest and SamplingParams(temperature=0, logit_bias=None).takes_likeliest
    assert hash(params) == hash(SamplingParams(temperature=0, frequency_penalty=2.0, logprobs=1))


def test_more_logprobs_than_tokens_means_all_of_them():
    assert len(choose(torch.zeros(5), SamplingParams(logprobs=99), None, [], []).top) == 5


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("temperature", [-0.1, math.nan, math.inf, "1", None, True, 10**400]),
        ("top_p", [0, 0.0, -1, 1.01, math.nan, None, 10**400]),
        ("top_k", [-1, 2.5, None, math.nan]),
        ("min_p", [-0.1, 1.1, math.nan, None]),
        ("max_tokens", [0, -5, 2.5, None, math.inf]),
        ("n", [0, 2.0, None]),
        ("seed", [1.5, "1", math.nan]),
        ("logprobs", [-1, 2.5, True]),
        ("repetition_penalty", [0, -1, math.inf, math.nan, None]),
        ("presence_penalty", [math.nan, math.inf, None, "0", -(10**400)]),
        ("frequency_penalty", [math.nan, -math.inf, None]),
        ("stop", ["", ["a", ""], ["a", 3], 5]),
        ("stop_token_ids", [["a"], [1.5], "ab"]),
        ("logit_bias", [{1: math.nan}, {1: math.inf}, {1: 10**400}, {1: "2"}, {1.5: 2}, {"1": 2}, [1, 2], 5]),
    ],
)
def test_settings_without_meaning_are_refused_by_name(name, bad):
    for value in bad:
        with refuses(BadParameter, match=f"^{name}="):
            SamplingParams(**{name: value})


def test_settings_take_numbers_of_any_kind_and_lists_of_any_kind():
    params = SamplingParams(
        temperature=np.float32(0.5),
        top_k=np.int64(3),
        max_tokens=np.int32(2),
        seed=np.int64(7),
        stop_token_ids=None,
    )
    assert params.top_k == 3
    assert params.stop_token_ids == ()
    assert SamplingParams(stop="x").stop == ("x",)
    assert SamplingParams(stop=None).stop == ()
    assert hash(SamplingParams(stop=["a"], stop_token_ids=[1])) == hash(
        SamplingParams(stop=("a",), stop_token_ids=(1,))
    )
    assert draw(distribution(torch.zeros(9), params)) < 9
