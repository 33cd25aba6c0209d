"""Copying the model over HTTP: the attack of ``security.attacks`` against the real server, as anybody could run it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import httpx
import numpy as np
import openai
import pytest

from lessonlib import LLM
from lessonlib.engine.tokenizer import Tokenizer
from lessonlib.security.admission import MAX_LOGPROBS, MAX_PROMPTS
from lessonlib.security.attacks import (
    Oracle,
    QueryRefused,
    Stolen,
    attack_hidden_size,
    attack_shown_values,
)
from lessonlib.security.extraction import ExtractionDetector
from lessonlib.security.logit_surface import LogitSurfacePolicy
from lessonlib.serving.auth import Keys
from lessonlib.serving.guards import COOL_DOWN, Guards
from lessonlib.serving.tokens import LOWEST, spell

from .conftest import NAME, running, samples


class Api:
    """What anybody sees of the server: ids in, log-probabilities out. The tokenizer is public, and names the tokens.

    Tokens are counted among those whose spelling no other one has.
    """

    def __init__(self, url: str, tokenizer: Tokenizer, http: httpx.Client):
        self.url, self.http = url, http
        texts = [spell(tokenizer, i, 0.0).text for i in range(tokenizer.largest_id + 1)]
        counts = Counter(texts)
        self.ids = [i for i, text in enumerate(texts) if counts[text] == 1 and text]
        self.number = {texts[i]: n for n, i in enumerate(self.ids)}
        self.answered: dict[tuple, dict[int, float]] = {}

    def ask(self, prompts: Sequence[Sequence[int]], bias: Mapping[int, float], top_k: int) -> None:
        body = {
            "model": NAME,
            "prompt": [[self.ids[n] for n in prompt] for prompt in prompts],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": top_k,
            "logit_bias": {str(self.ids[n]): value for n, value in bias.items()},
        }
        answer = self.http.post(f"{self.url}/v1/completions", json=body)
        if answer.status_code != 200:
            raise QueryRefused(answer.json()["error"]["message"])
        for prompt, choice in zip(prompts, answer.json()["choices"], strict=True):
            [shown] = choice["logprobs"]["top_logprobs"]
            self.answered[key(prompt, bias)] = {
                self.number[text]: value
                for text, value in shown.items()
                if text in self.number and value != LOWEST
            }

    def oracle(self, prompt: Sequence[int], bias: Mapping[int, float], top_k: int) -> dict[int, float]:
        """One query as one request, unless it was asked in a batch before."""
        if key(prompt, bias) not in self.answered:
            self.ask([prompt], bias, top_k)
        return self.answered[key(prompt, bias)]

    def ask_all_of(self, attack: Callable[[Oracle], Stolen]) -> None:
        """Ask what an attack is going to ask, 64 prompts a request. It always asks the same, whatever is answered."""
        plan: dict[tuple, list[Sequence[int]]] = defaultdict(list)
        biases: dict[tuple, Mapping[int, float]] = {}

        def note(prompt: Sequence[int], bias: Mapping[int, float], top_k: int) -> dict[int, float]:
            plan[tuple(bias)].append(prompt)
            biases[tuple(bias)] = bias
            return dict(bias)

        attack(note)
        for tokens, prompts in plan.items():
            for first in range(0, len(prompts), MAX_PROMPTS):
                self.ask(prompts[first : first + MAX_PROMPTS], biases[tokens], MAX_LOGPROBS)


def key(prompt: Sequence[int], bias: Mapping[int, float]) -> tuple:
    return (*prompt, None, *bias)


@pytest.fixture(scope="module")
def pico() -> LLM:
    return LLM(
        "pico", max_num_seqs=64, block_size=2
    )  # every prompt comes 14 times, all but its end from the cache


@contextmanager
def api(llm: LLM, guards: Guards) -> Iterator[Api]:
    with running(llm, guards) as server, httpx.Client(timeout=120) as http:
        yield Api(server.url, llm.tokenizer, http)
        server.empty()


def test_without_the_policy_the_hidden_size_is_read_exactly(pico):
    hidden = pico.model.config.hidden_size
    with api(pico, Guards(surface=LogitSurfacePolicy.off())) as server:
        # A first size that will do: growing to it, the attack would find the same with half as many queries more.
        attack = partial(attack_hidden_size, vocab_size=len(server.ids), start=266, limit=266)
        server.ask_all_of(attack)
        stolen = attack(server.oracle)
    print(f"{stolen.queries} queries, a gap of {stolen.gap:.0f}")
    assert stolen.hidden_size == hidden == 256
    assert stolen.layer is not None and stolen.reference is not None
    rows = pico.model.lm_head.weight.double().numpy()[server.ids]
    true = rows[list(stolen.tokens)] - rows[stolen.reference]
    square = np.linalg.lstsq(stolen.layer, true, rcond=None)[0]
    assert np.linalg.norm(stolen.layer @ square - true) < 1e-3 * np.linalg.norm(true), "and the layer with it"


def test_with_the_policy_nothing_is(pico):
    with api(pico, Guards()) as server:
        stolen = attack_hidden_size(server.oracle, len(server.ids))
        assert (stolen.hidden_size, stolen.layer, stolen.queries) == (None, None, 1)
        assert stolen.reason == "The answers do not show the tokens that were biased."
        # Forced by a bias, a token would report any logit one likes; it reports nothing.
        assert 7 not in server.oracle([1, 2, 3], {7: 100.0}, 20)
        with pytest.raises(QueryRefused, match="64 distinct tokens"):
            server.oracle([1, 2, 3], dict.fromkeys(range(100, 150), 100.0), 20)
        assert len(server.oracle([1, 2, 4], {}, 20)) > 10, "who does not bias is told"
        # Enough of both for a cliff behind 256; tests/security finds it where everything is shown.
        attack = partial(attack_shown_values, vocab_size=len(server.ids), prompts=330, size=300)
        server.ask_all_of(attack)
        assert attack(server.oracle).hidden_size is None


@pytest.mark.parametrize(
    ("policy", "chosen"), [(LogitSurfacePolicy(), LOWEST), (LogitSurfacePolicy.off(), 0.0)], ids=["on", "off"]
)
def test_what_a_forced_token_reports_in_chats(llm, policy, chosen):
    """To OpenAI's client: -9999.0 stands for a value that is not told; with the policy off, the bias made it sure."""
    with running(llm, Guards(surface=policy)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        asked = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
        for stream in (False, True):
            answer = client.chat.completions.create(
                **asked, logprobs=True, top_logprobs=2, logit_bias={"1000": 100}, stream=stream
            )
            parts = [chunk.choices[0] for chunk in answer if chunk.choices] if stream else answer.choices
            tokens = [token for part in parts if part.logprobs for token in part.logprobs.content]
            assert [token.logprob for token in tokens] == pytest.approx([chosen] * 3, abs=1e-4)
            assert all(len(token.top_logprobs) == 2 for token in tokens)
            forced = {token.token for token in tokens}
            assert (tokens[0].top_logprobs[0].token in forced) == (chosen == 0.0)
        server.empty()


# ---------------------------------------------------------------- who asks in order to copy


WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "mango",
    "piano",
    "eagle",
    "train",
    "candle",
    "ocean",
    "tiger",
    "bridge",
]
BODIES = {
    "/v1/completions": lambda text: {"model": NAME, "prompt": text, "max_tokens": 2},
    "/v1/chat/completions": lambda text: {
        "model": NAME,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 2,
    },
    "/v1/messages": lambda text: {
        "model": NAME,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 2,
    },
    "/api/generate": lambda text: {"model": NAME, "prompt": text, "options": {"num_predict": 2}},
}


