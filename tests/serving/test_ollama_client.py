"""Ollama's own Python client."""

from __future__ import annotations

import ollama
import pytest

from lessonlib import SamplingParams

from .conftest import NAME, SECONDS

MESSAGES = [{"role": "user", "content": "Reverse a list."}]
OPTIONS = {"temperature": 0, "num_predict": 10, "num_ctx": 2048}


@pytest.fixture
def client(server):
    return ollama.Client(host=server.url, timeout=SECONDS)


def expected(twin, prompt, chat=True, **params):
    if chat:
        template = twin.tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
        prompt = twin.tokenizer.encode(template, add_special_tokens=False)
    return twin.generate([prompt], SamplingParams(**{"temperature": 0, "max_tokens": 10, **params}))[0]


def test_the_model_is_listed_and_shown(client):
    [model] = client.list().models
    assert model.model == f"{NAME}:latest" and model.details.parameter_size == "2.2M"
    shown = client.show(NAME)
    assert shown.modelinfo["llama.context_length"] == 2048
    assert "im_start" in shown.template and shown.capabilities == ["completion"]


@pytest.mark.parametrize("name", [NAME, f"{NAME}:latest"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat(client, twin, name, stream):
    right = expected(twin, "Reverse a list.")
    answer = client.chat(name, MESSAGES, options=OPTIONS, stream=stream)
    pieces = list(answer) if stream else [answer]
    assert "".join(piece.message.content for piece in pieces) == right.outputs[0].text
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    last = pieces[-1]
    assert (last.done_reason, last.eval_count, last.prompt_eval_count) == (
        "length",
        10,
        len(right.prompt_token_ids),
    )
    assert 0 < last.eval_duration < last.total_duration
    assert last.model == name


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_generate(client, twin, raw, stream):
    right = expected(twin, "def fib(n):", chat=not raw)
    answer = client.generate(NAME, "def fib(n):", raw=raw, options=OPTIONS, stream=stream)
    pieces = list(answer) if stream else [answer]
    assert "".join(piece.response for piece in pieces) == right.outputs[0].text
    if raw:
        assert pieces[-1].context is None
    else:
        assert pieces[-1].context == right.prompt_token_ids + right.outputs[0].token_ids


def test_a_context_goes_on_where_the_last_answer_ended(client, twin):
    first = client.generate(NAME, "Reverse a list.", options=OPTIONS)
    answer = client.generate(NAME, "def", raw=True, context=first.context, options=OPTIONS)
    ids = [*first.context, *twin.tokenizer.encode("def")]
    assert answer.response == expected(twin, ids, chat=False).outputs[0].text


def test_a_context_knows_nothing_of_what_was_not_shown(client, twin):
    """Of a stop text the answer says nothing: a next call that went on behind it would answer to it."""
    whole = client.generate(NAME, "Reverse a list.", options={**OPTIONS, "num_predict": 20})
    stop = whole.response[6:9]
    told = client.generate(NAME, "Reverse a list.", options={**OPTIONS, "num_predict": 20, "stop": [stop]})
    assert told.response == whole.response.partition(stop)[0]
    before = expected(twin, "Reverse a list.").prompt_token_ids
    assert twin.tokenizer.decode(told.context[len(before) :]) == told.response


def test_an_answer_can_be_sent_back_as_it_came(client):
    said = client.chat(NAME, MESSAGES, options=OPTIONS).message
    for message in (said, said.model_dump()):
        more = [*MESSAGES, message, {"role": "user", "content": "Again."}]
        assert client.chat(NAME, more, options=OPTIONS).done


def test_top_p_0_leaves_the_likeliest(client, twin):
    options = {**OPTIONS, "temperature": 2, "top_p": 0}
    answer = client.generate(NAME, "def fib(n):", options=options)
    assert answer.response == expected(twin, "def fib(n):").outputs[0].text


def test_options_reach_the_engine(client, twin):
    options = {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "seed": 4, "stop": ["("]}
    answer = client.generate(
        NAME, "class A", raw=True, options={**options, "repeat_penalty": 1.1, "num_predict": 20}
    )
    right = expected(twin, "class A", chat=False, **options, repetition_penalty=1.1, max_tokens=20).outputs[0]
    assert (answer.response, answer.done_reason) == (right.text, right.finish_reason)


def test_a_call_without_a_prompt_only_loads(client):
    for answer in (client.generate(NAME), client.chat(NAME, [])):
        assert answer.done and answer.done_reason == "load"


def test_what_curl_sends_without_saying_that_it_is_json(server):
    answer = server.post(
        "/api/generate",
        {"model": NAME, "prompt": "x", "options": {"num_predict": 2}},
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "llama3"}, 404),
        ({"options": {"temperature": -1}}, 400),
        ({"options": {"num_predict": 10**6}}, 400),
        ({"options": {"stop": [""]}}, 400),
        ({"format": "json"}, 400),
        ({"prompt": "x " * 3000}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_arrive_as_the_client_s_own(client, change, status, stream):
    with pytest.raises(ollama.ResponseError) as told:
        answer = client.generate(**{"model": NAME, "prompt": "x", "stream": stream, **change})
        list(answer)
    assert told.value.status_code == status
    assert told.value.error.endswith(".")
