"""Speculation in the batched engine: the same tokens in fewer passes, whatever happens to requests and their blocks."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.engine import SamplingParams, speculative
from lessonlib.engine.acceptance import Costs
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.model import Output
from lessonlib.engine.paged_cache import PagedCache, Span
from lessonlib.engine.sampling import distribution, draw
from lessonlib.engine.scheduler import Request
from lessonlib.engine.speculative import DraftModelSpeculator, NgramSpeculator

from .conftest import QUIET
from .fakes import Recall, batcher, check_pool, check_queues, drain, params

VOCAB = 7


class Doubtful(Recall):
    """Reads through its cache like ``Recall`` and knows the same answer, but gives another in some of 100 cases.

    scores: how to make logits (tokens, vocab) of numbers from 0 to 100 * vocab, each of which stands for a whole text.
    """

    def __init__(self, right: int = 100, vocab: int = VOCAB, scores=None, **settings):
        super().__init__(vocab, **settings)
        self.right, self.scores, self.narrow = right, scores, self.config
        self.wide = replace(self.config, vocab_size=100 * vocab)

    def __call__(self, ids, cache=None, lengths=None, last_only=False, at=None) -> Output:
        self.config = self.wide  # answers out of 100 times as many tell which case it is
        marks = super().__call__(ids, cache, lengths, last_only, at).logits[0].argmax(-1)
        self.config = self.narrow
        if self.scores is not None:
            return Output(self.scores(marks)[None])
        vocab = self.narrow.vocab_size
        said = torch.where(marks // vocab < self.right, marks, marks + 1) % vocab
        return Output(torch.nn.functional.one_hot(said, vocab)[None].float())

    def after(self, text: Sequence[int], last: int = 1) -> torch.Tensor:
        """Logits (last, vocab) after each of the last tokens of a text, computed with nothing in any cache."""
        cache, passes = PagedCache(self.narrow, len(text), 1, torch.float64), list(self.passes)
        cache.plan([Span(range(len(text)), 0, len(text))])
        wanted = torch.arange(len(text) - last, len(text))
        logits = self(torch.tensor([list(text)]), cache=cache, at=wanted).logits[0]
        self.passes = passes  # only those of the engine count
        return logits


class Watched(DraftModelSpeculator):
    """Every draft must be what the draft model says after the whole text: its cache is right, rewound or not."""

    def propose(self, slots):
        drafts = super().propose(slots)
        for slot, guess in zip(slots, drafts, strict=True):
            assert len(guess) <= slot.drafts
            if slot.request.params.greedy and not slot.request.params.penalized:
                text = [*slot.request.ids, *guess[:-1]]
                assert not guess or guess == self.model.after(text, len(guess)).argmax(-1).tolist()
        return drafts


def stopper(request: Request) -> str | None:
    """A stop text, as ``LLM`` would see it: the output has had three 5s."""
    return "stop" if request.output.count(5) == 3 else None


def until_stop(tokens: list[int]) -> list[int]:
    fives = [place for place, token in enumerate(tokens) if token == 5]
    return tokens[: fives[2] + 1] if len(fives) > 2 else tokens


def speculator_for(kind: str, k: int, costs: Costs | None, target, draft, num_blocks: int, block_size: int):
    if kind == "ngram":
        return NgramSpeculator(k, costs, max_n=3, min_n=1)
    return Watched(draft, target, num_blocks, block_size, k, costs)


@settings(QUIET, max_examples=50)
@given(
    kind=st.sampled_from(["draft", "draft", "ngram"]),
    k=st.integers(1, 6),
    costs=st.sampled_from([None, Costs(0.2, 0.1), Costs(0.05, 0.0)]),
    right=st.sampled_from([0, 50, 80, 100]),
    num_blocks=st.integers(10, 40),
    block_size=st.sampled_from([1, 2, 4]),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(3, 40),
    draft_context=st.sampled_from([40, 40, 12]),
    caching=st.booleans(),
    policy=st.sampled_from(["fcfs", "priority"]),
    seed=st.integers(0, 10**6),
)
def test_any_trace_gives_the_tokens_of_plain_greedy(
    kind, k, costs, right, num_blocks, block_size, max_num_seqs, budget, draft_context, caching, policy, seed
):
    random = Random(seed)
    target = Recall(VOCAB, context=40, eos=(6,))
    draft = Doubtful(right, context=draft_context, eos=(6,))
    num_blocks = num_blocks * 4 // block_size
    guesser = speculator_for(kind, k, costs, target, draft, num_blocks, block_size)
    engine = batcher(
        target,
        guesser,
        num_blocks=num_blocks,
        block_size=block_size,
        prefix_caching=caching,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        policy=policy,
    )
    beginnings = [[random.randrange(VOCAB) for _ in range(9)] for _ in range(2)]
    requests: list[Request] = []
    for _ in range(random.randint(2, 7)):
        prompt = [*random.choice(beginnings)[: random.randint(1, 9)], random.randrange(VOCAB)]
        leader = None
        how = params(random.randint(1, 28), ignore_eos=random.random() < 0.7)
        for _ in range(random.choice([1, 1, 3])):  # n > 1
            requests.append(Request(list(prompt), how, leader=leader, priority=random.randrange(3)))
            leader = leader or requests[-1]
    doomed, victim = [request for request in requests if random.random() < 0.2], None
    pending = list(requests)
    for _ in range(3000):
        while pending and random.random() < 0.7:
            engine.add(pending.pop(0))
        if not pending and not engine.unfinished:
            break
        engine.step(stopper)
        check_queues(engine.scheduler)
        for request in requests:
            assert request.accepted <= min(request.drafted, len(request.output))
        if doomed and random.random() < 0.1 and (victim := doomed.pop()) not in pending:
            engine.abort(victim)
    for request in requests:
        expected = target.alone(request.prompt, request.params.max_tokens, request.params.ignore_eos)
        if request.finish_reason == "abort":
            assert request.output == until_stop(expected)[: len(request.output)]
        else:
            assert request.output == until_stop(expected)
            assert request.finish_reason in ("stop", "length")
    check_pool(engine.scheduler.pool)
    del requests, doomed, request, victim, leader
    assert not guesser._paces  # a speculator keeps nothing of requests that nobody holds any more
    assert not guesser._q


def served(target, guesser, requests: Sequence[Request], **settings) -> ContinuousBatcher:
    settings = {"num_blocks": 64, "block_size": 4, "max_num_batched_tokens": 64, **settings}
    engine = batcher(target, guesser, **settings)
    for request in requests:
        engine.add(request)
    drain(engine)
    check_pool(engine.scheduler.pool)
    return engine


@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_perfect_draft_model_brings_k_more_tokens_a_pass(k):
    target, draft = Recall(VOCAB), Doubtful(100)
    guesser = Watched(draft, target, 64, 4, k)
    request = Request([1, 2, 3], params(1 + 5 * (k + 1)))
    served(target, guesser, [request])
    assert request.output == target.alone([1, 2, 3], 1 + 5 * (k + 1))
    assert target.passes == [3] + [k + 1] * 5  # the prompt, then the last token and k drafts
    assert (request.drafted, request.accepted) == (5 * k, 5 * k)
    # The draft model reads the prompt, then each time the bonus token and its own last draft, which it never ran.
    assert draft.passes == [3, 1] + [1] * (k - 1) + ([2] + [1] * (k - 1)) * 4


def test_a_hopeless_draft_model_costs_passes_but_no_tokens():
    target, draft = Recall(VOCAB), Doubtful(0)
    request = Request([1, 2, 3], params(9))
    served(target, Watched(draft, target, 64, 4, 3), [request])
    assert request.output == target.alone([1, 2, 3], 9)
    assert (request.drafted, request.accepted) == (
        3 * 5 + 2 + 1,
        0,
    )  # towards the end there is room for fewer
    assert len(target.passes) == 9


@pytest.mark.parametrize("max_tokens", range(1, 9))
def test_the_limit_may_fall_anywhere_in_a_draft(max_tokens):
    for prompt, room in (([1, 2, 3], max_tokens), ([1] * 11, min(max_tokens, 5))):  # the context ends, too
        target, draft = Recall(VOCAB, context=16), Doubtful(100, context=16)
        request = Request(prompt, params(max_tokens))
        served(target, Watched(draft, target, 64, 4, 6), [request])
        assert (len(request.output), request.finish_reason) == (room, "length")
        assert request.output == target.alone(prompt, max_tokens)
        assert max(target.passes[1:], default=0) <= max(1, room - 1)  # no draft that could not stand


def test_the_end_of_text_inside_a_draft_voids_what_comes_behind():
    ended = 0
    for first, second in itertools.product(range(VOCAB - 1), repeat=2):
        target, draft = Recall(VOCAB, eos=(6,)), Doubtful(100, eos=(6,))
        request = Request([first, second], params(12))
        served(target, Watched(draft, target, 64, 4, 5), [request])
        assert request.output == target.alone([first, second], 12)
        if request.finish_reason == "stop":
            ended += (len(request.output) - 1) % 6 not in (0, 5)  # neither the first nor the bonus token
            assert request.output.index(6) == len(request.output) - 1
        assert request.accepted <= len(request.output) - 1
        assert [choice.token for choice in request.choices] == request.output
    assert ended > 5  # it did happen inside of drafts


def test_a_draft_model_with_a_shorter_context_drafts_as_long_as_it_can():
    target, draft = Recall(VOCAB, context=64), Doubtful(100, context=12)
    request = Request([1, 2, 3, 4], params(30))
    served(target, Watched(draft, target, 64, 4, 4), [request])
    assert request.output == target.alone([1, 2, 3, 4], 30)
    # After the prompt and one token come four drafts and a bonus; then three more drafts, the last from position 11.
    assert (request.drafted, request.accepted) == (7, 7)
    assert sum(draft.passes) == 12  # every place of its context, once


def test_the_draft_model_reads_a_shared_prompt_once():
    prompt = [1, 2, 3, 4] * 6 + [5]
    for caching, most in ((True, 25 + 3 * (1 + 4)), (False, 4 * 25)):
        target, draft = Recall(VOCAB), Doubtful(100)
        leader = Request(prompt, params(2 + 3))
        requests = [leader, *(Request(prompt, params(2 + 3), leader=leader) for _ in range(3))]
        served(target, Watched(draft, target, 64, 4, 3), requests, prefix_caching=caching)
        assert all(request.output == target.alone(prompt, 5) for request in requests)
        drafted = sum(request.drafted for request in requests)
        assert sum(draft.passes) <= most + drafted + len(requests)
        if not caching:
            assert sum(draft.passes) >= most


def test_the_draft_model_runs_at_least_the_last_known_token():
    """The same blocks come back full, known to the draft model, with one token of a chunked prefill still to run."""
    target = Recall(VOCAB, context=64)
    guesser = speculator_for("draft", 2, None, target, Doubtful(80, context=64), 2, 8)
    engine = batcher(target, guesser, num_blocks=2, block_size=8, max_num_batched_tokens=7)
    first, second = [1, 2, 3, 4, 5, 6, 0, 1], [6, 5, 4, 3, 2, 1, 0, 6]
    for prompt, wanted in ((first, 4), (second, 1), (first, 4)):
        engine.add(request := Request(list(prompt), params(wanted, ignore_eos=True)))
        while engine.unfinished:
            engine.step()
        assert request.output == target.alone(prompt, wanted, True)


def test_preempted_requests_draft_on():
    target, draft = Recall(VOCAB), Doubtful(80)
    requests = [Request([i, 2, 3], params(30)) for i in range(6)]
    engine = served(target, Watched(draft, target, 16, 4, 4), requests, num_blocks=16)
    assert engine.scheduler.preemptions > 2
    assert all(request.output == target.alone(request.prompt, 30) for request in requests)
    assert len(target.passes) < 6 * 30 / 2


def test_after_an_interruption_nothing_is_lost():
    target, draft = Recall(VOCAB), Doubtful(80)
    requests = [Request([i, 2, 3], params(20)) for i in range(4)]
    engine = batcher(target, Watched(draft, target, 64, 4, 4), num_blocks=64, max_num_batched_tokens=64)
    for request in requests:
        engine.add(request)
    random = Random(3)

    def interrupted(request: Request) -> str | None:
        if random.random() < 0.2:
            raise KeyboardInterrupt
        return None

    interruptions = 0
    while engine.unfinished:
        try:
            engine.step(interrupted)
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions > 5
    assert all(request.output == target.alone(request.prompt, 20) for request in requests)
    check_pool(engine.scheduler.pool)


# ---------------------------------------------------------------- how many drafts


def drafts_wanted(draft: Doubtful, costs: Costs | None, steps: int = 60, k: int = 8) -> list[int]:
    target = Recall(VOCAB, context=512)
    engine = batcher(
        target,
        DraftModelSpeculator(draft, target, 256, 4, k, costs),
        num_blocks=256,
        max_num_batched_tokens=64,
    )
    request = Request([1, 2, 3], params(500))
    engine.add(request)
    wanted = []
    for _ in range(steps):
        engine.step()
        wanted.append(request.lookahead)
    return wanted


def test_the_number_of_drafts_follows_how_they_fare():
    costs = Costs(draft=0.15, verify=0.05)
    good, poor = (drafts_wanted(Doubtful(right, context=512), costs) for right in (100, 50))
    assert good[-1] == 8
    assert good.index(8) <= 5
    assert sum(poor[20:]) / len(poor[20:]) < 3
    assert set(drafts_wanted(Doubtful(0, context=512), None)) == {8}  # unless it is told to


def test_hopeless_drafts_are_given_up_and_tried_again_now_and_then():
    wanted = drafts_wanted(Doubtful(0, context=512), Costs(0.15, 0.05), steps=100)
    rests = [len(list(group)) for resting, group in itertools.groupby(wanted, lambda k: k == 0) if resting]
    assert rests[:-1] == [DraftModelSpeculator.RETRY] * (len(rests) - 1)
    assert 3 <= len(rests) <= 6
    assert sum(k > 0 for k in wanted) < 0.25 * len(wanted)
    expensive = drafts_wanted(Doubtful(100, context=512), Costs(0.9, 0.2), steps=40)
    assert set(expensive[3:15]) == {0}  # right each time, and still not worth it


# ---------------------------------------------------------------- sampling

TABLE = torch.tensor([[8, 1, 1, 2], [1, 5, 4, 2], [3, 3, 3, 3], [1, 0, 6, 1], [1, 1, 2, 9]]).float()
DRAFT_TABLE = torch.tensor([[4, 4, 1, 1], [1, 6, 2, 3], [1, 4, 1, 4], [3, 3, 3, 3], [2, 0, 0, 7]]).float()


def sampled(k: int, count: int, guesser=None) -> Counter:
    """How often each text of three tokens came out of requests that share one prompt, in too few blocks."""
    target = Doubtful(vocab=4, scores=lambda marks: TABLE.log()[marks % 5])
    draft = Doubtful(vocab=4, scores=lambda marks: DRAFT_TABLE.log()[marks % 5])
    generator = torch.Generator().manual_seed(5)
    how = params(3, temperature=1.0)
    requests = [Request([1, 2], how, generator=generator) for _ in range(count)]
    guesser = guesser or DraftModelSpeculator(draft, target, 90, 1, k)
    engine = served(
        target, guesser, requests, num_blocks=90, block_size=1, max_num_seqs=40, prefix_caching=False
    )
    assert engine.scheduler.preemptions > count / 100
    return Counter(tuple(request.output) for request in requests)


def chi_squared(counts: Counter) -> tuple[float, float]:
    """(χ² in standard deviations above its mean, total variation) of texts against the product of the conditionals."""
    model = Doubtful(vocab=4, scores=lambda marks: TABLE.log()[marks % 5])
    truth = {(): 1.0}
    for _ in range(3):
        logits = torch.cat([model.after([1, 2, *text]) for text in truth])
        odds = distribution(logits, SamplingParams()).tolist()
        truth = {
            (*text, token): truth[text] * odds[i][token]
            for i, text in enumerate(truth)
            for token in range(4)
            if odds[i][token] > 0
        }
    total = sum(counts.values())
    assert set(counts) <= set(truth)
    chi2 = sum((counts[text] - total * p) ** 2 / (total * p) for text, p in truth.items())
    variation = sum(abs(counts[text] / total - p) for text, p in truth.items()) / 2
    return (chi2 - len(truth) + 1) / math.sqrt(2 * (len(truth) - 1)), variation


@pytest.mark.parametrize("k", [1, 3])
def test_whole_texts_come_out_as_often_as_the_target_alone_would_say_them(k):
    surprise, variation = chi_squared(sampled(k, 2500))
    print(f"k={k}: χ² {surprise:+.1f} σ, total variation {variation:.3f}")
    assert surprise < 4


def test_the_same_test_notices_a_wrong_rule_in_the_engine(monkeypatch):
    def replaced_from_p(drafts, q, p, generator):
        tokens = right(drafts, q, p, generator)
        return tokens if len(tokens) > len(drafts) else [*tokens[:-1], draw(p[len(tokens) - 1], generator)]

    right = speculative.accept
    monkeypatch.setattr(speculative, "accept", replaced_from_p)
    surprise, variation = chi_squared(sampled(2, 2500))
    print(f"wrong rule: χ² {surprise:+.1f} σ, total variation {variation:.3f}")
    assert surprise > 8
