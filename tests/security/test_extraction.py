"""Sweeps are found soon, people are left alone, and a user costs a few kilobytes whatever they ask."""

from __future__ import annotations

import gc
import random
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.errors import BadParameter
from lessonlib.security import extraction
from lessonlib.security.evaluation import extraction as evaluation
from lessonlib.security.extraction import ExtractionDetector

from ..engine.conftest import QUIET, is_one_sentence, refuses
from .test_logit_surface import CalledAlone

NAMES = [
    f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("rt", "nd", "lsk", "mper", "ss", "dle", "n")
]
SIZE = 4500  # bytes a user, at most


class Watch:
    """A detector with a clock of its own; ``ask`` says whether the user is suspicious now."""

    def __init__(self, gap: float = 1.0, **settings):
        self.now, self.gap, self.asked = 0.0, gap, 0
        self.detector = ExtractionDetector(clock=lambda: self.now, **settings)

    def ask(self, prompt: str, response: str | None = None, user: str = "mallory") -> bool:
        self.now += self.gap
        self.asked += 1
        return self.judge(prompt, response, user)["suspicious"]

    def judge(self, prompt: str, response: str | None = None, user: str = "mallory"):
        answer = f"answer {self.asked}" if response is None else response
        verdict = self.detector.check(user, prompt, answer)
        assert set(verdict) == {"suspicious", "reason"}
        assert verdict["suspicious"] is bool(verdict["reason"])
        return verdict


# ---------------------------------------------------------------- single signs


@pytest.mark.parametrize(
    "template", ["{}", "Define {}.", "What is the opposite of the word {} in plain English?"]
)
def test_a_sweep_is_found_at_its_limit_and_named(template):
    watch = Watch(gap=0.0, sweep=50, near_duplicates=10**6)
    flags = [watch.ask(template.format(name)) for name in NAMES[:80]]
    assert 50 <= flags.index(True) + 1 <= 60  # a filter that remembers words is sometimes mistaken
    verdict = watch.judge(template.format(NAMES[80]))
    assert "one pattern with words not used before" in verdict["reason"]
    assert is_one_sentence(verdict["reason"])
    assert NAMES[80] not in verdict["reason"]


def test_near_duplicates_without_new_words_are_found_too():
    watch = Watch(gap=0.0, near_duplicates=50)
    flags = [watch.ask(f"What is {i} plus {i * i}?") for i in range(80)]
    assert 50 <= flags.index(True) + 1 <= 60
    assert "near-duplicates" in watch.judge("What is 5 plus 7?")["reason"]


def test_one_prompt_sampled_again_and_again_is_found_but_a_monitor_is_not():
    thief, monitor = Watch(), Watch()
    assert any(thief.ask("Tell me a story.", f"Story {i}") for i in range(200))
    assert not any(monitor.ask("Are you there?", "Yes.") for _ in range(2000))


def test_the_answers_of_one_request_are_many_answers_to_one_prompt():
    detector = ExtractionDetector(near_duplicates=10, answers=100, clock=lambda: 0.0)
    for i in range(9):
        verdict = detector.check(
            "u", "Tell me a story.", *(f"Story {i} {j}" for j in range(10)), f"Story {i} 0"
        )
        assert not verdict["suspicious"]
    (user,) = detector._users.values()
    assert sum(user.counts) == 9 and 85 <= user.answers <= 90
    reasons = [detector.check("u", "Tell me a story.", f"Another {i}")["reason"] for i in range(4)]
    assert "near-duplicates" in reasons[-1]
    with refuses(BadParameter):
        detector.check("u", "x", "fine", 3)  # type: ignore[arg-type]


def test_word_lists_are_found_by_how_little_they_repeat():
    rng = random.Random(0)
    words = [a + b for a in NAMES for b in NAMES[:40]]
    thief = Watch(sweep=10**6, near_duplicates=10**6)
    reasons = [thief.judge(" ".join(rng.sample(words, 12)))["reason"] for _ in range(200)]
    flagged = [reason for reason in reasons if reason]
    assert 75 <= 200 - len(flagged) < 120 and "per cent of the words" in flagged[0]
    assert is_one_sentence(flagged[0])
    writer = Watch(sweep=10**6, near_duplicates=10**6)
    sentences = evaluation.material()[0]
    assert not any(writer.ask(" ".join(rng.sample(sentences, 2))) for _ in range(200))


def test_volume_alone_is_found():
    sentences = evaluation.material()[0]
    many = Watch(answers=100)
    assert 100 <= [many.ask(s) for s in sentences[:200]].index(True) + 1 <= 110
    long = Watch(characters=100_000)
    flags = [long.ask(s, f"{i}" + "x" * 10_000) for i, s in enumerate(sentences[:20])]
    assert flags.index(True) in (9, 10, 11)
    assert "characters" in long.judge("one more?")["reason"]


def test_suspicion_fades():
    watch = Watch(gap=0.0, near_duplicates=50)
    for i in range(99):
        suspicious = watch.ask(f"What is {i} plus {i}?")
    assert suspicious
    watch.now += 2 * 3600  # 99 or less are 25 or less
    assert not watch.ask("What is 1 plus 1?")


def test_users_are_judged_one_by_one():
    watch = Watch(gap=0.0, sweep=50)
    assert any(watch.ask(f"Define {name}.") for name in NAMES[:80])
    assert not any(watch.ask(f"Define {name}.", user="alice") for name in NAMES[:30])
    assert watch.ask(f"Define {NAMES[80]}.")


