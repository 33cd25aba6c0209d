"""perplexity: the cost of every token, each predicted once, from as much as the window allows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from lessonlib.engine import load_model, load_tokenizer, resolve, save_model
from lessonlib.engine.errors import BadParameter, EmptyPrompt, TokenOutOfRange
from lessonlib.engine.perplexity import Perplexity, perplexity

from .conftest import QUIET, random_model, refuses, some_ids, tiny_config

TEXT = "def f(x):\n    return [x * i for i in range(10)]  # ½ é\n\n\nclass A:\n    pass\n"


def cost_one_by_one(model, ids: list[int], context: int, stride: int) -> float:
    """Every token by itself, from the tokens its window holds before it."""
    nats, first = 0.0, 1
    while first < len(ids):
        end = min(len(ids), max(context, first + stride))
        for i in range(first, end):
            seen = torch.tensor([ids[max(0, end - context) : i]])
            nats -= model(seen).logits[0, -1].log_softmax(-1)[ids[i]].item()
        first = end
    return nats


@QUIET
@given(length=st.integers(2, 60), context=st.integers(2, 40), stride=st.integers(1, 50))
def test_every_token_is_predicted_once_from_its_window(length, context, stride):
    model = MODEL
    ids = some_ids(length)[0].tolist()
    found = perplexity(model, ids, stride=stride, context=context)
    assert found.tokens == length - 1
    assert found.nats == pytest.approx(
        cost_one_by_one(model, ids, context, min(stride, context - 1)), rel=1e-4
    )


MODEL = random_model(tiny_config(num_hidden_layers=2))


def test_the_loss_is_that_of_transformers(tmp_path):
    save_model(MODEL, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    for length in (2, 30, 128):
        ids = some_ids(length)
        loss = theirs(input_ids=ids, labels=ids).loss.item()
        assert perplexity(MODEL, ids[0]).nats_per_token == pytest.approx(loss, rel=1e-5)


def test_a_text_is_read_from_the_begin_of_text_token():
    model, tokenizer = load_model("pico-draft"), load_tokenizer("pico-draft")
    found = perplexity(model, TEXT, tokenizer)
    ids = [model.config.bos_token_id, *tokenizer.encode(TEXT)]
    given_ids = perplexity(model, ids)
    assert (found.nats, found.tokens) == (given_ids.nats, len(ids) - 1)
    assert found.size == len(TEXT.encode()) == len(TEXT) + 2  # two characters of two bytes
    theirs = AutoModelForCausalLM.from_pretrained(resolve("pico-draft"), dtype=torch.float32)
    loss = theirs(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    assert found.nats_per_token == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "first"), [(TEXT, 3), ("漢字 = 1\n", None), ("<|endoftext|>x = 1", 13), ("x", 1)]
)
def test_bytes_that_are_given_are_not_counted(text, first):
    """A model without a begin-of-text token cannot predict a text's first one."""
    model, tokenizer = load_model("pico-draft"), load_tokenizer("pico-draft")
    whole = perplexity(model, "a" + text, tokenizer)
    assert whole.size == 1 + len(text.encode())
    model.config = replace(model.config, bos_token_id=None)
    ids = tokenizer.encode(text)
    if first is None:  # the first token is a part of the first character
        assert tokenizer.tokens(ids)[0] == "\ufffd"
        first = len(tokenizer.id_to_token(ids[0]))
        assert 1 <= first < len(text[0].encode())
    if len(ids) == 1:
        with refuses(EmptyPrompt):
            perplexity(model, text, tokenizer)
        assert perplexity(model, [text, TEXT], tokenizer) == perplexity(model, TEXT, tokenizer)
        return
    found = perplexity(model, text, tokenizer)
    assert (found.nats, found.tokens) == (perplexity(model, ids).nats, len(ids) - 1)
    assert found.size == len(text.encode()) - first


def test_several_texts_are_independent_of_each_other():
    model, tokenizer = load_model("pico-draft"), load_tokenizer("pico-draft")
    one, other = perplexity(model, TEXT, tokenizer), perplexity(model, "import os\n", tokenizer)
    both = perplexity(model, [TEXT, "import os\n"], tokenizer)
    assert both.nats == pytest.approx(one.nats + other.nats, rel=1e-6)
    assert (both.tokens, both.size) == (one.tokens + other.tokens, one.size + other.size)
    assert perplexity(model, [TEXT, ""], tokenizer).tokens == one.tokens


def test_units():
    """2 tokens of 3 bits each for 4 bytes."""
    found = Perplexity(nats=6 * math.log(2), tokens=2, size=4)
    assert found.nats_per_token == pytest.approx(3 * math.log(2))
    assert found.perplexity == pytest.approx(8)
    assert found.bits_per_byte == pytest.approx(1.5)


def test_no_idea_is_the_size_of_the_vocabulary():
    model = random_model(tiny_config(tie_word_embeddings=False))
    model.lm_head.weight.zero_()
    assert perplexity(model, some_ids(50)[0]).perplexity == pytest.approx(97, rel=1e-4)


def test_more_context_helps_a_real_model():
    model, tokenizer = load_model("pico"), load_tokenizer("pico")
    short, long = (perplexity(model, TEXT * 2, tokenizer, stride=1, context=c) for c in (4, 64))
    assert long.perplexity < 0.5 * short.perplexity


def test_what_it_refuses():
    tokenizer = load_tokenizer("pico")
    with refuses(BadParameter, match="needs its tokenizer"):
        perplexity(MODEL, TEXT)
    for text in ([], [5], [[5], [6]]):
        with refuses(EmptyPrompt, match="no token to predict"):
            perplexity(MODEL, text)
    with refuses(TokenOutOfRange):
        perplexity(MODEL, [5, 97])
    with refuses(BadParameter, match="stride=0"):
        perplexity(MODEL, [5, 6], stride=0)
    for context in (1, 129, 3.5):
        with refuses(BadParameter, match="context="):
            perplexity(MODEL, [5, 6], tokenizer, context=context)
    with refuses(BadParameter, match="no size in bytes"):
        _ = perplexity(MODEL, [5, 6]).bits_per_byte
