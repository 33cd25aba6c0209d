"""`lesson generate`: what a student types to see a model write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lessonlib import cli
from lessonlib.engine import ModelConfig, Transformer, save_model

TEXT = "def f(x):\n    return x + 1\n" * 5
TEMPLATE = "{% for m in messages %}<q>{{ m['content'] }}<a>{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny untrained model and a byte-level tokenizer of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
    )
    save_model(Transformer(config), folder)
    return str(folder)


def generate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert cli.main(["generate", *arguments]) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_the_prompt_is_echoed_and_continued(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = generate(capsys, model, "def [b]f[/b](", "--max-tokens", "8", "--temperature", "0")
    assert out.startswith("def [b]f[/b](")  # brackets are text, not markup
    assert len(out) > len("def [b]f[/b](\n")
    assert "tokens" in err and "seed" not in err


def test_the_engine_s_other_ways_give_text_too(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = (model, "def f(x):", "--max-tokens", "12", "--temperature", "0")
    plain, _ = generate(capsys, *greedy)
    assert generate(capsys, *greedy, "--speculative-model", "ngram")[0] == plain
    assert generate(capsys, *greedy, "--dtype", "bfloat16", "--quantization", "int8")[0].startswith(
        "def f(x):"
    )
    assert cli.main(["generate", *greedy, "--quantization", "int3"]) == 1
    assert "int8" in capsys.readouterr().err  # it names the ones that work


def test_streaming_changes_nothing_but_the_waiting(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (model, "def f(", "--max-tokens", "12", "--seed", "5", "--top-k", "20")
    assert generate(capsys, *asked)[0] == generate(capsys, *asked, "--no-stream")[0]


def test_the_seed_it_reports_repeats_the_text(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = generate(capsys, model, "x", "--max-tokens", "16", "--temperature", "2")
    seed = err.rsplit("--seed", 1)[1].strip()
    again, _ = generate(capsys, model, "x", "--max-tokens", "16", "--temperature", "2", "--seed", seed)
    asked = (model, "x", "--max-tokens", "16", "--temperature", "2", "--seed", str(int(seed) + 1))
    other, _ = generate(capsys, *asked)
    assert again == out
    assert other != out


def test_chat_goes_through_the_template(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--max-tokens", "12", "--temperature", "0")
    plain, _ = generate(capsys, model, "<q>hello<a>", *options)
    chat, _ = generate(capsys, model, "hello", "--chat", *options)
    assert chat.removeprefix("hello").strip() == plain.removeprefix("<q>hello<a>").strip()


def test_the_prompt_can_come_from_a_pipe(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prompt").write_text("def f(")
    with open(tmp_path / "prompt") as piped:
        monkeypatch.setattr("sys.stdin", piped)
        out, _ = generate(capsys, model, "-", "--max-tokens", "2")
    assert out.startswith("def f(")


@pytest.mark.parametrize(
    ("prompt", "options"),
    [("", ()), ("x", ("--temperature", "-1")), ("x " * 200, ()), ("x", ("--top-p", "0"))],
)
def test_what_cannot_be_done_is_one_sentence(
    model: str, capsys: pytest.CaptureFixture[str], prompt: str, options: tuple[str, ...]
) -> None:
    assert cli.main(["generate", model, prompt, *options]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1
