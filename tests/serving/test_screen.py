"""Answers as they go out: what the filter hides in the text, nothing else in the answer tells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import httpx
import ollama
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.sampling import Choice, report
from lessonlib.security.output_filter import OutputFilter
from lessonlib.serving.engine import Delta, Token
from lessonlib.serving.guards import Guards
from lessonlib.serving.screen import Screen
from tests.engine.conftest import QUIET

from .conftest import NAME, SECONDS, Running, request_bytes, running, samples
from .test_bad_inputs import FORMATS

MAIL = "ada@lovelace.org"
KEY = "AKIA" + "Q3EGP5WX7TZRN2LB"  # in two halves, for those who search repositories for keys
SECRETS = [MAIL, "grace@hopper.mil", KEY, "4111 1111 1111 1111"]
SPOKEN = f"Write to {MAIL} or call.\nThe key is {KEY}, they say. Bye"

# ---------------------------------------------------------------- a screen by itself

TEXTS = st.lists(
    st.sampled_from(
        [*SECRETS, "write to ", "é", "😀", ".\n", "the key: ", " x", "-----BEGIN PRIVATE KEY-----\nAb1"]
    ),
    max_size=7,
).map(" ".join)


def deltas(text: str, cuts: list[int], lengths: list[int]) -> Iterator[Delta]:
    """The text in pieces; with each, the tokens that begin in it, or (as with half a stop text) a little behind it."""
    tokens: list[Token] = []
    for length in itertools.cycle(lengths):
        start = tokens[-1].end if tokens else 0
        if start >= len(text):
            break
        place = start, min(len(text), start + length)
        tokens.append(Token(Choice(len(tokens), -1.0, {len(tokens): -1.0}), *place))
    edges = [0, *sorted({cut % len(text) for cut in cuts} - {0} if text else ()), len(text)]
    told = 0
    for start, end in itertools.pairwise(edges):
        ahead = sum(token.start < end + lengths[0] for token in tokens)
        yield Delta(0, text[start:end], tokens[told:ahead], "stop" if end == len(text) else None)
        told = ahead


@QUIET
@given(TEXTS, st.lists(st.integers(0, 300), max_size=30), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@pytest.mark.parametrize("mode", ["redact", "block", "log"])
def test_tokens_tell_of_the_text_what_is_shown_of_it(mode, text, cuts, lengths):
    filter = OutputFilter(mode)
    screen = Screen(filter, lambda choice: choice)
    given = list(deltas(text, cuts, lengths))
    before = {token.choice.token: token for delta in given for token in delta.tokens}
    out = [delta for delta in map(screen, given) if delta is not None]
    right = filter.filter(text)
    shown = "".join(delta.text for delta in out)
    assert shown == right
    assert [delta.finish_reason for delta in out] == [None] * (len(out) - 1) + [
        "filtered" if right.blocked else "stop"
    ]
    so_far = 0
    told = []
    for delta in out:
        so_far += len(delta.text)
        for token in delta.tokens:
            assert token.end <= so_far or mode == "log", "no token before its text"
            told.append(token)
    for token in told:
        whole = before[token.choice.token]
        assert shown[token.start : token.end] == text[whole.start : whole.end]
        if mode != "log":
            assert all(whole.end <= found.start or whole.start >= found.end for found in right.findings)
    cut = right.findings[0].start if right.blocked else len(text)
    fine = {
        number
        for number, token in before.items()
        if token.end <= cut
        and (mode == "log" or all(token.end <= f.start or token.start >= f.end for f in right.findings))
    }
    assert {token.choice.token for token in told} == fine, "and none is lost without need"


def test_without_a_filter_everything_passes_as_it_is():
    delta = Delta(0, f"mail {MAIL}", [Token(Choice(7, -1.0, {}), 0, 3)], None)
    assert Screen(None, None)(delta) == delta


def test_tokens_that_nobody_asked_for_never_pass_a_filter():
    delta = Delta(0, f"mail {MAIL} now", [Token(Choice(7), 0, 4)], "stop")
    assert Screen(OutputFilter(), None)(delta).tokens == []


# ---------------------------------------------------------------- a server that says what it should not


@contextmanager
def speaking(llm, text: str, guards: Guards, **settings) -> Iterator[Running]:
    """A server whose model, whatever it is asked, says this text. All behind the choice of a token is as ever."""
    ids = [*llm.tokenizer.encode(text), min(llm.model.config.eos_token_ids)]

    def choose(request, drafts, logits, likeliest):
        return [report(ids[len(request.output)], logits[0], request.params)]

    with running(llm, guards, **settings) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm.batcher, "_choose", choose)
        yield server
        server.empty()


def asked(path: str, stream: bool) -> dict:
    """The path's request, without a limit that matters."""
    body = {**FORMATS[path], "stream": stream}
    return {**body, "options": {"num_predict": 200}} if "options" in body else {**body, "max_tokens": 200}


