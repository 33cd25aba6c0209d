"""The load generator: its plan, its arithmetic, what it makes of servers that misbehave, and what it shows.

Delays are scripted on a clock that jumps from one waiting task to the next, so that times are exact and no test waits.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lessonlib import cli
from lessonlib.serving import bench, bench_report
from lessonlib.serving.bench import (
    BenchError,
    EventStream,
    Settings,
    arrival_times,
    generated_prompts,
    measure,
)
from lessonlib.serving.bench_report import SLO, Load, Record, Run, Stage, percentile, summarise

QUIET = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TIMES = st.floats(0, 1e6, allow_nan=False)
URL = "http://127.0.0.1:8000/v1"


# ---------------------------------------------------------------- the plan


@QUIET
@given(st.floats(0.01, 1000), st.integers(0, 50), st.floats(0.01, 100), st.integers(0, 9))
def test_arrivals_are_in_order_and_bounded_in_count_and_time(rate, requests, seconds, seed):
    times = arrival_times(rate, requests, seconds, seed)
    assert times == sorted(times) and len(times) <= requests
    assert all(0 <= time < seconds for time in times)
    assert times == arrival_times(rate, requests + 5, seconds, seed)[:requests]
    # Twice the rate is the same pattern in half the time.
    assert arrival_times(2 * rate, requests, seconds / 2, seed) == pytest.approx([t / 2 for t in times])


def test_arrivals_are_a_poisson_process():
    times = arrival_times(rate=4, requests=20_000, seconds=math.inf, seed=3)
    gaps = np.diff(times, prepend=0)
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 4, rel=0.03)  # as the mean: what tells it from an even beat
    a_second = np.bincount(np.floor(times).astype(int))[:-1]
    assert a_second.var() == pytest.approx(a_second.mean(), rel=0.1)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03


@QUIET
@given(st.sampled_from(["code", "words"]), st.integers(1, 40), st.integers(0, 40), st.integers(0, 5))
def test_made_up_prompts_have_a_drawn_length_and_are_repeatable(kind, low, more, seed):
    made = list(itertools.islice(generated_prompts(kind, (low, low + more), seed), 10))
    assert made == list(itertools.islice(generated_prompts(kind, (low, low + more), seed), 10))
    assert made != list(itertools.islice(generated_prompts(kind, (low, low + more), seed + 1), 10))
    assert all(low <= len(prompt.split()) <= low + more for prompt in made)


def test_made_up_prompts_never_come_twice_and_use_the_whole_range():
    made = list(itertools.islice(generated_prompts("code", (16, 20)), 500))
    assert len(set(made)) == 500
    assert {len(prompt.split()) for prompt in made} == {16, 17, 18, 19, 20}
    assert any("    return" in prompt for prompt in made)  # lines and indents, as code has them


def test_prompts_come_from_lines_and_from_json_lines(tmp_path):
    plain, lines = tmp_path / "some.txt", tmp_path / "some.jsonl"
    plain.write_text("def f(x):\n\n{not json}\n", encoding="utf-8")
    lines.write_text('"one\\ntwo"\n{"prompt": "drei – 三", "id": 7}\n', encoding="utf-8")
    assert bench.read_prompts(plain) == ["def f(x):", "{not json}"]
    assert bench.read_prompts(lines) == ["one\ntwo", "drei – 三"]


@pytest.mark.parametrize(
    "line", [b"[1]", b"7", b"{}", b'"\\ud800"', b'{"prompt": null}', b"text", b"\xff", b"[" * 10_000]
)
def test_a_prompt_that_is_none_is_named_by_its_line(tmp_path, line):
    file = tmp_path / "some.jsonl"
    file.write_bytes(b'"fine"\n' + line)
    with pytest.raises(BenchError, match=r"some\.jsonl, line [02]: "):
        bench.read_prompts(file)


@pytest.mark.parametrize("text", [None, "", "\n \n"])
def test_a_file_without_prompts_is_one_sentence(tmp_path, text):
    file = tmp_path / "some.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BenchError, match=r"some\.txt (cannot be read|holds no prompt)"):
        bench.read_prompts(file)


# ---------------------------------------------------------------- whom it may load


@pytest.mark.parametrize(
    ("given_", "used"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.9.9.9:1/v1/", "http://127.9.9.9:1/v1"),
        ("http://[::1]:8000/api?x=1#y", "http://[::1]:8000/api"),
        ("http://[::ffff:127.0.0.1]/v1", "http://[::ffff:127.0.0.1]/v1"),
    ],
)
def test_loopback_addresses_are_taken(given_, used):
    assert bench.check_address(given_) == used


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "0.0.0.0", "[::]", "[2001:db8::1]", "[::ffff:10.0.0.1]", "192.0.2.7"]
)
def test_other_machines_are_refused_unless_allowed(host):
    with pytest.raises(BenchError, match="--allow-remote"):
        bench.check_address(f"http://{host}:8000/v1")
    assert bench.check_address(f"http://{host}:8000/v1", allow_remote=True).startswith("http://")


def test_a_name_is_judged_by_all_that_it_resolves_to(monkeypatch):
    found = {"local.test": ["127.0.0.1", "::1"], "mixed.test": ["127.0.0.1", "198.51.100.1"]}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        if host not in found:
            raise socket.gaierror
        return [(0, 0, 0, "", (address, port)) for address in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert bench.check_address("http://local.test:8000") == "http://local.test:8000/v1"
    with pytest.raises(BenchError, match=r"mixed\.test is 198\.51\.100\.1, .*--allow-remote"):
        bench.check_address("http://mixed.test:8000")
    with pytest.raises(BenchError, match="not known"):
        bench.check_address("http://nowhere.test:8000")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:99999",
        "http://me:key@127.0.0.1",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(BenchError, match="write it as http"):
        bench.check_address(address)


# ---------------------------------------------------------------- events out of bytes


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@QUIET
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1), max_size=5
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 1000), max_size=20),
)
def test_events_are_the_same_however_the_bytes_are_cut(sent, newline, places):
    lines = [line for said in sent for line in (": comment", "event: x", *(f"data: {s}" for s in said), "")]
    data = newline.join([*lines, ": the end", ""]).encode()
    events = EventStream()
    whole = ["\n".join(said).encode() for said in sent]
    assert [event for chunk in cut(data, places) for event in events.feed(chunk)] == whole


def test_an_event_may_have_several_lines_and_needs_an_end():
    events = EventStream()
    assert list(events.feed(b"data:one\ndata:  two\n\ndata: three\n")) == [b"one\n two"]


@pytest.mark.parametrize("endless", [b"x" * 2**16, b"data: " + b"x" * 2**16 + b"\n"])
def test_an_endless_event_is_refused(endless):
    events = EventStream()
    with pytest.raises(ValueError, match="bytes"):
        for _ in range(20):
            list(events.feed(endless))


# ---------------------------------------------------------------- the arithmetic


@QUIET
@given(st.lists(TIMES, min_size=1, max_size=40), st.floats(0, 100), st.floats(0, 100), st.randoms())
def test_percentiles_are_numpy_s_and_stay_in_order(values, p, q, random):
    result = percentile(values, p)
    assert result == pytest.approx(np.percentile(values, p), rel=1e-9, abs=1e-9)
    assert min(values) <= result <= max(values)
    assert percentile(values, min(p, q)) <= percentile(values, max(p, q))
    shuffled = list(values)
    random.shuffle(shuffled)
    assert percentile(shuffled, p) == result


def answered(ttft: float, tpot: float, tokens: int = 11, due: float = 0.0) -> Record:
    last = due + ttft + tpot * (tokens - 1)
    return Record(due, due, due + ttft, last, last, chunks=tokens, output_tokens=tokens)


def test_the_times_of_one_request():
    record = Record(due=1.0, sent=1.5, first=2.0, last=4.0, end=4.5, chunks=3, output_tokens=5)
    assert (record.ttft, record.tpot, record.latency) == (1.0, 0.5, 3.5)
    assert replace(record, output_tokens=None).tpot == 1.0  # three chunks, taken for three tokens
    assert replace(record, output_tokens=1, chunks=1, last=2.0).tpot is None
    assert (
        replace(record, output_tokens=5, chunks=1, last=2.0).tpot is None
    )  # all at once: not infinitely fast
    assert replace(record, first=None, last=None, chunks=0, output_tokens=None).ttft == 3.5


def test_goodput_counts_those_that_meet_both_and_failures_as_missed():
    records = [answered(0.1, 0.01), answered(0.3, 0.01), answered(0.1, 0.03), Record(0, 0, error="HTTP 500")]
    records.append(Record(0, 0, error="interrupted"))
    stage = Stage(Load(rate=2), records, seconds=2.0)
    both = summarise(stage, SLO(ttft=0.2, tpot=0.02))
    assert (both.goodput_share, both.goodput) == (1 / 4, 1 / 2)
    assert summarise(stage, SLO(ttft=0.2)).goodput_share == 2 / 4
    assert summarise(stage, SLO(tpot=0.02)).goodput_share == 2 / 4
    assert summarise(stage, SLO(9, 9)).goodput_share == 3 / 4
    assert summarise(stage).goodput is summarise(stage).goodput_share is None
    assert (both.requests, both.completed, both.interrupted, both.errors) == (4, 3, 1, {"HTTP 500": 1})
    assert (both.requests_per_second, both.output_tokens, both.output_tokens_per_second) == (1.5, 33, 16.5)


@QUIET
@given(st.lists(st.tuples(TIMES, TIMES, st.booleans()), max_size=30), TIMES, TIMES)
def test_a_looser_objective_is_never_met_by_fewer(shapes, ttft, tpot):
    records = [answered(a, b) if fine else Record(0, 0, error="timeout") for a, b, fine in shapes]
    stage = Stage(Load(), records, seconds=3.0)
    strict, loose = summarise(stage, SLO(ttft, tpot)), summarise(stage, SLO(2 * ttft, None))
    assert (strict.goodput or 0) <= (loose.goodput or 0) <= loose.requests_per_second
    assert strict.completed + sum(strict.errors.values()) == strict.requests == len(records)


@pytest.mark.parametrize(
    ("counts", "source", "says"),
    [
        ([3, 4], "usage", "as the server counts"),
        ([None], "chunks", "no usage"),
        ([3, None], "both", "some requests"),
        ([], "none", ""),
    ],
)
def test_it_says_who_counted_the_tokens(counts, source, says):
    records = [replace(answered(0.1, 0.1), output_tokens=count) for count in counts]
    summary = summarise(Stage(Load(), records, 1.0))
    assert summary.tokens_from == source
    told = " ".join(bench_report.notes([summary]))
    assert (says in told) and ("Output tokens" in told) == bool(says)


# ---------------------------------------------------------------- a clock that jumps


class Jump(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("Everybody waits, and nobody for a time.")
        self.now += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jump = Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


Script = list[tuple[float, bytes]]  # seconds to wait, then what to send


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def text(said: str = "x", **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": said, **more}]})


END = text("", finish_reason="length")
DONE = event(b"[DONE]")


def usage(tokens: Any, prompt: int = 7) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": tokens, "prompt_tokens": prompt}})


def plain(first: float = 1.0, each: float = 0.5, tokens: int = 3) -> Script:
    return [(first, text()), *[(each, text())] * (tokens - 1), (0, END), (0, usage(tokens)), (0, DONE)]


@dataclass
class Scripted:
    """A server on the jumping clock. Its first answer goes to the request that is not measured."""

    script: Callable[[int], Script | httpx.Response]
    loop: JumpingLoop = field(default_factory=JumpingLoop)
    begun: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        self.begun.append(self.loop.time())
        number = len(self.begun) - 2
        answer = plain(0, 0) if number < 0 else self.script(number)
        return (
            answer if isinstance(answer, httpx.Response) else httpx.Response(200, content=self._send(answer))
        )

    async def _send(self, script: Script) -> AsyncIterator[bytes]:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            for wait, data in script:
                await asyncio.sleep(wait)
                yield data
        finally:
            self.at_once -= 1

    def measure(self, *loads: Load, stop_at: float | None = None, **changes: Any) -> Run:
        wanted = Settings(
            **{"base_url": URL, "model": "m", "requests": 5, "seconds": 1e6, "timeout": 1e6, **changes}
        )

        async def run() -> Run:
            prompts = generated_prompts("words", (3, 3))
            transport = httpx.MockTransport(self)
            task = asyncio.ensure_future(
                measure(wanted, loads, prompts, transport=transport, clock=self.loop.time)
            )
            if stop_at is not None:
                self.loop.call_later(stop_at, task.cancel)  # what asyncio.run does on Ctrl-C
            return await task

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(run())


def test_every_time_is_the_one_that_the_server_took():
    run = Scripted(lambda _: plain(first=1.0, each=0.5, tokens=3)).measure(Load(users=1), requests=4)
    (stage,) = run.stages
    assert [r.ttft for r in stage.records] == pytest.approx([1.0] * 4)
    assert [r.tpot for r in stage.records] == pytest.approx([0.5] * 4)
    assert [r.latency for r in stage.records] == pytest.approx([2.0] * 4)
    assert stage.seconds == pytest.approx(8.0)
    figures = summarise(stage)
    assert figures.requests_per_second == pytest.approx(0.5)
    assert (figures.output_tokens, figures.prompt_tokens, figures.tokens_from) == (12, 28, "usage")


def test_open_loop_requests_arrive_as_planned_even_if_nothing_is_answered():
    server = Scripted(lambda _: [(1e5, text())])
    (stage,) = server.measure(Load(rate=2), requests=20, timeout=50, seed=4).stages
    assert server.begun[1:] == pytest.approx(arrival_times(2, 20, 1e6, 4))
    assert server.most == 20 and {r.error for r in stage.records} == {"timeout"}


def test_open_loop_latency_holds_the_queueing_of_a_stalled_server():
    """One at a time, a second each, and the first takes ten: against Lindley's recursion for the waiting."""
    free_at = [0.0]

    def serve(number: int) -> Script:
        start = max(server.loop.time(), free_at[0])
        free_at[0] = start + (10.0 if number == 0 else 1.0)
        return [(free_at[0] - server.loop.time(), text()), (0, END), (0, DONE)]

    server = Scripted(serve)
    (stage,) = server.measure(Load(rate=1), requests=12, seed=1).stages
    expected, free = [], 0.0
    for number, due in enumerate(arrival_times(1, 12, 1e6, 1)):
        free = max(free, due) + (10.0 if number == 0 else 1.0)
        expected.append(free - due)
    assert [r.ttft for r in stage.records] == pytest.approx(expected)
    assert percentile([r.ttft for r in stage.records], 50) > 5  # not only the one that hit the stall


