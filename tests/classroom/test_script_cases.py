"""Exercises that ask for a class: an object is made, a script of calls is played on it behind the same glass."""

from __future__ import annotations

from typing import Any

import pytest

from lessonlib.classroom import cases, forms
from lessonlib.classroom.checking import TOO_LONG, run
from lessonlib.classroom.exercises import Exercise, Inputs, Misconception
from lessonlib.classroom.feedback import card


def results(inputs: Inputs, lazy: bool = False) -> list[Any]:
    """A tally that cannot go below nothing."""
    total, found = inputs["start"], []
    for method, amount in inputs["steps"]:
        if method == "take" and amount > total:
            found.append("raises ValueError")
            continue
        total += amount if method == "add" else -amount
        found.append(inputs["start"] if lazy else total)
    return found


TALLY = Exercise(
    id="01.tally",
    title="Tally",
    signature="Tally(start)",
    prepare=lambda inputs: {"start": inputs["start"]},
    show=lambda inputs: cases.script_text("tally", f"Tally({inputs['start']})", inputs),
    cases=(
        cases.script(
            "Every call changes the sum.",
            expected=results,
            errors=["ValueError"],
            name="tally",
            examples=[
                {"start": 1, "steps": [["add", 2]]},
                {"start": 0, "steps": [["add", 2], ["take", 3], ["take", 1]]},
            ],
            make=lambda rng: {
                "start": rng.randint(5, 50),
                "steps": [[rng.choice(["add", "take"]), rng.randint(1, 40)] for _ in range(8)],
            },
            count=5,
            valid=lambda inputs: bool(inputs["steps"]) and all(len(s) == 2 and s[0] for s in inputs["steps"]),
        ),
    ),
    misconceptions=(Misconception("never changes", "It has to.", lambda inputs: results(inputs, lazy=True)),),
    hints=("a", "b", "c"),
    analogue="",
)
RIGHT = """
class Tally:
    def __init__(self, start):
        self.sum = start

    def add(self, amount):
        self.sum += amount
        return self.sum

    def take(self, amount):
        if amount > self.sum:
            raise ValueError("too much")
        self.sum -= amount
        return self.sum
"""


def made(before: str = "", after: str = "") -> Any:
    names: dict[str, Any] = {}
    assert before in RIGHT
    exec(compile(RIGHT.replace(before, after), "<student>", "exec"), names)
    return names["Tally"]


def test_a_right_class_passes():
    assert run(TALLY, made()).passed


def test_a_mistake_is_named_and_the_card_points_at_the_step():
    report = run(TALLY, made("return self.sum\n\n    def take", "return self.sum - amount\n\n    def take"))
    assert report.name == "never changes"
    text = card(report).text()
    assert "tally = Tally(1)\n    tally.add(2)" in text
    assert "expected from tally.add(2), line 2" in text


def test_the_script_is_shrunk():
    wrong = made("self.sum -= amount", "self.sum -= amount + (self.sum > 30)")
    failure = run(TALLY, wrong).failure
    assert failure is not None and len(failure.inputs["steps"]) <= 2


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("def take", "def took", forms.METHOD),
        ("self.sum += amount\n", "while True: pass\n", TOO_LONG),
    ],
)
def test_what_goes_wrong_inside_of_a_method_is_caught(before: str, after: str, name: str):
    assert run(TALLY, made(before, after), seconds=0.5).name == name


def test_an_error_of_a_method_shows_the_students_line():
    failure = run(TALLY, made("self.sum += amount", "print('here'); self.total += amount")).failure
    assert failure is not None and failure.observation.error is not None
    error = failure.observation.error
    assert (error.type, error.line) == ("AttributeError", 7)
    assert failure.observation.printed == "here\n"


def test_an_expected_error_that_does_not_come_is_a_wrong_answer():
    failure = run(TALLY, made("if amount > self.sum:", "if False:")).failure
    assert failure is not None and failure.comparison is not None
    assert failure.comparison.expected == "'raises ValueError'"
