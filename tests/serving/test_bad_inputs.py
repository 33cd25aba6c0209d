"""Whatever is sent: never an answer of 5xx, an error in the words of the format that was asked in, and nothing held."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psutil
import pytest

from lessonlib import LLM
from lessonlib.security.admission import AdmissionLimits
from lessonlib.serving.guards import Guards

from .conftest import NAME, running

MIB = 2**20
CHAT = {"messages": [{"role": "user", "content": "x"}]}
FORMATS = {
    "/v1/completions": {"model": NAME, "prompt": "x", "max_tokens": 2},
    "/v1/chat/completions": {"model": NAME, "max_tokens": 2, **CHAT},
    "/v1/messages": {"model": NAME, "max_tokens": 2, **CHAT},
    "/api/generate": {"model": NAME, "prompt": "x", "options": {"num_predict": 2}, "stream": False},
    "/api/chat": {"model": NAME, **CHAT, "options": {"num_predict": 2}, "stream": False},
}


def said(path: str, answer) -> str:
    """The message of an error, read as the vendor's client reads it."""
    body = answer.json()
    if path.startswith("/api/"):
        assert list(body) == ["error"]
        return body["error"]
    if path == "/v1/messages":
        assert body["type"] == "error" and body["error"]["type"]
        return body["error"]["message"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["message"]


def refused(path: str, answer, status: int = 400) -> None:
    assert answer.status_code == status, answer.text[:300]
    message = said(path, answer)
    assert message.endswith(".") and "\n" not in message and len(message) < 400


def with_field(path: str, field: str, raw: bytes) -> bytes:
    """The path's good request, with one field (Ollama: one option) set to a raw JSON text."""
    body = json.loads(json.dumps(FORMATS[path]))
    place = body.setdefault("options", {}) if path.startswith("/api/") else body
    place[field] = "@@"
    return json.dumps(body).encode().replace(b'"@@"', raw)


NO_NUMBERS = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1",
    b"true",
    b'"1"',
    b"[1]",
    b"{}",
    b"9" * 10_000,
    b"1e18",
]
FIELDS = [
    ("/v1/completions", "temperature"),
    ("/v1/completions", "top_p"),
    ("/v1/completions", "max_tokens"),
    ("/v1/completions", "n"),
    ("/v1/completions", "logprobs"),
    ("/v1/completions", "min_p"),
    ("/v1/chat/completions", "temperature"),
    ("/v1/chat/completions", "max_completion_tokens"),
    ("/v1/chat/completions", "top_logprobs"),
    ("/v1/messages", "max_tokens"),
    ("/v1/messages", "temperature"),
    ("/v1/messages", "top_k"),
    ("/api/generate", "temperature"),
    ("/api/generate", "top_k"),
    ("/api/chat", "repeat_penalty"),
]


@pytest.mark.parametrize("raw", NO_NUMBERS, ids=lambda raw: raw[:12].decode())
@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_numbers_that_are_none(server, path, field, raw):
    refused(path, server.post(path, with_field(path, field, raw)))


@pytest.mark.parametrize("raw", [b"1e-320", b"0", b"0.0", b"1e-45"])
@pytest.mark.parametrize("path", FORMATS)
def test_numbers_that_are_very_small_are_numbers(server, path, raw):
    assert server.post(path, with_field(path, "temperature", raw)).status_code == 200


