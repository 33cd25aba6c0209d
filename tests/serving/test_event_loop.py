"""The event loop stays free for others, whatever one request asks for; and what is work counts as a request."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lessonlib import LLM
from lessonlib.security import RateLimiter
from lessonlib.security.admission import AdmissionLimits
from lessonlib.serving import tokens
from lessonlib.serving.guards import Guards
from lessonlib.serving.openai import Chat

from .conftest import NAME, running
from .test_bad_inputs import CHAT, FORMATS, refused, said

COUNT = "/v1/messages/count_tokens"
TALK = {"model": NAME, **CHAT}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_more_log_probabilities_than_one_answer_may_have_are_refused(server, path):
    top = {"logprobs": 20} if path == "/v1/completions" else {"logprobs": True, "top_logprobs": 20}
    answer = server.post(path, {**FORMATS[path], "n": 64, "max_tokens": 256, **top})
    refused(path, answer)
    assert "344064 log-probabilities" in said(path, answer)
    assert server.post(path, {**FORMATS[path], "n": 4, "max_tokens": 8, **top}).status_code == 200


def test_an_answer_is_spelled_and_written_off_the_event_loop(server, monkeypatch):
    where = []
    whole, dumps = Chat.whole, json.dumps

    def noting(self, usage):
        where.append(threading.current_thread())
        return whole(self, usage)

    def dumping(value, **settings):
        if isinstance(value, dict) and value.get("object") == "chat.completion":
            where.append(threading.current_thread())
        return dumps(value, **settings)

    monkeypatch.setattr(Chat, "whole", noting)
    monkeypatch.setattr(json, "dumps", dumping)
    body = {**FORMATS["/v1/chat/completions"], "logprobs": True, "top_logprobs": 5}
    assert server.post("/v1/chat/completions", body).status_code == 200
    assert len(where) == 2 and server.thread not in where


def test_a_token_is_spelled_once(llm: LLM, monkeypatch):
    tokens._spelling.cache_clear()
    decoded: list[int] = []
    decode = type(llm.tokenizer).decode

    def noting(self, ids, skip_special_tokens=True):
        decoded.extend(ids)
        return decode(self, ids, skip_special_tokens)

    monkeypatch.setattr(type(llm.tokenizer), "decode", noting)
    first = [tokens.spell(llm.tokenizer, i % 3, -1.0) for i in range(30)]
    assert sorted(decoded) == [0, 1, 2]
    tokens._spelling.cache_clear()
    assert [tokens.spell(llm.tokenizer, i % 3, -1.0) for i in range(30)] == first


# ---------------------------------------------------------------- tokenizing


def test_counting_tokens_counts_as_a_request(llm):
    limiter = RateLimiter(requests_per_minute=2, tokens_per_minute=1000)
    with running(llm, Guards(limiter=limiter)) as server:
        assert [server.post(COUNT, TALK).status_code for _ in range(3)] == [200, 200, 429]
        refused("/v1/messages", server.post("/v1/messages", FORMATS["/v1/messages"]), 429)


@pytest.mark.parametrize("path", FORMATS)
def test_what_is_too_large_once_tokenized_counts_as_a_request(llm, path):
    limiter = RateLimiter(requests_per_minute=2, tokens_per_minute=1000)
    with running(llm, Guards(AdmissionLimits(new_tokens=1), limiter)) as server:
        assert [server.post(path, FORMATS[path]).status_code for _ in range(3)] == [400, 400, 429]


@pytest.mark.parametrize(
    "contents",
    [
        ["<|im_end|>" * 90_000],
        ["<|im_end|>" + "x1 " * 600] * 500,
        ["<|im_end|>" * 500] * 3,
        ["x1 " * 600] * 500,
        ["<|im_end|>", "x " * 5000],
    ],
    ids=lambda contents: contents[0][:14],
)
def test_a_conversation_that_cannot_fit_is_not_encoded_to_its_end(server, monkeypatch, contents):
    """However many messages it has, and whatever pieces it falls into for the special texts in it."""
    encoded = []
    kind = type(server.engine.llm.tokenizer)
    encode = kind.encode

    def noting(self, text, add_special_tokens=True):
        encoded.append(len(text))
        return encode(self, text, add_special_tokens)

    monkeypatch.setattr(kind, "encode", noting)
    body = {"model": NAME, "messages": [{"role": "user", "content": text} for text in contents]}
    app: Any = server.server.config.app
    model = app.state.shared.model
    answer = server.post(COUNT, body)
    refused("/v1/messages", answer)
    assert "context" in said("/v1/messages", answer)
    assert len(encoded) <= model.context + 1
    if sum(map(len, contents)) > model.context * model.longest_token:
        assert not encoded
