"""A client that leaves, at whatever stage, holds nothing from then on; and one that stays is not disturbed."""

from __future__ import annotations

import json
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext

import pytest

from lessonlib import LLM, SamplingParams
from lessonlib.security import RateLimiter
from lessonlib.serving.guards import Guards

from .conftest import NAME, SECONDS, request_bytes, running

ROUTES = {
    "/v1/completions": {"model": NAME, "prompt": "def f(", "max_tokens": 2000, "ignore_eos": True},
    "/v1/chat/completions": {
        "model": NAME,
        "messages": [{"role": "user", "content": "x"}],
        "ignore_eos": True,
    },
    "/v1/messages": {"model": NAME, "max_tokens": 2000, "messages": [{"role": "user", "content": "x"}]},
    "/api/generate": {"model": NAME, "prompt": "x", "raw": True},
    "/api/chat": {"model": NAME, "messages": [{"role": "user", "content": "x"}]},
}


def leave(connection: socket.socket, how: str) -> None:
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half-close":
        connection.shutdown(socket.SHUT_WR)
    else:
        connection.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ROUTES)
def test_while_it_runs(server, path, stream, how):
    aborted = finished(server, "abort")
    with closing(server.connect()) as connection:
        connection.sendall(request_bytes(path, {**ROUTES[path], "stream": stream}))
        server.wait(lambda: server.engine.blocks_in_use > 0, "it runs")
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        leave(connection, how)
        server.empty()
    assert finished(server, "abort") == aborted + 1, "it was cut short, not finished"


def finished(server, reason: str) -> float:
    metrics = server.server.config.app.state.shared.metrics
    return metrics.finished.labels(reason)._value.get()


@pytest.mark.parametrize("stream", [False, True])
def test_before_its_prefill(server, stream):
    body = {**ROUTES["/v1/completions"], "stream": stream}
    with server.held():
        connection = server.connect()
        connection.sendall(request_bytes("/v1/completions", {**body, "max_tokens": 5}))
        server.wait(lambda: server.engine.sequences == 1, "the first is in")
        other = server.connect()
        other.sendall(request_bytes("/v1/completions", body))
        server.wait(lambda: server.engine.sequences == 2, "the second is in")
        other.close()
    with closing(connection):
        assert read(connection).startswith(b"HTTP/1.1 200")
    server.empty()


