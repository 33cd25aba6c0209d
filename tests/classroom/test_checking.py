"""A check finds the mistake, makes the failing input small, and names what it saw."""

from __future__ import annotations

import random

import pytest

from lessonlib.classroom import checking
from lessonlib.classroom.cases import bound, close, draws, row_distance, total_variation, values
from lessonlib.classroom.exercises import AnyOf, Exercise, Misconception, Skip
from lessonlib.classroom.forms import whole_number

PLUS_ONE = Misconception("one too much", "Look at the end.", lambda i: sum(i["numbers"]) + 1)
DOUBLES = Misconception("counts twice", "Once is enough.", lambda i: AnyOf((2 * sum(i["numbers"]), -1)))
FIRST = Misconception(
    "takes only the first", "There are more.", lambda i: i["numbers"][0] if i["numbers"] else 0
)


def skips(inputs):
    raise Skip


SILENT = Misconception("says nothing", "", skips)


def add_exercise(*mistakes: Misconception, examples=({"numbers": [1, 2]},), **case) -> Exercise:
    settings = {
        "make": lambda rng: {"numbers": [rng.randint(1, 50) for _ in range(rng.randint(2, 6))]},
        "count": 5,
    }
    return Exercise(
        id="01.add",
        title="Add up",
        signature="add(numbers)",
        prepare=lambda i: {"numbers": list(i["numbers"])},
        cases=(
            values(
                "adds up",
                expected=lambda i: sum(i["numbers"]),
                read=lambda value, _: whole_number(value),
                examples=examples,
                **{**settings, **case},
            ),
        ),
        misconceptions=mistakes or (PLUS_ONE, DOUBLES, FIRST, SILENT),
        hints=("a", "b", "c"),
        analogue="d",
    )


def test_a_right_function_passes():
    report = checking.run(add_exercise(), sum)
    assert report.passed and report.trials == 6 and report.name is None


@pytest.mark.parametrize(
    "function, name",
    [
        (lambda numbers: sum(numbers) + 1, "one too much"),
        (lambda numbers: 2 * sum(numbers), "counts twice"),
        (lambda numbers: numbers[0], "takes only the first"),
        (lambda numbers: sum(numbers) - 7, None),
        (lambda numbers: print(numbers), "returns nothing"),
        (lambda numbers: float(sum(numbers)), "returns the wrong type"),
        (lambda numbers: numbers[99], "raises an error"),
        (lambda numbers: numbers.clear() or 0, "changes its input"),
    ],
)
def test_a_wrong_function_is_named(function, name):
    assert checking.run(add_exercise(), function).name == name


def test_a_right_answer_with_a_changed_input_fails():
    def add(numbers):
        total = sum(numbers)
        numbers.sort(reverse=True)
        numbers.append(0)
        return total

    failure = checking.run(add_exercise(), add).failure
    assert failure and failure.name == "changes its input" and "`numbers`" in failure.why


def test_a_generated_input_is_shrunk():
    def add(numbers):
        return sum(numbers) if max(numbers) < 30 else 0

    failure = checking.run(add_exercise(), add).failure
    assert failure and failure.inputs == {"numbers": [30]}


def test_shrinking_keeps_to_valid_inputs_and_to_the_same_mistake():
    def add(numbers):
        return numbers[0]

    exercise = add_exercise(examples=(), valid=lambda i: len(i["numbers"]) >= 2 and all(i["numbers"]))
    failure = checking.run(exercise, add).failure
    assert failure and failure.name == "takes only the first" and failure.inputs == {"numbers": [1, 1]}


def test_shrinking_does_not_slip_to_another_mistake():
    def add(numbers):
        return numbers[0] if len(numbers) > 1 else sum(numbers) + 5

    failure = checking.run(add_exercise(examples=()), add).failure
    assert failure and failure.name == "takes only the first" and failure.inputs == {"numbers": [0, 1]}


def test_an_example_is_shown_as_it_is():
    failure = checking.run(add_exercise(examples=({"numbers": [40, 2]},)), lambda numbers: 0).failure
    assert failure and failure.inputs == {"numbers": [40, 2]}