MANY = json.dumps(["x"] * 100_000).encode()
BAD_FIELDS = [
    ("n", b"100000"),
    ("n", b"0"),
    ("max_tokens", b"1000000000000000000"),
    ("max_tokens", b"9223372036854775807"),
    ("seed", b"9223372036854775808"),
    ("seed", b"1.5"),
    ("stop", b'[""]'),
    ("stop", b'""'),
    ("stop", MANY),
    ("stop", b"[null]"),
    ("stop", json.dumps("x" * 10_000).encode()),
    ("prompt", json.dumps([]).encode()),
    ("prompt", json.dumps(["x"] * 60_000).encode()),
    ("prompt", b'["' + b'","' * 100_000 + b'"]'),
    ("prompt", b"[[]]"),
    ("prompt", b"[1.5]"),
    ("prompt", b"[true]"),
    ("prompt", b"[-1]"),
    ("prompt", b"[4096]"),
    ("prompt", b"[99999999999999999999]"),
    ("prompt", b'[1, "x"]'),
    ("prompt", b"[[1], [4096]]"),
    ("prompt", b"[" + b"7," * 60_000 + b"7]"),
    ("prompt", b"null"),
    ("prompt", b'""'),
    ("prompt", json.dumps("x" * 900_000).encode()),
    ("prompt", json.dumps("  " * 300_000).encode()),
    ("prompt", b'"\\ud800"'),
    ("prompt", b'"\xff\xfe"'),
    ("logit_bias", json.dumps({str(i): 1 for i in range(65_000)}).encode()),
    ("logit_bias", json.dumps({str(i): 1 for i in range(301)}).encode()),
    ("logit_bias", b'{"5": NaN}'),
    ("logit_bias", b'{"5": 101}'),
    ("logit_bias", b'{"5": true}'),
    ("logit_bias", b'{"4096": 1}'),
    ("logit_bias", b'{"-1": 1}'),
    ("logit_bias", b'{"05": 1}'),
    ("logit_bias", b'{"5": 1, "5": 2}'),
    ("logit_bias", b'{"x": 1}'),
    ("logprobs", b"21"),
    ("stop_token_ids", b"[-1]"),
    ("repetition_penalty", b"0"),
    ("user", b"7"),
    ("stream", b'"yes"'),
    ("stream_options", b'{"include": true}'),
    ("never heard of", b"1"),
    ("model", b'""'),
]


@pytest.mark.parametrize(("field", "raw"), BAD_FIELDS, ids=lambda value: str(value)[:24])
def test_fields_that_ask_for_too_much_or_for_nothing(server, field, raw):
    refused("/v1/completions", server.post("/v1/completions", with_field("/v1/completions", field, raw)))


