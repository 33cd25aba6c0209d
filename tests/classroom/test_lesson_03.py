"""The checks of lesson 03 know what they talk about: they agree with the engine, and their inputs can tell."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader import authoring, keys
from grader.exercises import hidden
from lessonlib import course
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_03 import (
    dequantize_nf4,
    grid,
    int4_mistakes,
    quantize_int4,
    quantize_int8,
)
from lessonlib.classroom.exercises import AnyOf, Skip, exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.engine.quantize import nf4 as engine_nf4
from lessonlib.engine.quantize.int4 import round_int4
from lessonlib.engine.quantize.int8 import quantize_int8 as engine_int8

RIGHT = {
    "03.quantize_int8": lambda inputs: quantize_int8.expected(inputs),
    "03.quantize_int4": lambda inputs: int4_mistakes.quantize(inputs),
    "03.dequantize_nf4": lambda inputs: dequantize_nf4.expected(inputs),
}
CODES = st.lists(st.integers(-127, 127), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.integers(-6, 3), st.sampled_from([-127, 127]), CODES), min_size=1, max_size=4))
def test_expected_int8_is_the_engines(rows):
    """On weights that lie on the grid of a scale without digits, which the engine's bfloat16 holds exactly."""
    width = min(len(codes) for *_, codes in rows)
    weight = [[c * 2.0**power for c in (end, *codes[:width])] for power, end, codes in rows]
    expected = quantize_int8.quantize(weight)
    codes, scales = engine_int8(torch.tensor(weight))
    assert expected["codes"] == codes.tolist()
    assert expected["scales"] == pytest.approx(scales.tolist(), rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_expected_int4_is_the_engines_rounding(seed: int):
    rng = random.Random(seed)
    make = quantize_int4.making()
    inputs = next(filter(None, (make(rng) for _ in range(10_000))))
    expected = int4_mistakes.quantize(inputs)
    groups = torch.tensor(inputs["weight"]).unflatten(1, (-1, inputs["group_size"]))
    scales = torch.tensor(expected["scales"])[..., None]
    codes = round_int4(groups, scales, torch.zeros_like(scales)).flatten(1)
    packed = torch.tensor(expected["packed"])
    assert torch.equal(packed & 15, codes[:, ::2].long()) and torch.equal(packed >> 4, codes[:, 1::2].long())
    assert int(codes.min()) >= 1  # −8 is never used
    back = (codes.unflatten(1, (-1, inputs["group_size"])) - 8.0) * scales
    assert ((back - groups).abs() <= scales / 2 * 1.001).all()


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_expected_nf4_is_the_engines(seed: int, blocks: int):
    numbers = 64 * blocks
    x = torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
    stored = engine_nf4.quantize_nf4(x)
    inputs = {"packed": stored.packed.tolist(), "absmax": stored.absmax.tolist(), "_block_size": 64}
    engine = engine_nf4.dequantize_nf4(stored, numbers)
    assert dequantize_nf4.expected(inputs) == pytest.approx(engine.tolist(), rel=2e-5, abs=1e-6)


def _inputs(exercise, hidden_too: bool = True):
    cases = [*exercise.cases, *(hidden(exercise.id).cases if hidden_too else ())]
    for case in cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            yield case, inputs


@pytest.mark.parametrize("exercise", exercises("03"), ids=lambda e: e.id)
def test_every_input_is_valid_and_can_be_pasted(exercise):
    names = {"torch": torch, "LEVELS": engine_nf4.LEVELS, exercise.name: lambda *args, **named: (args, named)}
    for case, inputs in _inputs(exercise):
        assert case.valid(inputs), inputs
        args, named = eval(exercise.call_text(inputs), names)
        made = exercise.arguments(inputs)
        given = {**dict(zip(exercise.positional, args, strict=False)), **named}
        assert given.keys() == made.keys()
        for name, value in made.items():
            same = (
                torch.equal(value, given[name]) if isinstance(value, torch.Tensor) else value == given[name]
            )
            assert same, (name, inputs)


@pytest.mark.parametrize("exercise", exercises("03"), ids=lambda e: e.id)
def test_every_simulated_mistake_can_be_told_apart(exercise):
    """For each, some visible input leads to another answer."""
    for mistake in (m for m in exercise.misconceptions if m.gives is not None):

        def differs(inputs, mistake=mistake):
            try:
                given = mistake.gives(inputs)
            except Skip:
                return False
            return RIGHT[exercise.id](inputs) not in (given if isinstance(given, AnyOf) else (given,))

        assert any(differs(inputs) for _, inputs in _inputs(exercise, hidden_too=False)), mistake.name


@pytest.mark.parametrize(
    ("weights", "clear"), [([1.0, 0.3], True), ([14.0, 1.0], False), ([7.0, 2.5], False)]
)
def test_ties_are_seen(weights, clear: bool):
    assert grid.clear_of_ties(weights, 7) is clear


def _card(exercise_id: str, function) -> str:
    return card(run(find(exercise_id), function)).text()


def test_a_kept_dimension_is_explained():
    def quantize_int8(weight):
        scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-9)
        return (weight / scales).round().to(torch.int8), scales

    text = _card("03.quantize_int8", quantize_int8)
    assert "The scales must have shape (1,)" in text and "with shape (1, 1)" in text


def test_half_precision_scales_are_refused():
    def quantize_int8(weight):
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-9)
        return (weight / scales[:, None]).round().to(torch.int8), scales.half()

    assert "The scales must be float32" in _card("03.quantize_int8", quantize_int8)


def test_the_figures_of_the_quiz_are_right():
    bank, entries = load("03"), keys.load_key("03")
    assert entries["eight-billion"].answer == 8e9 * (4 + 32 / 64) / 8 / 1e9
    assert entries["pack-neighbours"].answer == int4_mistakes.with_eight(3, -2)
    steps = {"a": 1 / 7, "b": 1 / 127, "c": 100 / 127, "d": 0.2 / 7}
    assert entries["widest-step"].answer == sorted(steps, key=steps.get)
    assert entries["spoiled"].answer == "d"
    assert bank.question("one-code").answer == quantize_int8.quantize([[0.5, -2.54, 1.0]])["codes"][0][0]
    assert bank.question("a-byte").answer == 5 | 12 << 4
    kept = int4_mistakes.quantize({"weight": [[0.2, -0.3, 0.4, 7.0]], "group_size": 4})
    assert kept == {"packed": [[0x88, 0xF8]], "scales": [[1.0]]}  # codes 0, 0, 0 and 7
    assert torch.tensor([2.9, -0.9, 127.4]).to(torch.int8).tolist() == [2, 0, 127]
    assert [round(0.5 * engine_nf4.LEVELS[code], 2) for code in (15, 14)] == [0.5, 0.36]
    assert engine_nf4.LEVELS[7] == 0 and engine_nf4.LEVELS[15] == 1


def test_a_person_grades_the_comparison():
    notebook = authoring.read_lesson(course.notebooks_dir() / "03_quantization.py")
    by_hand = [
        c.metadata.nbgrader
        for c in notebook.cells
        if c.metadata.get("nbgrader", {}).get("grade") and c.metadata.nbgrader.solution
    ]
    assert [(about.grade_id, about.points) for about in by_hand] == [("03-compare", 6)]
