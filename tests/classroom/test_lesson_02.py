"""The checks of lesson 02 know what they talk about: they agree with the engine, and their inputs can tell."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader import keys
from lessonlib.classroom.bank import load
from lessonlib.classroom.checking import run
from lessonlib.classroom.checks.lesson_02 import (
    attention_mistakes,
    find_bug,
    kv_bytes,
    slots,
    toy_caches,
    toys,
)
from lessonlib.classroom.checks.lesson_02 import visible as seeing
from lessonlib.classroom.exercises import exercises, find
from lessonlib.classroom.feedback import card
from lessonlib.engine import DenseCache, ModelConfig, costs
from lessonlib.engine.kv_cache import visible
from lessonlib.explorers.pictures.kv_cache import PRESETS

HEAD = ModelConfig(8, 4, 4, 1, 1, 1, 4, max_position_embeddings=64)  # one layer, one head of 4 numbers
TOKENS = st.lists(st.integers(0, 99), min_size=1, max_size=5)


@given(st.lists(TOKENS, min_size=1, max_size=5))
def test_expected_attention_is_the_engines(pieces: list[list[int]]):
    expected = attention_mistakes.answers({"steps": [["attend", piece] for piece in pieces]})
    cache = DenseCache(HEAD)
    for piece, rows in zip(pieces, expected, strict=True):
        q, k, v = toys.qkv(piece)
        positions = cache.begin(1, len(piece), None, torch.device("cpu"))[0]
        q, k = toys.rope(q, positions), toys.rope(k, positions)
        engine = cache.attend(0, q[None, None], k[None, None], v[None, None])[0, 0]
        cache.end()
        torch.testing.assert_close(torch.tensor(rows), engine, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 30), st.integers(1, 20))
def test_expected_masks_are_the_engines(held: int, new: int):
    positions = held + torch.arange(new)[None]
    assert seeing.mask(held, new) == visible(positions, held + new, None)[0, 0].tolist()


@given(st.integers(0, 10**6))
def test_expected_bytes_are_the_engines(seed: int):
    inputs = kv_bytes.making()(random.Random(seed))
    shape = inputs["config"]
    heads = shape["num_attention_heads"]
    config = ModelConfig(
        8, shape["hidden_size"], 8, shape["num_hidden_layers"], heads, shape["num_key_value_heads"],
        shape["hidden_size"] // heads,
    )  # fmt: skip
    assert kv_bytes.expected({**inputs, "bits": 16}) == inputs["tokens"] * costs.kv_bytes_per_token(config)


@pytest.mark.parametrize("name", sorted({*PRESETS} & {*kv_bytes.MODELS}))
def test_the_exercise_and_the_picture_speak_of_the_same_models(name: str):
    inputs = {"config": kv_bytes.MODELS[name], "tokens": 1}
    assert kv_bytes.expected(inputs) == costs.kv_bytes_per_token(PRESETS[name])


def test_llama_keeps_half_a_mebibyte_a_token():
    assert kv_bytes.expected({"config": kv_bytes.MODELS["Llama-2-7B"], "tokens": 1}) == 2**19


@given(st.lists(st.one_of(TOKENS, st.integers(0, 9)), max_size=8))
def test_expected_slots_are_the_engines(steps: list[list[int] | int]):
    """A list is appended, a number rewound to; the engine's own errors stand where ValueError is asked for."""
    size, config = 9, ModelConfig(8, 2, 4, 1, 1, 1, 2, max_position_embeddings=9)
    script = [["append", s] if isinstance(s, list) else ["rewind", s] for s in steps]
    expected = slots.answers({"size": size, "steps": script})
    cache = DenseCache(config)
    for (method, argument), answer in zip(script, expected, strict=True):
        if answer == slots.RAISES:
            with pytest.raises(ValueError):
                _play(cache, method, argument)
        elif method == "append":
            assert _play(cache, method, argument) == answer
        else:
            _play(cache, method, argument)