@pytest.mark.parametrize(
    "content", [None, 5, [], [{"type": "image_url"}], [{"type": "text"}], {}, "x " * 3000]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_messages_that_say_nothing_or_too_much(server, path, content):
    body = {**FORMATS[path], "messages": [{"role": "user", "content": content}]}
    refused(path, server.post(path, body))


@pytest.mark.parametrize(
    "messages",
    [[5], [{}], [{"role": "robot", "content": "x"}], [{"role": "user", "content": "x"}] * 600, "x"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_conversations_that_are_none(server, path, messages):
    refused(path, server.post(path, {**FORMATS[path], "messages": messages}))


BODIES = {
    "empty": b"",
    "no JSON": b"model=pico",
    "a number": b"7",
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep in a field": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "never closed": b'{"model": "' + b"x" * 1000,
    "twice": b'{"model": "a", "model": "b"}',
    "BOM": b"\xef\xbb\xbf" + json.dumps(FORMATS["/v1/completions"]).encode(),
    "UTF-16": json.dumps(FORMATS["/v1/completions"]).encode("utf-16"),
    "UTF-16 without BOM": json.dumps(FORMATS["/v1/completions"]).encode("utf-16-be"),
    "not UTF-8": b'{"model": "\xc3\x28"}',
    "NUL": b'{"model": "\x00"}',
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", FORMATS)
def test_bodies_that_are_no_request(server, path, name):
    refused(path, server.post(path, BODIES[name]))


@pytest.mark.parametrize("path", FORMATS)
def test_a_character_is_a_character(server, path):
    """NUL, escaped, and pairs of surrogates are text like any other."""
    body = json.dumps(FORMATS[path]).replace('"x"', '"\\u0000 \\ud83d\\ude00 \\ufeff \\u2028"').encode()
    assert server.post(path, body).status_code == 200


@pytest.mark.parametrize("path", FORMATS)
def test_compressed_bodies_are_not_unpacked(server, path):
    bomb = gzip.compress(bytes(50 * MIB))
    refused(path, server.post(path, bomb, headers={"content-encoding": "gzip"}), 415)


@pytest.mark.parametrize("path", FORMATS)
def test_a_body_that_says_it_is_too_large_is_not_waited_for(server, path):
    with closing(server.connect()) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {200 * MIB}\r\n\r\n".encode() + b"x"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_200_megabytes_in_chunks_are_never_in_memory(server):
    """The server is a part of this process, and so are the 64 kB that are sent again and again."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    before = psutil.Process().memory_info().rss
    with closing(server.connect()) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200 * 16):
            connection.sendall(chunk)
        grown = psutil.Process().memory_info().rss - before
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    print(f"{grown / MIB:.1f} MiB more for 200 MiB sent")
    assert grown < 20 * MIB


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000,
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 50_000,
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda head: repr(head[:30]),
)
def test_headers_that_no_client_sends(server, head):
    with closing(server.connect()) as connection:
        try:
            connection.sendall(head)
            answer = connection.recv(200)
        except (ConnectionResetError, BrokenPipeError):
            return  # it hung up in the middle: that is an answer, too
        assert answer.startswith(b"HTTP/1.1 4"), answer


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/engines", "/api", "/api/pull", "/v1/messages/batches"])
def test_pages_that_do_not_exist(server, path):
    refused(path if path.startswith("/api/") else "/v1", server.post(path, {}), 404) if path != (
        "/v1/messages/batches"
    ) else refused("/v1/messages", server.post(path, {}), 404)


# ---------------------------------------------------------------- time


@pytest.fixture(scope="module")
def impatient():
    """Bodies have half a second, whole requests one; and one sequence may wait."""
    guards = Guards(AdmissionLimits(body_seconds=0.5, request_seconds=1.0, queue=1))
    with running(LLM(NAME, max_num_seqs=2, num_kv_blocks=200), guards) as found:
        yield found
        found.empty()


def test_300_connections_that_dawdle_keep_nobody_else_waiting(impatient):
    starts = [
        b"",
        b"POST /v1/comple",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n",
        b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mod',
    ]
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(impatient.connect())) for _ in range(300)]
        for number, connection in enumerate(connections):
            connection.sendall(starts[number % len(starts)])
        for _ in range(3):
            assert impatient.post("/v1/completions", FORMATS["/v1/completions"]).status_code == 200
        answers = set()
        for connection in connections:
            found = b""
            while piece := connection.recv(4096):  # until the server hangs up
                found += piece
            answers.add(found[:12])
    assert answers == {b"", b"HTTP/1.1 408"}


def test_a_body_that_trickles_in_is_cut_off(impatient):
    with closing(impatient.connect()) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        connection.settimeout(0.02)
        found, end = b"", time.monotonic() + 20
        while time.monotonic() < end:
            try:
                connection.sendall(b" ")
                if not (piece := connection.recv(4096)):
                    break
                found += piece
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert found.startswith(b"HTTP/1.1 408")


def test_a_connection_that_did_its_request_in_time_is_kept(impatient):
    """The clock of one request does not run on into an answer, or into the next request."""
    from .conftest import request_bytes
    from .test_disconnects import read

    body = {**FORMATS["/v1/completions"], "max_tokens": 300, "ignore_eos": True}
    with closing(impatient.connect()) as connection, impatient.held() as release:
        connection.sendall(request_bytes("/v1/completions", body))
        time.sleep(1.3)
        release.set()
        assert read(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(request_bytes("/v1/completions", FORMATS["/v1/completions"]))
        assert read(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", FORMATS)
def test_when_the_queue_is_full_the_answer_is_429_and_when_to_come_back(impatient, path):
    body = {**FORMATS["/v1/completions"], "max_tokens": 2}
    with ThreadPoolExecutor(3) as pool, impatient.held():
        calls = [pool.submit(impatient.post, "/v1/completions", body) for _ in range(3)]
        impatient.wait(lambda: impatient.engine.sequences == 3, "two run and one waits")
        answer = impatient.post(path, FORMATS[path])
        refused(path, answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
    assert [call.result().status_code for call in calls] == [200] * 3


def test_the_event_loop_goes_on_while_large_bodies_are_read(server):
    """It is asked for its health again and again in the meantime; how long that took at most is shown, not asserted."""
    bodies = [json.dumps({"a": ["x,[{"] * 60_000}).encode(), json.dumps("x[,\\" * 200_000).encode()]
    longest, stop = 0.0, threading.Event()

    async def watch():
        nonlocal longest
        while not stop.is_set():
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - start - 0.005)

    loop = server.server.servers[0].get_loop()
    future = asyncio.run_coroutine_threadsafe(watch(), loop)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: server.post("/v1/completions", body), bodies * 4))
    stop.set()
    future.result()
    print(f"the event loop stood still for {longest * 1000:.0f} ms at most")
    assert {answer.status_code for answer in answers} == {400}