def test_latency_counts_from_the_scheduled_arrival_when_this_machine_is_late():
    """The generator itself is held up for 30 s: what was due meanwhile waited, and must say so."""
    plan = arrival_times(1, 20, 1e6, 2)

    def serve(number: int) -> Script:
        if number == 4:
            server.loop.jump.now += 30.0
        return [(0.25, text()), (0, END), (0, DONE)]

    server = Scripted(serve)
    (stage,) = server.measure(Load(rate=1), requests=20, seed=2).stages
    assert [r.due for r in stage.records] == plan
    late = [r for r in stage.records if r.sent - r.due > 0.01]
    assert len(late) == sum(plan[4] < due < plan[4] + 30 for due in plan) > 5
    resumed = plan[4] + 30
    assert [r.ttft for r in late] == pytest.approx([resumed - r.due + 0.25 for r in late])
    summary = summarise(stage)
    assert summary.lateness["p99"] > 10
    assert any("sent late" in note for note in bench_report.notes([summary]))


@QUIET
@given(st.integers(1, 6), st.integers(6, 15), st.integers(0, 9))
def test_closed_loop_keeps_so_many_at_a_time_and_stops_at_the_count(users, requests, seed):
    waits = Random(seed)
    server = Scripted(lambda _: plain(first=waits.uniform(0.1, 3)))
    (stage,) = server.measure(Load(users=users), requests=requests).stages
    assert server.most == users
    assert len(stage.records) == requests == summarise(stage).completed


