"""RedisRateLimiter against a real Redis server: the decisions of RateLimiter, and none too many from four processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.security.rate_limiter import LimitReason, RateLimiter
from lessonlib.security.redis_limiter import LimiterUnavailable, RedisRateLimiter

from ..engine.conftest import QUIET, is_one_sentence
from .limiting import NONSENSE, SETTLING, Clock, Event, arrivals, in_threads, worst_window

pytestmark = pytest.mark.needs("redis")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of our own behind a socket in a folder of its own (short: a socket's path may not be long)."""
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        path = Path(folder, "socket")
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", folder]
        server = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
        try:
            for _ in range(200):
                if path.exists() or server.poll() is not None:
                    break
                time.sleep(0.05)
            assert path.exists(), "redis-server did not start"
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def client(address) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(address) as client:
        client.flushall()
        yield client


fresh = iter(f"user-{number}:" for number in range(10**9))  # a prefix for each example: nobody's past counts


@QUIET
@given(arrivals(), st.integers(1, 12), st.integers(1, 30))
def test_it_decides_as_the_one_in_memory_does(address, events: list[Event], requests: int, tokens: int):
    clock = Clock()
    memory = RateLimiter(requests, tokens, clock=clock)
    shared = RedisRateLimiter(address, requests, tokens, prefix=next(fresh), clock=clock)
    admitted = []
    for at, wanted in events:
        clock.now = at
        decision = shared.check("a", wanted)
        assert decision == memory.check("a", wanted)
        admitted += [(at, wanted)] * decision.allowed
    worst = worst_window(admitted)
    assert worst[0] <= requests and worst[1] <= tokens


@QUIET
@given(SETTLING)
def test_it_settles_as_the_one_in_memory_does(address, steps):
    clock = Clock(1000.0)
    memory = RateLimiter(6, 20, clock=clock)
    shared = RedisRateLimiter(address, 6, 20, prefix=next(fresh), clock=clock)
    pending = []
    for turn, (gap, reserved, used, delay) in enumerate(steps):
        clock.now += gap
        held, twin = shared.reserve("a", reserved), memory.reserve("a", reserved)
        assert (held.allowed, held.retry_after, held.open) == (twin.allowed, twin.retry_after, twin.open)
        pending.append((turn + delay, held, twin, used))
        for entry in [entry for entry in pending if entry[0] <= turn]:
            pending.remove(entry)
            shared.settle(entry[1], entry[3])
            memory.settle(entry[2], entry[3])


def test_more_than_was_reserved_is_charged_and_nothing_else_is_lost_in_it(client, address):
    clock = Clock()
    limiter = RedisRateLimiter(address, 60, 100, clock=clock)
    held = limiter.reserve("a", 40)
    clock.now = 30.0
    limiter.settle(held, 10**30)
    clock.now = 89.0
    assert limiter.check("a", 1).retry_after == 1.0
    clock.now = 90.0
    assert limiter.check("a", 60)
    assert not limiter.check("a", 41) and limiter.check("a", 40)


HAMMER = """
import sys, time
from lessonlib.security.redis_limiter import RedisRateLimiter
address, requests, tokens, each, begin = sys.argv[1], *map(float, sys.argv[2:])
limiter = RedisRateLimiter(address, int(requests), int(tokens))
time.sleep(max(0, begin - time.time()))
print(sum(bool(limiter.check("user", int(each))) for _ in range(1000)))
"""


@pytest.mark.parametrize(("requests", "tokens", "each"), [(1000, 10**9, 3), (10**6, 3000, 3)])
def test_four_processes_are_never_admitted_once_too_often(client, address, requests, tokens, each):
    begin = time.time() + 2
    command = [sys.executable, "-c", HAMMER, address, *map(str, (requests, tokens, each, begin))]
    crew = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        admitted = [int(process.communicate(timeout=60)[0]) for process in crew]
    finally:
        for process in crew:
            process.kill()
    print(f"admitted by each process: {admitted}")
    assert sum(admitted) == 1000


