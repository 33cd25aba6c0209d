"""The rules of speculation: drafts never change what the target would say, nor how often it says it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from lessonlib.engine.acceptance import Costs, Pace, accept, agree, expected_tokens, speedup
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize import quantize_model
from lessonlib.engine.sampling import draw
from lessonlib.engine.speculative import NgramIndex, NgramSpeculator

from .conftest import QUIET, random_model, refuses, tiny_config

# Three places and a bonus, six tokens. The draft is confident where the target is not, and the other way round.
P = torch.tensor(
    [
        [0.05, 0.30, 0.05, 0.20, 0.30, 0.10],
        [0.90, 0.02, 0.02, 0.02, 0.02, 0.02],
        [0.25, 0.25, 0.25, 0.25, 0.00, 0.00],
        [0.10, 0.10, 0.20, 0.20, 0.20, 0.20],
    ]
)
Q = torch.tensor(
    [
        [0.40, 0.30, 0.10, 0.10, 0.05, 0.05],
        [0.50, 0.10, 0.10, 0.10, 0.10, 0.10],
        [0.00, 0.50, 0.10, 0.20, 0.10, 0.10],
    ]
)
Rule = Callable[[list[int], Tensor, Tensor, torch.Generator], list[int]]


def tally(rule: Rule, calls: int, q: Tensor = Q, p: Tensor = P, seed: int = 1) -> Tensor:
    """How often each token came out in each place, (places, vocab), over so many passes."""
    generator = torch.Generator().manual_seed(seed)
    drafts = torch.multinomial(q, calls, replacement=True, generator=generator).T.tolist()
    counts = [[0] * p.shape[1] for _ in p]
    for guess in drafts:
        for place, token in enumerate(rule(guess, q, p, generator)):
            counts[place][token] += 1
    return torch.tensor(counts, dtype=torch.float64)


def distance(counts: Tensor, p: Tensor = P) -> float:
    """Total variation between what came out and what should, each place weighed by how often it was reached."""
    each = (counts / counts.sum(1, keepdim=True) - p).abs().sum(1) / 2
    return float((each * counts.sum(1)).sum() / counts.sum())


def surprise(counts: Tensor, p: Tensor = P) -> float:
    """χ² over all places, as standard deviations above what chance alone gives on average."""
    expected = counts.sum(1, keepdim=True) * p.double()
    assert not counts[p == 0].any(), "a token came out that the target never says"
    chi2 = ((counts - expected) ** 2 / expected)[p > 0].sum().item()
    freedom = int((p > 0).sum()) - len(p)
    return (chi2 - freedom) / math.sqrt(2 * freedom)


def test_drafts_that_are_drawn_leave_the_target_s_distribution_as_it_is():
    counts = tally(accept, calls=47_000)
    print(f"{int(counts.sum())} tokens, total variation {distance(counts):.4f}, χ² {surprise(counts):+.1f} σ")
    assert counts.sum() >= 100_000
    assert surprise(counts) < 4
    assert distance(counts) < 0.006


def replaced_from_p(drafts: list[int], q: Tensor, p: Tensor, generator: torch.Generator) -> list[int]:
    tokens = accept(drafts, q, p, generator)
    return tokens if len(tokens) > len(drafts) else [*tokens[:-1], draw(p[len(tokens) - 1], generator)]


def accepted_where_likelier(drafts: list[int], q: Tensor, p: Tensor, generator: torch.Generator) -> list[int]:
    for i, token in enumerate(drafts):
        if p[i, token] < q[i, token]:
            return [*drafts[:i], draw((p[i] - q[i]).clamp_min(0), generator)]
    return [*drafts, draw(p[-1], generator)]


def compared_with_a_half(drafts: list[int], q: Tensor, p: Tensor, generator: torch.Generator) -> list[int]:
    for i, token in enumerate(drafts):
        if p[i, token] < 0.5 * q[i, token]:
            return [*drafts[:i], draw((p[i] - q[i]).clamp_min(0), generator)]
    return [*drafts, draw(p[-1], generator)]


def never_rejected(drafts: list[int], q: Tensor, p: Tensor, generator: torch.Generator) -> list[int]:
    return [*drafts, draw(p[-1], generator)]


@pytest.mark.parametrize(
    ("rule", "wrong_by"),
    [(replaced_from_p, 0.08), (accepted_where_likelier, 0.08), (compared_with_a_half, 0.05)],
)
def test_the_same_test_finds_wrong_rules(rule, wrong_by):
    counts = tally(rule, calls=10_000)
    print(f"{rule.__name__}: total variation {distance(counts):.3f}")
    assert distance(counts) > wrong_by
    with pytest.raises(AssertionError):
        assert surprise(counts) < 4


def test_what_the_target_never_says_never_stands():
    with pytest.raises(AssertionError, match="never says"):
        surprise(tally(never_rejected, calls=1000))
    impossible = torch.eye(6)[[5, 5, 5]]  # a draft model that insists on what p forbids in the third place
    assert accept([5, 5, 5], impossible, torch.eye(6)[[5, 5, 2, 1]]) == [5, 5, 2]


def test_looked_up_drafts_are_a_draft_model_that_is_always_sure():
    sure = torch.eye(6)[[1, 0, 3]]
    counts = [
        tally(rule, 6_000, q=sure, seed=7) for rule in (accept, lambda d, q, p, g: accept(d, None, p, g))
    ]
    for each in counts:
        assert surprise(each) < 4
    reached = [each.sum(1) / 6_000 for each in counts]
    for each in reached:  # the chance to get further is p of the draft, in both
        torch.testing.assert_close(each, torch.tensor([1, 0.3, 0.27, 0.0675]).double(), atol=0.02, rtol=0)


@QUIET
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 2**32))
def test_looked_up_drafts_take_the_random_numbers_of_plain_sampling(drafts, seed):
    speculating, plain = (torch.Generator().manual_seed(seed) for _ in range(2))
    tokens = accept(drafts, None, P[: len(drafts) + 1], speculating)
    assert tokens == [draw(row, plain) for row in P[: len(tokens)]]
    assert torch.equal(speculating.get_state(), plain.get_state())
    assert tokens[:-1] == drafts[: len(tokens) - 1]
    assert len(tokens) == len(drafts) + 1 or tokens[-1] != drafts[len(tokens) - 1]


WEIGHTS = st.lists(st.integers(0, 8), min_size=5, max_size=5).filter(any)


@QUIET
@given(st.lists(st.tuples(WEIGHTS, WEIGHTS), min_size=1, max_size=5), st.integers(0, 2**32))
def test_any_two_distributions_go_together(rows, seed):
    q, p = (torch.tensor(side).float() for side in zip(*rows, strict=True))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    drafts = [draw(row, generator) for row in q[:-1]]
    tokens = accept(drafts, q[:-1], p, generator)
    assert 1 <= len(tokens) <= len(drafts) + 1
    assert tokens[:-1] == drafts[: len(tokens) - 1]
    assert all(p[place, token] > 0 for place, token in enumerate(tokens))
    if len(tokens) <= len(drafts):  # rejected: offered too often; in its place, one offered too rarely
        place, token = len(tokens) - 1, tokens[-1]
        assert q[place, drafts[place]] > p[place, drafts[place]]
        assert p[place, token] > q[place, token]
    twins = accept([draw(row, generator) for row in p[:-1]], p[:-1], p, generator)
    assert len(twins) == len(p)  # a draft model as good as the target is always right


def test_models_that_differ_by_rounding_alone():
    p = torch.full((2, 7), 1 / 7)
    q = p[:1] * (1 + 1e-6)  # offered more often than wanted, everywhere: nothing is left over to draw from
    generator = torch.Generator().manual_seed(0)
    hopeless = torch.zeros(1, 7).index_fill(1, torch.tensor([3]), 1.0)
    assert {accept([3], q, p, generator)[0] for _ in range(50)} == {3}
    assert accept([2], torch.ones(1, 7), torch.cat([hopeless, p[:1]]), generator) == [3]


@QUIET
@given(st.lists(st.integers(0, 2), max_size=5), st.data())
def test_agreement_ends_with_the_first_word_of_the_target_s_own(drafts, data):
    size = len(drafts) + 1
    own = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    asked: list[int] = []
    tokens = agree(drafts, (asked.append(token) or token for token in own))
    assert tokens == own[: len(tokens)] == asked  # and not asked for more than that
    assert tokens[:-1] == drafts[: len(tokens) - 1]
    assert len(tokens) == size or tokens[-1] != drafts[len(tokens) - 1]


# ---------------------------------------------------------------- how many drafts


def test_the_formula_is_what_happens():
    random = torch.Generator().manual_seed(0)
    for acceptance, k in [(0.8, 4), (0.3, 2), (0.0, 3), (1.0, 5), (0.6, 0)]:
        stood = torch.rand(20_000, k, generator=random) < acceptance
        measured = 1 + stood.long().cumprod(1).sum().item() / 20_000
        assert measured == pytest.approx(expected_tokens(acceptance, k), abs=0.03)
    assert expected_tokens(0.8, 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8)) == pytest.approx(3.3616)
    assert (expected_tokens(1.0, 5), expected_tokens(0.0, 3), expected_tokens(0.6, 0)) == (6, 1, 1)


def test_speedup_in_the_cases_that_one_can_work_out():
    assert speedup(0.9, 0, cost_ratio=0.5) == 1  # no drafts, no gain
    assert speedup(1.0, 4, cost_ratio=0.0) == 5
    assert speedup(1.0, 4, cost_ratio=0.25) == 2.5
    assert speedup(0.8, 4, cost_ratio=0.1, verify_cost=0.025) == pytest.approx(3.3616 / 1.5)
    assert speedup(0.0, 4, cost_ratio=0.25) == 0.5  # drafts that never stand cost their time


@QUIET
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 12))
def test_drafts_pay_exactly_when_they_stand_more_often_than_they_cost(acceptance, draft, verify, limit):
    """Leviathan et al. 2023, corollary 3.9."""
    assume(abs(acceptance - draft - verify) > 1e-9)
    k = Costs(draft, verify).best_k(acceptance, limit)
    assert (k > 0) == (acceptance > draft + verify)
    best = speedup(acceptance, k, draft, verify)
    assert all(speedup(acceptance, other, draft, verify) <= best for other in range(limit + 1))


def test_a_better_draft_is_asked_for_more():
    costs = Costs(draft=0.15, verify=0.05)
    wanted = [costs.best_k(acceptance, 8) for acceptance in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)]
    assert wanted == sorted(wanted)
    assert (wanted[0], wanted[-1]) == (0, 8)
    assert Costs(0.15, 0.25).best_k(0.8, 8) < costs.best_k(
        0.8, 8
    )  # an int4 kernel that is slow with many rows


def test_a_draft_costs_what_its_weights_take_to_be_read_as_they_are_stored():
    target, draft = (random_model(tiny_config(num_hidden_layers=n)) for n in (6, 1))
    plain = Costs.of(target, draft)
    assert 0.1 < plain.draft < 0.4
    for scheme, fewer in (("int8", 3.9), ("int4", 5)):
        costs = Costs.of(quantize_model(random_model(tiny_config(num_hidden_layers=6)), scheme), draft)
        assert costs.draft > fewer * plain.draft * 0.8 and costs.verify > plain.verify
        assert costs.best_k(0.7, 8) < plain.best_k(0.7, 8)
    assert Costs.of(target).draft == 0


def test_a_pace_forgets():
    pace = Pace()
    assert 0.5 < pace.acceptance < 0.8  # hopeful
    for _ in range(40):
        pace.observe(accepted=4, drafts=4)
    assert pace.acceptance > 0.99
    for _ in range(10):
        pace.observe(accepted=0, drafts=4)  # one judged and rejected, three not even looked at
    assert 0.3 < pace.acceptance < 0.8
    for _ in range(40):
        pace.observe(accepted=1, drafts=3)
    assert pace.acceptance == pytest.approx(1 / 2, abs=0.01)  # two were judged each time


# ---------------------------------------------------------------- n-grams


def looked_up(tokens: list[int], max_n: int, min_n: int, count: int) -> list[int]:
    """The definition: the longest end that occurs earlier, its latest occurrence, and what came then."""
    for n in range(min(max_n, len(tokens) - 1), min_n - 1, -1):
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == tokens[-n:]:
                text = list(tokens)
                for _ in range(count):
                    text.append(text[start + n + len(text) - len(tokens)])
                return text[len(tokens) :]
    return []


@QUIET
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_the_index_finds_what_a_search_finds(tokens, min_n, more, count, random):
    index = NgramIndex(min_n + more, min_n)
    size = 0
    while size < len(tokens):  # it grows as a request does, by a few tokens at a time
        piece = random.randint(1, 7)
        index.extend(tokens[size : size + piece])
        size = min(len(tokens), size + piece)
        expected = looked_up(tokens[:size], min_n + more, min_n, count)
        assert index.continuation(count) == expected


def test_the_longest_and_then_the_latest_match_wins():
    def guess(text: str, count: int = 3, max_n: int = 3, min_n: int = 1) -> str:
        index = NgramIndex(max_n, min_n)
        index.extend([ord(c) for c in text])
        return "".join(map(chr, index.continuation(count)))

    assert guess("abcX..bcY..abc") == "X.."  # three letters, though two were seen since
    assert guess("aX..aY..a") == "Y.."
    assert guess("abab") == "aba"  # what repeats itself goes on so
    assert guess("xxxx", 5) == "xxxxx"
    assert guess("abcdef") == ""
    assert guess("a.b.c", min_n=2) == ""


def test_settings_without_a_meaning():
    for k in (0, -1, 1.5, True, "4"):
        with refuses(BadParameter):
            NgramSpeculator(k)
    for max_n, min_n in ((1, 2), (3, 0), (2.5, 1), ("3", 1)):
        with refuses(BadParameter):
            NgramSpeculator(4, max_n=max_n, min_n=min_n)