@pytest.mark.parametrize("load", [Load(users=2), Load(rate=3)])
def test_a_stage_stops_sending_when_its_time_is_over_and_waits_for_what_it_sent(load):
    server = Scripted(lambda _: plain(first=1.5, each=0, tokens=1))
    (stage,) = server.measure(load, requests=1000, seconds=10).stages
    assert max(r.sent for r in stage.records) < 10
    assert 10 <= len(stage.records) < 100
    assert all(r.error is None for r in stage.records)
    assert 10 < stage.seconds < 11.6


def test_stages_run_one_after_the_other_with_prompts_of_their_own():
    server = Scripted(lambda _: plain())
    run = server.measure(Load(users=1), Load(users=2), Load(users=4), requests=8)
    assert [len(stage.records) for stage in run.stages] == [8, 8, 8]
    assert run.stages[0].seconds == pytest.approx(2 * run.stages[1].seconds) == 4 * run.stages[2].seconds
    asked = [body["prompt"] for body in server.bodies]
    assert len(asked) == 25  # one to begin with
    assert asked == list(itertools.islice(generated_prompts("words", (3, 3)), 25))


@pytest.mark.parametrize("load", [Load(users=2), Load(rate=1)])
def test_stopped_it_reports_what_was_measured(load):
    server = Scripted(lambda number: plain(first=1.0 if number < 4 else 1e5))
    run = server.measure(load, Load(users=1), requests=50, stop_at=60.0)
    (stage,) = run.stages  # the second never began
    assert run.interrupted and stage.interrupted and stage.seconds == pytest.approx(60.0)
    summary = summarise(stage, SLO(ttft=100))
    assert (summary.completed, summary.goodput_share) == (4, 1.0)
    assert summary.interrupted == len(stage.records) - 4 > 0
    assert server.at_once == 0  # nobody is left waiting at the server
    assert any("count nowhere" in note for note in bench_report.notes([summary]))