def read(connection: socket.socket) -> bytes:
    """An answer with Content-Length, or in chunks, to its end."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
        head, _, body = found.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:") and len(body) >= int(line.partition(b":")[2]):
                return found
        if body.endswith(b"0\r\n\r\n"):
            return found
    return found


def test_while_it_waits_in_the_queue(server, twin):
    """Nine where eight can run: the ninth leaves, and the eight get what they asked for."""
    body = {**ROUTES["/v1/completions"], "max_tokens": 30, "temperature": 0}
    with ThreadPoolExecutor(16) as pool:
        with server.held() as release:
            calls = [pool.submit(server.post, "/v1/completions", body) for _ in range(8)]
            server.wait(lambda: server.engine.sequences == 8, "eight are in")
            ninth = server.connect()
            ninth.sendall(request_bytes("/v1/completions", {**body, "max_tokens": 2000}))
            server.wait(lambda: server.engine.sequences == 9, "the ninth is in")
            ninth.close()
            release.set()
        texts = {call.result().json()["choices"][0]["text"] for call in calls}
    right = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    assert texts == {twin.generate(["def f("], right)[0].outputs[0].text}


@pytest.mark.parametrize("part", [0, 1, 40, -3])
def test_before_its_request_is_whole(server, part):
    whole = request_bytes("/v1/completions", ROUTES["/v1/completions"])
    for how in ("close", "reset", "half-close"):
        with closing(server.connect()) as connection:
            connection.sendall(whole[:part])
            leave(connection, how)
    assert server.engine.sequences == 0


def test_the_others_of_a_batch_do_not_notice(server, twin):
    body = {
        "model": NAME,
        "prompt": "class A:\n    def",
        "max_tokens": 60,
        "temperature": 0,
        "ignore_eos": True,
    }
    with ThreadPoolExecutor(16) as pool:
        stays = pool.submit(server.post, "/v1/completions", body)
        for _ in range(5):
            connection = server.connect()
            connection.sendall(
                request_bytes("/v1/completions", {**ROUTES["/v1/completions"], "stream": True, "n": 3})
            )
            connection.recv(100)
            connection.close()
        text = stays.result().json()["choices"][0]["text"]
    right = SamplingParams(max_tokens=60, temperature=0, ignore_eos=True)
    assert text == twin.generate([body["prompt"]], right)[0].outputs[0].text


def test_a_client_that_reads_nothing_holds_no_block_once_its_text_is_made(server):
    connection = server.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = {**ROUTES["/v1/completions"], "max_tokens": 150, "n": 8, "stream": True, "logprobs": 20}
    with closing(connection):
        connection.sendall(request_bytes("/v1/completions", body))
        server.wait(lambda: server.engine.sequences == 8, "it is in")
        server.empty()


def test_pipelined_requests_are_answered_in_turn(server):
    bodies = [{"model": NAME, "prompt": "x", "max_tokens": count, "ignore_eos": True} for count in (3, 1, 2)]
    pipelined = b"".join(
        request_bytes("/v1/completions", body, *(["Connection: close"] if last else []))
        for body, last in zip(bodies, (False, False, True), strict=True)
    )
    with closing(server.connect()) as connection:
        connection.sendall(pipelined)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in found.split(b"HTTP/1.1 200 OK")[1:]]
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [3, 1, 2]


@pytest.fixture
def settled(monkeypatch) -> list[int]:
    """What was charged in the end, request by request."""
    charged: list[int] = []
    reserve = Guards.reserve

    def noted(self, caller, tokens):
        settle = reserve(self, caller, tokens)
        return lambda used: (settle(used), charged.append(used))

    monkeypatch.setattr(Guards, "reserve", noted)
    return charged


def test_who_leaves_before_the_first_token_pays_for_the_prompt_that_was_run(settled):
    """Else who has no token left could make the machine read long prompts all day; who only waited pays nothing."""
    llm = LLM(NAME, max_num_seqs=1, max_num_batched_tokens=64)
    body = {"model": NAME, "prompt": [7] * 1500, "max_tokens": 16, "ignore_eos": True}
    limiter = RateLimiter(requests_per_minute=100, tokens_per_minute=4000)
    with running(llm, Guards(limiter=limiter)) as server:

        def leaves(after_steps: int) -> None:
            last, before = server.engine.scheduler.steps + after_steps, len(settled)
            with closing(server.connect()) as connection:
                connection.sendall(request_bytes("/v1/completions", body))
                server.wait(lambda: server.engine.sequences == 1, "it is in")
                server.wait(lambda: server.engine.scheduler.steps >= last, "it has run a little")
            server.wait(lambda: len(settled) > before, "it is settled")

        for after_steps in (0, 0, 0, 2, 2):
            with server.held() if not after_steps else nullcontext():
                leaves(after_steps)
            server.empty()
        assert settled[:3] == [0, 0, 0] and min(settled[3:]) >= 1500
        assert server.post("/v1/completions", body).status_code == 429, "3,000 of 4,000 are gone"


def test_the_first_step_is_paid_for_while_it_runs_and_n_answers_pay_their_prompt_once(settled, monkeypatch):
    llm = LLM(NAME, max_num_seqs=1)
    body = {"model": NAME, "prompt": [7] * 1500, "max_tokens": 16, "n": 3, "ignore_eos": True}
    limiter = RateLimiter(requests_per_minute=100, tokens_per_minute=4000)
    forward, begun, release = llm.batcher._forward, threading.Event(), threading.Event()

    def slow(*step):
        begun.set()
        release.wait(SECONDS)
        return forward(*step)

    monkeypatch.setattr(llm.batcher, "_forward", slow)
    with running(llm, Guards(limiter=limiter)) as server, ExitStack() as at_last:
        at_last.callback(release.set)
        with closing(server.connect()) as connection:
            connection.sendall(request_bytes("/v1/completions", body))
            assert begun.wait(SECONDS)
            with closing(server.connect()) as other:
                other.sendall(request_bytes("/v1/completions", body))
                server.wait(lambda: server.engine.sequences == 6, "the second waits behind the first")
            server.wait(lambda: len(settled) == 1, "the second is settled")
        server.wait(lambda: len(settled) == 2, "the first is settled, and its step still runs")
        assert settled == [0, 1500]
        release.set()
        server.empty()
