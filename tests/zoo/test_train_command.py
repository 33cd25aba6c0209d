"""`lesson train`: the whole recipe from the command line, on a corpus of a few files."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from lessonlib.cli import main
from lessonlib.engine import LLM, SamplingParams, checkpoint
from lessonlib.zoo import data, recipe, training
from lessonlib.zoo.corpus import Document
from lessonlib.zoo.recipe import RECIPES

from .conftest import module

CONTEXT = 64
command = importlib.import_module("lessonlib.commands.train")


@pytest.fixture
def asked(monkeypatch):
    """What would be trained, without the training."""
    runs: list[tuple] = []
    monkeypatch.setattr(data, "prepare", lambda folder: {"documents": 3, "tokens": {}})
    monkeypatch.setattr(command, "_train_one", lambda *arguments: runs.append(arguments))
    return runs


def test_help_explains_itself(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "--folder",
        "--install",
        "--prepare-only",
        "--tokens",
        "--rows",
        "--device",
        "pico-draft",
        "Example",
    ):
        assert part in shown


def test_options_arrive_where_they_are_meant(asked, tmp_path):
    options = ["--folder", str(tmp_path), "--install", "--tokens", "1000", "--rows", "2", "--device", "cpu"]
    assert main(["train", "pico", *options]) == 0
    ((name, folder, manifest, tokens, rows, device, install),) = asked
    assert (name, folder, tokens, rows, device, install) == ("pico", tmp_path, 1000, 2, "cpu", True)
    assert manifest["documents"] == 3


def test_without_options_both_models_are_trained_and_nothing_is_installed(asked):
    assert main(["train"]) == 0
    assert [run[0] for run in asked] == ["pico", "pico-draft"]  # the teacher first
    for _, folder, _, tokens, rows, _, install in asked:
        assert (folder, tokens, rows, install) == (Path("build/zoo"), None, None, False)
    assert asked[0][5] in ("cpu", "cuda")


def test_preparing_only_trains_nothing(asked):
    assert main(["train", "--prepare-only"]) == 0
    assert asked == []


@pytest.mark.parametrize("wrong", [["nosuch"], ["--tokens", "many"], ["--rows", "x"], ["--nosuch"]])
def test_what_cannot_be_asked_is_refused_before_any_work(asked, wrong, capsys):
    assert main(["train", *wrong]) == 2
    assert asked == []
    if wrong == ["nosuch"]:
        assert "pico" in capsys.readouterr().err


def test_from_the_corpus_to_an_installed_model(tmp_path, monkeypatch, capsys):
    """Teacher and pupil, both folders, the card, and a model that LLM finds by its name."""
    sources = {"library": range(4), "packages": range(4, 10), "tests": [10, 14], "held_out": [11, 12]}
    documents = [Document(s, f"{i}.py", module(i)) for s, numbers in sources.items() for i in numbers]
    monkeypatch.setattr(data, "collect", lambda: documents)
    for room in (data, training):
        monkeypatch.setattr(room, "CONTEXT", CONTEXT)
    tiny = {}
    for name, original in RECIPES.items():
        shape = replace(original.config, hidden_size=32, intermediate_size=48, num_hidden_layers=1)
        shape = replace(
            shape, num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=CONTEXT
        )
        tiny[name] = replace(original, config=shape, tokens=5 * 128, batch_tokens=128)
    monkeypatch.setattr(recipe, "RECIPES", tiny)
    monkeypatch.setattr(checkpoint, "ZOO", tmp_path / "zoo")

    assert (
        main(["train", "--folder", str(tmp_path / "work"), "--install", "--device", "cpu", "--rows", "2"])
        == 0
    )

    shown = capsys.readouterr().out
    assert "bits per byte, held-out code" in shown
    assert "greedy agreement with pico" in shown
    assert checkpoint.shipped_models() == ["pico", "pico-draft"]
    for name in ("pico", "pico-draft"):
        answer = LLM(name).generate("def f(", SamplingParams(max_tokens=3, temperature=0, ignore_eos=True))[0]
        assert len(answer.outputs[0].token_ids) == 3
        card = (tmp_path / "zoo" / name / "README.md").read_text()
        assert f"`lesson train {name}` on" in card
        assert "| bits per byte, held-out code | **" in card
        assert "14 files" in card
    stored = LLM("pico", dtype="float32").model.config
    assert stored == tiny["pico"].config
