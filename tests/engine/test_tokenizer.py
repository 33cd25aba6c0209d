"""The tokenizer's face: what is damaged, what does not fit, and templates from strangers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lessonlib.engine import LLM, Tokenizer, load_model, load_tokenizer, resolve, save_model
from lessonlib.engine.errors import BadParameter, BrokenCheckpoint, TokenizerMismatch, TokenOutOfRange

from .conftest import random_model, refuses, tiny_config

USER = {"role": "user", "content": "hello"}


@pytest.fixture
def folder(tmp_path):
    """A copy of pico-draft's folder, weights included."""
    return shutil.copytree(resolve("pico-draft"), tmp_path / "mine")


def settings(folder, **changes) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_each_token_by_itself():
    tokenizer = load_tokenizer("pico")
    ids = tokenizer.encode("def f(x):\n    return é<|im_end|>")
    assert "".join(tokenizer.tokens(ids[:-3])) == "def f(x):\n    return "
    assert tokenizer.tokens(ids)[-1] == "<|im_end|>"
    assert len(tokenizer.tokens(ids)) == len(ids)


def test_ids_of_any_kind_decode_and_others_are_refused():
    tokenizer = load_tokenizer("pico")
    ids = tokenizer.encode("def f(x):")
    for same in (tuple(ids), np.array(ids), torch.tensor(ids)):
        assert tokenizer.decode(same) == "def f(x):"
    assert tokenizer.decode([]) == ""
    for wrong in (5, "text", [1.5], [[1]], None):
        with refuses(BadParameter, match="Token ids must be one flat list"):
            tokenizer.decode(wrong)
    for wrong in ([-1], [2**40]):
        with refuses(TokenOutOfRange):
            tokenizer.decode(wrong)


@pytest.mark.parametrize("text", [None, 5, ["a"], b"bytes", "half a pair: \ud800"])
def test_what_is_no_text_is_refused(text):
    with refuses(BadParameter, match="no text that UTF-8 can write"):
        load_tokenizer("pico").encode(text)


def test_a_tokenizer_of_another_model_is_refused(folder):
    save_model(random_model(tiny_config(num_hidden_layers=1)), folder)
    with refuses(TokenizerMismatch, match="ids up to 4095 but the model knows only 97 tokens"):
        LLM(folder)
    with refuses(TokenizerMismatch):
        load_tokenizer(folder, vocab_size=4095)
    assert load_tokenizer(folder, vocab_size=4096).vocab_size == 4096


def test_one_id_with_a_gap_before_it_is_enough_to_refuse(folder):
    """What counts is the largest id, not how many there are."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    last = max(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["model"]["vocab"][last] = 5000
    path.write_text(json.dumps(content))
    with refuses(TokenizerMismatch, match="ids up to 5000"):
        LLM(folder)


def test_missing_and_broken_files(folder):
    (folder / "tokenizer.json").write_text("{")
    with refuses(BrokenCheckpoint, match=r"tokenizer.json of mine cannot be read"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with refuses(BrokenCheckpoint, match=r"mine has no tokenizer.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_broken_settings(folder, content):
    (folder / "tokenizer_config.json").write_text(content)
    with refuses(BrokenCheckpoint, match=r"tokenizer_config.json of mine"):
        load_tokenizer(folder)


def test_without_settings_it_still_encodes(folder):
    (folder / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("def") == load_tokenizer("pico-draft").encode("def")
    assert tokenizer.eos_token_id is None
    with refuses(TokenizerMismatch, match="no chat template"):
        tokenizer.apply_chat_template([USER])


TEMPLATES = [
    # a special token that is stored with its settings, as Llama and Mistral do
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}",
    # blocks on lines of their own must leave no blank lines
    "{% for m in messages %}\n    {% if m.role == 'user' %}\nU {{ m.content }}\n    {% endif %}\n{% endfor %}",
    # what transformers passes and templates ask for
    "{% if tools is none and documents is none %}no tools {% endif %}{{ messages | length }}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ messages[0]['content'] | trim }}{% if add_generation_prompt %}>{% endif %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_of_other_models_render_as_in_transformers(folder, template):
    token = {"__type": "AddedToken", "content": "<|im_start|>", "special": True, "lstrip": False, "rstrip": False,
             "normalized": False, "single_word": False}  # fmt: skip
    settings(folder, chat_template=template, bos_token=token)
    chat = [USER, {"role": "assistant", "content": " hi\n"}, USER]
    theirs = AutoTokenizer.from_pretrained(folder)
    assert Tokenizer(folder).apply_chat_template(chat) == theirs.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )
    assert Tokenizer(folder).bos_token_id == theirs.bos_token_id == 1


def test_a_template_in_its_own_file_comes_first(folder):
    (folder / "chat_template.jinja").write_text("from the file")
    assert load_tokenizer(folder).apply_chat_template([USER]) == "from the file"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Roles must alternate.') }}",
        "{% for m in messages %}\n\n{{ m.content }",  # its own message has several lines
        "{{ 1 + messages }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_that_fail_or_attack_are_refused(folder, template):
    settings(folder, chat_template=template)
    with refuses(TokenizerMismatch, match="chat template cannot write this chat"):
        load_tokenizer(folder).apply_chat_template([USER])


def test_what_a_user_writes_is_never_template_code(folder):
    text = "{{ 7 * 7 }} {% raw %} {# x #} <b>&amp;"
    assert text in load_tokenizer(folder).apply_chat_template([{"role": "user", "content": text}])


def test_tokenizer_and_model_are_loaded_from_the_same_folder(folder):
    llm = LLM(folder)
    assert llm.model.config == load_model("pico-draft").config