@pytest.mark.parametrize("pattern", ["东西南北{}", "วันนี้{}", "{} は 何 ですか"])
def test_scripts_without_spaces_are_not_one_long_word(pattern):
    rng = random.Random(0)
    signs = [chr(0x4E00 + i) for i in range(300)]
    watch = Watch(gap=0.0, sweep=40, near_duplicates=40)
    assert not any(watch.ask(pattern.format("".join(rng.choices(signs, k=25)))) for _ in range(90))


def test_what_is_no_text_is_refused():
    detector = ExtractionDetector()
    for arguments in ((None, "a", "b"), ("u", b"a", "b"), ("u", "a", 3)):
        with refuses(BadParameter):
            detector.check(*arguments)
    for bad in (
        {"sweep": 0},
        {"answers": 1.5},
        {"half_life": 0},
        {"fresh": float("nan")},
        {"max_users": True},
    ):
        with refuses(BadParameter):
            ExtractionDetector(**bad)


# ---------------------------------------------------------------- bounds


def test_a_user_costs_four_kilobytes():
    users, rng = 60, random.Random(0)
    sentences = evaluation.material()[0]
    detector = ExtractionDetector(max_users=users)
    detector.check("warm", "up", "now")
    gc.collect()
    tracemalloc.start()
    for user in range(users):
        for i in range(12):
            detector.check(f"{user}" * 100, rng.choice(sentences) * 50, f"{i}" * 10_000)
    gc.collect()
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{current / users:.0f} bytes a user")
    assert current < SIZE * users
    for user in list(detector._users)[:3]:  # and no user grows
        state = detector._users[user]
        for i in range(3000):
            state.seen.add(extraction._digest(f"{i}"))
        assert len(state.seen.new) + len(state.seen.old) == 2 * extraction.BITS // 8
        assert sys.getsizeof(state.counts) < 200 and state.sketches.nbytes == 1024


def test_the_least_recently_seen_are_forgotten():
    watch = Watch(gap=0.0, max_users=3, near_duplicates=10)
    for user in ("a", "b", "c"):
        for i in range(9):
            assert not watch.ask(f"What is {i} plus {i}?", user=user)
    watch.ask("hello", user="a")
    watch.ask("hello", user="d")  # pushes out b
    assert len(watch.detector._users) == 3
    assert not watch.ask("What is 10 plus 10?", user="b")  # pushes out c
    assert any(watch.ask(f"What is {i} plus {i}?", user="a") for i in (10, 11, 12))  # still remembered


@QUIET
@given(st.text(st.characters(), max_size=200), st.text(st.characters(), max_size=50), st.integers(1, 400))
def test_any_text_is_taken(prompt, response, times):
    detector = ExtractionDetector()
    verdict = detector.check("u", prompt * times, response)
    assert verdict == {"suspicious": False, "reason": ""}
    assert len(extraction._words(prompt * times)) <= 2 * extraction.WORDS


@QUIET
@given(st.lists(st.binary(min_size=16, max_size=16), max_size=200, unique=True))
def test_what_was_seen_is_never_forgotten_within_its_capacity(digests):
    seen = extraction._Seen()
    for digest in digests:
        seen.add(digest)
    assert all(seen.holds(digest) for digest in digests)


def test_how_often_something_new_is_taken_for_seen():
    seen = extraction._Seen()
    for i in range(2 * extraction.CAPACITY):
        seen.add(extraction._digest(f"{i}"))
    wrong = sum(seen.holds(extraction._digest(f"new {i}")) for i in range(4000)) / 4000
    assert 0.02 < wrong < 0.16


def test_threads_lose_no_exchange():
    detector = ExtractionDetector(clock=CalledAlone())
    gate = threading.Barrier(4)

    def ask(first: int) -> None:
        gate.wait()
        for i in range(first, 80, 4):
            detector.check("u", "hello there", f"{i}")

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (user,) = detector._users.values()
    assert detector._clock.calls == user.answers == sum(user.counts) == 80


# ---------------------------------------------------------------- the evaluation


@pytest.mark.parametrize("workload", evaluation.PEOPLE, ids=lambda w: w.__name__)
def test_people_are_left_alone(workload):
    first, count = evaluation.first_flag(workload, seed=0)
    assert first is None and count > 100


@pytest.mark.parametrize(
    ("workload", "within"),
    [
        (evaluation.template_sweep, 130),
        (evaluation.bare_words, 130),
        (evaluation.random_words, 130),
        (evaluation.sums, 200),
        (evaluation.resampling, 200),
        (evaluation.eight_templates, 900),
        (evaluation.distilling, 1000),
        (evaluation.twenty_accounts, 200),
    ],
    ids=lambda w: getattr(w, "__name__", ""),
)
def test_thieves_are_found(workload, within):
    first, _ = evaluation.first_flag(workload, seed=0)
    assert first is not None and first <= within


def test_what_is_known_to_be_missed_is_still_missed():
    """If this fails, the detector has become better: say so in its docstring."""
    assert evaluation.first_flag(evaluation.slow_sweep, seed=0)[0] is None


def test_figures_name_their_data(monkeypatch):
    monkeypatch.setattr(evaluation, "PEOPLE", (evaluation.looking_up,))
    monkeypatch.setattr(evaluation, "PROGRAMS", ())
    monkeypatch.setattr(evaluation, "THIEVES", (evaluation.bare_words,))
    person, thief = evaluation.detector_figures(users=2)
    assert (person["flagged"], person["median_queries"], thief["flagged"]) == (0, None, 1)
    assert thief["median_queries"] < 130
    assert "Python" in thief["data"] and "2 users" in thief["data"]
