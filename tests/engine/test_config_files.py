"""config.json: what cannot be read is refused in words, and each family's own rules are kept."""

from __future__ import annotations

import json

import pytest

from lessonlib.engine import ModelConfig, RopeScaling, load_model, save_model
from lessonlib.engine.errors import BadParameter, BrokenCheckpoint

from .conftest import random_model, refuses, tiny_config


@pytest.fixture
def folder(tmp_path):
    """A sound model folder, to be damaged."""
    save_model(random_model(tiny_config(num_hidden_layers=1)), tmp_path / "mine")
    return tmp_path / "mine"


def edit(path, **changes) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "REMOVE"}))


# ---------------------------------------------------------------- config.json


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", '{"model_type": "llama", }', "\x00", "null"])
def test_a_config_that_is_no_json_object(folder, content):
    (folder / "config.json").write_text(content)
    with refuses(BrokenCheckpoint, match=r"config.json of mine"):
        load_model(folder)


def test_a_config_that_is_no_text(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{")
    with refuses(BrokenCheckpoint, match="cannot be read"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2', but this engine knows llama, mistral, qwen2, qwen3"),
        ({"model_type": "REMOVE"}, "model_type None"),
        ({"vocab_size": "REMOVE"}, "lacks 'vocab_size'"),
        ({"num_attention_heads": "REMOVE"}, "lacks 'num_attention_heads'"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers is 1.5"),
        ({"num_attention_heads": 0, "head_dim": None}, "wrong kind"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot be shared evenly by 3"),
        ({"head_dim": 15}, "head_dim is 15"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "stored quantized"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "RoPE scaling 'yarn' is not supported"),
        ({"rope_scaling": "linear"}, "wrong kind"),
        ({"eos_token_id": 1.5}, "wrong kind"),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 8,
                "use_sliding_window": True,
                "num_hidden_layers": 3,
                "layer_types": ["full_attention"] * 2,
            },
            "2 layer_types for 3 layers",
        ),
    ],
    ids=str,
)
def test_configs_that_cannot_be_are_refused(folder, changes, match):
    edit(folder / "config.json", **changes)
    with refuses(BrokenCheckpoint, match=match):
        load_model(folder)


HF = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def test_old_and_new_ways_to_write_the_rope():
    linear = RopeScaling("linear", 4.0)
    for rope in [
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
    ]:
        config = ModelConfig.from_hf({"model_type": "llama", **HF, **rope})
        assert (config.rope_theta, config.rope_scaling) == (5e5, linear)
    for rope in [
        {},
        {"rope_scaling": None},
        {"rope_theta": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": None}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ]:
        assert ModelConfig.from_hf({"model_type": "llama", **HF, **rope}) == ModelConfig.from_hf(
            {"model_type": "llama", **HF}
        )


def test_each_family_has_its_own_defaults():
    def read(family: str, **changes) -> ModelConfig:
        return ModelConfig.from_hf({"model_type": family, **HF, **changes})

    assert read("llama").head_dim == 16
    assert read("qwen3").head_dim == 128
    assert read("llama", num_key_value_heads=None).num_key_value_heads == 4
    assert (read("qwen2").attention_bias, read("qwen2").output_bias) == (True, False)
    assert (
        read("llama", attention_bias=True).attention_bias,
        read("llama", attention_bias=True).output_bias,
    ) == (True, True)
    assert read("llama", eos_token_id=[5, 6]).eos_token_ids == (5, 6)
    assert read("llama", eos_token_id=5).eos_token_ids == (5,)
    assert read("llama", eos_token_id=None).eos_token_ids == ()


@pytest.mark.parametrize(
    ("family", "settings", "windows"),
    [
        ("llama", {"sliding_window": 8}, [None] * 4),  # Llama has none, whatever its config says
        ("mistral", {"sliding_window": 8}, [8] * 4),
        ("mistral", {"sliding_window": None}, [None] * 4),
        ("qwen2", {"sliding_window": 8}, [None] * 4),  # not unless it is switched on
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True}, [None] * 4),  # from layer 28 on
        (
            "qwen2",
            {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3},
            [None, None, None, 8],
        ),
        ("qwen3", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, [8] * 4),
        (
            "qwen3",
            {
                "sliding_window": 8,
                "use_sliding_window": True,
                "layer_types": ["full_attention", "sliding_attention"] * 2,
            },
            [None, 8, None, 8],
        ),
    ],
)
def test_windows_by_each_family_s_rule_as_transformers_reads_it(family, settings, windows):
    from transformers import AutoConfig

    config = ModelConfig.from_hf({"model_type": family, **HF, **settings})
    assert [config.window(i) for i in range(4)] == windows
    theirs = AutoConfig.for_model(family, **HF, **settings)
    if family.startswith("qwen"):
        kinds = ["sliding_attention" if window else "full_attention" for window in windows]
        assert theirs.layer_types == kinds


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 8},
        {"qk_norm": True},
        {"attention_bias": True},
        {"family": "mistral", "attention_bias": True, "output_bias": True},
        {"family": "mistral", "sliding_window": 8, "window_layers": (1,)},
        {"family": "qwen2"},
        {"family": "qwen3"},
    ],
    ids=str,
)
def test_a_mixture_that_no_family_has_is_not_written_for_others_to_misread(changes, tmp_path):
    with refuses(BadParameter, match="cannot have this"):
        save_model(random_model(tiny_config(num_hidden_layers=2, **changes)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_family_or_scaling_cannot_be_built():
    with refuses(BrokenCheckpoint, match="'yarn' is not supported"):
        RopeScaling("yarn")
    with refuses(BrokenCheckpoint, match="family 'gpt2'"):
        tiny_config(family="gpt2")