def test_sixteen_threads_share_one_limiter(client, address):
    limiter = RedisRateLimiter(address, 500, 10**6)
    admitted = [0] * 16

    def work(number: int) -> None:
        for _ in range(60):
            admitted[number] += bool(limiter.check("user", 7))

    in_threads(work)
    assert sum(admitted) == 500


def test_the_time_is_the_server_s_own(client, address, monkeypatch):
    limiter = RedisRateLimiter(address, 1)
    assert limiter.check("a")
    for name in ("time", "monotonic"):
        monkeypatch.setattr(time, name, lambda: 4e9)  # a client from the future
    refused = limiter.check("a")
    assert refused.reason is LimitReason.REQUESTS and is_one_sentence(refused.message)
    assert refused.retry_after is not None and 50 < refused.retry_after <= 60.001


def test_keys_expire_and_tell_nothing(client, address):
    limiter = RedisRateLimiter(address, prefix="limits:")
    limiter.check("sk-secret", 5)
    limiter.settle(limiter.reserve("sk-other\ud800", 5), 0)
    keys = client.keys()
    assert len(keys) == 2
    for key in keys:
        assert key.startswith(b"limits:") and b"secret" not in key and len(key) == 39
        assert 0 < client.pttl(key) <= 60_001


def test_a_user_at_the_limit_is_a_small_key(client, address):
    clock = Clock(1.7e9)
    limiter = RedisRateLimiter(address, 10**6, 10**9, clock=clock)
    for _ in range(700):
        clock.now += 0.1
        limiter.check("a", 10_000)
    used = client.memory_usage(client.keys()[0])
    print(f"{used} bytes")
    assert used <= 600


def test_a_server_whose_clock_goes_back_a_little_admits_nothing_more(client, address):
    clock = Clock(1000.0)
    limiter = RedisRateLimiter(address, 2, clock=clock)
    assert limiter.check("a")
    clock.now = 970.0
    assert limiter.check("a") and not limiter.check("a")
    clock.now = 1059.9
    assert not limiter.check("a")
    clock.now = 1060.0
    assert limiter.check("a")


def test_a_server_whose_clock_was_set_back_shuts_nobody_out_for_long(client, address):
    clock = Clock(100_000.0)
    limiter = RedisRateLimiter(address, 2, clock=clock)
    assert limiter.check("a") and limiter.check("a")
    clock.now = 1000.0
    assert limiter.check("a").retry_after == 60.0
    clock.now = 1060.0
    assert limiter.check("a")


@pytest.mark.parametrize("tokens", NONSENSE, ids=lambda value: type(value).__name__)
def test_senseless_tokens_never_reach_the_server(client, address, tokens):
    with pytest.raises(ValueError, match="whole number") as told:
        RedisRateLimiter(address).check("a", tokens)
    assert is_one_sentence(str(told.value))
    never = RedisRateLimiter(address, 60, 1000).check("a", 10**5000)
    assert never.reason is LimitReason.TOO_LARGE and never.retry_after is None
    assert client.keys() == []


def test_the_script_is_sent_again_after_the_server_forgot_it(client, address):
    limiter = RedisRateLimiter(address)
    assert limiter.check("a")
    client.script_flush()
    assert limiter.check("a")


def test_a_connection_that_was_cut_is_made_again(client, address):
    limiter = RedisRateLimiter(address)
    assert limiter.check("a")
    assert client.client_kill_filter(_type="normal", skipme=True) >= 1
    assert limiter.check("a")


def test_without_a_server_nothing_is_admitted_and_settling_does_no_harm(
    tmp_path: Path, client, address, caplog
):
    alone = RedisRateLimiter(f"unix://{tmp_path}/nowhere")
    with pytest.raises(LimiterUnavailable) as told:
        alone.check("a")
    assert is_one_sentence(str(told.value))
    held = RedisRateLimiter(address).reserve("a", 5)
    alone.settle(held, 1)
    assert "could not be settled" in caplog.text


def test_a_server_out_of_memory_admits_nothing(client, address):
    limiter = RedisRateLimiter(address)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(LimiterUnavailable):
            limiter.check("a")
    finally:
        client.config_set("maxmemory", 0)
    assert limiter.check("a")