def test_a_user_waits_as_long_as_a_refusal_asks_and_an_open_loop_does_not():
    def serve(number: int) -> Script | httpx.Response:
        return (
            httpx.Response(429, headers={"Retry-After": "40"}, text="later") if number == 1 else plain(1, 0)
        )

    closed = Scripted(serve)
    (stage,) = closed.measure(Load(users=1), requests=4).stages
    assert [r.sent for r in stage.records] == pytest.approx([0, 1, 41, 42])
    assert [r.error for r in stage.records] == [None, "HTTP 429", None, None]
    assert stage.records[1].detail == "later (Retry-After: 40)"
    opened = Scripted(serve)
    opened.measure(Load(rate=1), requests=4)
    assert opened.begun[1:] == pytest.approx(arrival_times(1, 4, 1e6))
    bounded = Scripted(lambda _: httpx.Response(503, headers={"Retry-After": "999999999"}))
    (stage,) = bounded.measure(Load(users=3), requests=50, seconds=30).stages
    assert len(stage.records) == 3 and stage.seconds < 30


@pytest.mark.parametrize("wait", ["-5", "nan", "1e9", "Fri, 31 Dec 1999 23:59:59 GMT", "٣", "9" * 5000])
def test_a_retry_after_that_is_no_number_of_seconds_is_only_quoted(wait):
    headers = [(b"retry-after", wait.encode())]
    server = Scripted(lambda _: httpx.Response(429, headers=headers))
    (stage,) = server.measure(Load(users=1), requests=3, seconds=30).stages
    assert [(r.error, r.retry_after) for r in stage.records] == [("HTTP 429", 0.0)] * 3


