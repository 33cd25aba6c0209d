"""The checks of lesson 08 know what they talk about, and the race lets only right engines in."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader import exercises as gate
from grader import keys
from grader.exercises import define, planted
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_08 import decode, engine, engine_mistakes, speculate
from lessonlib.classroom.checks.lesson_08.race import BOARD, SLOTS, Disqualified, Race
from lessonlib.classroom.checks.lesson_08.runners import Cache, PicoRunner, ToyRunner
from lessonlib.classroom.exercises import exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.classroom.leaderboard import Work, attempts
from lessonlib.engine import (
    BlockPool,
    ModelConfig,
    Request,
    SamplingParams,
    Scheduler,
    Transformer,
    costs,
    generate,
)

TINY = ModelConfig(16, 8, 8, 2, 2, 1, 4, max_position_embeddings=32)


@pytest.fixture(scope="module")
def race() -> Race:
    return Race()


@pytest.fixture(scope="module")
def solved() -> Any:
    return define(find("08.Engine"), gate.from_notebook("08.Engine", blank=False))


def generated(make: Any, seed: int) -> dict[str, Any]:
    return next(filter(None, (make(random.Random(seed + i)) for i in range(50_000))))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_the_toys_logits_are_the_rule_however_a_text_is_cut(text: list[int], data: st.DataObject):
    toy = ToyRunner()
    caches = toy.new_caches(len(text))
    answers: list[int] = []
    while (held := len(answers)) < len(text):
        count = data.draw(st.integers(1, len(text) - held))
        answers += toy([(text[held : held + count], caches)])[0].argmax(-1).tolist()
    assert answers == [decode.following(text[: i + 1]) for i in range(len(text))]


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_runner_gives_the_models_own_logits(seed: int, texts: int):
    """Parts of any size, together in one pass, against each text alone and at once; the counters agree as well."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    runner = PicoRunner(Transformer(TINY))
    rows = [[rng.randrange(16) for _ in range(rng.randint(2, 9))] for _ in range(texts)]
    cuts = [rng.randint(1, len(row) - 1) for row in rows]
    caches = [runner.new_caches(len(row)) for row in rows]
    with costs.count(runner.model) as work:
        begin = runner([(row[:cut], held) for row, cut, held in zip(rows, cuts, caches, strict=True)])
        end = runner([(row[cut:], held) for row, cut, held in zip(rows, cuts, caches, strict=True)])
    for row, a, b in zip(rows, begin, end, strict=True):
        with torch.inference_mode():
            alone = runner.model(torch.tensor([row])).logits[0]
        assert torch.allclose(torch.cat([a, b]), alone, atol=1e-5)
    assert (
        (runner.forward_calls, runner.tokens) == (work.forward_calls, work.tokens) == (2, sum(map(len, rows)))
    )
    written = costs.kv_bytes_per_token(TINY, 4) * runner.tokens
    assert work.kv_bytes_written == written
    assert work.kv_bytes_read == written + costs.kv_bytes_per_token(TINY, 4) * sum(cuts)


@pytest.mark.parametrize(
    "parts, complaint",
    [
        (lambda toy: [], "no parts at all"),
        (lambda toy: [([], toy.new_caches(3))], "has no tokens"),
        (lambda toy: [([11], toy.new_caches(3))], "from 0 to 9"),
        (lambda toy: [([1], toy.new_caches(3)[:1])], "needs 2 caches"),
        (lambda toy: [([1], (own := toy.new_caches(3))), ([2], own)], "share a cache"),
        (lambda toy: [([1, 2, 3, 4], toy.new_caches(3))], "room for 3 tokens"),
    ],
)
def test_parts_that_make_no_sense_are_refused_before_anything_is_counted(parts: Any, complaint: str):
    toy = ToyRunner()
    with pytest.raises(ValueError, match=complaint):
        toy(parts(toy))
    assert complaint.startswith("room") or toy.forward_calls == 0


def test_layers_that_hold_different_numbers_are_refused():
    toy = ToyRunner()
    caches = toy.new_caches(9)
    toy([([1, 2], caches)])
    caches[0].rewind(1)
    with pytest.raises(ValueError, match="rewind all of them"):
        toy([([3], caches)])


def test_the_courses_cache_rewinds_only_backwards():
    cache = Cache(4, 2)
    cache.append(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="cannot go back to 3"):
        cache.rewind(3)
    cache.rewind(1)
    assert cache.append(torch.zeros(1, 2), torch.zeros(1, 2))[0].tolist() == [[1, 1], [0, 0]]


