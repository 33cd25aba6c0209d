"""Speculation with real transformers: greedy, seeded, penalized, with log-probabilities, and on the shipped pair."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import LLM, SamplingParams, Transformer
from lessonlib.engine.acceptance import Costs
from lessonlib.engine.errors import TokenizerMismatch
from lessonlib.engine.generate import Row, run
from lessonlib.engine.scheduler import Request
from lessonlib.engine.speculative import DraftModelSpeculator, NgramSpeculator

from .conftest import QUIET, random_model, refuses, some_ids, tiny_config
from .fakes import batcher, check_pool, drain


def noisy(model: Transformer, noise: float) -> Transformer:
    """A draft model that is often right: the target with its weights disturbed."""
    draft = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in draft.parameters():
            scale = noise * parameter.std() if parameter.dim() > 1 else 0.0
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return draft


TARGET = random_model(tiny_config(eos_token_ids=(5, 40)))
DRAFT = noisy(TARGET, 0.03)


def alone(request: Row, model: Transformer = TARGET) -> Row:
    """The same row by the plain loop."""
    row = Row(list(request.prompt), request.params)
    for _ in run(model, [row]):
        pass
    return row


def served(speculator, requests: Sequence[Request], model: Transformer = TARGET, **settings):
    engine = batcher(model, speculator, **{"num_blocks": 96, "max_num_batched_tokens": 96, **settings})
    for request in requests:
        engine.add(request)
    drain(engine)
    check_pool(engine.scheduler.pool)
    return engine


def drafting(k: int = 3, num_blocks: int = 96, costs: Costs | None = None) -> DraftModelSpeculator:
    return DraftModelSpeculator(DRAFT, TARGET, num_blocks, 4, k, costs)


SHAPES = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.0, 0.6, 1.0]),
        "top_p": st.sampled_from([1.0, 0.9]),
        "top_k": st.sampled_from([0, 12]),
        "repetition_penalty": st.sampled_from([1.0, 1.0, 1.7]),
        "presence_penalty": st.sampled_from([0.0, 0.0, 0.9]),
        "logit_bias": st.sampled_from([{}, {}, {3: 4.0, 5: -100.0}]),
        "frequency_penalty": st.sampled_from([0.0, 0.0, 0.6]),
        "logprobs": st.sampled_from([None, None, 0, 3]),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([(), (7, 8, 9)]),
        "max_tokens": st.integers(1, 24),
        "seed": st.integers(0, 10**6),
    }
).map(lambda chosen: SamplingParams(**chosen))


@QUIET
@given(
    st.lists(st.tuples(st.integers(1, 12), SHAPES), min_size=1, max_size=5),
    st.sampled_from(["draft", "draft", "ngram"]),
    st.integers(1, 5),
    st.sampled_from([None, Costs(0.1, 0.05)]),
    st.sampled_from([10, 16, 96]),
)
def test_greedy_and_seeded_requests_get_the_tokens_they_get_alone(wanted, kind, k, costs, num_blocks):
    """In one batch, in few blocks, with every setting: drafts are part of the past that the next one is judged by."""
    requests = [
        Request(some_ids(size, seed=i)[0].tolist(), params) for i, (size, params) in enumerate(wanted)
    ]
    speculator = drafting(k, num_blocks, costs) if kind == "draft" else NgramSpeculator(k, costs, 3, 1)
    served(speculator, requests, num_blocks=num_blocks, block_size=4)
    for request in requests:
        plain = alone(request)
        assert (request.output, request.finish_reason) == (plain.output, plain.finish_reason)
        for mine, theirs in zip(request.choices, plain.choices, strict=True):
            assert mine.logprob == (theirs.logprob and pytest.approx(theirs.logprob, abs=1e-4))
            assert mine.top == (theirs.top and pytest.approx(theirs.top, abs=1e-4))


def test_drafts_do_get_through_where_penalties_and_seeds_are_set():
    """What the test above compares was really speculated."""
    prompt = some_ids(8)[0].tolist()
    for settings in (
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.3, "frequency_penalty": 0.3, "logprobs": 2},
        {"temperature": 0.7, "seed": 3},
        {"temperature": 0.7, "seed": 3, "presence_penalty": 0.5},
    ):
        request = Request(prompt, SamplingParams(max_tokens=60, ignore_eos=True, **settings))
        served(drafting(), [request])
        assert request.accepted > 0.15 * request.drafted > 10


def several(count: int = 6, max_tokens: int = 40, **settings) -> list[Request]:
    """Sampled requests without a seed of their own, each with its own random numbers."""
    return [
        Request(
            some_ids(5 + i, seed=i)[0].tolist(),
            SamplingParams(max_tokens=max_tokens, ignore_eos=True, **settings),
            generator=torch.Generator().manual_seed(i),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("costs", [None, Costs(0.1, 0.05)])
def test_a_request_draws_from_its_own_random_numbers_only(costs):
    before = torch.get_rng_state()
    together = several()
    served(drafting(costs=costs), together)
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(request.accepted for request in together) > 50
    neighbours = several(6)
    for request in neighbours[1:]:
        request.generator.manual_seed(99)  # says something else; the first one does not notice
    greedy = several(2, temperature=0.0)
    served(drafting(costs=costs), [*greedy, *neighbours])
    assert neighbours[0].output == together[0].output
    assert neighbours[1].output != together[1].output
    lone = several(1)
    served(drafting(costs=costs), lone)
    assert lone[0].output == together[0].output


def test_rejection_sampling_accepts_more_than_shared_random_numbers():
    """Why a seed of one's own has its price, and others do not pay it."""
    shares = []
    for seeds in (range(40), [None] * 40):
        requests = [
            Request(
                some_ids(6, seed=i)[0].tolist(),
                SamplingParams(max_tokens=12, seed=seed, ignore_eos=True),
                generator=torch.Generator().manual_seed(i),
            )
            for i, seed in enumerate(seeds)
        ]
        served(drafting(k=1, num_blocks=400), requests, num_blocks=400)
        shares.append(sum(r.accepted for r in requests) / sum(r.drafted for r in requests))
    assert shares[0] < shares[1] - 0.1


