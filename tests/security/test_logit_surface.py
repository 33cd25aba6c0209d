"""What an answer shows of the logits does not depend on the bias, and no user may bias many tokens."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import LLM, SamplingParams, load_model
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.sampling import Choice, report
from lessonlib.security.attacks import ModelOracle, attack_hidden_size, attack_shown_values
from lessonlib.security.logit_surface import LogitSurfacePolicy

from ..engine.conftest import QUIET, is_one_sentence, refuses
from .test_attacks import random_model

VOCAB = 30
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(0)) * 4
BIAS = st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=12)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class CalledAlone:
    """A clock that stands still, and long enough to notice a second thread that should have waited."""

    calls = inside = 0

    def __call__(self) -> float:
        self.inside += 1
        time.sleep(0.001)
        assert self.inside == 1, "two threads decide at the same time"
        self.inside -= 1
        self.calls += 1
        return 0.0


# ---------------------------------------------------------------- what is shown


@QUIET
@given(BIAS, st.integers(0, VOCAB - 1), st.integers(0, 25), st.integers(0, 25))
def test_a_bias_changes_nothing_of_what_is_shown(bias, token, top_k, wanted):
    policy = LogitSurfacePolicy(top_k)
    choice = policy.report(token, LOGITS, bias, wanted)
    assert choice == policy.report(token, LOGITS, None, wanted)
    ranked = LOGITS.argsort(descending=True).tolist()
    assert choice.top is not None and list(choice.top) == ranked[: min(top_k, wanted)]
    assert (choice.logprob is None) == (token not in ranked[:top_k])  # a forced token would report any logit
    shown = LOGITS.log_softmax(-1)
    for shown_token, value in [*choice.top.items(), (token, choice.logprob)]:
        if value is not None:
            assert value == round(value, 2)
            assert value == pytest.approx(float(shown[shown_token]), abs=0.00501)


def test_switched_off_it_reports_after_the_bias_in_full():
    policy = LogitSurfacePolicy.off(3)
    choice = policy.report(7, LOGITS, {7: 50.0, 8: 50.0}, 3)
    biased = LOGITS.clone()
    biased[[7, 8]] += 50
    exact = biased.log_softmax(-1)
    assert choice.logprob == float(exact[7])
    assert choice.top is not None and {7, 8} < set(choice.top)
    forced = policy.report(int(LOGITS.argmin()), LOGITS, None, 0)
    assert forced.logprob == float(LOGITS.log_softmax(-1).min())


def test_who_asks_for_none_gets_none():
    for policy in (LogitSurfacePolicy(), LogitSurfacePolicy.off()):
        assert policy.report(3, LOGITS, {3: 1.0}, None).top is None
        assert policy.report(3, LOGITS, {3: 1.0}, None).logprob is None


def test_more_than_it_may_show_is_cut_wherever_it_comes_from():
    everything = report(9, LOGITS, SamplingParams(logprobs=VOCAB))
    limited = LogitSurfacePolicy(top_k=3).limit(everything, 10)
    assert limited == LogitSurfacePolicy(top_k=3).report(9, LOGITS, None, 10)
    assert limited.top is not None and len(limited.top) == 3


def test_it_limits_what_the_engine_reports():
    llm, policy = LLM("pico-draft"), LogitSurfacePolicy(top_k=4)
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=policy.top_k)
    ids = llm.tokenizer.encode("def fib(n):")
    output = llm.generate([ids], params)[0].outputs[0]
    assert output.logprobs is not None
    for i, (token, top) in enumerate(zip(output.token_ids, output.logprobs, strict=True)):
        seen = torch.tensor([[*ids, *output.token_ids[:i]]])
        logits = llm.model(seen, last_only=True).logits[0, 0]
        limited = policy.limit(Choice(token, top[token], top), 2)
        wanted = policy.report(token, logits, {5: 100.0}, 2)
        assert limited.top is not None and wanted.top is not None
        assert limited.top == pytest.approx(wanted.top, abs=0.011)
        assert limited.logprob == pytest.approx(wanted.logprob, abs=0.011)


def test_what_the_engine_reports_of_a_forced_token_is_not_shown():
    llm, policy = LLM("pico-draft"), LogitSurfacePolicy(top_k=4)
    shown = []
    for bias in ({}, {77: 100.0}):
        params = SamplingParams(temperature=0, max_tokens=1, logprobs=policy.top_k, logit_bias=bias)
        output = llm.generate("def fib(n):", params)[0].outputs[0]
        assert output.logprobs is not None
        token, top = output.token_ids[0], output.logprobs[0]
        shown.append((token, policy.limit(Choice(token, top[token], top), 4)))
    (_, plain), (forced, biased) = shown
    assert forced == 77 and biased.logprob is None
    assert biased.top == plain.top and plain.logprob is not None


# ---------------------------------------------------------------- the budget


def test_distinct_tokens_count_and_only_with_logprobs():
    policy = LogitSurfacePolicy(max_biased_tokens=4)
    assert policy.admit("a", {1: 1.0, 2: 1.0}, 5)
    assert policy.admit("a", {2: -1.0, 3: 1.0}, 0)  # logprobs=0 still returns the chosen one
    refused = policy.admit("a", {4: 1.0, 5: 1.0}, 5)
    assert not refused and is_one_sentence(refused.reason)
    assert policy.admit("a", {4: 1.0}, 5)  # what was refused did not count
    assert not policy.admit("a", {5: 1.0}, 1)
    assert policy.admit("a", {1: 9.0, 2: 9.0, 3: 9.0, 4: 9.0}, 1)
    assert policy.admit("a", {5: 1.0}, None) and policy.admit("a", {}, 5) and policy.admit("a", None, 5)
    assert policy.admit("b", {5: 1.0}, 5)  # the others have their own


@QUIET
@given(
    st.lists(st.tuples(st.sets(st.integers(0, 20), max_size=6), st.floats(0, 50)), max_size=40),
    st.integers(0, 8),
)
def test_no_window_ever_holds_more_than_the_budget(requests, budget):
    clock = Clock()
    policy = LogitSurfacePolicy(max_biased_tokens=budget, window=100, clock=clock)
    admitted: list[tuple[float, set[int]]] = []
    for tokens, gap in requests:
        clock.now += gap
        recent = set().union(*(t for at, t in admitted if at > clock.now - 100))
        fits = len(recent | tokens) <= budget or not tokens
        assert bool(policy.admit("a", dict.fromkeys(tokens, 1.0), 1)) == fits
        if fits:
            admitted.append((clock.now, tokens))


def test_users_are_forgotten_in_the_order_of_their_last_visit_and_cost_little():
    policy = LogitSurfacePolicy(max_biased_tokens=64, max_users=10)
    full = dict.fromkeys(range(64), 1.0)
    for user in range(10):
        assert policy.admit(f"{user}", full, 1)
    assert not policy.admit("0", {64: 1.0}, 1)
    assert policy.admit("new", full, 1)
    assert not policy.admit("0", {64: 1.0}, 1)
    assert policy.admit("1", {64: 1.0}, 1)  # forgotten
    assert len(policy._users) == 10
    for biased in policy._users.values():
        assert sys.getsizeof(biased.tokens) + sys.getsizeof(biased.times) + sys.getsizeof(biased) < 2048


def test_threads_do_not_exceed_the_budget_together():
    policy = LogitSurfacePolicy(max_biased_tokens=50, clock=CalledAlone())
    admitted: list[int] = []
    gate = threading.Barrier(8)

    def ask(first: int) -> None:
        gate.wait()
        for token in range(first, 120, 8):
            if policy.admit("a", {token: 1.0}, 1):
                admitted.append(token)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert policy._clock.calls == 120
    assert len(set(admitted)) == len(admitted) == 50


def test_settings_without_a_meaning():
    for bad in (
        {"top_k": -1},
        {"top_k": None},
        {"decimals": 1.5},
        {"max_biased_tokens": -1},
        {"window": 0},
        {"window": float("nan")},
        {"max_users": 0},
    ):
        with refuses(BadParameter):
            LogitSurfacePolicy(**bad)


# ---------------------------------------------------------------- against the attack


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (LogitSurfacePolicy(), "do not show"),
        (LogitSurfacePolicy(decimals=None, max_biased_tokens=None), "do not show"),  # before the bias, alone
        (LogitSurfacePolicy(decimals=None, before_bias=False), "may bias"),  # the budget, alone
    ],
)
def test_pico_keeps_its_hidden_size(policy, reason):
    pico = load_model("pico")
    stolen = attack_hidden_size(ModelOracle(pico, policy), pico.config.vocab_size)
    assert stolen.hidden_size is None and stolen.layer is None
    assert reason in stolen.reason
    assert stolen.queries < 5


def test_rounding_alone_is_no_defence():
    model = random_model(24, 97)
    policy = LogitSurfacePolicy(before_bias=False, max_biased_tokens=None)
    assert attack_hidden_size(ModelOracle(model, policy), 97, bias=1000).hidden_size == 24


def test_answers_without_bias_do_not_add_up_to_the_layer():
    model = random_model(24, 97)
    few = LogitSurfacePolicy(top_k=20)
    stolen = attack_shown_values(ModelOracle(model, few), 97, prompts=150, size=80)
    assert stolen.hidden_size is None
    assert stolen.queries == 150
    nothing = attack_shown_values(ModelOracle(model, LogitSurfacePolicy(top_k=0)), 97, prompts=10)
    assert nothing.hidden_size is None and "no log-probabilities" in nothing.reason
    everything = LogitSurfacePolicy(top_k=97, decimals=None)  # more values than the model has dimensions
    stolen = attack_shown_values(ModelOracle(model, everything), 97, top_k=97, prompts=150, size=80)
    assert stolen.hidden_size == 24


def test_a_forced_token_betrays_no_logit():
    """Bias one token to the top and read *its* value: without the rule for the chosen one, full logits again."""
    model = random_model(24, 97)
    oracle = ModelOracle(model, LogitSurfacePolicy(top_k=5, max_biased_tokens=None))
    plain = oracle([1, 2, 3], {}, 5)
    for token in range(97):
        assert oracle([1, 2, 3], {token: 100.0}, 5) == plain