def test_other_inputs_decide_between_mistakes_that_look_alike():
    """On [3] both mistakes give 6; only on the others do they part."""
    plus_three = Misconception("adds three", "", lambda i: sum(i["numbers"]) + 3)
    exercise = add_exercise(plus_three, DOUBLES, examples=({"numbers": [3]},))
    assert checking.run(exercise, lambda numbers: 2 * sum(numbers)).name == "counts twice"
    assert checking.run(exercise, lambda numbers: 3 + sum(numbers)).name == "adds three"


def test_everybody_gets_the_same_inputs_and_a_seed_gives_others():
    def seen(seed=None):
        asked = []
        checking.run(add_exercise(), lambda numbers: asked.append(list(numbers)) or sum(numbers), seed=seed)
        return asked

    assert seen() == seen() and seen(1) == seen(1) and seen(1) != seen(2)


def test_a_slow_function_is_stopped_once():
    calls = []

    def add(numbers):
        calls.append(1)
        while True:
            pass

    report = checking.run(add_exercise(), add, seconds=0.3)
    assert report.name == "does not finish in time" and len(calls) == 1


def test_what_was_found_before_the_time_was_up_is_kept():
    def add(numbers):
        while len(numbers) > 2:
            pass
        return sum(numbers) + 1

    assert checking.run(add_exercise(), add, seconds=0.5).name == "one too much"


def test_nothing_of_the_checks_is_in_the_traceback():
    error = checking.CheckFailed("01.add: not yet")
    assert error._render_traceback_() == ["01.add: not yet"]


COIN = draws(
    "a fair coin",
    expected=lambda i: [{"heads": 0.5, "tails": 0.5}],
    trial=lambda call, i: [call(i)],
    label=str,
    examples=[{"n": 1000}],
)
FLIP = Exercise(
    id="01.flip",
    title="Flip",
    signature="flip(n)",
    prepare=dict,
    cases=(COIN,),
    misconceptions=(
        Misconception("always heads", "", lambda i: [{"heads": 1.0}]),
        Misconception("a bent coin", "", lambda i: [{"heads": 0.8, "tails": 0.2}]),
    ),
    hints=("a", "b", "c"),
    analogue="d",
)


def coin(heads: float):
    return lambda n: ["heads" if random.random() < heads else "tails" for _ in range(n)]


@pytest.mark.parametrize("heads, name", [(0.8, "a bent coin"), (1.0, "always heads"), (0.65, None)])
def test_a_wrong_distribution_is_named_by_the_nearest(heads, name):
    report = checking.run(FLIP, coin(heads))
    assert not report.passed and report.name == name


def test_a_right_distribution_passes_with_any_luck(monkeypatch):
    for luck in range(300):
        random.seed(luck)
        observed = coin(0.5)(1000)
        assert row_distance(observed, {"heads": 0.5, "tails": 0.5}) <= 1


def test_the_impossible_and_the_missing_fail_at_once():
    assert row_distance(["heads"] * 999 + ["edge"], {"heads": 1.0}) > 1
    assert row_distance(["heads"] * 1000, {"heads": 0.97, "tails": 0.03}) > 1
    assert row_distance(["heads"] * 1000, {"heads": 0.995, "tails": 0.005}) <= 1


def test_the_bound_keeps_its_promise():
    """2^k exp(-2 n e^2) is the false alarm rate that the bound was made for."""
    assert 2**6 * 2.718281828 ** (-2 * 1000 * bound(1000, 6) ** 2) == pytest.approx(1e-9, rel=1e-6)
    assert total_variation({"a": 0.7, "b": 0.3}, {"a": 0.5, "c": 0.5}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "expected, got, tolerance, same",
    [
        (1, 1, 0, True),
        (1, 1.0, 0, False),
        (1, True, 0, False),
        (1.0, 1.0000001, 1e-6, True),
        ([1, [2]], [1, [2]], 0, True),
        ([1, 2], [1], 0, False),
        ({"a": 1.0}, {"a": 1.1}, 0.2, True),
        ({"a": 1}, {"b": 1}, 0, False),
        (1.0, float("nan"), 0.1, False),
    ],
)
def test_close(expected, got, tolerance, same):
    assert close(expected, got, tolerance) is same
