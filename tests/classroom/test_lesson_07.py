"""The checks of lesson 07 agree with the guards of ``lessonlib.security``, and can tell mistakes apart."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader import keys
from grader.checks import lesson_07 as hidden
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_07 import (
    choose_threshold,
    hidden_size,
    stream_filter,
    sweep_detector,
    token_limiter,
)
from lessonlib.classroom.exercises import exercises
from lessonlib.security import ExtractionDetector, RateLimiter
from lessonlib.security.attacks import CLIFF, attack_hidden_size

LIMIT = 1000


def generated(make: Any, seed: int) -> dict[str, Any]:
    return next(filter(None, (make(random.Random(seed + i)) for i in range(50_000))))


# ---------------------------------------------------------------- the operating point


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=12),
    st.lists(st.integers(0, 20), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.125, 0.25, 0.5]),
)
def test_the_line_keeps_to_the_budget_and_no_lower_one_does(
    benign: list[int], attacks: list[int], budget: float
):
    inputs: dict[str, Any] = {
        "benign": [b / 20 for b in benign],
        "attacks": [a / 20 for a in attacks],
        "budget": budget,
    }
    found = choose_threshold.right(inputs)

    def wrong(line: float) -> float:
        return float(np.mean([score >= line for score in inputs["benign"]]))

    assert wrong(found["threshold"]) <= budget
    lower = [s for s in inputs["benign"] + inputs["attacks"] if s < found["threshold"]]
    assert all(wrong(line) > budget for line in lower)
    flagged = [score >= found["threshold"] for score in inputs["attacks"]]
    assert found["recall"] == pytest.approx(np.mean(flagged))


# ---------------------------------------------------------------- the limiter


@given(st.integers(0, 10**6), st.sampled_from(["a", "ab"]), st.sampled_from([0.0, 0.7]))
def test_no_minute_ever_holds_more_than_the_limit(seed: int, users: str, settles: float):
    inputs = generated(token_limiter.making([], 10, users, settles), seed)
    admitted: list[list[Any]] = []
    for step, answer in zip(inputs["steps"], token_limiter.answers(inputs), strict=True):
        if step[0] == "settle":
            next(entry for entry in reversed(admitted) if entry[0] == step[1])[1] = step[2]
        elif answer == 0:
            admitted.append(step[1:])
        for user in {entry[0] for entry in admitted}:
            own = [(tokens, at) for name, tokens, at in admitted if name == user]
            for _, end in own:
                assert sum(tokens for tokens, at in own if end - 60 < at <= end) <= inputs["limit"]


@given(st.integers(0, 10**6))
def test_the_wait_is_exact(seed: int):
    """A second earlier it is refused, after the wait it is let in: on the same limiter, and never twice."""
    steps = generated(token_limiter.making([token_limiter.WHOLE_MINUTE], 8), seed)
    waits = token_limiter.answers(steps)
    i = next(i for i, wait in enumerate(waits) if wait)
    for seconds, let_in in ((waits[i] - 1, False), (waits[i], True)):
        method, user, tokens, now = steps["steps"][i]
        script = [*steps["steps"][:i], [method, user, tokens, now + seconds]]
        answer = token_limiter.answers({"limit": steps["limit"], "steps": script})[-1]
        assert (answer == 0) == let_in


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 1200), st.integers(0, 70)), max_size=12))
def test_the_courses_limiter_says_the_same(asked: list[tuple[str, int, int]]):
    """At moments 3 s apart, where its slices are as fine as the exercise's entries."""
    now, clock = 0, [0.0]
    engine = RateLimiter(1_000_000, LIMIT, clock=lambda: clock[0])
    played = token_limiter.Played(LIMIT)
    for user, tokens, pause in asked:
        now += 3 * pause
        clock[0] = float(now)
        decision, wait = engine.check(user, tokens), played.admit(user, tokens, now)
        assert bool(decision) == (wait == 0)
        assert decision.retry_after == (None if wait is None else pytest.approx(wait, abs=0.002))


# ---------------------------------------------------------------- the hidden size


