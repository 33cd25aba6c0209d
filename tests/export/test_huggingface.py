"""The exported folder in transformers: the same tokens, and for quantized weights the very same numbers."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lessonlib.engine import generate, load_model, load_tokenizer
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize.int4 import Int4Linear
from lessonlib.engine.quantize.int8 import Int8Linear
from lessonlib.export.huggingface import export_folder, pack_int32

from .conftest import CODE, FAMILIES, held_out, write_model


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return load_tokenizer("pico").encode(held_out()[0])[:150]


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_pico_writes_the_same_code(tmp_path: Path, prompt: list[int], kind: str) -> None:
    done = export_folder("pico", tmp_path / "pico", kind)
    assert done.nbytes == sum(file.stat().st_size for file in done.path.iterdir())
    # Stored in this format, computed in float32 by both, so that rounding cannot decide between two tokens.
    theirs = AutoModelForCausalLM.from_pretrained(done.path, dtype=torch.float32).eval()
    ours = load_model("pico")
    if kind == "float16":  # pico's own format is bfloat16: what float16 cannot hold must be tiny
        for name, weight in load_model(done.path).state_dict().items():
            assert (weight - ours.state_dict()[name]).abs().max() < 1e-5, name
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert expected[0].tolist() == generate(ours, prompt, 40)
    assert json.loads((done.path / "config.json").read_text())["torch_dtype"] == kind


def test_everything_a_reader_needs_comes_along(tmp_path: Path) -> None:
    folder = export_folder("pico", tmp_path / "pico").path
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer("pico")
    chat = [{"role": "user", "content": "a stack"}]
    assert theirs(CODE)["input_ids"] == ours.encode(CODE)
    assert theirs.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    ) == ours.apply_chat_template(chat)
    assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [0, 2]
    assert (folder / "README.md").is_file()  # where the weights come from, and their licence


@torch.inference_mode()
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *product(["llama", "llama-untied-mqa", "llama-bias", "qwen3"], ["int8", "int4"]),
        ("rows that fill no int32", "int8"),
    ],
)
def test_quantized_weights_are_the_engines_own(tmp_path: Path, family: str, kind: str) -> None:
    folder = write_model(tmp_path / "model", **FAMILIES.get(family, {"intermediate_size": 90}))
    done = export_folder(folder, tmp_path / "quantized", kind)
    theirs = AutoModelForCausalLM.from_pretrained(done.path, dtype=torch.float32).eval()
    ours = load_model(folder)
    ids = torch.randint(2, 400, (2, 50), generator=torch.Generator().manual_seed(1))
    exact = ours(ids).logits
    for layer in ours.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            one = (
                Int8Linear.from_linear(layer)
                if kind == "int8"
                else Int4Linear.from_linear(layer, group_size=32, symmetric=True)
            )
            layer.weight = torch.nn.Parameter(one.dequantize(), requires_grad=False)
    rounded = ours(ids).logits
    assert (theirs(ids).logits - rounded).abs().max() < 1e-4
    assert (rounded - exact).abs().max() > 1e-2  # or the line above would prove nothing


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.2), ("int4", 4.6)])
def test_the_folder_is_as_small_as_it_says(tmp_path: Path, kind: str, bits: float) -> None:
    config = load_model("pico").config
    embeddings = 2 * config.vocab_size * config.hidden_size  # bfloat16, as they were
    layers = config.num_parameters - config.vocab_size * config.hidden_size
    weights = (export_folder("pico", tmp_path / "pico", kind).path / "model.safetensors").stat().st_size
    assert 8 * (weights - embeddings) / layers < bits + 0.15  # norms and names


def test_packing_puts_the_first_code_lowest() -> None:
    four = pack_int32(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 15]]), 4)
    assert four.dtype == torch.int32 and four.item() & 0xFFFFFFFF == 0xF7654321
    eight = pack_int32(torch.tensor([[0, 128, 255, 1, 2, 3, 4, 5]]), 8)
    assert [value & 0xFFFFFFFF for value in eight[0].tolist()] == [0x01FF8000, 0x05040302]


def test_what_is_there_is_never_mixed_or_lost(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_text("precious")
    with pytest.raises(BadParameter, match="there already"):
        export_folder("pico", tmp_path / "mine", "int8")
    assert [file.read_text() for file in (tmp_path / "mine").iterdir()] == ["precious"]
    (tmp_path / "empty").mkdir()
    assert export_folder("pico", tmp_path / "empty").path.is_dir()


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", intermediate_size=72)
    for kind, match in (("int4", "choose int8"), ("q4_0", "float32, float16")):
        with pytest.raises(BadParameter, match=match):
            export_folder(folder, tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == [folder]


def test_weights_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from lessonlib.export.gguf import export_gguf

    folder = write_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 4] = -70_000.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadParameter, match=r"beyond 65,504.*bfloat16"):
        export_folder(folder, tmp_path / "out", "float16")
    with pytest.raises(BadParameter, match=r"beyond 65,504.*bfloat16"):
        export_gguf(folder, tmp_path / "out.gguf", "f16")
    export_folder(folder, tmp_path / "out", "bfloat16")