@given(st.integers(0, 10**6), st.booleans())
def test_the_expected_batches_are_the_engines(seed: int, early: bool):
    inputs = generated(engine.making([], (1, 4), (1, 7), ends_early=early), seed)
    alone: dict[str, list[int]] = {}
    for _, name, prompt, most in (s for s in inputs["steps"] if s[0] == "add"):
        asked = {"prompt": prompt, "max_tokens": most, "eos_id": inputs["eos_id"]}
        alone[name] = decode.answer(asked)["tokens"]
    scheduler, names, got = (
        Scheduler(BlockPool(500), max_num_seqs=inputs["slots"]),
        {},
        dict.fromkeys(alone, ()),
    )
    for step, answer in zip(inputs["steps"], engine_mistakes.answers(inputs), strict=True):
        if step[0] == "add":
            request = Request(list(step[2]), SamplingParams(max_tokens=len(alone[step[1]])))
            names[id(request)] = step[1]
            scheduler.add(request)
            continue
        slots = scheduler.schedule()
        assert {*answer["tokens"]} == {names[id(slot.request)] for slot in slots}
        assert answer["run"] == sum(slot.count for slot in slots)
        assert answer["passes"] == bool(slots)
        for slot in slots:
            slot.request.output.append(0)
            scheduler.complete(slot)
            if len(slot.request.output) == slot.request.params.max_tokens:
                scheduler.retire(slot.request)
        for name, tokens in answer["tokens"].items():
            got[name] = (*got[name], *tokens)
    assert {name: list(tokens) for name, tokens in got.items()} == alone


@pytest.mark.parametrize("exercise", exercises("08"), ids=lambda e: e.id)
def test_every_input_is_valid_and_can_be_pasted(exercise):
    right = next(a for a in planted(exercise.id) if a.expect == "pass")
    names = {"ToyRunner": ToyRunner, exercise.name: define(exercise, right.source)}
    for case in exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert case.valid(inputs), inputs
            exec(exercise.call_text(inputs), dict(names))


@pytest.mark.parametrize("exercise", exercises("08"), ids=lambda e: e.id)
def test_every_named_mistake_can_be_told_apart(exercise):
    inputs = [(c, i) for c in exercise.cases for i in (*c.examples, *c.generated(random.Random(3)))]
    for mistake in (m for m in exercise.misconceptions if m.gives is not None):

        def differs(case, given, mistake=mistake):
            right = case.expected(given)
            return all(case.distance(given, right, option) > 1 for option in mistake.gives(given))

        assert any(differs(case, i) for case, i in inputs), mistake.name


def test_a_card_can_be_read():
    source = next(a.source for a in planted("08.Engine") if a.name == "recomputes")
    exercise = find("08.Engine")
    text = card(run(exercise, define(exercise, source))).text()
    assert engine_mistakes.RECOMPUTES in text and "engine = Engine(ToyRunner(), slots=2" in text
    assert "'run': " in text


def test_the_races_answers_are_no_matter_of_rounding(race: Race):
    """The likeliest token leads by far more than what another order of additions changes."""
    for who, (prompt, _) in race.requests.items():
        with torch.inference_mode():
            logits = race.model(torch.tensor([prompt + race.answers[who]])).logits[0, len(prompt) - 1 : -1]
        first, second = logits.topk(2).values.T
        assert (first - second).min() > 0.01, who


@pytest.mark.parametrize(
    "extras, passes, run",
    [
        ({}, "same", "same"),
        ({"drafts": 4}, "fewer", "more"),
        ({"reuse": True}, "same", "fewer"),
        ({"drafts": 4, "reuse": True}, "fewer", "fewer"),
    ],
)
def test_the_solutions_extras_save_what_they_should(
    race: Race, solved: Any, extras: Any, passes: str, run: str
):
    plain = race.course_engine(enable_prefix_caching=False)
    work = race.run(lambda model, slots, eos: solved(model, slots, eos, **extras))

    def side(a: int, b: int) -> str:
        return "same" if a == b else "fewer" if a < b else "more"

    assert (side(work.passes, plain.passes), side(work.run, plain.run)) == (passes, run)


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_the_solution_with_its_extras_still_gives_everybody_their_answer(seed: int, early: bool, reuse: bool):
    solution = define(find("08.Engine"), gate.from_notebook("08.Engine", blank=False))
    inputs = generated(engine.making([], (1, 4), (2, 7), ends_early=early), seed)
    made = solution(ToyRunner(), inputs["slots"], inputs["eos_id"], drafts=3, reuse=reuse)
    wanted: dict[str, list[int]] = {}
    got: dict[str, list[int]] = {}
    for step in [*inputs["steps"], *[["step"]] * 40]:
        if step[0] == "add":
            made.add(*step[1:])
            asked = {"prompt": step[2], "max_tokens": step[3], "eos_id": inputs["eos_id"]}
            wanted[step[1]] = decode.answer(asked)["tokens"]
        else:
            for name, tokens in made.step().items():
                got.setdefault(name, []).extend(tokens)
    assert got == wanted


