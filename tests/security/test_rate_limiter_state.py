"""RateLimiter: what is given back, many threads, odd clocks, and bounded memory."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.security.rate_limiter import SIZE, SLICE, SLICES, LimitReason, RateLimiter

from ..engine.conftest import QUIET, is_one_sentence
from .limiting import EDGES, SETTLING, Clock, hammer, in_threads, worst_window

THOROUGH = settings(QUIET, max_examples=300)


# ---------------------------------------------------------------- reserve and settle


def test_what_was_not_used_is_given_back():
    clock = Clock()
    limiter = RateLimiter(60, 1000, clock=clock)
    held = limiter.reserve("a", 1000)
    assert held and not limiter.check("a", 1)
    limiter.settle(held, 300)
    limiter.settle(held, 0)  # twice is once
    assert not limiter.check("a", 701)
    assert limiter.check("a", 700)


def test_the_request_itself_is_not_given_back():
    limiter = RateLimiter(1, 1000, clock=Clock())
    limiter.settle(limiter.reserve("a", 10), 0)
    assert limiter.check("a").reason is LimitReason.REQUESTS


def test_a_refused_reservation_gives_nothing_back():
    limiter = RateLimiter(60, 100, clock=Clock())
    assert limiter.check("a", 60)
    refused = limiter.reserve("a", 50)
    assert not refused and refused.retry_after == 60.0
    limiter.settle(refused, 0)
    assert not limiter.check("a", 41) and limiter.check("a", 40)


def test_what_is_given_back_late_is_not_given_twice():
    clock = Clock()
    limiter = RateLimiter(60, 100, clock=clock)
    held = limiter.reserve("a", 100)
    clock.now = 60.0
    assert limiter.check("a", 100)  # the reservation does not count any more
    limiter.settle(held, 0)
    assert not limiter.check("a", 1)


def test_more_than_was_reserved_is_charged_beyond_the_limit():
    clock = Clock()
    limiter = RateLimiter(60, 100, clock=clock)
    held = limiter.reserve("a", 90)
    clock.now = 30.0
    limiter.settle(held, 10**30)
    clock.now = 60.0
    assert limiter.check("a", 1).retry_after == 30.0
    clock.now = 90.0
    assert limiter.check("a", 100)


def test_it_is_given_back_to_the_moment_it_was_reserved_at():
    clock = Clock()
    limiter = RateLimiter(60, 90, clock=clock)
    held = []
    for clock.now in (0.0, 20.0, 40.0):
        held.append(limiter.reserve("a", 30))
    limiter.settle(held[1], 10)  # 30, 10, 30 are counted
    for tokens, wait in [(20, 0.0), (50, 20.0), (51, 40.0), (60, 40.0), (61, 60.0)]:
        decision = limiter.reserve("a", tokens)
        assert decision.retry_after == wait, tokens
        limiter.settle(decision, 0)


class Ledger:
    """The limiter by its definition: every admission is written down, and nothing is ever summed up."""

    def __init__(self, requests: int, tokens: int):
        self.requests, self.tokens = requests, tokens
        self.slices: list[dict] = []

    def open(self, micros: int) -> list[dict]:
        return [each for each in self.slices if micros // 1000 - each["last"] < 60_000]

    def charge(self, micros: int, line: list[int]) -> list[int]:
        ms = -(-micros // 1000)
        if not self.open(micros) or ms - self.slices[-1]["first"] >= SLICE:
            self.slices.append({"first": ms, "lines": []})
        self.slices[-1]["last"] = ms
        self.slices[-1]["lines"].append(line)
        return line

    def reserve(self, micros: int, tokens: int) -> list[int] | None:
        lines = [line for each in self.open(micros) for line in each["lines"]]
        full = sum(r for r, _ in lines) + 1 > self.requests or sum(t for _, t in lines) + tokens > self.tokens
        return None if full else self.charge(micros, [1, tokens])


@THOROUGH
@given(SETTLING, st.sampled_from([0.0, 4_294_930.0]))
def test_reserving_and_settling_are_as_defined(steps, begin):
    """Each request reserves, and settles after so many later ones."""
    clock = Clock(begin)
    limiter, ledger = RateLimiter(6, 20, clock=clock), Ledger(6, 20)
    pending = []
    used_up: list[tuple[float, list[int]]] = []
    for turn, (gap, reserved, used, delay) in enumerate(steps):
        clock.now += gap
        micros = round(clock.now * 1_000_000)
        held, line = limiter.reserve("a", reserved), ledger.reserve(micros, reserved)
        assert bool(held) == (line is not None)
        if line is not None:
            used_up.append((clock.now, line))
            requests, tokens = worst_window([(at, tokens) for at, (_, tokens) in used_up])
            assert requests <= 6 and tokens <= 20
            pending.append((turn + delay, micros, held, line, used))
        for entry in [entry for entry in pending if entry[0] <= turn]:
            pending.remove(entry)
            _, since, held, line, used = entry
            limiter.settle(held, used)
            if used > held.tokens:
                ledger.charge(micros, [0, used - held.tokens])
            elif micros // 1000 - -(-since // 1000) < 60_000:
                line[1] = used


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize(("requests", "tokens", "each"), [(20, 10**9, 3), (10**6, 60, 3)])
def test_sixteen_threads_are_never_admitted_once_too_often(hasty, requests, tokens, each):
    limiter = RateLimiter(requests, tokens, clock=Clock())
    admitted: list[str] = []

    def work(_: int) -> None:
        for user in "abcdefghij":
            admitted.extend(user for _ in range(3) if limiter.check(user, each))

    in_threads(work)
    assert Counter(admitted) == dict.fromkeys("abcdefghij", 20)


def test_sixteen_threads_settle_one_reservation_once(hasty):
    limiter = RateLimiter(10**6, 16_000, clock=Clock())
    for _ in range(20):
        limiter.check("a", 100)
        held = limiter.reserve("a", 100)
        in_threads(lambda _, held=held: limiter.settle(held, 0))
    assert not limiter.check("a", 16_000 - 20 * 100 + 1)
    assert limiter.check("a", 16_000 - 20 * 100)


def test_sixteen_threads_reserve_and_settle_and_every_token_is_counted_once(hasty):
    limiter = RateLimiter(10**6, 10_000, clock=Clock())

    def work(_: int) -> None:
        for _ in range(10):
            limiter.settle(limiter.reserve("a", 10), 3)
            limiter.settle(limiter.reserve("a", 10), 12)

    in_threads(work)
    assert not limiter.check("a", 10_000 - 160 * 15 + 1)
    assert limiter.check("a", 10_000 - 160 * 15)


# ---------------------------------------------------------------- clocks


@QUIET
@given(
    st.lists(
        st.tuples(st.sampled_from([*EDGES, -0.001, -30.0, -61.0, -1000.0]), st.integers(0, 5)), max_size=60
    )
)
def test_a_clock_that_goes_back_never_admits_more(steps):
    """However it jumps, no 60 seconds by its own readings hold more than the limit."""
    clock = Clock(5000.0)
    limiter = RateLimiter(3, 10, clock=clock)
    admitted = []
    for gap, tokens in steps:
        clock.now += gap
        if limiter.check("a", tokens):
            admitted.append((clock.now, tokens))
    requests, tokens = worst_window(admitted)
    assert requests <= 3 and tokens <= 10


def test_after_a_clock_has_caught_up_all_goes_on():
    clock = Clock(100.0)
    limiter = RateLimiter(1, clock=clock)
    assert limiter.check("a")
    clock.now = 40.0
    assert not limiter.check("a") and limiter.check("b")
    clock.now = 160.0
    assert limiter.check("a") and limiter.check("b")


# ---------------------------------------------------------------- memory


@QUIET
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([0.0, 1.0, 19.0, 31.0, 60.0, 61.0]), st.integers(0, 9)),
        max_size=80,
    ),
    st.integers(1, 4),
)
def test_being_forgotten_gives_nobody_a_fresh_budget(steps, max_users):
    """A small table decides as an endless one does, unless it is full and says so."""
    clock = Clock()
    small, endless = RateLimiter(3, 10, max_users, clock), RateLimiter(3, 10, clock=clock)
    for number, gap, tokens in steps:
        clock.now += gap
        decision = small.check(str(number), tokens)
        assert len(small) <= max_users
        if decision.reason is LimitReason.TOO_MANY_USERS:
            assert is_one_sentence(decision.message) and decision.retry_after is not None
            clock.now += decision.retry_after
            assert small.check(str(number), tokens) == endless.check(str(number), tokens)
        else:
            assert decision == endless.check(str(number), tokens)


def test_the_least_recently_admitted_goes_first():
    clock = Clock()
    limiter = RateLimiter(max_users=2, clock=clock)
    for at, user, allowed, retry_after in [
        (0.0, "a", True, 0.0),
        (10.0, "b", True, 0.0),
        (20.0, "a", True, 0.0),  # now b is the oldest
        (30.0, "c", False, 40.0),
        (70.0, "c", True, 0.0),
        (75.0, "b", False, 5.0),  # a, of second 20, is next
    ]:
        clock.now = at
        decision = limiter.check(user)
        assert (decision.allowed, decision.retry_after) == (allowed, retry_after), (at, user)


def test_users_of_long_ago_are_forgotten_before_the_table_is_full():
    clock = Clock()
    limiter = RateLimiter(clock=clock)
    for number in range(2000):
        clock.now += 1
        limiter.check(f"user-{number}")
    assert len(limiter) <= 61
    clock.now += 61
    for number in range(500):
        limiter.check(f"at-once-{number}")
    clock.now += 61
    for number in range(250):
        limiter.check(f"later-{number}")
    assert len(limiter) == 250


def test_no_user_takes_more_than_600_bytes():
    """100,000 users, each with as many slices as can count, and a name as long as a hash in hex."""
    clock = Clock()
    limiter = RateLimiter(10**6, clock=clock)
    for at, tokens in hammer(50, 70):
        clock.now = at
        limiter.check("model", tokens)
        assert len(limiter._users["model"]) <= SLICES + 21 * SIZE
    model = limiter._users["model"]
    assert sys.getsizeof(model) == sys.getsizeof(model[:])  # so copies may stand for two million slow calls
    tracemalloc.start()
    try:
        limiter = RateLimiter(10**6, clock=clock)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            limiter.check(f"{number:064d}", 1)
        light = (tracemalloc.get_traced_memory()[0] - before) / 100_000
        for name in limiter._users:
            limiter._users[name] = model[:]
        full = (tracemalloc.get_traced_memory()[0] - before) / 100_000
    finally:
        tracemalloc.stop()
    print(f"a user takes {light:.0f} bytes after one admission and {full:.0f} with all slices")
    assert len(limiter) == 100_000 and len(model) == SLICES + 21 * SIZE
    assert light < full <= 600