def _play(cache: DenseCache, method: str, argument: list[int] | int) -> dict[str, list[int]] | None:
    if method == "rewind":
        cache.rewind(argument)
        return None
    k, v = toys.kv(argument)
    cache.begin(1, len(k), None, torch.device("cpu"))
    keys_now, values_now = cache.update(0, k[None, None], v[None, None])
    cache.end()
    return slots.read((keys_now[0, 0], values_now[0, 0]))


@pytest.mark.parametrize("kind", [k for k, bug in find_bug.KINDS.items() if bug == "none"])
@given(st.lists(TOKENS, min_size=1, max_size=5))
def test_right_toy_caches_are_right(kind: str, pieces: list[list[int]]):
    cache = toy_caches.toy_cache(kind)
    cache.attend(*toys.qkv([1, 2]))
    cache.reset()
    got = [cache.attend(*toys.qkv(piece)).tolist() for piece in pieces]
    expected = attention_mistakes.answers({"steps": [["attend", piece] for piece in pieces]})
    for mine, right in zip(got, expected, strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(right), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [k for k, bug in find_bug.KINDS.items() if bug != "none"])
def test_broken_toy_caches_have_their_bug_and_no_other(kind: str):
    """In one go all are right; in pieces only those with a stale reset are; after a reset those only are wrong."""
    text, bug = [3, 1, 4, 1, 5], find_bug.KINDS[kind]
    whole = toy_caches.toy_cache("right").attend(*toys.qkv(text))
    assert torch.allclose(toy_caches.toy_cache(kind).attend(*toys.qkv(text)), whole, atol=1e-5)
    used = toy_caches.toy_cache(kind)
    try:
        in_pieces = torch.cat([used.attend(*toys.qkv(piece)) for piece in (text[:2], text[2:4], text[4:])])
        right = torch.allclose(in_pieces, whole, atol=1e-3)
    except RuntimeError:
        assert bug == "dimension"
        right = False
    assert right == (bug == "stale")
    used = toy_caches.toy_cache(kind)
    used.attend(*toys.qkv([2, 7]))
    used.reset()
    again = used.attend(*toys.qkv(text))
    assert torch.allclose(again, whole, atol=1e-3) == (bug != "stale")


@pytest.mark.parametrize("exercise", exercises("02"), ids=lambda e: e.id)
def test_every_input_is_valid_and_the_shown_call_can_be_pasted(exercise):
    names = {"kv": toys.kv, "qkv": toys.qkv, "toy_cache": toy_caches.toy_cache}
    names[exercise.name] = lambda *arguments, **options: _Anything()
    for case in exercise.cases:
        for inputs in (*case.examples, *case.generated(random.Random(3))):
            assert case.valid(inputs), inputs
            exec(exercise.call_text(inputs), dict(names))


class _Anything:
    def __getattr__(self, name: str):
        return lambda *arguments, **options: None


@pytest.mark.parametrize("exercise", exercises("02"), ids=lambda e: e.id)
def test_every_simulated_mistake_can_be_told_apart(exercise):
    """For each, some visible input has another answer than the right one."""
    for mistake in (m for m in exercise.misconceptions if m.gives is not None):
        found = False
        for case in exercise.cases:
            for inputs in (*case.examples, *case.generated(random.Random(3))):
                given_ = mistake.gives(inputs)
                options = given_ if isinstance(given_, tuple) else (given_,)
                found = found or any(case.distance(inputs, case.expected(inputs), o) > 1 for o in options)
        assert found, mistake.name