LATE = [(1.0, text()), (1.0, text())]


@pytest.mark.parametrize(
    ("script", "error", "tokens"),
    [
        ([*LATE, (0, END), (0, DONE)], None, 2),  # no usage: chunks are counted
        ([*LATE, (0, END)], None, 2),  # no [DONE]
        ([*LATE, (0, END), (0, usage(9)), (0, DONE)], None, 9),
        ([*LATE, (0, usage(1)), (0, usage(9)), (0, END), (0, DONE)], None, 9),  # as it goes along
        ([*LATE, (0, usage(None)), (0, usage(True)), (0, usage("9")), (0, usage(-1)), (0, END)], None, 2),
        ([*LATE, (0, END), (0, DONE), (1e5, b"")], None, 2),  # never closes
        ([*LATE, (0, END), (0, DONE), (0, event(b"{"))], None, 2),  # goes on talking
        ([(2, event({"choices": [{"text": "", "finish_reason": "stop"}]})), (0, DONE)], None, 0),
        ([*LATE], "cut off", 2),
        ([*LATE, (0, DONE)], "cut off", 2),  # as llama-cpp-python ends an answer when another request comes
        ([], "cut off", 0),
        ([(0, b'{"choices": []}')], "cut off", 0),  # no event stream
        ([*LATE, (0, event(b'{"choices": ['))], "malformed", 2),
        ([*LATE, (0, event(b"\xff\xfe"))], "malformed", 2),
        ([*LATE, (0, event([1]))], "malformed", 2),
        ([*LATE, (0, event({"choices": [7]}))], "malformed", 2),
        ([*LATE, (0, event({"choices": [{"delta": "x"}]}))], "malformed", 2),
        ([*LATE, (0, event(b"[" * 100_000))], "malformed", 2),
        ([*LATE, (0, b"data: " + b"x" * 2**21)], "malformed", 2),
        ([*LATE, (0, event({"error": {"message": "out of blocks"}}))], "error in the stream", 2),
        ([*LATE, (1e5, END)], "timeout", 2),
    ],
)
def test_what_a_stream_may_do(script, error, tokens):
    server = Scripted(lambda _: script)
    (stage,) = server.measure(Load(users=1), requests=2, timeout=100).stages
    for record in stage.records:
        assert (record.error, record.tokens) == (error, tokens)
        assert record.detail.isprintable() and len(record.detail) <= 200
        if error is None:
            assert record.latency == pytest.approx(2.0)
            assert (
                stage.seconds <= 2 * (2.0 + bench.GRACE) + 1e-6
            )  # whatever comes after [DONE] is not waited for
    assert server.at_once == 0


