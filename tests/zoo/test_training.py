"""Training: it learns, it survives a kill to the last bit, and its tokenizer and figures can be trusted."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lessonlib.engine import Transformer, load_model, load_tokenizer, save_model
from lessonlib.zoo import data
from lessonlib.zoo.corpus import Document
from lessonlib.zoo.data import Mixture, held_out, prepare
from lessonlib.zoo.evaluation import bits_per_byte, greedy_agreement, samples, xz_bits_per_byte
from lessonlib.zoo.recipe import FINAL_MIX, MIX, RECIPES, SPECIAL_TOKENS, VOCAB_SIZE
from lessonlib.zoo.training import Progress, learning_rate, train
from lessonlib.zoo.vocabulary import render, save_tokenizer, train_tokenizer

from .conftest import CONTEXT, module


class Killed(Exception):
    pass


def kill_at(step: int):
    def report(progress: Progress) -> None:
        if progress.step >= step:
            raise Killed

    return report


# ---------------------------------------------------------------- the loop


def test_a_repetitive_corpus_is_learnt(recipe, streams, tmp_path):
    seen: list[Progress] = []
    _, log = train(recipe, streams, tmp_path / "run", rows=2, report=seen.append)
    first, last = log.losses[0], log.losses[-1]
    assert first[0] == 5
    assert first[1] > 2.5  # 64 tokens, next to no idea: ln 64 is 4.2
    assert last == (30, pytest.approx(seen[-1].loss, abs=1e-4))
    assert last[1] < 0.7  # each token follows from the one before
    assert [p.step for p in seen] == [5, 10, 15, 20, 25, 30]
    assert seen[-1].seconds_left == 0
    assert all(p.tokens_per_second > 0 for p in seen)
    assert "CPU" in log.hardware


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(recipe, streams, tmp_path):
    whole, log = train(recipe, streams, tmp_path / "whole", rows=2)
    for step in (5, 20):  # killed twice; save_every=0 saves after each step
        with pytest.raises(Killed):
            train(recipe, streams, tmp_path / "killed", rows=2, save_every=0, report=kill_at(step))
    resumed, again = train(recipe, streams, tmp_path / "killed", rows=2, save_every=0)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    kept = dict(again.losses)
    assert all(kept[step] == loss for step, loss in log.losses if step in kept)


def test_a_kill_while_saving_leaves_the_last_checkpoint(recipe, streams, tmp_path, monkeypatch):
    whole, _ = train(recipe, streams, tmp_path / "whole", rows=2)
    saved, save = 0, torch.save

    def dies_the_third_time(state, path):
        nonlocal saved
        saved += 1
        if saved == 3:
            path.write_bytes(b"half a checkpoint")
            raise Killed
        save(state, path)

    monkeypatch.setattr(torch, "save", dies_the_third_time)
    with pytest.raises(Killed):
        train(recipe, streams, tmp_path / "killed", rows=2, save_every=0)
    assert torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"] == 2
    resumed, _ = train(recipe, streams, tmp_path / "killed", rows=2)
    assert torch.equal(resumed.lm_head.weight, whole.lm_head.weight)


def test_a_finished_run_is_not_trained_again(recipe, streams, tmp_path):
    first, log = train(recipe, streams, tmp_path / "run", rows=4)
    again, same = train(
        recipe, streams, tmp_path / "run", rows=4, report=lambda _: pytest.fail("trained again")
    )
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert same.losses == log.losses
    assert not any(p.requires_grad for p in again.parameters())


def test_accumulated_batches_equal_one_large_batch_in_size(recipe, streams, tmp_path):
    """rows is about memory: each step still sees batch_tokens."""
    for rows in (1, 4, 100):
        _, log = train(replace(recipe, tokens=128 * 5), streams, tmp_path / str(rows), rows=rows)
        assert [step for step, _ in log.losses] == [5]


def test_the_teacher_is_imitated(recipe, streams, tmp_path):
    """The teacher believes in another order of the tokens than the data: the pupil ends up with the teacher."""
    teacher = Transformer(recipe.config)
    backwards = replace(recipe, tokens=128 * 60)
    for source in MIX:
        path = streams / f"{source}.npy"
        np.save(path, np.load(path)[::-1].copy())
    teacher, _ = train(backwards, streams, tmp_path / "teacher-run", rows=4)
    save_model(teacher, tmp_path / "teacher")
    for source in MIX:
        path = streams / f"{source}.npy"
        np.save(path, np.load(path)[::-1].copy())
    pupil_recipe = replace(backwards, teacher="teacher", distill=0.9)
    pupil, _ = train(
        pupil_recipe, streams, tmp_path / "pupil-run", rows=4, teacher_folder=tmp_path / "teacher"
    )
    plain, _ = train(backwards, streams, tmp_path / "plain-run", rows=4)
    ids = torch.from_numpy(np.load(streams / "packages.npy")[:CONTEXT].astype(np.int64))[None]

    def agrees(model: Transformer) -> float:
        return (model(ids).logits.argmax(-1) == teacher(ids).logits.argmax(-1)).float().mean().item()

    assert agrees(pupil) > 0.8 > 0.4 > agrees(plain)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero(recipe):
    recipe = replace(recipe, tokens=128 * 1000, warmup_steps=100)
    rates = [learning_rate(recipe, step) for step in range(recipe.steps + 1)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[99:650] == [pytest.approx(1e-2)] * 551
    assert rates[:100] == sorted(rates[:100])
    assert rates[650:] == sorted(rates[650:], reverse=True)
    assert rates[825] == pytest.approx(5e-3)
    assert rates[-1] == 0


# ---------------------------------------------------------------- batches


def test_a_batch_depends_on_seed_and_number_alone(recipe, streams):
    mixture = Mixture(streams, torch.device("cpu"), seed=0)
    inputs, targets = mixture.batch(7, 8, MIX)
    mixture.batch(8, 8, MIX)
    again, _ = Mixture(streams, torch.device("cpu"), seed=0).batch(7, 8, MIX)
    assert torch.equal(inputs, again)
    assert inputs.shape == targets.shape == (8, CONTEXT)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert not torch.equal(inputs, mixture.batch(8, 8, MIX)[0])
    assert not torch.equal(inputs, Mixture(streams, torch.device("cpu"), seed=1).batch(7, 8, MIX)[0])


def test_sources_are_mixed_by_their_shares(recipe, streams):
    inputs, _ = Mixture(streams, torch.device("cpu"), seed=0).batch(0, 4000, MIX)
    source_of_row = (inputs[:, 0] - 3) // 10
    for i, share in enumerate(MIX.values()):
        assert (source_of_row == i).float().mean().item() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("mix", [MIX, FINAL_MIX])
def test_shares_add_up(mix):
    assert sum(mix.values()) == pytest.approx(1)
    assert list(mix) == list(MIX)


def test_recipes_fit_their_models():
    assert list(RECIPES) == ["pico", "pico-draft"]
    assert RECIPES["pico-draft"].teacher == "pico"
    for name, recipe in RECIPES.items():
        assert load_model(name).config == recipe.config  # the shipped model is the recipe's


# ---------------------------------------------------------------- vocabulary


def test_the_tokenizer_is_deterministic_and_its_special_tokens_come_first(tmp_path):
    texts = [module(i) for i in range(4)]
    first, second = train_tokenizer(texts), train_tokenizer(iter(texts))
    assert first.to_str() == second.to_str()
    assert train_tokenizer(texts[1:]).to_str() != first.to_str()
    assert [first.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert first.get_vocab_size() <= VOCAB_SIZE
    save_tokenizer(first, tmp_path)
    tokenizer = load_tokenizer_from(tmp_path)
    text = "def function_1_2(x):\n\treturn 'é漢👩' \x00\n"  # bytes it has never seen
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(texts[0])) < len(texts[0].encode()) / 3  # and it has learnt something
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, None)


def load_tokenizer_from(folder):
    from lessonlib.engine import Tokenizer

    return Tokenizer(folder)


def test_dialogues_are_rendered_as_the_chat_template_does():
    messages = [
        {"role": "user", "content": "ask\nme"},
        {"role": "assistant", "content": "def f():\n    pass"},
    ]
    template = load_tokenizer("pico").apply_chat_template(messages, add_generation_prompt=False)
    assert render("ask\nme", "def f():\n    pass") == template


def test_preparing_writes_what_training_reads(tmp_path, monkeypatch):
    sources = {"library": range(4), "packages": range(4, 10), "tests": [10], "held_out": [11, 12]}
    documents = [Document(s, f"{i}.py", module(i)) for s, numbers in sources.items() for i in numbers]
    monkeypatch.setattr(data, "collect", lambda: documents)
    manifest = prepare(tmp_path)
    assert manifest["documents"] == 13
    assert manifest["tokens"] == {source: len(np.load(tmp_path / f"{source}.npy")) for source in MIX}
    tokenizer = load_tokenizer_from(tmp_path / "tokenizer")
    ids = np.load(tmp_path / "library.npy")
    assert ids[-1] == 0  # a document ends with the end of text
    assert "".join(tokenizer.decode(ids).split()) == "".join("".join(module(i) for i in range(4)).split())
    assert (ids == 0).sum() == 4
    assert dict(held_out(tmp_path)) == {f"{i}.py": module(i) for i in (11, 12)}
    assert (
        "module number 11"
        not in tokenizer.decode(np.concatenate([np.load(tmp_path / f"{s}.npy") for s in MIX])).lower()
    )
    before = (tmp_path / "manifest.json").read_text()
    monkeypatch.setattr(data, "collect", lambda: pytest.fail("collected again"))
    assert prepare(tmp_path) == json.loads(before)


# ---------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def knows_nothing() -> Transformer:
    """Every token is as likely as every other."""
    shape = replace(
        RECIPES["pico-draft"].config, num_hidden_layers=1, hidden_size=64, max_position_embeddings=48
    )
    model = Transformer(replace(shape, tie_word_embeddings=False)).eval().requires_grad_(False)
    model.lm_head.weight.zero_()
    return model


@pytest.mark.parametrize("length", [1, 47, 48, 49, 300])
def test_no_idea_costs_log2_of_the_vocabulary_a_token(knows_nothing, length):
    """At every length around the window: no token is scored twice or left out."""
    tokenizer = load_tokenizer("pico")
    ids = tokenizer.encode(module(1) * 3)[:length]
    text = tokenizer.decode(ids)
    assert len(tokenizer.encode(text)) == length
    expected = length * math.log2(4096) / len(text.encode())
    for stride in (1, 16, 47):
        assert bits_per_byte(knows_nothing, tokenizer, [text], stride) == pytest.approx(expected, rel=1e-4)
    assert bits_per_byte(knows_nothing, tokenizer, [text, text], stride=9999) == pytest.approx(
        expected, rel=1e-4
    )


@torch.inference_mode()
def test_bits_per_byte_is_the_cost_of_each_next_token():
    model, tokenizer = load_model("pico-draft"), load_tokenizer("pico-draft")
    text = "def f(x):\n    return x + 1\n"
    ids = torch.tensor([[0, *tokenizer.encode(text)]])
    logprobs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    expected = -logprobs.sum().item() / math.log(2) / len(text)
    assert bits_per_byte(model, tokenizer, [text]) == pytest.approx(expected, rel=1e-4)
    assert expected < 3  # even the draft model has some idea of Python


def test_agreement_and_samples(knows_nothing):
    draft, tokenizer = load_model("pico-draft"), load_tokenizer("pico-draft")
    texts = [module(1)[:400]]
    assert greedy_agreement(draft, draft, tokenizer, texts) == 1
    other = copy.deepcopy(draft)
    other.norm.weight.neg_()  # thinks the opposite
    assert greedy_agreement(other, draft, tokenizer, texts) == 0
    (sample,) = samples(draft, tokenizer, ["import os\n"], max_tokens=5)
    assert sample.startswith("import os\n")


def test_xz_is_measured_on_all_texts_as_one():
    assert 0 < xz_bits_per_byte([module(1)] * 50) < xz_bits_per_byte([module(1)]) < 8
