"""The checks of lesson 01 know what they talk about: they agree with the engine, and their inputs can
tell."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_01 import count_work, generate, sample
from lessonlib.classroom.checks.lesson_01 import generate_mistakes as loops
from lessonlib.classroom.checks.lesson_01 import sample_mistakes as mistakes
from lessonlib.classroom.exercises import exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.classroom.toys import ToyModel
from lessonlib.engine import ModelConfig, SamplingParams, costs
from lessonlib.engine.sampling import distribution

CONFIG = ModelConfig(16, 8, 8, 1, 1, 1, 8)


@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans())
def test_expected_draws_are_the_engines(seed: int, temperature: bool, top_k: bool, top_p: bool):
    make = sample.making([], temperature, top_k, top_p)
    inputs = next(filter(None, (make(random.Random(seed + i)) for i in range(10_000))))
    params = SamplingParams(**{k: inputs[k] for k in ("temperature", "top_k", "top_p") if k in inputs})
    for row, expected in zip(inputs["logits"], mistakes.expected(inputs), strict=True):
        engine = distribution(torch.tensor(row, dtype=torch.float64), params)
        assert [expected.get(i, 0.0) for i in range(len(row))] == pytest.approx(engine.tolist(), abs=1e-9)


def test_expected_counts_are_the_engines():
    for prompt, new in [(1, 1), (5, 1), (3, 3), (7, 5), (40, 20)]:
        for cached in (False, True):
            expected = costs.predict(CONFIG, prompt, new, use_cache=cached).tokens
            assert count_work.right(prompt, new, cached) == expected
    assert count_work.measured(7, 5, True) == 11 and count_work.measured(7, 5, False) == 45


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_the_toy_model_follows_its_rule_at_every_position(tokens: list[int], a: int, b: int, c: int):
    logits = ToyModel(16, 10, (a, b, c))(torch.tensor([tokens])).logits
    assert logits.shape == (1, len(tokens), 10) and logits.dtype == torch.float32
    rule = {"_rule": (a, b, c)}
    predicted = [loops.next_token(tokens[: i + 1], rule) for i in range(len(tokens))]
    assert logits[0].argmax(-1).tolist() == predicted


@pytest.mark.parametrize(
    "ids, sentence",
    [
        ([[1, 2]], "takes token ids as a torch.int64 tensor (batch, length); it got a list"),
        (torch.tensor([1, 2]), "it got shape (2,), torch.int64"),
        (torch.tensor([[1.0]]), "torch.float32"),
        (torch.zeros(1, 0, dtype=torch.int64), "no tokens at all"),
        (torch.zeros(1, 17, dtype=torch.int64), "got 17 tokens, but its context holds only 16"),
        (torch.tensor([[10]]), "only token ids 0 to 9"),
    ],
)
def test_the_toy_model_is_strict(ids, sentence):
    with pytest.raises(ValueError) as failure:
        ToyModel()(ids)
    assert sentence in str(failure.value)


def test_the_toy_model_counts_its_work():
    model = ToyModel()
    model(torch.zeros(2, 3, dtype=torch.int64))
    model(torch.zeros(1, 4, dtype=torch.int64))
    assert (model.forward_calls, model.tokens) == (2, 10)


@pytest.mark.parametrize("exercise", exercises("01"), ids=lambda e: e.id)
def test_every_input_is_valid_and_can_be_pasted(exercise):
    import lessonlib.classroom.toys as toys

    names = {
        "torch": torch,
        "ToyModel": toys.ToyModel,
        exercise.name: lambda *args, **options: (args, options),
    }
    for case in exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert inputs in case.examples or case.valid(inputs), inputs
            args, options = eval(exercise.call_text(inputs), names)
            made = exercise.arguments(inputs)
            assert len(args) + len(options) <= len(made)


def test_every_named_mistake_of_the_draws_can_be_told_apart():
    """For each, some visible input leads to a distribution clearly different from the right one."""
    inputs = [i for case in sample.CASES for i in (*case.examples, *case.generated(random.Random(3)))]
    for name in (
        mistakes.MULTIPLIES,
        mistakes.NO_TEMPERATURE,
        mistakes.NO_TOP_K,
        mistakes.NO_TOP_P,
        mistakes.ARGMAX,
        mistakes.MORE,
        mistakes.ASCENDING,
        mistakes.SINGLE,
        mistakes.DROPS_PLACE,
        mistakes.ONE_TOO_MANY,
        mistakes.DROPS,
        mistakes.UNSORTED,
        mistakes.COUNTS_REMOVED,
        mistakes.TOP_P_FIRST,
        mistakes.ZEROED,
        mistakes.PLACE,
        mistakes.TWICE,
        mistakes.NO_SOFTMAX,
    ):
        assert any(i.get("temperature") != 0 and sample.shows(name, i) for i in inputs), name


def test_every_named_mistake_of_the_loop_can_be_told_apart():
    inputs = [i for case in generate.CASES for i in (*case.examples, *case.generated(random.Random(3)))]
    simulated = [m for m in loops.MISCONCEPTIONS if m.gives is not None]
    assert len(simulated) >= 15
    for mistake in simulated:

        def differs(i, mistake=mistake):
            given = mistake.gives(i)
            return loops.grow(i) not in given if isinstance(given, tuple) else given != loops.grow(i)

        assert any(map(differs, inputs)), mistake.name


def _card(exercise_id: str, function) -> str:
    return card(run(find(exercise_id), function)).text()


def _sampler(threshold):
    """A right sample() without top_p, but for the way it looks up the k-th largest logit."""

    def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
        if temperature == 0:
            return logits.argmax(-1)
        logits = logits / temperature
        if top_k:
            kth = threshold(logits.topk(min(top_k, logits.shape[-1])).values)
            logits = logits.masked_fill(logits < kth, float("-inf"))
        return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)

    return sample


def test_the_shown_call_fails_when_it_is_pasted():
    broken = _sampler(lambda best: best[:, -1])
    text = _card("01.sample", broken)
    call = next(line.strip() for line in text.splitlines() if line.strip().startswith("sample("))
    assert "This looks like: the threshold has shape (batch,)" in text
    with pytest.raises(RuntimeError, match="must match the size"):
        eval(call, {"torch": torch, "sample": broken})


def test_the_generator_card_can_be_replayed():
    def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
        return torch.multinomial(logits.softmax(-1), 1).squeeze(-1)

    text = _card("01.sample", sample)
    assert "sample(torch.zeros(32, 4), generator=torch.Generator().manual_seed(0))" in text
    assert "called twice with the same seed" in text


def test_shrinking_keeps_the_generator_case_possible():
    hidden = sample.generator_case(make=lambda rng: (40, 3, 7), count=1)
    (inputs,) = hidden.generated(random.Random(1))
    assert hidden.valid(inputs)
    assert not hidden.valid({"logits": [[0.0]], "_seed": 1, "_twice": True})


def test_a_float_is_told_about_division():
    text = _card("01.count_work", lambda prompt, new, use_cache: (prompt + new - 1) / 1)
    assert "/ always gives a float, and // between ints a whole number" in text


def test_a_flat_list_is_not_told_about_tensor_shapes():
    text = _card("01.generate", lambda model, prompts, max_tokens, eos_id: [*prompts[-1], 7])
    assert "one flat list" in text and "result.shape" not in text