@pytest.mark.parametrize(
    "name, rule",
    [
        ("pass_each", "passes; one is allowed"),
        ("too_many", "8 parts; there are 4 slots"),
        ("newest", "before one that came earlier"),
        ("one_more", "got more than its 8 tokens"),
        ("first_row", "did not get the plain loop's answer"),
    ],
)
def test_a_wrong_engine_is_not_placed(race: Race, name: str, rule: str, shown):
    made = define(find("08.Engine"), next(a.source for a in planted("08.Engine") if a.name == name))
    with pytest.raises(Disqualified, match=rule):
        race.run(made)
    race.enter(name, made)
    assert f"{name}: not entered." in shown() and not attempts(BOARD)


def test_blank_and_broken_engines_are_told_kindly(race: Race, shown):
    race.enter("blank", define(find("08.Engine"), gate.from_notebook("08.Engine", blank=True)))
    assert "blank: not written yet" in shown()
    race.enter("broken", lambda *_: 1 / 0)
    assert "broken: not entered, it stopped with ZeroDivisionError" in shown()
    assert not attempts(BOARD)


def test_a_right_engine_is_placed_like_the_courses_own(race: Race, solved: Any, shown):
    race.enter("plain", solved)
    assert [e.work for e in attempts(BOARD)] == [race.course_engine(enable_prefix_caching=False)]
    assert "you, attempt 1: plain" in shown()


def test_the_plain_loop_costs_what_arithmetic_says(race: Race):
    work = race.reference(use_cache=True)
    made = sum(n for _, n in race.requests.values())
    prompts = sum(len(p) for p, _ in race.requests.values())
    assert work == Work(made, prompts + made - len(race.requests), made)
    assert race.course_engine(enable_prefix_caching=False).passes >= made / SLOTS


def test_the_figures_of_the_quiz_are_right():
    practice, graded = load("08"), keys.load_key("08")
    requests = [([1] * 10, 4), ([1] * 20, 2), ([1] * 5, 3)]
    steps: list[Any] = [["add", name, p, n] for name, (p, n) in zip("abc", requests, strict=True)]
    found = engine_mistakes.Played({"slots": 2, "eos_id": -1}, "")
    played = [a for a in map(found.play, [*steps, *[["step"]] * 12]) if a]
    assert practice.question("tokens-run").answer == sum(a["run"] for a in played)
    assert practice.question("passes").answer == sum(a["passes"] for a in played)
    uncached = sum(len(p) + i for p, n in requests for i in range(n))
    assert uncached in [w.answer for w in practice.question("tokens-run").wrong]

    text = [1, 2, 3, 4, 5]
    drafts = [decode.following(text)]
    drafts += [(decode.following([*text, *drafts]) + 1) % 10, 0]
    held = speculate.answer({"text": text, "drafts": drafts})["held"]
    assert practice.question("rewind-to").answer == len(held[0]) == len(held[1])

    config = ModelConfig(16, 768, 8, 24, 12, 4, 64)
    assert practice.question("kv-size").answer == costs.kv_bytes_per_token(config, 2) / 1024
    assert graded["work"].answer == Work(20, 200, 60).per_token
    assert graded["reuse"].answer == (64 - 40) + (5 - 1)
    run = {"a": sum(100 + i for i in range(10)), "b": 109, "c": 59, "d": 109 + 2 * 9}
    assert graded["fewest-run"].answer == sorted(run, key=lambda name: run[name])
    torch.manual_seed(0)
    tiny = Transformer(ModelConfig(16, 8, 8, 2, 2, 1, 4, max_position_embeddings=128))
    for name, use_cache in (("a", False), ("b", True)):
        with costs.count(tiny) as work:
            generate(tiny, [1] * 100, 10, use_cache, SamplingParams(temperature=0, ignore_eos=True))
        assert work.tokens == run[name]
