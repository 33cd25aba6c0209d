"""OpenAI's own Python client, as its users write it."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import httpx
import openai
import pytest

from lessonlib import SamplingParams

from .conftest import NAME, SECONDS, running

PROMPT = "def fib(n):\n"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Reverse a list."}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=SECONDS) as found:
        yield found


def expected(twin, prompt, **params):
    return twin.generate([prompt], SamplingParams(**params))[0].outputs


def chat_ids(twin, messages=CHAT):
    return twin.tokenizer.encode(twin.tokenizer.apply_chat_template(messages), add_special_tokens=False)


def test_models(client):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.NotFoundError) as told:
        client.models.retrieve("gpt-9")
    assert told.value.code == "model_not_found"


def test_a_completion_with_its_usage(client, twin):
    ids = twin.tokenizer.encode(PROMPT)
    for prompt in (PROMPT, ids):
        answer = client.completions.create(model=NAME, prompt=prompt, max_tokens=10, temperature=0)
        right = expected(twin, PROMPT, temperature=0, max_tokens=10)[0]
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (right.text, "length")
        usage = answer.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
            len(ids),
            10,
            len(ids) + 10,
        )
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"


def test_the_default_length_is_openai_s(client):
    assert (
        client.completions.create(
            model=NAME, prompt="x", extra_body={"ignore_eos": True}
        ).usage.completion_tokens
        == 16
    )


def test_a_stream_adds_up_to_the_whole(client):
    asked = {"model": NAME, "prompt": [PROMPT, "import "], "max_tokens": 12, "seed": 3, "n": 2, "stop": ["("]}
    whole = client.completions.create(**asked)
    texts, reasons, usage = [""] * 4, [None] * 4, None
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        assert usage is None, "the usage comes last"
        usage = chunk.usage
        for choice in chunk.choices:
            assert reasons[choice.index] is None
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert [(c.index, c.text, c.finish_reason) for c in whole.choices] == [
        (i, *each) for i, each in enumerate(zip(texts, reasons, strict=True))
    ]
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert len(set(texts)) > 1


def test_seed_n_and_the_sampling_fields_reach_the_engine(client, twin):
    sampling = {"temperature": 1.3, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.3}
    extra = {"top_k": 30, "min_p": 0.01, "repetition_penalty": 1.2, "ignore_eos": True}
    answer = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=12, seed=11, n=3, **sampling, extra_body=extra
    )
    right = expected(twin, PROMPT, max_tokens=12, seed=11, n=3, **sampling, **extra)
    assert [choice.text for choice in answer.choices] == [output.text for output in right]


def test_stop_texts_are_not_part_of_the_answer(client, twin):
    plain = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=30, temperature=0).choices[0].text
    stop = plain[9:12]
    answer = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=30, temperature=0, stop=stop)
    assert answer.choices[0].text == plain[: plain.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_logit_bias_forbids_and_forces(client, twin):
    asked = {"model": NAME, "prompt": PROMPT, "temperature": 0, "max_tokens": 1}
    first = expected(twin, PROMPT, temperature=0, max_tokens=1)[0].token_ids[0]
    forbidden = client.completions.create(**asked, logit_bias={str(first): -100}).choices[0].text
    assert forbidden != twin.tokenizer.decode([first])
    forced = client.completions.create(**asked, logit_bias={"1000": 100}).choices[0].text
    assert forced == twin.tokenizer.decode([1000])


def test_logprobs_of_a_completion(client, twin):
    answer = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=2)
    choice = answer.choices[0]
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(8)]
    right = expected(twin, PROMPT, temperature=0, max_tokens=8, logprobs=2)[0].logprobs
    for token, logprob, top, expect in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, right, strict=True
    ):
        assert top[token] == logprob == pytest.approx(max(expect.values()), abs=0.0051)  # it is rounded
        assert sorted(top.values()) == pytest.approx(sorted(expect.values()), abs=0.0051)
    streamed = [
        token
        for chunk in client.completions.create(
            model=NAME, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=2, stream=True
        )
        for each in chunk.choices
        if each.logprobs
        for token in zip(each.logprobs.tokens, each.logprobs.text_offset, strict=True)
    ]
    assert streamed == list(zip(found.tokens, found.text_offset, strict=True))


def test_echo_puts_the_prompt_before_the_answer(client, twin):
    asked = {"model": NAME, "prompt": [PROMPT, "import "], "temperature": 0, "max_tokens": 5, "n": 2}
    plain = [choice.text for choice in client.completions.create(**asked).choices]
    whole = [choice.text for choice in client.completions.create(**asked, echo=True).choices]
    assert whole == [PROMPT + plain[0], PROMPT + plain[1], "import " + plain[2], "import " + plain[3]]
    streamed = [""] * 4
    for chunk in client.completions.create(**asked, echo=True, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == whole
    ids = twin.tokenizer.encode(PROMPT)
    echoed = client.completions.create(model=NAME, prompt=ids, echo=True, max_tokens=1, temperature=0)
    assert echoed.choices[0].text.startswith(PROMPT)


def test_a_chat_goes_through_the_template(client, twin):
    right = expected(twin, chat_ids(twin), temperature=0, max_tokens=12)[0]
    answer = client.chat.completions.create(
        model=NAME, messages=CHAT, temperature=0, max_completion_tokens=12
    )
    assert answer.choices[0].message.content == right.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.prompt_tokens == len(chat_ids(twin))
    parts = [*CHAT[:1], {"role": "user", "content": [{"type": "text", "text": CHAT[1]["content"]}]}]
    again = client.chat.completions.create(model=NAME, messages=parts, temperature=0, max_tokens=12)
    assert again.choices[0].message.content == right.text
    with client.chat.completions.stream(model=NAME, messages=CHAT, temperature=0, max_tokens=12) as stream:
        assert "".join(event.delta for event in stream if event.type == "content.delta") == right.text


def test_logprobs_of_a_chat_add_up_in_bytes(client, twin):
    """With characters of several tokens, the bytes are what adds up."""
    euro = twin.tokenizer.encode("€")
    assert len(euro) > 1
    answer = client.chat.completions.create(
        model=NAME,
        messages=CHAT,
        max_tokens=1,
        logit_bias={str(euro[0]): 100},
        logprobs=True,
        top_logprobs=3,
    )
    [token] = answer.choices[0].logprobs.content
    assert token.token.startswith("bytes:\\x") and bytes(token.bytes) == "€".encode()[: len(token.bytes)]
    assert len(token.top_logprobs) == 3
    assert token.logprob < token.top_logprobs[0].logprob <= 0  # reported without the bias
    answer = client.chat.completions.create(
        model=NAME, messages=CHAT, max_tokens=9, temperature=0, logprobs=True
    )
    found = answer.choices[0]
    assert b"".join(bytes(t.bytes) for t in found.logprobs.content).decode() == found.message.content
    assert all(math.isfinite(t.logprob) and t.top_logprobs == [] for t in found.logprobs.content)


def test_the_end_of_text_token_is_no_part_of_the_answer(client, server):
    [end] = [i for i in server.engine.llm.model.config.eos_token_ids if i == 2]
    answer = client.chat.completions.create(
        model=NAME, messages=CHAT, max_tokens=9, logit_bias={str(end): 100}, logprobs=True, temperature=0
    )
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason, answer.usage.completion_tokens) == ("", "stop", 1)
    assert choice.logprobs is None or choice.logprobs.content == []


def test_a_prompt_that_came_before_is_counted_as_cached(client):
    prompt = "class Cache:\n" * 20
    asked = {"model": NAME, "prompt": prompt, "max_tokens": 2}
    client.completions.create(**asked)
    usage = client.completions.create(**asked).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


@pytest.mark.parametrize("sent_back", [lambda message: message, lambda message: message.model_dump()])
def test_an_answer_can_be_sent_back_as_it_came(client, twin, sent_back):
    asked = {"model": NAME, "max_tokens": 6, "temperature": 0}
    said = client.chat.completions.create(messages=CHAT, **asked).choices[0].message
    more = [*CHAT, sent_back(said), {"role": "user", "content": "Again."}]
    plain = [*CHAT, {"role": "assistant", "content": said.content}, {"role": "user", "content": "Again."}]
    answer = client.chat.completions.create(messages=more, **asked).choices[0].message.content
    assert answer == expected(twin, chat_ids(twin, plain), max_tokens=6, temperature=0)[0].text


@pytest.mark.parametrize("sent_back", [lambda message: message, lambda message: message.model_dump()])
def test_so_can_one_that_the_client_parsed(client, sent_back):
    asked = {"model": NAME, "max_tokens": 9, "temperature": 0}
    plain = client.chat.completions.create(messages=CHAT, **asked).choices[0].message.content
    asked["stop"] = plain[4:7]  # the client parses no answer that was cut at its length
    with client.chat.completions.stream(messages=CHAT, **asked) as stream:
        streamed = stream.get_final_completion()
    for whole in (streamed, client.chat.completions.parse(messages=CHAT, **asked)):
        more = [*CHAT, sent_back(whole.choices[0].message), {"role": "user", "content": "Again."}]
        assert client.chat.completions.create(messages=more, **asked).choices


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("refusal", "no"),
        ("tool_calls", [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        ("function_call", {"name": "f", "arguments": ""}),
        ("audio", {"id": "1"}),
        ("parsed", {"x": 1}),
    ],
)
def test_what_answers_leave_empty_may_say_nothing(client, field, meant):
    said = {"role": "assistant", "content": "x", field: meant}
    with pytest.raises(openai.BadRequestError) as told:
        client.chat.completions.create(model=NAME, messages=[*CHAT, said], max_tokens=1)
    assert told.value.body["message"] == f"messages.2.{field} is not known here; leave it out."


def test_annotations_may_be_an_empty_list(client):
    for noted, fine in (([], True), (["x"], False), ([{"type": "url_citation"}], False)):
        said = {"role": "assistant", "content": "x", "annotations": noted}
        with nullcontext() if fine else pytest.raises(openai.BadRequestError, match="annotations"):
            client.chat.completions.create(model=NAME, messages=[*CHAT, said], max_tokens=1)


def test_top_p_0_leaves_the_likeliest(client, twin):
    asked = {"model": NAME, "max_tokens": 8}
    told = client.completions.create(prompt=PROMPT, temperature=2, top_p=0, **asked).choices[0].text
    assert told == expected(twin, PROMPT, temperature=0, max_tokens=8)[0].text


def test_a_model_of_the_hub_is_found_by_its_name(llm):
    with (
        running(llm, name="org/pico") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert client.models.retrieve("org/pico").id == client.models.list().data[0].id == "org/pico"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/other")
        for path, found in (("/v1/models/", "list"), ("/v1/models/org/pico/", "model")):
            assert httpx.get(server.url + path, follow_redirects=True).json()["object"] == found


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 5000}, openai.BadRequestError, "max_tokens"),
        ({"prompt": ""}, openai.BadRequestError, None),
        ({"prompt": "x " * 3000}, openai.BadRequestError, None),
        ({"prompt": [5000]}, openai.BadRequestError, None),
        ({"extra_body": {"tools": []}}, openai.BadRequestError, "tools"),
        ({"best_of": 3}, openai.BadRequestError, "best_of"),
        ({"echo": True, "logprobs": 1}, openai.BadRequestError, "logprobs"),
        ({"prompt": ["x"] * 60, "n": 2}, openai.BadRequestError, "n"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_arrive_as_the_client_s_own(client, change, error, param, stream):
    with pytest.raises(error) as told:
        client.completions.create(**{"model": NAME, "prompt": "x", "stream": stream, **change})
    assert told.value.param == param
    assert told.value.type == "invalid_request_error"
    assert told.value.request_id


def test_two_clients_at_once_are_batched(client, server, twin):
    prompts = ["def f(", "import os\n", "class A:\n    def"]
    sizes = []
    step = server.engine.batcher.step
    with server.held() as release, ThreadPoolExecutor(8) as pool:
        held = server.engine.batcher.step
        server.engine.batcher.step = lambda on_token: sizes.append(len(served := held(on_token))) or served
        asked = {"model": NAME, "temperature": 0, "max_tokens": 10, "extra_body": {"ignore_eos": True}}
        calls = [pool.submit(client.completions.create, prompt=prompt, **asked) for prompt in prompts]
        server.wait(lambda: server.engine.sequences == 3, "all three are in")
        release.set()
        texts = [call.result().choices[0].text for call in calls]
    server.engine.batcher.step = step
    assert texts == [
        expected(twin, prompt, temperature=0, max_tokens=10, ignore_eos=True)[0].text for prompt in prompts
    ]
    assert sizes.count(3) >= 9  # one may have had a step alone, before the others were in
