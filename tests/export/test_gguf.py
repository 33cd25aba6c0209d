"""What stands in a GGUF file, read back with the gguf package; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from lessonlib.engine import EngineError, load_model, load_tokenizer, save_model
from lessonlib.engine.config import RopeScaling
from lessonlib.engine.errors import BadParameter, TokenizerMismatch
from lessonlib.export.gguf import export_gguf
from tests.engine.conftest import random_model, tiny_config

from .conftest import write_model, write_tokenizer


def read(path: Path) -> tuple[dict, dict[str, gguf.ReaderTensor]]:
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def numbers(tensor: gguf.ReaderTensor) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def one_sentence(error: EngineError) -> bool:
    text = str(error)
    return "\n" not in text and text.endswith(".") and ". " not in text


def test_the_keys_of_pico(tmp_path: Path) -> None:
    done = export_gguf("pico", tmp_path / "pico.gguf")
    assert done.quantization == "bf16"  # as the checkpoint stores it
    assert done.nbytes == done.path.stat().st_size
    keys, tensors = read(done.path)
    config, tokenizer = load_model("pico").config, load_tokenizer("pico")
    expected = {
        "general.architecture": "llama",
        "general.name": "pico",
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": config.eos_token_ids[0],
        "tokenizer.ggml.eot_token_id": config.eos_token_ids[1],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {name: keys[name] for name in expected} == expected
    assert keys["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(config.rms_norm_eps)
    assert keys["llama.rope.freq_base"] == pytest.approx(config.rope_theta)
    assert keys["tokenizer.ggml.tokens"] == [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    assert keys["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]  # three control tokens, then normal ones
    assert "output.weight" not in tensors  # tied


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_the_weights_survive_in_every_format(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path / "model")
    _, tensors = read(export_gguf(folder, tmp_path / "model.gguf", kind).path)
    ours = load_model(folder).state_dict()
    assert len(tensors) == len(ours) - 1
    down, head = tensors["blk.1.ffn_down.weight"], tensors["token_embd.weight"]
    assert down.tensor_type.name == kind.upper()
    assert head.tensor_type.name == ("Q8_0" if kind == "q4_0" else kind.upper())
    assert tensors["output_norm.weight"].tensor_type.name == "F32"
    original = ours["layers.1.mlp.down_proj.weight"].numpy()
    step = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 254, "q4_0": 1 / 8}[kind]
    assert np.abs(numbers(down) - original).max() <= 1.01 * step * np.abs(original).max()
    if kind == "f32":
        assert np.array_equal(numbers(down), original)


def test_rows_that_do_not_fill_their_blocks_stay_f16(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", intermediate_size=72)
    _, tensors = read(export_gguf(folder, tmp_path / "model.gguf", "q8_0").path)
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "F16"  # 72 inputs: two blocks and a quarter
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q8_0"


def test_a_window_shortens_the_context_and_is_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", family="mistral", sliding_window=48)
    done = export_gguf(folder, tmp_path / "model.gguf")
    assert read(done.path)[0]["llama.context_length"] == 48
    assert len(done.notes) == 1 and "48 tokens" in done.notes[0]
    folder = write_model(tmp_path / "wide", family="mistral", sliding_window=500)
    assert export_gguf(folder, tmp_path / "wide.gguf").notes == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "qwen3", "qk_norm": True, "attention_bias": True, "output_bias": True},
        {"family": "qwen2", "attention_bias": True, "head_dim": 32},
        {"family": "qwen3", "qk_norm": True, "rope_scaling": RopeScaling("llama3", 8.0)},
    ],
    ids=["output-bias", "wide-heads", "llama3-rope"],
)
def test_what_llama_cpp_has_not_is_refused(tmp_path: Path, changes: dict) -> None:
    folder = write_model(tmp_path / "model", **changes)
    with pytest.raises(BadParameter) as told:
        export_gguf(folder, tmp_path / "model.gguf")
    assert one_sentence(told.value)
    assert list(tmp_path.iterdir()) == [folder]


def _prefix_space(content: dict) -> None:
    content["pre_tokenizer"]["add_prefix_space"] = True


def _lowercase(content: dict) -> None:
    content["normalizer"] = {"type": "Lowercase"}


def _whole_words(content: dict) -> None:
    content["model"]["ignore_merges"] = True


def _two_in_front(content: dict) -> None:
    token = {"SpecialToken": {"id": "<|q|>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [token, token, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|q|>": {"id": "<|q|>", "ids": [0], "tokens": ["<|q|>"]}},
    }


@pytest.mark.parametrize("change", [_prefix_space, _lowercase, _whole_words, _two_in_front])
def test_a_tokenizer_llama_cpp_would_not_match_is_refused(tmp_path: Path, change) -> None:
    folder = write_model(tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    load_tokenizer(folder)  # it is a good tokenizer all the same
    with pytest.raises(TokenizerMismatch) as told:
        export_gguf(folder, tmp_path / "model.gguf")
    assert one_sentence(told.value)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_word_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    words = Tokenizer(models.WordLevel({"x": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerMismatch):
        export_gguf(folder, tmp_path / "model.gguf")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="f32, f16, bf16, q8_0, q4_0"):
        export_gguf("pico", tmp_path / "pico.gguf", "q3_k")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    save_model(random_model(tiny_config(vocab_size=400)), folder)
    write_tokenizer(folder)
    path = export_gguf(folder, tmp_path / "model.gguf", "f32").path
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full_disk)
    with pytest.raises(OSError, match="no space"):
        export_gguf(folder, path, "q8_0")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.gguf"]


def test_bfloat16_weights_are_kept_bit_for_bit(tmp_path: Path) -> None:
    _, tensors = read(export_gguf("pico", tmp_path / "pico.gguf").path)
    ours = load_model("pico", "bfloat16").state_dict()["layers.3.mlp.up_proj.weight"]
    stored = torch.from_numpy(np.array(tensors["blk.3.ffn_up.weight"].data)).view(torch.bfloat16)
    assert torch.equal(stored, ours)