@given(st.integers(0, 10**6))
def test_the_attack_on_a_server_finds_what_the_exercise_finds(seed: int):
    inputs = generated(hidden_size.making(more=(9, 12)), seed)
    hidden_numbers, prompts, tokens, _ = (inputs[key] for key in hidden_size.KEYS)
    shown = hidden_size.api_answers(*(inputs[key] for key in hidden_size.KEYS))
    logits = shown[:, 1:] - shown[:, :1]
    falls = torch.linalg.svdvals(logits)
    assert int((falls[:-1] / falls[1:]).argmax()) + 1 == hidden_numbers == hidden_size.right(inputs)
    rows = iter(range(prompts))
    asked: dict[tuple[int, ...], int] = {}

    def oracle(prompt: Any, logit_bias: Any, top_k: int) -> dict[int, float]:
        row = asked.setdefault(tuple(prompt), next(rows, 0))
        return {token: float(shown[row, token]) for token in logit_bias}

    stolen = attack_hidden_size(oracle, tokens, start=prompts, limit=prompts, top_k=tokens)
    assert stolen.hidden_size == hidden_numbers and stolen.gap >= CLIFF


def test_what_the_api_shows_is_a_distribution():
    shown = hidden_size.api_answers(5, 9, 20, 3)
    assert torch.allclose(shown.exp().sum(1), torch.ones(9, dtype=torch.float64), atol=1e-3)
    shown[0, 0] = 7
    assert hidden_size.api_answers(5, 9, 20, 3)[0, 0] != 7, "a student cannot spoil the next trial"


# ---------------------------------------------------------------- the detector


def test_the_small_detector_and_the_courses_notice_the_same_people():
    sweep = [f"define word number {word}" for word in map(chr, range(0x4E00, 0x4E00 + 150))]
    monitor = ["are you alive"] * 150
    for prompts, suspicious in ((sweep, True), (monitor, False)):
        small = sweep_detector.Played(100)
        large = ExtractionDetector(clock=lambda: 0.0)
        assert (True in [small.check("ann", prompt) for prompt in prompts]) == suspicious
        verdicts = [large.check("ann", prompt, "yes")["suspicious"] for prompt in prompts]
        assert (True in verdicts) == suspicious


# ---------------------------------------------------------------- the stream

SECRETS = st.text("ab", min_size=2, max_size=5)


@given(SECRETS, st.lists(st.text("abc", max_size=5), max_size=8))
def test_cut_in_any_way_it_is_replace_and_nothing_is_held_for_nothing(secret: str, pieces: list[str]):
    played, shown, seen = stream_filter.Played(secret), "", ""
    for piece in pieces:
        shown, seen = shown + played.push(piece), seen + piece
        if played.rest:  # it may still become the secret
            completed = seen + secret[len(played.rest) :]
            assert completed.replace(secret, stream_filter.MARK) == shown + stream_filter.MARK
        for end in ("a", "b", secret):
            assert (seen + end).replace(secret, stream_filter.MARK).startswith(shown)
    assert shown + played.finish() == "".join(pieces).replace(secret, stream_filter.MARK)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("exercise", exercises("07"), ids=lambda e: e.name)
def test_every_input_is_valid_and_every_mistake_can_be_seen(exercise: Any):
    twin = getattr(hidden, exercise.name)
    for seed in range(3):
        for cases in (exercise.cases, twin.cases):
            shown = {mistake.name: False for mistake in exercise.misconceptions}
            for case in cases:
                for inputs in (*case.examples, *case.generated(random.Random(seed))):
                    assert case.valid(inputs), (case.title, inputs)
                    right = case.expected(inputs)
                    for mistake in exercise.misconceptions:
                        assert mistake.gives is not None
                        try:
                            given_ = mistake.gives(inputs)
                        except Exception:  # Skip: it makes no difference here
                            continue
                        ways = given_ if isinstance(given_, tuple) else (given_,)
                        shown[mistake.name] |= all(case.distance(inputs, right, way) > 1 for way in ways)
            assert all(shown.values()), [name for name, seen in shown.items() if not seen]