def parts(answer: httpx.Response) -> list[dict]:
    lines = answer.text.splitlines()
    if "event-stream" in answer.headers["content-type"]:
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return [json.loads(line) for line in lines if line]


def read(path: str, answer: httpx.Response) -> tuple[str, str]:
    """(text, why it ended) of an answer, streamed or not."""
    text = reason = ""
    for part in parts(answer):
        if path == "/v1/messages":
            text += part.get("delta", {}).get("text", "") + "".join(
                c["text"] for c in part.get("content", [])
            )
            reason = part.get("stop_reason") or part.get("delta", {}).get("stop_reason") or reason
        elif path.startswith("/v1/"):
            for choice in part["choices"]:
                said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
                text += said.get("content") or ""
                reason = choice["finish_reason"] or reason
        else:
            text += part.get("response", "") + part.get("message", {}).get("content", "")
            reason = part.get("done_reason") or reason
    return text, reason


ENDS = {
    "/v1/completions": ("stop", "content_filter"),
    "/v1/chat/completions": ("stop", "content_filter"),
    "/v1/messages": ("end_turn", "refusal"),
    "/api/generate": ("stop", "content_filter"),
    "/api/chat": ("stop", "content_filter"),
}


@pytest.mark.parametrize("mode", ["off", "log", "redact", "block"])
@pytest.mark.parametrize("path", FORMATS)
def test_secrets_leave_as_the_mode_says_in_every_format(llm, path, mode, request_log):
    filter = None if mode == "off" else OutputFilter(mode)
    right = {
        "redact": "Write to [REDACTED:email] or call.\nThe key is [REDACTED:aws_access_key_id], they say. Bye",
        "block": "Write to [BLOCKED:email]",
    }.get(mode, SPOKEN)
    with speaking(llm, SPOKEN, Guards(output=filter)) as server:
        answers = [server.post(path, asked(path, stream)) for stream in (False, True)]
        for answer in answers:
            assert read(path, answer) == (right, ENDS[path][mode == "block"])
            if mode in ("redact", "block"):
                assert "lovelace" not in answer.text and "AKIA" not in answer.text
        found = {
            k.split()[-1]: v for k, v in samples(server).items() if k.startswith("lesson_findings_total ")
        }
    kinds = {"off": [], "block": ["email"]}.get(mode, ["aws_access_key_id", "email"])
    assert found == dict.fromkeys(kinds, 2)
    lines = request_log(answers)
    assert lines[0].get("findings", {}) == dict.fromkeys(kinds, 1)
    assert "lovelace" not in json.dumps(lines)


def test_the_vendors_clients_see_an_answer_that_was_cut_off(llm):
    chat = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 99}
    with speaking(llm, SPOKEN, Guards(output=OutputFilter("block"))) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=SECONDS)
        found = client.chat.completions.create(**chat, n=2)
        assert [c.finish_reason for c in found.choices] == ["content_filter"] * 2
        message = anthropic.Anthropic(base_url=server.url, api_key="none").messages
        assert message.create(**chat).stop_reason == "refusal"
        with message.stream(**chat) as stream:
            assert stream.get_final_message().content[0].text == "Write to [BLOCKED:email]"
            assert stream.get_final_message().stop_reason == "refusal"
        pieces = list(ollama.Client(server.url).chat(NAME, chat["messages"], stream=True))
        assert pieces[-1].done_reason == "content_filter" and "lovelace" not in str(pieces)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["redact", "block"])
