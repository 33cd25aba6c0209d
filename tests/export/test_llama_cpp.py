"""The GGUF file in llama.cpp itself: same ids, same logits, same greedy tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.worker import Ask, Worker
from lessonlib.engine import SamplingParams, Transformer, generate, load_model, load_tokenizer
from lessonlib.export.gguf import export_gguf

from .conftest import CODE, FAMILIES, RULES, TEMPLATE, held_out, write_model

pytestmark = pytest.mark.needs("llama.cpp")


def logits(llama: Worker, key: str, ids: list[int], folder: Path) -> np.ndarray:
    llama.call("score", key=key, ids=ids, path=str(folder / "logits.npy"))
    return np.load(folder / "logits.npy")


@torch.inference_mode()
def our_logits(model: Transformer, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).logits[0].numpy()


def greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    params = SamplingParams(temperature=0, ignore_eos=True)
    return generate(model, prompt, count, params=params)[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_f32_computes_what_we_compute(llama: Worker, tmp_path: Path, family: str) -> None:
    folder = write_model(tmp_path / "model", **FAMILIES[family])
    done = export_gguf(folder, tmp_path / "model.gguf", "f32")
    model = load_model(folder)
    ids = torch.randint(2, 400, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    llama.call("load", key=family, folder=str(done.path), variant="f32", length=128, exact=True)
    theirs, ours = logits(llama, family, ids, tmp_path), our_logits(model, ids)
    assert np.abs(theirs - ours).max() < 2e-3 * np.abs(ours).max()
    (answer,) = llama.serve(family, [Ask(0.0, ids[:12], 32)])
    llama.call("unload", key=family)
    assert answer.tokens == greedy(model, ids[:12], 32)


@pytest.fixture(scope="module")
def pico(llama: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pico in every format, loaded under the format's name."""
    folder = tmp_path_factory.mktemp("pico")
    for kind in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        done = export_gguf("pico", folder / f"{kind}.gguf", kind)
        llama.call("load", key=kind, folder=str(done.path), variant=kind, exact=True, sequences=2)
    return folder


def test_pico_writes_the_same_code(llama: Worker, pico: Path) -> None:
    model, tokenizer = load_model("pico"), load_tokenizer("pico")
    prompts = [tokenizer.encode(text)[:200] for text in held_out()[:2]]
    answers = llama.serve("f32", [Ask(0.0, prompt, 48) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.tokens == greedy(model, prompt, 48)


def test_the_smaller_the_format_the_larger_the_error(llama: Worker, pico: Path) -> None:
    model, tokenizer = load_model("pico"), load_tokenizer("pico")
    ids = tokenizer.encode(held_out()[0])[:300]
    ours = our_logits(model, ids)
    error = {
        kind: np.abs(logits(llama, kind, ids, pico) - ours).mean() for kind in ("f32", "f16", "q8_0", "q4_0")
    }
    assert error["f32"] < 1e-4
    # llama.cpp rounds the activations too, to 8 bits before an 8- or 4-bit matrix.
    assert error["f32"] < error["f16"] < error["q8_0"] < error["q4_0"] / 3
    assert error["q8_0"] < 0.1 and error["q4_0"] < 1.0


def test_pico_splits_text_as_we_do(llama: Worker, pico: Path) -> None:
    tokenizer = load_tokenizer("pico")
    texts = [
        *held_out(),
        CODE,
        "",
        " ",
        "\n\n\n",
        "\u00a0\u3000 x",
        "<|im_start|>user\nhi<|im_end|>\n",
        "don't I'LL",
    ]
    for text, ids in zip(texts, llama.call("tokenize", key="f32", texts=texts, special=True), strict=True):
        assert ids == tokenizer.encode(text), text[:40]


def test_pico_ends_and_chats_as_it_should(llama: Worker, pico: Path) -> None:
    found = llama.call("describe", key="f32")
    assert found["ends"] == list(load_model("pico").config.eos_token_ids)
    assert found["template"] == load_tokenizer("pico").chat_template


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_every_splitting_rule(llama: Worker, tmp_path: Path, rule: str, bos: bool) -> None:
    folder = write_model(tmp_path / "model", rule, bos)
    done = export_gguf(folder, tmp_path / "model.gguf")
    tokenizer = load_tokenizer(folder)
    texts = [*held_out()[:2], CODE, "a1b22c333d4444 i'M", "\r\n x\r\n\t"]
    llama.call("load", key=rule, folder=str(done.path), variant="f32")
    found = llama.call("tokenize", key=rule, texts=texts)
    described = llama.call("describe", key=rule)
    llama.call("unload", key=rule)
    for text, ids in zip(texts, found, strict=True):
        assert ids == tokenizer.encode(text), text[:40]
    assert described == {"ends": [1], "template": TEMPLATE}