def test_what_the_draft_model_has_missed_runs_in_passes_that_fit_its_context():
    small = noisy(TARGET, 0.0)
    small.config = replace(small.config, max_position_embeddings=48)
    requests = [
        Request(
            some_ids(31, seed=i)[0].tolist(), SamplingParams(temperature=0, max_tokens=14, ignore_eos=True)
        )
        for i in range(3)
    ]
    served(DraftModelSpeculator(small, TARGET, 96, 4, 3), requests)  # all three begin in the same step
    for request in requests:
        assert request.output == alone(request).output
        assert 8 <= request.accepted == request.drafted


def test_a_draft_model_with_another_vocabulary_is_refused():
    other = random_model(tiny_config(vocab_size=96))
    with refuses(TokenizerMismatch):
        DraftModelSpeculator(other, TARGET, 16)


# ---------------------------------------------------------------- the shipped models

TEXTS = [
    "def read_lines(path, encoding='utf-8'):\n    with open(path, encoding=encoding) as f:\n        ",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n        ",
    "import os\nimport sys\n\ndef main():\n    parser = argparse.ArgumentParser()\n    parser.add_argument(",
    "for i in range(10):\n    print(i)\nfor i in range(10):\n    print(i)\nfor i in",
    "    def test_empty(self):\n        self.assertEqual(parse(''), [])\n\n    def test_one(self):\n        ",
    "x = 1\n",
]


@pytest.fixture(scope="module")
def pico() -> LLM:
    return LLM("pico")


@pytest.fixture(scope="module")
def shipped_draft() -> LLM:
    return LLM("pico-draft")


@pytest.mark.parametrize("kind", ["draft", "ngram"])
def test_the_shipped_pair_says_what_pico_says_in_fewer_passes(pico, shipped_draft, kind):
    model, tokens = pico.model, 40
    greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    requests = [Request(pico.tokenizer.encode(text), greedy) for text in TEXTS]
    rows = [Row(request.prompt, greedy) for request in requests]
    for _ in run(model, rows):
        pass
    sampled = Request(requests[0].prompt, SamplingParams(max_tokens=tokens), generator=torch.Generator())
    blocks = 14  # about half of what they need
    speculator = {
        "draft": lambda: DraftModelSpeculator(shipped_draft.model, model, blocks, 16, 4),
        "ngram": lambda: NgramSpeculator(4),
    }[kind]()
    engine = served(speculator, [*requests, sampled], model, num_blocks=blocks, block_size=16)
    assert [request.output for request in requests] == [row.output for row in rows]
    assert engine.scheduler.preemptions > 0
    accepted = sum(request.accepted for request in requests)
    assert accepted > (0.4 if kind == "draft" else 0.1) * tokens * len(requests)


def test_through_the_front_door(pico):
    llm = LLM("pico", speculative_model="pico-draft", num_kv_blocks=32, max_num_seqs=3)
    params = SamplingParams(temperature=0, max_tokens=24, stop=["\n\n", "self.i"])
    seeded = SamplingParams(temperature=0.8, max_tokens=12, seed=7, n=2)
    for how in (params, seeded):
        mine, plain = llm.generate(TEXTS, how), pico.generate(TEXTS, how)
        for one, other in zip(mine, plain, strict=True):
            assert [o.text for o in one.outputs] == [o.text for o in other.outputs]
            assert [o.finish_reason for o in one.outputs] == [o.finish_reason for o in other.outputs]
        assert sum(one.metrics.accepted for one in mine) > 20
        assert all(one.metrics.accepted <= one.metrics.drafted for one in mine)
    check_pool(llm.batcher.scheduler.pool)