def test_an_answer_that_is_not_packed_as_it_says_is_malformed():
    def serve(_: int) -> httpx.Response:
        return httpx.Response(
            200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(text() + END)
        )

    (stage,) = Scripted(serve).measure(Load(users=1), requests=1).stages
    assert stage.records[0].error == "malformed"


def test_line_separators_inside_json_do_not_cut_an_event():
    said = json.dumps({"choices": [{"text": "a\u2028b\u0085c"}]}, ensure_ascii=False).encode()
    server = Scripted(lambda _: [(1, event(said)), (0, END), (0, DONE)])
    (stage,) = server.measure(Load(users=1), requests=1).stages
    assert stage.records[0].error is None and stage.records[0].tokens == 1


def test_the_first_chunk_of_a_chat_is_no_token_and_thinking_is():
    def chunk(**delta: Any) -> bytes:
        return event({"choices": [{"delta": delta, "finish_reason": None}]})

    end = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    script = [
        (1, chunk(role="assistant", content="")),
        (2, chunk(reasoning_content="hm")),
        (4, chunk(content="x")),
        (0, end),
    ]
    server = Scripted(lambda _: [*script, (0, DONE)])
    (stage,) = server.measure(Load(users=1), requests=1, chat=True).stages
    (record,) = stage.records
    assert (record.error, record.ttft, record.tpot, record.tokens) == (None, 3.0, 4.0, 2)
    assert server.bodies[0]["messages"][0]["role"] == "user" and "prompt" not in server.bodies[0]


def test_a_server_that_knows_no_stream_options_is_asked_without():
    class Strict(Scripted):
        async def __call__(self, request: httpx.Request) -> httpx.Response:
            if "stream_options" in json.loads(request.content):
                return httpx.Response(422, json={"error": {"message": "unknown field"}})
            return await super().__call__(request)

    server = Strict(lambda _: [(1, text()), (0, END), (0, DONE)])
    (stage,) = server.measure(Load(users=1), requests=3).stages
    assert summarise(stage).tokens_from == "chunks" and summarise(stage).completed == 3


def test_the_body_asks_for_what_was_wanted():
    server = Scripted(lambda _: plain())
    server.measure(Load(users=1), requests=1, max_tokens=9, temperature=0.5, ignore_eos=True)
    body = server.bodies[-1]
    del body["prompt"]
    wanted = {"model": "m", "max_tokens": 9, "temperature": 0.5, "ignore_eos": True, "stream": True}
    assert body == wanted | {"stream_options": {"include_usage": True}}


# ---------------------------------------------------------------- what is shown


def runs() -> Run:
    stages = [
        Stage(Load(rate=rate), [answered(0.05 * rate * n, 0.01, due=n) for n in range(1, 21)], 20 / rate)
        for rate in (1.0, 2.5, 4.0)
    ]
    return Run({"base_url": URL}, "m", "2020-01-01T00:00:00+00:00", stages)


def test_the_picture_has_every_line_and_follows_the_figures():
    summaries = [summarise(stage, SLO(0.5, 0.02)) for stage in runs().stages]
    image = bench_report.plot(summaries, "png", SLO(0.5, 0.02))
    with Image.open(io.BytesIO(image)) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    for colour in (bench_report.BLUE, bench_report.VERMILLION, bench_report.GREEN):
        assert tuple(bytes.fromhex(colour[1:])) in colours
    changed = [replace(s, ttft={**s.ttft, "p99": 3.0}) for s in summaries]
    assert (
        bench_report.plot(changed, "png", SLO(0.5, 0.02))
        != image
        == bench_report.plot(summaries, "png", SLO(0.5, 0.02))
    )