def test_a_reset_that_only_shifts_positions_is_right():
    """RoPE sees differences of positions, so a new text may begin anywhere: no check may call that wrong."""
    q, k, _ = toys.qkv([3, 1, 4])
    here, there = (toys.rope(q, at) @ toys.rope(k, at).T for at in (torch.arange(3), 40 + torch.arange(3)))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_the_card_shows_the_step_as_it_can_be_pasted():
    class CachedAttention:
        def attend(self, q, k, v, use_cache=True):
            hidden = ~torch.ones(len(q), len(q)).tril().bool()
            at = torch.arange(len(q))
            scores = toys.rope(q, at) @ toys.rope(k, at).T / math.sqrt(q.shape[1])
            return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v

        def reset(self):
            pass

    text = card(run(find("02.CachedAttention"), CachedAttention)).text()
    assert "This looks like: nothing is kept from call to call" in text
    assert (
        "attention = CachedAttention()\n    attention.attend(*qkv([3]))\n    attention.attend(*qkv([1]))"
        in text
    )
    assert "expected from attention.attend(*qkv([1])), line 3" in text


def test_generated_scripts_shrink_to_something_short():
    class Wrong:
        """Rewinds one too far, but to 0 and 1."""

        def __init__(self, size, dim):
            self.keys, self.values = torch.zeros(size, dim), torch.zeros(size, dim)
            self.size, self.length = size, 0

        def append(self, k, v):
            end = self.length + len(k)
            if end > self.size:
                raise ValueError
            self.keys[self.length : end], self.values[self.length : end] = k, v
            self.length = end
            return self.keys[:end], self.values[:end]

        def rewind(self, length):
            if length > self.length:
                raise ValueError
            self.length = length - (length > 1)

        def reset(self):
            self.length = 0

    unnamed = replace(
        find("02.KVCache"), misconceptions=()
    )  # a name would have to fit the shorter script as well
    failure = run(unnamed, Wrong, [_rewinding()]).failure
    assert failure is not None and len(failure.inputs["steps"]) <= 3


def _rewinding():
    return slots.cache_case(
        "Rewinding.",
        make=slots.making([slots.REWIND_NOTHING], ["append", "append", "append", "rewind", "append"]),
        count=40,
    )


def test_the_figures_of_the_quiz_are_right():
    bank, key = load("02"), keys.load_key("02")
    assert bank.question("mask-count").answer == sum(map(sum, seeing.mask(3, 4)))
    config = {
        "num_hidden_layers": 40,
        "hidden_size": 40 * 128,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    }
    assert bank.question("llama-token").answer * 1024 == kv_bytes.expected({"config": config, "tokens": 1})
    assert bank.question("cat-bytes").answer == 10 * sum(range(1, 101))
    assert key["users"].answer == (24 - 14) * 2**20 // (8192 * 128)
    long, short = (costs.predict(HEAD, 1, n).attention_flops for n in (3000, 1000))
    assert round(long / short) == 9 and "9 times" in [
        c.text for c in key["attention-growth"].question.choices if c.id == key["attention-growth"].answer
    ]
    memory = {"a": 32 * 32 * 2, "b": 80 * 8 * 2, "c": 32 * 8 * 2 * 8, "d": 32 * 8 * 2}
    assert key["least-memory"].answer == sorted(memory, key=memory.get)
    steps = [["append", [5, 6, 7]], ["rewind", 1], ["append", [8]], ["rewind", 2], ["append", [9]]]
    held = slots.answers({"size": 4, "steps": steps})[-1]["keys"]
    choice = next(c for c in key["predict-code"].question.choices if c.id == key["predict-code"].answer)
    assert choice.text == ", ".join(map(str, held))


def test_the_quiz_has_what_it_needs():
    questions = load("02").questions
    practice = [q for q in questions if q.practice]
    assert len(practice) >= 8 and len(questions) - len(practice) >= 6
    counted = [q for q in questions if q.kind in ("numeric", "ordering") or "```" in q.text]
    assert len(counted) >= len(questions) // 2
    right = [next(c.id for c in q.choices if c.correct) for q in practice if q.kind == "single"]
    assert len({*right}) == 4, "the right choices stand at all positions"
    for question in practice:
        if question.kind == "single":
            texts = {c.correct: len(c.text) for c in sorted(question.choices, key=lambda c: len(c.text))}
            assert texts[True] <= 1.3 * texts[False], f"{question.id}: the right choice sticks out"
