"""Anthropic's own Python client. Its newest versions set no temperature of their own; the API field still works."""

from __future__ import annotations

import anthropic
import pytest

from lessonlib import SamplingParams

from .conftest import NAME, SECONDS

MESSAGES = [{"role": "user", "content": "Reverse a list."}]
GREEDY = {"extra_body": {"temperature": 0}}


@pytest.fixture
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=SECONDS) as found:
        yield found


def expected(twin, messages, **params):
    ids = twin.tokenizer.encode(twin.tokenizer.apply_chat_template(messages), add_special_tokens=False)
    return ids, twin.generate([ids], SamplingParams(temperature=0, **params))[0].outputs[0]


def test_a_message(client, twin):
    ids, right = expected(twin, [{"role": "system", "content": "Be brief."}, *MESSAGES], max_tokens=10)
    for system in (
        "Be brief.",
        [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    ):
        answer = client.messages.create(model=NAME, max_tokens=10, messages=MESSAGES, system=system, **GREEDY)
        assert answer.content[0].text == right.text
        assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
        usage = answer.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == len(ids)
        assert usage.output_tokens == 10
    assert answer.id.startswith("msg_") and answer.role == "assistant"


def test_a_conversation_goes_on_with_the_answer_as_it_came(client, twin):
    first = client.messages.create(model=NAME, max_tokens=5, messages=MESSAGES, **GREEDY)
    more = [*MESSAGES, {"role": "assistant", "content": first.content}, {"role": "user", "content": "Again."}]
    answer = client.messages.create(model=NAME, max_tokens=5, messages=more, **GREEDY)
    plain = [{**message, "content": message["content"]} for message in more]
    plain[1]["content"] = first.content[0].text
    assert answer.content[0].text == expected(twin, plain, max_tokens=5)[1].text


def test_top_p_0_leaves_the_likeliest(client, twin):
    asked = {"extra_body": {"temperature": 1, "top_p": 0}}
    answer = client.messages.create(model=NAME, max_tokens=10, messages=MESSAGES, **asked)
    assert answer.content[0].text == expected(twin, MESSAGES, max_tokens=10)[1].text


def test_a_stream_is_the_events_the_client_knows(client, twin):
    _, right = expected(twin, MESSAGES, max_tokens=12)
    with client.messages.stream(model=NAME, max_tokens=12, messages=MESSAGES, **GREEDY) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert final.content[0].text == right.text
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 12)
    with client.messages.stream(model=NAME, max_tokens=12, messages=MESSAGES, **GREEDY) as stream:
        assert "".join(stream.text_stream) == right.text


@pytest.mark.parametrize("stream", [False, True])
def test_it_says_which_stop_sequence_ended_it(client, twin, stream):
    _, right = expected(twin, MESSAGES, max_tokens=30)
    stop = right.text[10:13]
    asked = {
        "model": NAME,
        "max_tokens": 30,
        "messages": MESSAGES,
        "stop_sequences": ["never said", stop],
        **GREEDY,
    }
    if stream:
        with client.messages.stream(**asked) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**asked)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert answer.content[0].text == right.text[: right.text.index(stop)]


def test_the_end_of_its_turn(client, twin):
    """A prompt after which this model ends at once is found by trying."""
    for number in range(200):
        messages = [{"role": "user", "content": f"Return {number}."}]
        if expected(twin, messages, max_tokens=40)[1].finish_reason == "stop":
            break
    answer = client.messages.create(model=NAME, max_tokens=40, messages=messages, **GREEDY)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)


def test_tokens_are_counted_as_they_are_used(client, twin):
    ids, _ = expected(twin, MESSAGES, max_tokens=1)
    assert client.messages.count_tokens(model=NAME, messages=MESSAGES).input_tokens == len(ids)


@pytest.mark.parametrize(
    ("change", "error", "kind"),
    [
        ({"model": "claude"}, anthropic.NotFoundError, "not_found_error"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "invalid_request_error"),
        ({"max_tokens": 10**6}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        ({"stop_sequences": [""]}, anthropic.BadRequestError, "invalid_request_error"),
        ({"extra_body": {"temperature": 1.5}}, anthropic.BadRequestError, "invalid_request_error"),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "content": "def"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (
            {"messages": [{"role": "user", "content": "x " * 3000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_arrive_as_the_client_s_own(client, change, error, kind, stream):
    with pytest.raises(error) as told:
        client.messages.create(
            **{"model": NAME, "max_tokens": 4, "messages": MESSAGES, "stream": stream, **change}
        )
    assert told.value.body["error"]["type"] == kind
    assert told.value.request_id
