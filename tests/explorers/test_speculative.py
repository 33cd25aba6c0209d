"""What the picture shows of a round is what the engine did, and the browser's formulas are the engine's."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import explorers
from lessonlib.engine import SamplingParams, Tokenizer, Transformer, load_model, load_tokenizer
from lessonlib.engine.acceptance import Costs, expected_tokens, speedup
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.errors import BadParameter, PromptTooLong
from lessonlib.engine.paged_cache import PagedCache
from lessonlib.engine.sampling import distribution
from lessonlib.engine.scheduler import Request, Scheduler
from lessonlib.engine.speculative import DraftModelSpeculator
from lessonlib.explorers.pictures.speculative import counters, described, record, title_of_round

from ..engine.conftest import QUIET

MATHS = "shared/speculation.js"
TEMPERATURE = 0.7


def blurred(model: Transformer) -> Transformer:
    """A draft that agrees with the model now and then."""
    draft = copy.deepcopy(model)
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(0.08 * weight.std() * torch.randn(weight.shape, generator=dice))
    return draft


@pytest.fixture(scope="module")
def models(tiny: Path) -> tuple[Transformer, Transformer, Tokenizer]:
    model = load_model(tiny)
    return model, blurred(model), load_tokenizer(tiny)


@pytest.fixture(scope="module")
def prompts(models) -> list[list[int]]:
    return [models[2].encode(text) for text in ("def f(x):", "import os\n", "class A:\n    pass")]


@pytest.fixture(scope="module", params=[1, 3, 6])
def recorded(request: pytest.FixtureRequest, models, prompts):
    model, draft, _ = models
    return request.param, record(model, draft, prompts, request.param, TEMPERATURE, rounds=9)


def every(recorded) -> list:
    return [round for rounds in recorded[1] for round in rounds]


def test_some_drafts_stand_and_some_do_not(recorded):
    """Else the tests below would say little."""
    found = counters(every(recorded))
    assert 0 < found["accepted"] < found["judged"]


def test_each_round_has_all_its_drafts_and_follows_the_last(recorded, prompts):
    k, rounds_of = recorded
    for prompt, rounds in zip(prompts, rounds_of, strict=True):
        assert len(rounds) == 9
        assert rounds[0].before[: len(prompt)] == prompt and len(rounds[0].before) == len(prompt) + 1
        for one, following in itertools.pairwise(rounds):
            assert len(one.drafts) == k
            assert following.before == one.before + one.tokens


def test_p_and_q_are_the_models_own(recorded, models):
    model, draft, _ = models
    params = SamplingParams(temperature=TEMPERATURE)
    for one in every(recorded)[::4]:
        ids = torch.tensor([[*one.before, *one.drafts]])
        with torch.inference_mode():
            p = distribution(model(ids).logits[0, len(one.before) - 1 :], params)
            q = distribution(draft(ids).logits[0, len(one.before) - 1 : -1], params)
        assert torch.allclose(one.p, p, atol=2e-5) and torch.allclose(one.q, q, atol=2e-5)


def test_the_noted_numbers_explain_every_verdict(recorded):
    for one in every(recorded):
        assert one.tokens[: one.stood] == one.drafts[: one.stood]
        assert len(one.luck) == min(one.stood + 1, len(one.drafts))
        for i, (token, luck) in enumerate(zip(one.drafts, one.luck, strict=False)):
            assert (luck * float(one.q[i, token]) < float(one.p[i, token])) == (i < one.stood)
        if one.stood < len(one.drafts):
            at, token = one.stood, one.tokens[-1]
            assert one.p[at, token] > one.q[at, token], "what is resampled is what p has more of"


def test_taking_notes_changes_nothing(recorded, models, prompts):
    k, rounds_of = recorded
    model, draft, _ = models
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=200, ignore_eos=True)
    pool = BlockPool(60, 16)
    cache = PagedCache(model.config, 60, 16, model.dtype, model.device)
    plain = ContinuousBatcher(
        model, cache, Scheduler(pool, 3, 200), DraftModelSpeculator(draft, model, 60, 16, k)
    )
    requests = [
        Request(list(ids), params, generator=torch.Generator().manual_seed(i))
        for i, ids in enumerate(prompts)
    ]
    for request in requests:
        plain.add(request)
    for _ in range(10):
        plain.step()
    for request, rounds in zip(requests, rounds_of, strict=True):
        last = rounds[-1]
        assert [*request.prompt, *request.output] == last.before + last.tokens
        assert request.accepted == counters(rounds)["accepted"]
        assert request.drafted == counters(rounds)["drafted"]


def test_counters_add_up(recorded):
    k, _ = recorded
    found = counters(every(recorded))
    assert found["passes"] == 27 and found["drafted"] == 27 * k
    assert found["tokens"] == found["accepted"] + found["passes"]
    rejections = found["judged"] - found["accepted"]
    assert rejections == sum(one.stood < k for one in every(recorded))


@pytest.mark.parametrize("rounds", [1, 2, 6, 8])
def test_every_prompt_gets_its_rounds(models, prompts, rounds: int):
    """However the blocks of memory divide: nobody waits for another one's end."""
    for k in (1, 3):
        assert all(
            len(found) >= rounds for found in record(*models[:2], prompts, k, TEMPERATURE, rounds=rounds)
        )


