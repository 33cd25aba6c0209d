"""Clocks, arrivals and crews of threads: what the tests of both rate limiters share."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import strategies as st

from lessonlib.security.rate_limiter import SLICE

NONSENSE = [-1, -(10**5000), float("nan"), float("inf"), 1.5, 2.0, True, None, "7", b"7", [1]]


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


SETTLING = st.lists(st.tuples(GAPS, st.integers(0, 12), st.integers(0, 14), st.integers(0, 3)), max_size=40)


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


def hammer(rate: float, seconds: float, tokens: int = 1) -> list[Event]:
    return [(i / rate, tokens) for i in range(int(rate * seconds))]
