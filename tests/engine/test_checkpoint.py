"""Models on disk: names, folders, hub, and everything that can be wrong with them."""

from __future__ import annotations

import json
import shutil
import socket
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonlib.engine import (
    ModelConfig,
    RopeScaling,
    checkpoint,
    load_config,
    load_model,
    load_tokenizer,
    resolve,
    save_model,
)
from lessonlib.engine.errors import BadParameter, BrokenCheckpoint, UnknownModel, UnsafeCheckpoint

from .conftest import random_model, refuses, some_ids, tiny_config

UNTIED = random_model(
    tiny_config(num_hidden_layers=1, tie_word_embeddings=False, eos_token_ids=(1, 2), bos_token_id=1)
)


@pytest.fixture
def folder(tmp_path):
    """A sound model folder, to be damaged."""
    save_model(UNTIED, tmp_path / "mine")
    return tmp_path / "mine"


def edit(path, **changes) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "REMOVE"}))


def damage(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    ["nosuch", "Pico", "", "pico/../x/y", "./nowhere", "~/nowhere", "/no/where", "x" * 5000, "a\0b", None, 7],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with refuses(UnknownModel, match="pico, pico-draft"):
        load_model(name)


def test_shipped_names_and_folders(folder, monkeypatch):
    assert resolve("pico").name == "pico"
    assert resolve(folder) == resolve(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert load_config("mine") == load_config("./mine") == UNTIED.config
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_config("~/mine") == UNTIED.config
    (folder / "config.json").unlink()
    with refuses(BrokenCheckpoint, match="folder mine has no config.json"):
        resolve("mine")


def test_without_a_network_the_hub_is_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refuses(
        UnknownModel, match="some-org/some-model could not be fetched.*check the name and the network.*pico"
    ):
        load_model("some-org/some-model")
    with refuses(UnknownModel, match="could not be fetched"):
        load_tokenizer("some-org/some-model")
    with refuses(UnknownModel, match="HFValidationError"):
        load_model("no such/name at all")


def test_a_hub_that_never_answers_does_not_hang_the_lesson(monkeypatch):
    """A captive portal takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        monkeypatch.setattr(checkpoint, "HUB_SECONDS", 0.2)
        told: list[Exception] = []

        def ask() -> None:
            try:
                load_model("some-org/some-model")
            except Exception as error:
                told.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(30)
        assert not asking.is_alive(), "still waiting"
        assert isinstance(told[0], UnknownModel)


def test_what_was_downloaded_once_is_found_without_a_network(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder.parent / "hub"))
    repository = folder.parent / "hub" / "models--some-org--some-model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    ids = some_ids(4)
    assert torch.equal(load_model("some-org/some-model")(ids).logits, UNTIED(ids).logits)


# ---------------------------------------------------------------- saving


def test_saving_again_leaves_no_trace_of_the_first_time(folder):
    """Shards or an index left behind would be read in place of the new weights."""
    other = random_model(UNTIED.config, seed=5)
    ids = some_ids(6)
    for first, second in [(None, 30_000), (30_000, None), (30_000, 60_000)]:
        save_model(UNTIED, folder, max_shard_bytes=first)
        save_model(other, folder, max_shard_bytes=second)
        assert torch.equal(load_model(folder)(ids).logits, other(ids).logits)
        named = (
            json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values()
            if second
            else []
        )
        assert {path.name for path in folder.glob("*.safetensors")} == set(named or ["model.safetensors"])


def test_a_model_can_be_saved_over_the_files_it_was_loaded_from(folder):
    model, ids = load_model(folder), some_ids(6)
    save_model(model, folder)
    assert torch.equal(model(ids).logits, UNTIED(ids).logits)
    assert torch.equal(load_model(folder)(ids).logits, UNTIED(ids).logits)


def test_dtypes(folder):
    for name, dtype in [
        (None, torch.float32),
        ("auto", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float16, torch.float16),
    ]:
        assert load_model(folder, name).dtype == dtype
    save_model(load_model(folder, "bfloat16"), folder)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert not any(p.requires_grad for p in load_model(folder).parameters())
    assert not load_model(folder).training
    for dtype in ("fp16", "int8", ""):
        with refuses(BadParameter, match="is not known; choose one of float32, bfloat16, float16"):
            load_model(folder, dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "", "tpu"])
def test_a_device_that_is_not_there(folder, device):
    with refuses(BadParameter, match="use device='cpu'"):
        load_model(folder, device=device)


# ---------------------------------------------------------------- weights


def test_missing_misshapen_and_foreign_tensors_are_named(folder):
    def change(tensors):
        del tensors["model.layers.0.mlp.up_proj.weight"]
        tensors["model.norm.weight"] = torch.zeros(3)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)

    damage(folder, change)
    with refuses(BrokenCheckpoint) as told:
        load_model(folder)
    text = str(told.value)
    assert "model.layers.0.mlp.up_proj.weight is missing" in text
    assert "model.norm.weight is (3,) instead of (64,)" in text
    assert "model.layers.0.self_attn.q_proj.bias has no place" in text  # a Qwen2 that calls itself Llama


def test_many_missing_tensors_are_counted(folder):
    damage(folder, lambda tensors: [tensors.pop(name) for name in list(tensors)[1:]])
    with refuses(BrokenCheckpoint, match="is missing and 8 more"):
        load_model(folder)


def test_an_untied_model_needs_its_output_layer(folder):
    damage(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with refuses(BrokenCheckpoint, match="lm_head.weight is missing"):
        load_model(folder)
    edit(folder / "config.json", tie_word_embeddings=True)
    model = load_model(folder)
    assert model.lm_head.weight is model.embed_tokens.weight


def test_rotary_tables_of_old_checkpoints_are_ignored(folder):
    damage(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}))
    load_model(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_file_cut_short(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with refuses(BrokenCheckpoint, match=r"model.safetensors of mine is damaged or cut short"):
        load_model(folder)


def test_missing_shards_are_named(folder):
    save_model(UNTIED, folder, max_shard_bytes=20_000)
    shards = sorted(folder.glob("model-*"))
    assert len(shards) > 3
    shards[1].unlink()
    shards[2].unlink()
    with refuses(BrokenCheckpoint, match=f"lacks the weight files {shards[1].name}, {shards[2].name}"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "{"])
def test_a_broken_index(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with refuses(BrokenCheckpoint, match=r"model.safetensors.index.json of mine"):
        load_model(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_unopened(folder, name):
    (folder / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    torch.save(Bomb(), folder / name)
    with refuses(UnsafeCheckpoint, match=f"pickle format \\({name}\\)"):
        load_model(folder)


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    with refuses(BrokenCheckpoint, match="mine has no weights"):
        load_model(folder)


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


def test_loading_takes_no_longer_than_needed(folder):
    """No random weights are made only to be thrown away: they would cost more than the loading itself."""
    state = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), state)
