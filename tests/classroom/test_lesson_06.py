"""The checks of lesson 06 agree with the server's own tools and can tell mistakes apart, and its server ends."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader import exercises as gate
from grader import keys
from lessonlib import course
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import CheckFailed
from lessonlib.classroom.checks.lesson_06 import break_even, load_curve, read_stream, wire
from lessonlib.classroom.checks.lesson_06 import stream_mistakes as mistakes
from lessonlib.classroom.checks.lesson_06.local_server import LocalServer
from lessonlib.classroom.exercises import AnyOf, Skip, exercises
from lessonlib.explorers.pictures import deployment
from lessonlib.serving.bench import EventStream
from lessonlib.serving.bench_report import Load, Record, Stage, summarise

STYLES = (
    {},
    {"_role": False},
    {"_together": True},
    {"_cut": "line"},
    {"_cut": "letter"},
    {"_comments": True},
    {"_space": False},
    {"_ends": "\r\n"},
    {"_empty_end": True},
    {"_comments": True, "_ends": "\r\n", "_cut": "line"},
)


def inputs_of(exercise, hidden: bool = False):
    cases = gate.hidden(exercise.id).cases if hidden else exercise.cases
    return [i for case in cases for i in (*case.examples, *case.generated(random.Random(3)))]


@given(st.integers(0, 10**6), st.sampled_from(STYLES))
def test_a_stream_reads_as_the_load_generator_reads_it(seed: int, style: dict):
    rng = random.Random(seed)
    make = read_stream.making(least=4 if "_together" in style else 1, **style)
    inputs = next(filter(None, (make(rng) for _ in range(10_000))))
    stream, record, text = EventStream(), Record(0, 0), ""
    for ms, data in wire.chunks(inputs):
        for event in stream.feed(data):
            told = {} if event == b"[DONE]" else json.loads(event)
            for choice in told.get("choices", []):
                if said := choice["delta"].get("content"):
                    text += said
                    record.chunks += 1
                    record.first = ms if record.first is None else record.first
                    record.last = ms
            if told.get("usage"):
                record.output_tokens = told["usage"]["completion_tokens"]
    right = mistakes.right(inputs)
    assert (text, record.ttft) == (right["text"], right["ttft"])
    assert record.tpot == pytest.approx(right["tpot"])


def test_a_cut_stream_is_the_same_bytes():
    pieces = [[40, "# café"], [70, " né"], [90, "\n"]]
    whole = b"".join(data for _, data in wire.events({"pieces": pieces, "tokens": 5}))
    for cut in ("", "line", "letter"):
        chunks = wire.chunks({"pieces": pieces, "tokens": 5, "_cut": cut})
        assert b"".join(data for _, data in chunks) == whole
        times = [time for time, _ in chunks]
        assert times == sorted({*times})


@given(st.integers(0, 10**6), st.booleans())
def test_breaking_even_is_the_explorers(seed: int, reachable: bool):
    rng, make = random.Random(seed), break_even.making(reachable=reachable)
    inputs = next(filter(None, (make(rng) for _ in range(10_000))))
    at = {
        "api_in": inputs["price_in"],
        "api_out": inputs["price_out"],
        "prompt_ratio": inputs["prompt_ratio"],
        "server_hour": inputs["hourly"],
        "server_speed": inputs["speed"],
    }
    assert break_even.right(inputs) == pytest.approx(deployment.break_even("server", at))


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans(), st.booleans())
def test_the_load_curve_is_the_reports(seed: int, loads: int, refusals: bool, shuffled: bool):
    rng, make = random.Random(seed), load_curve.making([], loads, refusals, shuffled)
    inputs = next(filter(None, (make(rng) for _ in range(10_000))))
    right = load_curve.right(inputs)
    for users, throughput, latency in right["curve"]:
        lines = [line for line in inputs["log"] if line[0] == users]
        start = min(line[1] for line in lines)
        records = []
        for _, sent, end, status, tokens in lines:
            record = Record((sent - start) / 1000, (sent - start) / 1000, output_tokens=tokens)
            record.end = (end - start) / 1000 if status == 200 else None
            record.error = None if status == 200 else f"HTTP {status}"
            records.append(record)
        stage = Stage(Load(users=users), records, (max(line[2] for line in lines) - start) / 1000)
        assert throughput == pytest.approx(summarise(stage).output_tokens_per_second)
        good = [r.latency for r in records if not r.error]
        assert latency == pytest.approx(1000 * sum(good) / len(good))
    power = {users: x / latency for users, x, latency in right["curve"]}
    assert power[right["knee"]] == max(power.values())


@pytest.mark.parametrize("exercise", exercises("06"), ids=lambda e: e.id)
@pytest.mark.parametrize("hidden", [False, True], ids=["visible", "hidden"])
def test_every_input_is_valid_and_can_be_pasted(exercise, hidden):
    for case in gate.hidden(exercise.id).cases if hidden else exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert case.valid(inputs), inputs
            made = exercise.arguments(inputs)
            pasted = eval(exercise.call_text(inputs), {exercise.name: lambda *args: args})
            assert list(pasted) == list(made.values())


@pytest.mark.parametrize("exercise", exercises("06"), ids=lambda e: e.id)
def test_every_simulated_mistake_shows_on_some_visible_input(exercise):
    right = exercise.cases[0].expected
    for mistake in (m for m in exercise.misconceptions if m.gives):

        def shows(inputs, mistake=mistake):
            try:
                given = mistake.gives(inputs)
            except Skip:
                return False
            return right(inputs) not in (given if isinstance(given, AnyOf) else (given,))

        assert any(map(shows, inputs_of(exercise))), mistake.name


def test_the_keys_figures_are_right():
    entries = keys.load_key("06")
    prices = {"price_in": 0.5, "price_out": 1.5, "prompt_ratio": 3, "hourly": 2.5, "speed": 10_000}
    assert entries["break-even-graded"].answer * 1e6 == pytest.approx(break_even.right(prices))
    days = {"a": 3 + 4 * 1, "b": 24 * 0.5, "c": 4, "d": 24 * 2}
    assert entries["cheapest-day"].answer == sorted(days, key=days.get)
    table = {1: (50, 100), 4: (160, 150), 8: (240, 260), 16: (250, 500)}
    assert load("06").question("passes-of-eight").choices[1].text == str(24 * 10 // 8)
    assert entries["passes-of-eight"].answer == "b"
    assert entries["find-the-knee"].answer == max(table, key=lambda users: table[users][0] / table[users][1])


def test_the_figures_of_the_practice_questions_are_right():
    questions = load("06")
    stream = {"pieces": [[90, "def"], [110, " add(a, b)"], [150, ":"]], "tokens": 7}
    assert questions.question("stream-tpot").is_right(mistakes.right(stream)["tpot"])
    assert questions.question("idle-server").is_right(2 / (1000 * 3600 * 0.1) * 1e6)
    assert questions.question("littles-law").is_right(12 * 1.5)
    assert questions.question("laptop-limit").is_right(90e9 / (8e9 * 4.5 / 8))


def alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def gone(url: str, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while alive(url):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_the_server_ends_when_it_is_told_to_and_when_a_cell_fails():
    server = LocalServer("pico-draft", "--num-kv-blocks", "64")
    try:
        first = server.url
        assert alive(first) and server.url == first
        server._after_cell(SimpleNamespace(error_in_exec=None))
        server._after_cell(SimpleNamespace(error_in_exec=CheckFailed("not yet")))
        assert alive(first)
        server._after_cell(SimpleNamespace(error_in_exec=ValueError("a typo")))
        assert server.process is None and gone(first)
        second = LocalServer("pico-draft", "--num-kv-blocks", "64")
        urls = server.url, second.url  # asked again, it starts again; the second one ends the first
        assert gone(urls[0]) and alive(urls[1])
        second.stop()
        second.stop()
        assert gone(urls[1])
    finally:
        server.stop()


NOTEBOOK = """
from lessonlib.classroom.checks.lesson_06.local_server import LocalServer
server = LocalServer("pico-draft", "--num-kv-blocks", "64")
print(server.url, flush=True)
input()
"""


def test_the_server_does_not_outlive_a_killed_notebook():
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        url = notebook.stdout.readline().strip()
        assert alive(url)
        notebook.send_signal(signal.SIGKILL)
        assert gone(url)
    finally:
        notebook.kill()
        notebook.communicate()


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(course.CourseError, match=r"did not start: .*no-such-model.*\.$"):
        _ = LocalServer("no-such-model").url
