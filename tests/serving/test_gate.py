"""Who gets in, what is counted, and what is written down about it."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import anthropic
import httpx
import openai
import pytest
from starlette.datastructures import Headers

from lessonlib import LLM
from lessonlib.course import CourseError
from lessonlib.security.admission import AdmissionLimits
from lessonlib.security.rate_limiter import RateLimiter
from lessonlib.serving.auth import Keys
from lessonlib.serving.errors import ApiError
from lessonlib.serving.guards import Guards
from lessonlib.serving.logs import JsonLines
from lessonlib.serving.server import bind

from .conftest import NAME, SECONDS, running, samples

BODY = {"model": NAME, "prompt": "class Cache:\n" * 20, "max_tokens": 6, "ignore_eos": True, "temperature": 0}
CHAT = {"model": NAME, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def locked():
    with running(
        LLM(NAME, max_num_seqs=4), keys=Keys(["ann:first-key", "bob:second-key", "third-key"])
    ) as found:
        yield found
        found.empty()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [bearer("first-key"), {"authorization": "bearer  first-key"}, {"x-api-key": "third-key"}],
    ids=str,
)
def test_a_right_key_opens_in_either_header(locked, headers):
    assert locked.post("/v1/completions", BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        bearer("first-key "[:-2]),
        bearer("first-key2"),
        {"authorization": "Basic first-key"},
        {"authorization": "first-key"},
        {"x-api-key": "ann"},
        {**bearer("first-key"), "x-api-key": "second-key"},
        {**bearer("wrong"), "x-api-key": "first-key"},
        {"x-api-key": "\xff\xfe"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/messages", "/api/chat", "/v1/models", "/metrics", "/docs", "/nowhere"]
)
def test_any_other_one_does_not_and_no_body_is_read_for_it(locked, path, headers):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = locked.post(path, b"{" * 1000, headers=raw)
    assert answer.status_code == 401
    assert "key" in answer.text and "first-key" not in answer.text


def test_health_is_for_everybody(locked):
    assert httpx.get(f"{locked.url}/health").json() == {"status": "ok"}


def test_the_vendors_clients_know_what_a_wrong_key_means(locked):
    settings = {"api_key": "wrong", "max_retries": 0, "timeout": SECONDS}
    with pytest.raises(openai.AuthenticationError) as told:
        openai.OpenAI(base_url=f"{locked.url}/v1", **settings).chat.completions.create(**CHAT)
    assert told.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as refused:
        anthropic.Anthropic(base_url=locked.url, **settings).messages.create(**CHAT)
    assert refused.value.body["error"]["type"] == "authentication_error"


def test_no_prefix_is_shared_between_callers_whatever_the_body_says(locked):
    body = {**BODY, "prompt": "class Secret:\n" * 20, "user": "ann"}
    cached = [
        locked.post("/v1/completions", body, headers=bearer(key)).json()["usage"]["prompt_tokens_details"][
            "cached_tokens"
        ]
        for key in ("first-key", "second-key", "third-key", "first-key")
    ]
    assert cached[:3] == [0, 0, 0] and cached[3] > 0


def test_what_happens_is_counted():
    with running(LLM(NAME, max_num_seqs=2, num_kv_blocks=30, speculative_model="ngram")) as server:
        assert samples(server)["lesson_kv_blocks"] == 30
        with server.held() as release:
            calls = [threading.Thread(target=server.post, args=("/v1/completions", BODY)) for _ in range(3)]
            for call in calls:
                call.start()
            server.wait(lambda: server.engine.sequences == 3, "three are in")
            release.set()
            server.wait(lambda: samples(server)["lesson_kv_blocks_in_use"] > 0, "it is seen running")
        for call in calls:
            call.join()
        server.post("/v1/completions", BODY)
        server.post("/v1/completions", {**BODY, "n": 0})
        server.post("/v1/messages", {**CHAT, "model": "claude"})
        server.empty()
        found = samples(server)
    tokens = server.engine.llm.tokenizer.encode(BODY["prompt"])
    assert found["lesson_prompt_tokens_total"] == 4 * len(tokens)
    assert found["lesson_output_tokens_total"] == 4 * 6
    assert found["lesson_sequences_finished_total length"] == 4
    assert found["lesson_prefix_hit_tokens_total"] >= len(tokens) // 16 * 16
    assert found["lesson_time_to_first_token_seconds_count"] == 4
    assert found["lesson_time_per_output_token_seconds_count"] == 4
    assert found["lesson_rejections_total invalid"] == 1
    assert found["lesson_rejections_total not_found"] == 1
    assert found["lesson_http_requests_total /v1/completions 200"] == 4
    assert found["lesson_http_requests_total /v1/completions 400"] == 1
    assert (found["lesson_running"], found["lesson_waiting"], found["lesson_kv_blocks_in_use"]) == (0, 0, 0)
    assert found["lesson_drafted_tokens_total"] >= found["lesson_accepted_tokens_total"] > 0


def test_preemptions_are_counted():
    guards = Guards(AdmissionLimits(kv_percent=300))  # as preemption makes it possible
    with running(LLM(NAME, max_num_seqs=3, num_kv_blocks=9, enable_prefix_caching=False), guards) as server:
        answer = server.post(
            "/v1/completions",
            {"model": NAME, "prompt": ["a", "b", "c"], "max_tokens": 100, "ignore_eos": True},
        )
        assert answer.json()["usage"]["completion_tokens"] == 300
        server.empty()
        assert samples(server)["lesson_preemptions_total"] > 0


def test_a_line_of_json_for_each_request_and_nothing_of_what_was_said(locked, request_log):
    answers = [
        locked.post("/v1/completions", {**BODY, "prompt": prompt}, headers=bearer("first-key"))
        for prompt in ("my password is 12345\n", '"}\nforged')
    ]
    answers.append(locked.post("/v1/completions/nowhere", BODY, headers=bearer("wrong\tkey")))
    lines = request_log(answers)
    assert [(line["status"], line["caller"]) for line in lines] == [(200, "ann"), (200, "ann"), (401, None)]
    assert lines[1]["id"] == answers[1].headers["request-id"]
    assert lines[1]["completion_tokens"] == 6 and lines[1]["finish"] == ["length"]
    assert 0 < lines[1]["first_token_seconds"] <= lines[1]["seconds"]
    assert lines[2]["refused"] == "authentication" and "refused" not in lines[1]
    for secret in ("12345", "forged", "first-key", "wrong"):
        assert secret not in json.dumps(lines)


def test_an_exception_is_one_line_too():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "a %s\nmessage", ("long",), sys.exc_info())
    [line] = JsonLines().format(record).splitlines()
    assert "ValueError" in json.loads(line)["traceback"]


def test_a_key_without_a_name_is_known_by_its_hash():
    keys = Keys(["third-key"])
    name = keys.identify(Headers({"x-api-key": "third-key"}))
    assert name.startswith("key-") and "third" not in name
    assert not Keys() and Keys().identify(Headers({})) == "anybody"


def test_a_key_may_be_sent_with_its_name_as_it_was_given():
    keys = Keys(["ann:first:key", "plain"])
    for sent in ("first:key", "ann:first:key"):
        assert keys.identify(Headers({"authorization": f"Bearer {sent}"})) == "ann"


@pytest.mark.parametrize(
    "header",
    [{"authorization": "Basic xyz"}, {"authorization": "Bearer"}, {"authorization": ""}, {"x-api-key": ""}],
)
def test_no_key_is_nobody_s_key(header):
    with pytest.raises(ApiError):
        Keys(["ann:key"]).identify(Headers(header))


@pytest.mark.parametrize(
    "given", ["", "ann:", "ann: ", "ann:schlüssel", "a b", f"{'n' * 300}:key", "a\nb:key"]
)
def test_a_key_that_nobody_could_send_or_anybody_is_refused(given):
    with pytest.raises(CourseError):
        Keys([given])


@pytest.mark.parametrize("pair", [("ann:k", "bob:k"), ("a:b:c", "b:c"), ("ann:k", "k")])
def test_a_key_has_one_name(pair):
    with pytest.raises(CourseError, match="two names"):
        Keys(pair)
    Keys((pair[0], pair[0]))


def test_small_answers_do_not_wait_for_each_other():
    with closing(bind()) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # asyncio asks for this before it sets TCP_NODELAY


def test_a_fault_of_ours_is_500_in_the_client_s_words_and_is_logged(server, monkeypatch, caplog):
    logging.getLogger("lessonlib.serving").propagate = True
    monkeypatch.setattr(server.engine, "open", lambda *_: 1 / 0)
    for path, body in (("/v1/completions", BODY), ("/v1/messages", CHAT)):
        answer = server.post(path, body)
        assert answer.status_code == 500
        assert "ZeroDivision" not in answer.text and answer.json()["error"]["message"].endswith(".")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/api/generate"])
def test_a_failure_in_mid_stream_is_said_in_the_stream(server, path):
    body = CHAT if path == "/v1/messages" else {**BODY, "stream": True}
    if path == "/api/generate":
        body = {"model": NAME, "prompt": "x"}
    step, calls = server.engine.batcher.step, 0

    def fail_later(on_token):
        nonlocal calls
        calls += 1
        return step(on_token) if calls < 3 else 1 / 0

    server.engine.batcher.step = fail_later
    try:
        answer = server.post(
            path, {**body, "stream": True, **({"max_tokens": 50} if "max_tokens" in body else {})}
        )
    finally:
        server.engine.batcher.step = step
    assert answer.status_code == 200
    last = answer.text.strip().splitlines()[-1]
    assert "The engine failed (ZeroDivisionError); ask again." in last
    assert ("event: error" in answer.text) == (path == "/v1/messages")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
def test_a_rate_limit_counts_what_was_used_and_says_when_to_come_back(path):
    limiter = RateLimiter(requests_per_minute=100, tokens_per_minute=1000)
    stops = {"stop" if path == "/v1/completions" else "stop_sequences": ["e", " ", "s", "i", "\n"]}
    keys = {"a": {"x-api-key": "key-a"}, "b": {"x-api-key": "key-b"}}
    body = {"prompt": "x"} if path == "/v1/completions" else {"messages": CHAT["messages"]}
    large = {"model": NAME, "max_tokens": 900, **body}
    with running(LLM(NAME), Guards(limiter=limiter), keys=Keys(["a:key-a", "b:key-b"])) as server:
        for _ in range(5):  # each gives back what it reserved and did not use
            assert server.post(path, {**large, **stops}, headers=keys["a"]).status_code == 200
        assert server.post(path, {**large, "max_tokens": 0}, headers=keys["a"]).status_code == 400
        with ThreadPoolExecutor(1) as pool, server.held():
            first = pool.submit(server.post, path, {**large, "max_tokens": 800}, headers=keys["b"])
            server.wait(lambda: server.engine.sequences == 1, "it is in")
            refused = server.post(path, large, headers=keys["b"])
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert first.result().status_code == 200
        never_fits = {**large, "max_tokens": 2000}  # a 429 would be tried again
        assert server.post(path, never_fits, headers=keys["a"]).status_code == 400