@pytest.mark.parametrize(
    "stage", [Stage(Load(users=2)), Stage(Load(rate=1), [Record(0, 0, error="timeout")], 1.0)]
)
def test_a_stage_without_any_answer_can_be_shown(stage):
    summaries = [summarise(stage, SLO(1, 1))]
    assert bench_report.table(summaries).row_count == 15
    assert bench_report.plot(summaries, "svg", SLO(1, 1)).startswith(b"<?xml")
    assert json.loads(bench_report.to_json(Run({}, "m", "", [stage])))["stages"][0]["completed"] == 0


# ---------------------------------------------------------------- against a real server


@dataclass
class FakeServer:
    """Answers in the way that the prompt asks for, over HTTP, with the chunks of a real one."""

    asked: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    callers: list[Any] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        chat = "messages" in body
        way = body["messages"][0]["content"] if chat else body["prompt"]
        self.asked.append(way)
        self.headers.append(request.headers)
        self.callers.append(request.client)
        self.bodies.append(body)
        if way == "500":
            return Response("it [bold]broke", 500)
        if way == "429":
            error = {"error": {"message": "too many", "type": "rate_limit"}}
            return JSONResponse(error, 429, {"Retry-After": "1"})
        if way == "elsewhere":
            return RedirectResponse("/v1/forbidden", 307)
        return StreamingResponse(self.stream(way, chat), media_type="text/event-stream")

    async def stream(self, way: str, chat: bool) -> AsyncIterator[bytes]:
        def piece(said: str, reason: str | None = None) -> bytes:
            part = {"delta": {"content": said}} if chat else {"text": said}
            return event({"choices": [{"index": 0, **part, "finish_reason": reason}]})

        if way == "slow":
            await asyncio.sleep(0.5)
        if way == "hang":
            self.hanging.set()
            await asyncio.sleep(100)
        yield b": hello\n\n" + piece("one ")
        await asyncio.sleep(0.02)
        if way == "malformed":
            yield b"data: {oops\n\n"
        if way == "cut":
            raise ConnectionResetError
        yield piece("two") + piece("", "length")
        if way != "no usage":
            yield usage(12)
        yield DONE

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake"}]})

    async def forbidden(self, request: Request) -> Response:
        self.asked.append("followed a redirect")
        return Response()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    app = Starlette(
        routes=[
            Route("/v1/models", fake.models),
            Route("/v1/completions", fake.answer, methods=["POST"]),
            Route("/v1/chat/completions", fake.answer, methods=["POST"]),
            Route("/v1/forbidden", fake.forbidden, methods=["POST"]),
        ]
    )
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        fake.port = listener.getsockname()[1]
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield fake
        finally:
            running.should_exit = running.force_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


def script(tmp_path: Path, *ways: str) -> str:
    file = tmp_path / "ways.txt"
    file.write_text("\n".join(ways))
    return str(file)


