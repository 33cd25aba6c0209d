"""Open and closed loops, on a clock that jumps: times are exact, and no test waits."""

from __future__ import annotations

import itertools
from random import Random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.serving import bench_report
from lessonlib.serving.bench import arrival_times, generated_prompts
from lessonlib.serving.bench_report import SLO, Load, percentile, summarise
from tests.serving.benching import DONE, END, QUIET, Script, Scripted, plain, text


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