def test_a_draft_as_good_as_the_target_always_stands(models, prompts):
    model, _, _ = models
    rounds = record(model, model, prompts[:1], 3, TEMPERATURE, rounds=5)[0]
    assert [one.stood for one in rounds] == [3] * 5


def test_the_browser_says_of_each_draft_what_became_of_it(recorded, models, node):
    k, rounds_of = recorded
    shown = [described(one, models[2]) for one in rounds_of[0]]
    found = node(
        MATHS,
        """input.map((round) => round.drafts.map((draft, i) =>
            [m.verdict(round, i), draft.p === null ? null : draft.luck < m.chance(draft)]))""",
        shown,
    )
    for one, verdicts in zip(rounds_of[0], found, strict=True):
        expected = [["stands", True]] * one.stood
        expected += [["rejected", False]] * (one.stood < k)
        expected += [["not judged", None]] * (k - len(expected))
        assert verdicts == expected


def test_the_deciding_place_names_the_tokens_that_matter(recorded, models):
    for one in every(recorded):
        shown = described(one, models[2])
        place = {token["piece"]: token for token in shown["place"]}
        assert shown["last"] in place
        assert float(one.p[one.stood, one.tokens[-1]]) == pytest.approx(place[shown["last"]]["p"], rel=1e-4)
        if one.stood < len(one.drafts):
            assert shown["drafts"][one.stood]["piece"] in place
            expected = torch.minimum(one.p[one.stood], one.q[one.stood]).sum()
            assert shown["overlap"] == pytest.approx(float(expected), rel=1e-4)
        assert len(shown["before"]) <= 70


SHARES = [i / 20 for i in range(21)]


def test_formulas_are_those_of_the_engine(node):
    found = node(
        MATHS,
        """input.flatMap((a) => [1, 2, 5, 8].map((k) =>
            [m.expectedTokens(a, k), input.map((c) => [m.speedup(a, k, c), m.bestK(a, c, 8)])]))""",
        SHARES,
    )
    cases = [(a, k) for a in SHARES for k in (1, 2, 5, 8)]
    for (a, k), (tokens, rows) in zip(cases, found, strict=True):
        assert tokens == pytest.approx(expected_tokens(a, k))
        for c, (speed, best) in zip(SHARES, rows, strict=True):
            assert speed == pytest.approx(speedup(a, k, c))
            # Where two numbers of drafts are exactly as fast, rounding may name either.
            wanted = Costs(draft=c, verify=0.0).best_k(a, 8)
            assert best == wanted or speedup(a, best, c) == pytest.approx(
                speedup(a, wanted, c) if wanted else 1
            )


@given(a=st.floats(0, 0.999), k=st.integers(1, 12))
@QUIET
def test_expected_tokens_is_the_closed_form(a: float, k: int):
    assert expected_tokens(a, k) == pytest.approx((1 - a ** (k + 1)) / (1 - a), rel=1e-6)


def test_the_sentence_is_the_same_in_python_and_javascript(node):
    cases = [(k, stood) for k in (1, 2, 8) for stood in range(k + 1)]
    found = node(MATHS, "input.map(([k, stood]) => m.roundTitle(4, k, stood))", cases)
    assert found == [title_of_round(4, k, stood) for k, stood in cases]
    assert len(set(found)) == len(cases)


def test_the_widget_starts_at_a_round_that_shows_something(models, tiny: Path):
    model, draft, tokenizer = models
    widget = explorers.speculative(model, draft, "def f(x):", tokenizer=tokenizer, temperature=TEMPERATURE)
    start = widget.data["defaults"]
    assert [run["k"] for run in widget.data["runs"]] == list(range(1, 9))
    assert all(len(run["rounds"]) == 8 and run["passes"] == 24 for run in widget.data["runs"])
    opened = widget.data["runs"][start["k"] - 1]["rounds"][start["round"] - 1]
    assert 0 < opened["stood"] < start["k"] and start["round"] > 1
    judged, accepted = (sum(run[name] for run in widget.data["runs"]) for name in ("judged", "accepted"))
    assert start["acceptance"] == pytest.approx(accepted / judged, abs=0.005)
    assert start["cost"] == 1.0  # the draft is as large as its target
    assert "no number of drafts pays" in widget.summary()


def test_no_label_is_cut_off_on_paper(models):
    model, draft, tokenizer = models
    figure = explorers.speculative(model, draft, "def f(x):", tokenizer=tokenizer, k=8).figure()
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        for label in ax.texts:
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, label.get_text()


def test_bad_calls_say_what_to_do(tiny: Path):
    with pytest.raises(BadParameter, match="give one above 0"):
        explorers.speculative(tiny, tiny, temperature=0)
    with pytest.raises(BadParameter, match="from 1 to 8"):
        explorers.speculative(tiny, tiny, k=9)
    with pytest.raises(BadParameter, match="from 1 on"):
        explorers.speculative(tiny, tiny, rounds=0)
    with pytest.raises(PromptTooLong, match="fewer rounds"):
        explorers.speculative(tiny, tiny, "x = 1\n" * 100)
