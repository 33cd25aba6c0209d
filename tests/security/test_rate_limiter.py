"""RateLimiter: no window of 60 seconds holds more than the limit, whatever the arrivals, threads and clocks do."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.security.rate_limiter import SIZE, SLICE, SLICES, Decision, RateLimiter, Reason

from ..engine.conftest import QUIET, is_one_sentence

THOROUGH = settings(QUIET, max_examples=300)


class Clock:
    def __init__(self, now: float = 0.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


Event = tuple[float, int]  # when, tokens
Rule = Callable[[float, int], bool]


def worst_window(admitted: list[Event]) -> tuple[int, int]:
    """The most requests, and the most tokens, in any half-open window of 60 seconds."""
    micros = [(round(at * 1_000_000), tokens) for at, tokens in admitted]
    windows = [[t for at, t in micros if end - 60_000_000 < at <= end] for end, _ in micros]
    return max(map(len, windows), default=0), max(map(sum, windows), default=0)


def run(rule: Rule, arrivals: list[Event]) -> list[Event]:
    return [event for event in arrivals if rule(*event)]


def limiter_rule(requests: int, tokens: int) -> Rule:
    clock = Clock(-1000.0)
    limiter = RateLimiter(requests, tokens, clock=clock)

    def rule(at: float, wanted: int) -> bool:
        clock.now = at
        return bool(limiter.check("user", wanted))

    return rule


# Gaps that sit on every edge there is: within a slice, a slice, a window, and a hair beside each of them.
EDGES = [
    g + d for g in (SLICE / 1000, 30.0, 60.0, 60 + SLICE / 1000) for d in (-0.001, -1e-6, 0.0, 1e-6, 0.001)
]
GAPS = st.one_of(
    st.just(0.0),
    st.sampled_from(EDGES),
    st.integers(0, 3_000_000).map(lambda micros: micros / 1_000_000),
    st.integers(0, 70_000).map(lambda ms: ms / 1000),
)


@st.composite
def arrivals(draw, most: int = 12) -> list[Event]:
    """Bursts of requests with gaps between them."""
    at, events = draw(st.sampled_from([0.0, 12_345.678_9, 4_294_930.0])), []  # the last wraps round 2**32 ms
    for _ in range(draw(st.integers(1, 25))):
        at += draw(GAPS)
        events += [(at, draw(st.integers(0, most)))] * draw(st.sampled_from([1, 1, 2, 8]))
    return events


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


def hammer(rate: float, seconds: float, tokens: int = 1) -> list[Event]:
    return [(i / rate, tokens) for i in range(int(rate * seconds))]


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
            assert decision.reason in (Reason.REQUESTS, Reason.TOKENS) and is_one_sentence(decision.message)
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
    assert refused.reason is Reason.TOKENS
    assert limiter.check("a", 0) and limiter.check("a", 0)  # what was refused cost no request
    assert limiter.check("a", 0).reason is Reason.REQUESTS


def test_what_is_larger_than_the_whole_limit_is_told_never():
    limiter = RateLimiter(60, 1000, clock=Clock())
    for tokens in (1001, 10**18, 10**5000):
        decision = limiter.check("a", tokens)
        assert not decision and decision.retry_after is None and decision.reason is Reason.TOO_LARGE
        assert is_one_sentence(decision.message) and "never" in decision.message
    assert limiter.check("a", 1000)  # not a token was taken


NONSENSE = [-1, -(10**5000), float("nan"), float("inf"), 1.5, 2.0, True, None, "7", b"7", [1]]


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
    assert limiter.check("a").reason is Reason.REQUESTS


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


SETTLING = st.lists(st.tuples(GAPS, st.integers(0, 12), st.integers(0, 14), st.integers(0, 3)), max_size=40)


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


@pytest.fixture
def hasty():
    """Threads that may change places after any instruction of the limiter, and often do."""
    random = Random(1)

    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith(("_limiter.py", "admission.py")):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and random.random() < 0.1:
            time.sleep(0)
        return trace

    threading.settrace(trace)
    yield
    threading.settrace(None)  # type: ignore[arg-type]


def in_threads(work: Callable[[int], None], threads: int = 16) -> None:
    barrier = threading.Barrier(threads)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    crew = [threading.Thread(target=begin, args=(number,)) for number in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


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
        if decision.reason is Reason.TOO_MANY_USERS:
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
