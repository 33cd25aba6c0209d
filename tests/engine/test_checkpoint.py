"""Models on disk: names, folders, hub, and everything that can be wrong with them."""

from __future__ import annotations

import json
import shutil
import socket
import threading

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lessonlib.engine import (
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


@pytest.mark.parametrize("shard", [None, 1000])
def test_whoever_may_read_the_config_may_read_the_weights(tmp_path, shard):
    """A server in a container runs as another user."""
    save_model(UNTIED, tmp_path / "mine", shard)
    modes = {path.stat().st_mode for path in (tmp_path / "mine").iterdir()}
    assert len(modes) == 1


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


@pytest.mark.parametrize("shard", [None, 20_000])
def test_a_save_that_fails_leaves_a_working_folder(folder, monkeypatch, shard):
    """A disk that is full, at the first file or at a later one."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = random_model(tiny_config(num_hidden_layers=2))
    for working in (0, 1) if shard else (0,):
        left = working

        def full(tensors, path, metadata):
            nonlocal left
            left -= 1
            if left < 0:
                path.write_bytes(b"half")
                raise SafetensorError(
                    "Error while serializing: I/O error: No space left on device (os error 28)"
                )
            save_file(tensors, path, metadata)

        monkeypatch.setattr(checkpoint, "save_file", full)
        with refuses(BadParameter, match="could not be saved in mine .*No space left.*choose another folder"):
            save_model(other, folder, shard)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert torch.equal(load_model(folder)(some_ids(6)).logits, UNTIED(some_ids(6)).logits)


def test_a_place_that_takes_no_folder(folder):
    with refuses(BadParameter, match="could not be saved in config.json"):
        save_model(UNTIED, folder / "config.json")


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


# ---------------------------------------------------------------- generation_config.json


@pytest.mark.parametrize(
    ("ends", "together"),
    [
        (5, (1, 2, 5)),
        ([7, 2, 5], (1, 2, 7, 5)),
        ([2, 1], (1, 2)),
        (None, (1, 2)),
        ("REMOVE", (1, 2)),
        ([], (1, 2)),
    ],
)
def test_end_tokens_of_both_files_end_a_text(folder, ends, together):
    """Qwen's chat models name the end of a turn in one and the end of a text in the other."""
    (folder / "generation_config.json").write_text('{"pad_token_id": 0}')
    edit(folder / "generation_config.json", eos_token_id=ends)
    assert load_config(folder).eos_token_ids == load_model(folder).config.eos_token_ids == together
    edit(folder / "config.json", eos_token_id=None)
    alone = {5: (5,), None: (), "REMOVE": ()}
    assert load_config(folder).eos_token_ids == (tuple(ends) if isinstance(ends, list) else alone[ends])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"eos_token_id": "end"}', '{"eos_token_id": [1, 2.5]}', '{"eos_token_id": true}'],
)
def test_a_broken_generation_config(folder, content):
    (folder / "generation_config.json").write_text(content)
    with refuses(BrokenCheckpoint, match=r"generation_config.json of mine"):
        load_model(folder)


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


def test_loading_takes_no_longer_than_needed(folder):
    """No random weights are made only to be thrown away: they would cost more than the loading itself."""
    state = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), state)