def test_log_probabilities_tell_nothing_of_what_was_hidden(llm, path, stream, mode):
    text = "café 😀 " + SPOKEN
    wanted = {"logprobs": 5} if path == "/v1/completions" else {"logprobs": True, "top_logprobs": 5}
    with speaking(llm, text, Guards(output=OutputFilter(mode))) as server:
        answer = server.post(path, {**asked(path, stream), **wanted})
        shown, _ = read(path, answer)
        found = [part["choices"][0]["logprobs"] for part in parts(answer) if part.get("choices")]
    if path == "/v1/completions":
        tokens = [t for each in found if each for t in zip(each["tokens"], each["text_offset"], strict=True)]
        assert len(tokens) > 5 and tokens[0][1] == 0
        for token, offset in tokens:
            assert token.startswith("bytes:") or shown.startswith(token, offset), (token, offset)
        told = "".join(token for token, _ in tokens)
    else:
        raw = b"".join(bytes(t["bytes"]) for each in found if each for t in each["content"])
        told = raw.decode()
        assert told.startswith("café 😀 Write to")
    assert ("say" in told) == (mode == "redact")
    assert not any(piece in told for piece in ("lovel", "ada", "AKIA", "EGP5"))


def test_a_context_of_ollama_s_holds_what_was_shown(llm):
    body = {"model": NAME, "prompt": "x", "stream": False}
    with speaking(llm, SPOKEN, Guards(output=OutputFilter())) as server:
        context = server.post("/api/generate", body).json()["context"]
    said = llm.tokenizer.decode(context, skip_special_tokens=False)
    assert said.endswith("they say. Bye") and "[REDACTED:email]" in said and "lovelace" not in said


@pytest.mark.parametrize("mode", ["off", "redact"])
def test_a_stop_text_is_named_whatever_was_filtered_before_it(llm, mode):
    guards = Guards(output=None if mode == "off" else OutputFilter(mode))
    with speaking(llm, SPOKEN, guards) as server:
        client = anthropic.Anthropic(base_url=server.url, api_key="none").messages
        asked = {"model": NAME, "max_tokens": 99, "messages": [{"role": "user", "content": "x"}]}
        answer = client.create(**asked, stop_sequences=["call", " they say"])
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "call")
        assert answer.content[0].text.endswith(" or ")
        assert ("[REDACTED:email]" in answer.content[0].text) == (mode == "redact")


def test_once_every_answer_is_cut_off_no_more_is_generated(llm):
    with speaking(llm, MAIL + " and more" * 200, Guards(output=OutputFilter("block"))) as server:
        body = {**asked("/v1/completions", True), "max_tokens": 1500, "n": 3}
        answer = server.post("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        assert 0 < parts(answer)[-1]["usage"]["completion_tokens"] < 300
        server.empty()


def test_a_client_that_leaves_while_text_is_held_back_leaves_nothing(llm):
    text = "-----BEGIN PRIVATE KEY-----\n" + "Ab1" * 300
    with speaking(llm, text, Guards(output=OutputFilter())) as server:
        connection = server.connect()
        connection.sendall(
            request_bytes("/v1/completions", {**asked("/v1/completions", True), "max_tokens": 900})
        )
        server.wait(lambda: server.engine.blocks_in_use > 0, "it runs")
        connection.close()
        server.empty()


# ---------------------------------------------------------------- the server's own system prompt

PROMPT = "You are Aurelia, keeper of the seventeen silver gates beyond the northern harbour."


@pytest.mark.parametrize("path", FORMATS)
def test_a_system_prompt_stands_before_conversations_and_does_not_leave(llm, path):
    spoken = f"I was told: {PROMPT.upper()} That is all."
    guards = Guards(output=OutputFilter(system_prompt=PROMPT))
    with speaking(llm, spoken, guards, system_prompt=PROMPT) as server:
        seen: list[str] = []
        open_, tokenizer = server.engine.open, llm.tokenizer

        def opened(prompts, *rest):
            seen.extend(tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts)
            return open_(prompts, *rest)

        server.engine.open = opened
        for stream in (False, True):
            answer = server.post(path, asked(path, stream))
            text, _ = read(path, answer)
            assert text.startswith("I was told: ") and "[REDACTED:system_prompt]" in text
            assert "silver" not in answer.text.lower() and "context" not in answer.text
    for prompt in seen:
        assert (PROMPT in prompt) == (path != "/v1/completions"), "a text to be continued is no conversation"


def test_without_the_filter_it_does(llm):
    with speaking(llm, PROMPT, Guards(), system_prompt=PROMPT) as server:
        assert "silver gates" in server.post("/v1/messages", asked("/v1/messages", False)).text
