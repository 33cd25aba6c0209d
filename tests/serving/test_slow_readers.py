"""Clients that do not take their answers, or hide that they have gone: they hold nothing for long."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import Any

import pytest

from lessonlib import LLM
from lessonlib.security.admission import AdmissionLimits
from lessonlib.serving.auth import Keys
from lessonlib.serving.guards import Guards

from .conftest import NAME, SECONDS, Running, request_bytes, running, samples

KEY = "x-api-key: key-a"
# An echo makes an answer of some MiB out of one token a sequence.
ECHO = {"model": NAME, "prompt": [2076] * 1900, "max_tokens": 1, "n": 64, "echo": True, "ignore_eos": True}


@pytest.fixture(scope="module")
def roomy() -> LLM:
    return LLM(NAME, max_num_seqs=64, num_kv_blocks=600)


def ask_and_read_nothing(server: Running, stream: bool) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    host, port = server.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    connection.sendall(request_bytes("/v1/completions", {**ECHO, "stream": stream}, KEY))
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limits", [{"write_seconds": 0.3, "deadline": None}, {"deadline": 3.0}])
def test_who_reads_nothing_loses_the_place_and_the_connection(roomy, stream, limits):
    bounded = AdmissionLimits(tenant_requests=1, **limits)
    with running(roomy, Guards(bounded), keys=Keys(["ann:key-a"])) as server:
        app: Any = server.server.config.app
        slots = app.state.shared.guards._slots
        with closing(ask_and_read_nothing(server, stream)):
            server.wait(lambda: len(slots) == 1, "it is in")
            server.wait(lambda: len(slots) == 0, "its place is free")
            server.wait(lambda: not server.server.server_state.connections, "its connection is closed")
            server.empty()
            assert samples(server)["lesson_http_requests_total /v1/completions 200"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_who_reads_slowly_but_steadily_gets_it_all(roomy, stream):
    with running(roomy, Guards(AdmissionLimits(write_seconds=1.0)), keys=Keys(["ann:key-a"])) as server:
        with closing(ask_and_read_nothing(server, stream)) as connection:
            connection.settimeout(SECONDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            found = bytearray()
            for piece in iter(lambda: connection.recv(2**15), b""):
                found += piece
                time.sleep(0.005)
                if (stream and found.endswith(b"\r\n0\r\n\r\n")) or _whole(found):
                    break
        assert len(found) > 2**19
        if stream:
            assert found.endswith(b"0\r\n\r\n") and b"data: [DONE]" in found
        else:
            assert _whole(found)


def _whole(answer: bytearray) -> bool:
    head = bytes(answer[:2000]).partition(b"\r\n\r\n")[0]
    size = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(size) and len(answer) >= len(head) + 4 + int(size[0].partition(b":")[2])


def test_a_request_that_comes_in_behind_does_not_hide_that_its_client_has_gone(server):
    """uvicorn stops reading then. Held, the engine makes no token: only the hang-up can end the first one."""
    body = {"model": NAME, "prompt": "def f(", "max_tokens": 2000, "ignore_eos": True}
    protocols = server.server.server_state.connections
    with server.held() as release:
        with closing(server.connect()) as connection:
            connection.sendall(request_bytes("/v1/completions", body))
            server.wait(lambda: server.engine.sequences == 1, "it is in")
            connection.sendall(request_bytes("/v1/completions", body))
            server.wait(lambda: any(p.flow.read_paused for p in protocols), "uvicorn reads no more")
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.wait(lambda: not protocols, "it is seen that the client has gone")
        release.set()
        server.empty()
