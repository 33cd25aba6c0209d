"""What the load generator makes of the answers of servers that misbehave."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lessonlib.serving import bench
from lessonlib.serving.bench_report import Load, summarise
from tests.serving.benching import DONE, END, Scripted, event, plain, text, usage

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