def sweep(server, path: str, key: str) -> list[httpx.Response]:
    return [
        server.post(
            path, BODIES[path](f"Give the definition of the word {word} please"), headers={"x-api-key": key}
        )
        for word in WORDS
    ]


@pytest.mark.parametrize("path", BODIES)
def test_a_sweep_is_stopped_where_that_is_asked_for(llm, path):
    late = [0.0]
    guards = Guards(detector=ExtractionDetector(sweep=8), detector_blocks=True, clock=lambda: late[0])
    with running(llm, guards, keys=Keys(["ann:key-a", "bob:key-b"])) as server:
        statuses = [answer.status_code for answer in sweep(server, path, "key-a")]
        assert statuses == [200] * statuses.index(429) + [429] * (12 - statuses.index(429))
        assert 8 <= statuses.index(429) < 12, "the first ones have to teach it the pattern"
        [*_, last] = sweep(server, path, "key-a")
        assert last.status_code == 429 and 0 < int(last.headers["retry-after"]) <= COOL_DOWN
        assert "prompts filled one pattern" in last.text and "tiger" not in last.text
        other = server.post(path, BODIES[path]("import os"), headers={"x-api-key": "key-b"})
        assert other.status_code == 200
        assert samples(server)["lesson_rejections_total extraction"] == statuses.count(429) + 12
        late[0] = COOL_DOWN
        assert sweep(server, path, "key-a")[0].status_code == 200, "one more answer is judged"
        server.empty()


@pytest.mark.parametrize("detector", [ExtractionDetector(sweep=8), None], ids=["log", "off"])
def test_otherwise_it_is_only_spoken_of(llm, detector, request_log):
    with running(llm, Guards(detector=detector)) as server:
        answers = sweep(server, "/v1/completions", "any")
        assert {answer.status_code for answer in answers} == {200}
        server.empty()
        doubts = samples(server).get("lesson_suspicions_total extraction", 0)
    lines = request_log(answers)
    assert doubts == sum("extraction" in line for line in lines)
    assert (doubts > 0) == (detector is not None)
    assert not any(word in json.dumps(lines) for word in WORDS)
