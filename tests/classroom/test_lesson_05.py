"""The checks of lesson 05 know what they talk about: they agree with the engine, and their inputs can tell."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader import keys
from lessonlib.classroom.bank import load
from lessonlib.classroom.cases import Distribution, bound, total_variation
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_05 import accept, choose_k, estimate, verify
from lessonlib.classroom.checks.lesson_05 import accept_mistakes as mistakes
from lessonlib.classroom.exercises import AnyOf, Skip, exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.classroom.toys import ToyModel
from lessonlib.engine import acceptance as engine


def inputs_of(module, seed: int = 3):
    return [i for case in module.CASES for i in (*case.examples, *case.generated(random.Random(seed)))]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.booleans(), max_size=6))
def test_expected_tokens_are_the_engines(text: list[int], right: list[bool]):
    """Drafts that are right and wrong in any order, so that some agree again behind a wrong one."""
    model, drafts = ToyModel(), list[int]()
    for is_right in right:
        own = int(model(torch.tensor([[*text, *drafts]])).logits[0, -1].argmax())
        drafts.append(own if is_right else (own + 1) % 10)
    judges = model(torch.tensor([[*text, *drafts]])).logits[0, len(text) - 1 :].argmax(-1).tolist()
    assert verify.right({"text": text, "drafts": drafts}) == engine.agree(drafts, judges)


@given(st.integers(0, 10**6))
def test_the_answers_are_distributions_and_the_first_token_follows_p(seed: int):
    inputs = next(filter(None, (accept.making([])(random.Random(seed + i)) for i in range(1000))))
    assert sum(mistakes.answers(inputs).values()) == pytest.approx(1)
    one = {"q": inputs["q"][:1], "p": inputs["p"][:2], "drafts": [], "_drawn": True}
    first = mistakes.spread(one)
    assert [first.get((i,), 0.0) for i in range(len(one["p"][0]))] == pytest.approx(one["p"][0])


@pytest.mark.parametrize("seed", range(3))
def test_expected_answers_are_the_engines(seed: int):
    inputs = next(filter(None, (accept.making([], (2, 3))(random.Random(seed + i)) for i in range(1000))))
    made, draws = accept.prepare(inputs), 20_000
    found = Counter(
        tuple(engine.accept(made["drafts"], made["q"], made["p"], made["generator"])) for _ in range(draws)
    )
    expected = mistakes.answers(inputs)
    share: Distribution = {answer: count / draws for answer, count in found.items()}
    assert total_variation(share, expected) < bound(draws, len(expected))


@given(st.floats(0, 1), st.integers(0, 12), st.floats(0, 2), st.floats(0, 1))
def test_expected_speeds_are_the_engines(a: float, k: int, c: float, v: float):
    inputs = {"acceptance": a, "k": k, "draft_cost": c, "verify_cost": v}
    assert estimate.right(inputs) == pytest.approx((engine.expected_tokens(a, k), engine.speedup(a, k, c, v)))


@given(st.integers(0, 10**6))
def test_the_chosen_number_is_the_engines(seed: int):
    inputs = next(filter(None, (choose_k.making()(random.Random(seed + i)) for i in range(1000))))
    rate = choose_k.acceptance(inputs["rounds"])
    costs = engine.Costs(inputs["draft_cost"], inputs["verify_cost"])
    assert choose_k.right(inputs) == costs.best_k(rate, inputs["limit"])
    pace = engine.Pace(0.0, 0.0)
    for drafted, accepted in inputs["rounds"]:
        pace.observe(accepted, drafted, fading=1.0)
    assert pace.acceptance == pytest.approx(rate)


@pytest.mark.parametrize("exercise", exercises("05"), ids=lambda e: e.id)
def test_every_input_is_valid_and_can_be_pasted(exercise):
    names = {"torch": torch, "ToyModel": ToyModel, exercise.name: lambda *args, **options: (args, options)}
    for case in exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert case.valid(inputs), inputs
            args, options = eval(exercise.call_text(inputs), names)
            made = exercise.arguments(inputs)
            for name, shown in [*zip(exercise.positional, args, strict=True), *options.items()]:
                if isinstance(shown, torch.Tensor):
                    assert torch.equal(shown, made[name]), name
                elif not isinstance(shown, ToyModel | torch.Generator):
                    assert shown == made[name], name


@pytest.mark.parametrize("module", [verify, estimate, choose_k], ids=lambda m: m.__name__.split(".")[-1])
def test_every_simulated_mistake_can_be_told_apart(module):
    simulated = [m for m in module.MISCONCEPTIONS if m.gives is not None]
    assert len(simulated) >= 9
    for mistake in simulated:

        def differs(inputs, mistake=mistake):
            try:
                given = mistake.gives(inputs)
            except Skip:
                return False
            options = given if isinstance(given, AnyOf) else (given,)
            return all(option != module.right(inputs) for option in options)

        assert any(map(differs, inputs_of(module))), mistake.name


def test_every_mistake_of_the_draws_can_be_told_apart():
    inputs = [i for i in inputs_of(accept) if "_twice" not in i]
    for mistake in mistakes.MISCONCEPTIONS:
        if mistake.gives is not None:
            assert any(accept.shows(mistake.name, i) for i in inputs), mistake.name


def test_the_mistake_of_the_web_is_biased_and_the_rule_is_not():
    inputs = {"drafts": [], "q": [accept.Q], "p": [accept.P, accept.LAST], "_drawn": True}
    p: Distribution = {(i,): share for i, share in enumerate(accept.P)}
    assert total_variation(mistakes.spread(inputs), p) == pytest.approx(0, abs=1e-12)
    # 0.3 of the drafts are replaced from p, where A has 0.2 and B 0.3: both had their share.
    assert total_variation(mistakes.spread(inputs, mistakes.FROM_P), p) == pytest.approx(0.3 * 0.5)


def test_arguments_that_break_later_are_told_as_changed():
    def subtracting(drafts, q, p, generator=None):
        for i, token in enumerate(drafts):
            if torch.rand(1, generator=generator) >= p[i, token] / q[i, token]:
                return [*drafts[:i], int(torch.multinomial(p[i].sub_(q[i]).clamp_min(0), 1))]
        return [*drafts, int(torch.multinomial(p[-1], 1, generator=generator))]

    assert run(find("05.accept"), subtracting).name == "changes its input"


def test_the_card_of_a_random_answer_shows_shares():
    def no_bonus(drafts, q, p, generator=None):
        return list(drafts)

    text = card(run(find("05.accept"), no_bonus)).text()
    assert "This looks like: no bonus token" in text and "returns [2]" in text and "800 draws" in text


def test_the_figures_of_the_quiz_are_right():
    quiz, key = load("05"), keys.load_key("05")
    assert quiz.question("tokens-a-pass").is_right(engine.expected_tokens(0.5, 3))
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.1, 0.4])
    residual = (p - q).clamp_min(0)
    assert quiz.question("residual").is_right(float(residual[2] / residual.sum()))
    speeds = {"random": (0, 0.2), "itself": (1, 1), "ngram": (0.5, 0), "model": (0.8, 0.1)}
    listed = [choice.id for choice in quiz.question("helpers").choices]
    assert listed == sorted(speeds, key=lambda name: engine.speedup(speeds[name][0], 4, speeds[name][1]))

    rate = choose_k.acceptance([(4, 1), (4, 4), (4, 0)])
    assert key["log-rate"].answer == pytest.approx(rate, abs=key["log-rate"].tolerance)
    assert key["foresee"].answer == pytest.approx(engine.speedup(0.6, 2, 0.2, 0.05), abs=0.006)
    two = {"drafts": [], "q": [[1.0, 0.0]], "p": [[0.5, 0.5], [0.5, 0.5]], "_drawn": True}
    assert key["two-tokens"].answer == pytest.approx(mistakes.spread(two, mistakes.FROM_P)[(0,)])
    choices = {choice.id: int(choice.text) for choice in key["best-k"].question.choices}
    assert choices[str(key["best-k"].answer)] == max(
        choices.values(), key=lambda k: engine.speedup(0.5, k, cost_ratio=0.25)
    )
    means = {"a": (0.7, 2), "b": (0.9, 1), "c": (0.8, 3), "d": (0.5, 8)}
    assert key["mean-tokens"].answer == sorted(means, key=lambda name: engine.expected_tokens(*means[name]))


def test_right_choices_are_not_the_longest_and_stand_in_different_places():
    right_places = []
    for question in load("05").questions:
        if question.kind == "single" and question.practice:
            right = next(c for c in question.choices if c.correct)
            assert len(right.text) <= max(len(c.text) for c in question.choices if c is not right), (
                question.id
            )
            right_places.append(question.choices.index(right))
    assert len({*right_places}) == len(right_places)