def test_every_kind_of_answer_finds_its_place_in_the_report(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing may come in between
    ways = ["ok", "429", "slow", "500", "malformed", "cut", "no usage", "elsewhere"]
    result, picture = tmp_path / "result.json", tmp_path / "result.png"
    prompts = script(tmp_path, *ways)
    asked = ["--prompts", prompts, "--concurrency", "1", "--requests", "8", "--api-key", "sesame", "--chat"]
    shown = ["--slo-ttft", "60000", "--slo-tpot", "60000", "--output", str(result), "--plot", str(picture)]
    assert cli.main(["bench", "serve", "--base-url", server.url, *asked, *shown]) == 0
    assert server.asked == ["ok", *ways[1:], "ok"]  # the first is not measured; no redirect is followed
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sesame"}
    assert server.bodies[0]["model"] == "fake"

    told = json.loads(result.read_text())
    (stage,) = told["stages"]
    wanted = {"HTTP 429": 1, "HTTP 500": 1, "malformed": 1, "disconnect": 1, "HTTP 307": 1}
    assert stage["errors"] == wanted
    assert (stage["requests"], stage["completed"], stage["tokens_from"]) == (8, 3, "both")
    assert stage["output_tokens"] == 12 + 12 + 2 and stage["goodput_share"] == 3 / 8
    assert stage["examples"]["HTTP 429"] == "too many (Retry-After: 1)"
    slow, after = stage["samples"][1], stage["samples"][0]
    assert slow["due"] - after["due"] >= 1  # the user waited as it was asked to
    assert slow["first"] - slow["due"] >= 0.5
    assert slow["first"] < slow["last"] <= slow["end"]
    assert "sesame" not in result.read_text() and told["settings"]["base_url"] == server.url
    with Image.open(picture) as image:
        assert image.format == "PNG"
    out = capsys.readouterr().out
    assert "1 × HTTP 500: it [bold]broke" in out and "goodput" in out and "TTFT, ms, p99" in out


def test_an_open_loop_over_several_rates(server, tmp_path, capsys):
    result = tmp_path / "result.json"
    plan = ["--rate", "50,100", "--requests", "10", "--kind", "words", "--words", "3-5", "--model", "mine"]
    assert cli.main(["bench", "serve", "--base-url", server.url, *plan, "--output", str(result)]) == 0
    stages = json.loads(result.read_text())["stages"]
    assert [stage["load"]["rate"] for stage in stages] == [50, 100]
    for stage in stages:
        assert [sample["due"] for sample in stage["samples"]] == arrival_times(stage["load"]["rate"], 10, 60)
        assert all(sample["due"] <= sample["sent"] <= sample["first"] for sample in stage["samples"])
        assert stage["completed"] == 10
    assert len(server.asked) == len(set(server.asked)) == 21
    assert all(3 <= len(asked.split()) <= 5 for asked in server.asked)
    assert {body["model"] for body in server.bodies} == {"mine"}
    out = capsys.readouterr().out
    assert "goodput" not in out and "50/s" in out


def test_ctrl_c_shows_what_was_measured(server, tmp_path):
    result = tmp_path / "result.json"
    prompts = script(tmp_path, "ok", "ok", "ok", "ok", "hang")
    command = [sys.executable, "-m", "lessonlib.cli", "bench", "serve", "--base-url", server.url]
    command += ["--prompts", prompts, "--concurrency", "1,2", "--output", str(result)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.hanging.wait(timeout=120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "stopped; 1 still running" in out and "Traceback" not in err
    told = json.loads(result.read_text())
    assert told["interrupted"] and [stage["completed"] for stage in told["stages"]] == [3]


@pytest.mark.parametrize(
    ("way", "says"),
    [("429", "HTTP 429: too many"), ("500", "HTTP 500"), ("malformed", "malformed"), ("cut", "disconnect")],
)
def test_a_first_request_that_fails_ends_the_run_in_one_sentence(server, tmp_path, capsys, way, says):
    prompts = script(tmp_path, way)
    assert cli.main(["bench", "serve", "--base-url", server.url, "--prompts", prompts]) == 1
    shown = capsys.readouterr()
    assert says in shown.err and "nothing was measured" in shown.err and shown.out == ""
    assert len(server.asked) == 1


def test_nobody_there_is_one_sentence(capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert cli.main(["bench", "serve", "--base-url", url]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("lesson: No server answers at") and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--base-url", "http://192.0.2.1/v1"], "--allow-remote"),
        (["--rate", "1", "--concurrency", "1"], "give one of them"),
        (["--rate", "0"], "--rate 0"),
        (["--rate", "nan"], "--rate nan"),
        (["--rate", "1,,2"], "--rate 1,,2"),
        (["--concurrency", "1.5"], "--concurrency 1.5"),
        (["--concurrency", "200"], "--requests"),
        (["--words", "9-3"], "--words 9-3"),
        (["--words", "many"], "--words many"),
        (["--prompts", "missing.txt"], "missing.txt"),
        (["--plot", "new.bmp"], ".png"),
        (["--plot", "nowhere/new.png"], "nowhere"),
        (["--output", "kept.json"], "kept.json is there already"),
        (["--model", "m", "--api-key", "schlüssel"], "API key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    Path("kept.json").write_text("mine")
    assert cli.main(["bench", "serve", *options]) == 1
    shown = capsys.readouterr()
    assert says in shown.err and len(shown.err.strip().splitlines()) == 1 and shown.out == ""
    assert Path("kept.json").read_text() == "mine"


def test_the_key_may_come_from_the_environment_and_is_never_shown(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LESSON_API_KEY", "sesame")
    plan = ["--concurrency", "1", "--requests", "5"]
    assert cli.main(["bench", "serve", "--base-url", server.url, *plan]) == 0
    assert server.headers[-1]["authorization"] == "Bearer sesame"
    assert len(set(server.callers)) < len(server.callers) == 6  # connections are kept
    shown = capsys.readouterr()
    assert "sesame" not in shown.out + shown.err
    assert "sesame" not in repr(Settings(URL, api_key="sesame"))
