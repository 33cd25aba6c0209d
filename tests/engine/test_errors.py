"""What the course promises of its errors: each trouble has a name, and its message is one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from lessonlib.engine import (
    LLM,
    DenseCache,
    EngineError,
    SamplingParams,
    errors,
    load_model,
    resolve,
    save_model,
)
from lessonlib.engine.compiled import build

from .conftest import random_model, refuses, tiny_config

CHAT = [{"role": "user", "content": "hello"}]


def _broken(folder, name: str):
    (folder / name).write_bytes(b"{" + bytes(50))
    return folder


def _pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    return folder


def _small(folder):
    save_model(random_model(tiny_config(num_hidden_layers=1)), folder)
    return folder


def _without_template(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


# situation: (the error, what the sentence must mention, what the user did)
SITUATIONS = {
    "an empty prompt": ("EmptyPrompt", "at least one", lambda llm, _: llm.generate("")),
    "a prompt beyond the context": ("PromptTooLong", "context is 2048", lambda llm, _: llm.generate("a b " * 2000)),
    "a token id the vocabulary lacks": ("TokenOutOfRange", "4096", lambda llm, _: llm.generate([1, 4096])),
    "an unknown model": ("UnknownModel", "pico, pico-draft", lambda *_: LLM("picco")),
    "the hub out of reach": ("UnknownModel", "network", lambda *_: LLM("some-org/some-model")),
    "a damaged weight file": (
        "BrokenCheckpoint", "model.safetensors", lambda _, folder: LLM(_broken(folder, "model.safetensors")),
    ),
    "a damaged config": ("BrokenCheckpoint", "config.json", lambda _, folder: LLM(_broken(folder, "config.json"))),
    "a pickle": ("UnsafeCheckpoint", "pytorch_model.bin", lambda _, folder: LLM(_pickled(folder))),
    "a foreign tokenizer": ("TokenizerMismatch", "tokenizer", lambda _, folder: LLM(_small(folder))),
    "a chat with a model that cannot": (
        "TokenizerMismatch", "chat template", lambda _, folder: LLM(_without_template(folder)).chat(CHAT),
    ),
    "a setting without meaning": ("BadParameter", "temperature=-1", lambda *_: SamplingParams(temperature=-1)),
    "a full cache": (
        "CacheFull", "max_length",
        lambda llm, _: llm.model(torch.zeros(1, 5, dtype=torch.int64), cache=DenseCache(llm.model.config, 1, 4)),
    ),
    "no compiler": ("NoCompiler", "g++", lambda *_: LLM("pico-draft", compiled=True)),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_trouble_has_a_name_and_a_sentence(situation, draft, tmp_path, monkeypatch):
    build.library.cache_clear()
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name, mentions, do = SITUATIONS[situation]
    folder = shutil.copytree(resolve("pico-draft"), tmp_path / "mine")
    with refuses(getattr(errors, name), match=mentions):
        do(draft, folder)


def test_every_error_of_the_engine_has_its_situation():
    own = [kind for kind in EngineError.__subclasses__() if kind.__module__ == errors.__name__]
    assert {name for name, *_ in SITUATIONS.values()} == {kind.__name__ for kind in own}


def test_errors_hide_no_traceback_of_another_library(tmp_path):
    """A beginner reads the last line first; "During handling of the above exception" helps nobody."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EngineError) as told:
        load_model(tmp_path)
    assert told.value.__suppress_context__ or told.value.__context__ is None
