"""The load generator before it sends anything: its plan, whom it may load, and events out of bytes."""

from __future__ import annotations

import itertools
import math
import socket
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.serving import bench
from lessonlib.serving.bench import BenchError, EventStream, arrival_times, generated_prompts
from tests.serving.benching import QUIET


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
    "line", [b"[1]", b"7", b"{}", b'"\\ud800"', b'{"prompt": null}', b"text", b"[" * 10_000]
)
def test_a_prompt_that_is_none_is_named_by_its_line(tmp_path, line):
    file = tmp_path / "some.jsonl"
    file.write_bytes(b'"fine"\n' + line)
    with pytest.raises(BenchError, match=r"some\.jsonl, line 2: "):
        bench.read_prompts(file)


@pytest.mark.parametrize("name", ["some.txt", "some.jsonl"])
def test_a_file_that_is_no_text_is_told_so(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b'"fine"\n\xff')
    with pytest.raises(BenchError, match=r"some\.\w+ is not a text in UTF-8 \(byte 7\); save it as one\.$"):
        bench.read_prompts(file)


def test_every_result_has_a_new_file_of_its_own(tmp_path):
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    old.touch()
    bench.check_files(new, tmp_path / "other.png")
    bench.check_files(None, None)
    for output, plot, says in (
        (new, tmp_path / ".." / tmp_path.name / "new.png", "cannot be both"),
        (old, None, "is there already"),
        (None, tmp_path / "no" / "new.png", "no folder"),
    ):
        with pytest.raises(BenchError, match=says):
            bench.check_files(output, plot)


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