def test_a_card_shows_the_script_and_the_call():
    class TokenLimiter:
        def __init__(self, tokens_per_minute):
            self.left = tokens_per_minute

        def admit(self, user, tokens, now):
            self.left -= 1
            return 0 if self.left >= 0 else 60

        def settle(self, user, used):
            pass

    from lessonlib.classroom.exercises import find
    from lessonlib.classroom.feedback import card

    text = card(run(find("07.TokenLimiter"), TokenLimiter)).text()
    assert "limiter = TokenLimiter(1000)\n    limiter.admit('ann', 600, 0)" in text
    inputs = {"hidden": 3, "prompts": 5, "tokens": 12, "seed": 0}
    names: dict[str, Any] = {"hidden_size": lambda shown: tuple(shown.shape)}
    *imports, call = find("07.hidden_size").call_text(inputs).splitlines()
    exec("\n".join(imports), names)
    assert eval(call, names) == (5, 12), "what the card prints can be pasted"


# ---------------------------------------------------------------- the quiz


def test_the_figures_of_the_quiz_are_right():
    bank, key = load("07"), keys.load_key("07")
    flagged = 0.9 * 100, 0.01 * 99_900
    assert bank.question("base-rate").answer == pytest.approx(flagged[0] / sum(flagged), abs=0.001)
    scores = {"benign": [0.1, 0.3, 0.5, 0.8], "attacks": [0.2, 0.4, 0.6, 0.9], "budget": 0.25}
    assert bank.question("operating-point").answer == choose_threshold.right(scores)["threshold"]
    assert bank.question("flood-cost").answer == 20 * (100 + 500 * 4)
    assert bank.question("rank").answer == 64
    assert key["hold-back"].answer == stream_filter.kept("xabcabca", "abcabd")
    pieces = "".join(p.replace("tiger", "***") for p in ["a ti", "ger and a tig", "er, tiger"])
    choice = next(c for c in key["stream-pieces"].question.choices if c.id == key["stream-pieces"].answer)
    assert choice.text == f"`{pieces}`"
    steps = [["admit", "a", tokens, at] for tokens, at in ((500, 0), (300, 20), (200, 30), (700, 40))]
    assert token_limiter.answers({"limit": LIMIT, "steps": steps}) == [0, 0, 0, key["wait"].answer]
    most = int(str(key["reserve"].answer).removesuffix(".0"))
    for more, let_in in ((0, True), (1, False)):
        steps = [["admit", "a", 750, 0], ["settle", "a", 200], ["admit", "a", most + more, 1]]
        assert (token_limiter.answers({"limit": LIMIT, "steps": steps})[-1] == 0) == let_in
    assert key["cached-blocks"].answer == 40 // 16 * 16


def test_the_codes_of_the_quiz_do_what_it_says():
    limiter = RateLimiter(requests_per_minute=3)
    assert sum(bool(limiter.check(f"user {i}")) for i in range(10)) == 10  # "forged"
    fixed = token_limiter.Played(LIMIT, token_limiter.FIXED)
    assert [fixed.admit("a", 1000, now) for now in (55, 60)] == [0, 0]  # "fixed-window"
    assert fixed.admit("a", 1, 65)


def test_the_quiz_has_what_it_needs():
    questions = load("07").questions
    practice = [q for q in questions if q.practice]
    assert len(practice) >= 8 and len(questions) - len(practice) >= 6
    counted = [q for q in questions if q.kind in ("numeric", "ordering") or "```" in q.text]
    assert len(counted) >= len(questions) // 2
    single = {q.id: q for q in questions if q.kind == "single"}
    answers = {i: next((c.id for c in q.choices if c.correct), "") for i, q in single.items()}
    answers |= {i: str(entry.answer) for i, entry in keys.load_key("07").items() if i in single}
    assert len({*answers.values()}) >= 4, "the right choices stand at all positions"
    for name, question in single.items():
        right = next(c for c in question.choices if c.id == answers[name])
        others = [len(c.text) for c in question.choices if c is not right]
        assert len(right.text) <= 1.3 * max(others), f"{name}: the right choice sticks out"
