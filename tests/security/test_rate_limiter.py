"""RateLimiter: no window of 60 seconds holds more than the limit, whatever the arrivals do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.security.rate_limiter import SLICE, Decision, LimitReason, RateLimiter

from ..engine.conftest import QUIET, is_one_sentence
from .limiting import NONSENSE, Clock, Event, Rule, arrivals, hammer, run, worst_window

THOROUGH = settings(QUIET, max_examples=300)


def limiter_rule(requests: int, tokens: int) -> Rule:
    clock = Clock(-1000.0)
    limiter = RateLimiter(requests, tokens, clock=clock)

    def rule(at: float, wanted: int) -> bool:
        clock.now = at
        return bool(limiter.check("user", wanted))

    return rule


@THOROUGH
@given(arrivals(), st.integers(1, 12), st.integers(1, 30))
def test_no_window_of_a_minute_holds_more_than_the_limit(events, requests, tokens):
    worst = worst_window(run(limiter_rule(requests, tokens), events))
    assert worst[0] <= requests and worst[1] <= tokens


@THOROUGH
@given(arrivals(), st.integers(1, 12), st.integers(12, 30))
def test_what_fits_with_a_slice_to_spare_is_admitted(events, requests, tokens):
    rule, admitted = limiter_rule(requests, tokens), []
    for at, wanted in events:
        if rule(at, wanted):
            admitted.append((at, wanted))
        else:
            counted = [t for then, t in admitted if then > at - 60 - SLICE / 1000 - 0.001]
            assert len(counted) + 1 > requests or sum(counted) + wanted > tokens


@pytest.mark.parametrize("phase", [-100.000_5, 0.0, 1e-6, 0.0004, 0.0005, 0.999, 0.999_999, 4_294_967.295_5])
def test_a_minute_is_a_minute_to_the_microsecond(phase):
    rule = limiter_rule(1, 10)
    assert rule(phase, 1)
    assert not rule(phase + 59.999_999, 1)
    assert rule(phase + 60.001, 1)  # moments are kept as whole ms, to the safe side


def attacks() -> list[list[Event]]:
    """Ten minutes each: constant; bursts round the minute; silent until it ends, then fast; one a second for a
    minute, then a flood; waves."""
    random = Random(4)
    bursts = [(60.0 * i + d, 1) for i in range(10) for d in (0.0, 0.001, 59.0, 59.999) for _ in range(130)]
    late = [
        (120 * i + 59.9 + d, 1) for i in range(5) for d in (*[0.0] * 130, *(at for at, _ in hammer(7, 59)))
    ]
    waves = sorted((random.uniform(0, 600) // 7 * 7 + random.random(), 1) for _ in range(4000))
    drips = [(120 * i + at, 1) for i in range(5) for at in (*range(60), *(60 + i / 40 for i in range(200)))]
    return [hammer(7, 600), bursts, late, drips, waves]


def worst_over_attacks(make: Callable[[], Rule]) -> int:
    return max(worst_window(run(make(), events))[0] for events in attacks())


def test_the_worst_window_over_ten_minutes_of_attacks_is_the_limit_itself():
    worst = worst_over_attacks(lambda: limiter_rule(60, 100_000))
    print(f"worst window: {worst} of 60")
    assert worst == 60


def token_bucket() -> Rule:
    level, last = 60.0, 0.0

    def rule(at: float, _: int) -> bool:
        nonlocal level, last
        level, last = min(60.0, level + at - last), at
        if level < 1:
            return False
        level -= 1
        return True

    return rule


def fixed_window() -> Rule:
    used: dict[int, int] = {}

    def rule(at: float, _: int) -> bool:
        minute = int(at // 60)
        used[minute] = used.get(minute, 0) + 1
        return used[minute] <= 60

    return rule


def interpolated_window() -> Rule:
    used: dict[int, int] = {}

    def rule(at: float, _: int) -> bool:
        minute, part = int(at // 60), at % 60 / 60
        if used.get(minute - 1, 0) * (1 - part) + used.get(minute, 0) + 1 > 60:
            return False
        used[minute] = used.get(minute, 0) + 1
        return True

    return rule


@pytest.mark.parametrize(
    ("make", "least"), [(token_bucket, 119), (fixed_window, 119), (interpolated_window, 110)]
)
def test_the_same_attacks_get_too_much_out_of_other_rules(make, least):
    worst = worst_over_attacks(make)
    print(f"{make.__name__}: worst window {worst} of 60")
    assert worst >= least


def test_whoever_is_always_at_the_limit_gets_it_every_63_seconds():
    admitted = run(limiter_rule(60, 100_000), hammer(10, 3600))
    assert len(admitted) >= 60 * 3600 / 63


@QUIET
@given(arrivals(), st.integers(1, 8), st.integers(12, 30))
def test_retry_after_is_when_it_would_be_admitted_and_no_sooner(events, requests, tokens):
    clock = Clock()
    limiter = RateLimiter(requests, tokens, clock=clock)
    for at, wanted in events:
        clock.now = max(clock.now, at)
        decision = limiter.check("user", wanted)
        if not decision:
            assert decision.reason in (LimitReason.REQUESTS, LimitReason.TOKENS) and is_one_sentence(
                decision.message
            )
            assert decision.retry_after is not None and 0 < decision.retry_after <= 60.001
            begun = clock.now
            clock.now = begun + decision.retry_after - 0.002
            assert clock.now < begun or not limiter.check("user", wanted)
            clock.now = begun + decision.retry_after
            assert limiter.check("user", wanted)


def test_sixty_a_minute():
    clock = Clock(100.1)
    limiter = RateLimiter(clock=clock)
    assert [bool(limiter.check("a")) for _ in range(61)] == [True] * 60 + [False]
    assert limiter.check("b")  # everyone has a budget of their own
    assert limiter.check("a").retry_after == 60.0
    clock.now += 59.999
    assert not limiter.check("a")
    clock.now = 160.1
    assert limiter.check("a") == Decision(True, 0.0, None, "")


def test_requests_and_tokens_are_one_decision():
    limiter = RateLimiter(3, 100, clock=Clock())
    assert limiter.check("a", 100)
    refused = limiter.check("a", 1)
    assert refused.reason is LimitReason.TOKENS
    assert limiter.check("a", 0) and limiter.check("a", 0)  # what was refused cost no request
    assert limiter.check("a", 0).reason is LimitReason.REQUESTS


def test_what_is_larger_than_the_whole_limit_is_told_never():
    limiter = RateLimiter(60, 1000, clock=Clock())
    for tokens in (1001, 10**18, 10**5000):
        decision = limiter.check("a", tokens)
        assert not decision and decision.retry_after is None and decision.reason is LimitReason.TOO_LARGE
        assert is_one_sentence(decision.message) and "never" in decision.message
    assert limiter.check("a", 1000)  # not a token was taken


@pytest.mark.parametrize("tokens", NONSENSE, ids=lambda value: f"{type(value).__name__}")
def test_senseless_tokens_are_refused(tokens):
    limiter = RateLimiter()
    held = limiter.reserve("a", 10)
    for call in (limiter.check, limiter.reserve, lambda _, used: limiter.settle(held, used)):
        with pytest.raises(ValueError) as told:
            call("a", tokens)
        assert is_one_sentence(str(told.value)) and "whole number" in str(told.value)
    assert held.open  # it can still be settled


@pytest.mark.parametrize("user_id", ["", "x" * 257, None, 7, b"a", ("a",)])
def test_senseless_users_are_refused(user_id):
    with pytest.raises(ValueError) as told:
        RateLimiter().check(user_id)
    assert is_one_sentence(str(told.value))


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "max_users"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), True, None, "60"])
def test_senseless_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=name) as told:
        RateLimiter(**{name: value})
    assert is_one_sentence(str(told.value))
