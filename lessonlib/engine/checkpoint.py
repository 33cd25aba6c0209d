"""Models on disk: find a folder by name, read and write it in the Hugging Face format.

A folder holds ``config.json``, ``*.safetensors`` (one file, or shards with an index) and ``tokenizer.json``.
Pickle checkpoints are refused: unpickling runs code chosen by whoever wrote the file.
"""

from __future__ import annotations

import json
import os
import reprlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import ModelConfig, is_whole
from .errors import BadParameter, BrokenCheckpoint, UnknownModel, UnsafeCheckpoint
from .model import Transformer

ZOO = Path(__file__).resolve().parent.parent / "zoo"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
HUB_SECONDS = 10.0  # a hub that does not answer for this long counts as out of reach


def shipped_models() -> list[str]:
    """Names of the models that come with the course."""
    return sorted(folder.parent.name for folder in ZOO.glob("*/config.json"))


def resolve(name: str | Path) -> Path:
    """The local folder of a shipped model, of a path, or of ``org/name`` on the hub (downloaded once).

    Raises UnknownModel with the names that would have worked.
    """
    text = str(name)
    known = ", ".join(shipped_models()) or "none"
    for folder in (ZOO / text, Path(os.path.expanduser(text))):
        # Unlike Path.is_file, this says no to a name that is far too long.
        if os.path.isfile(folder / CONFIG):
            return folder
    if text and os.path.isdir(folder):
        raise BrokenCheckpoint(
            f"The folder {text} has no config.json, so it is not a model in Hugging Face format; "
            f"give the folder that holds one, or a shipped model ({known})."
        )
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _from_hub(text, known)
    raise UnknownModel(
        f"No model is called {text[:80]!r}: give a shipped one ({known}), a folder, or a hub name such as org/name."
    )


def _from_hub(name: str, known: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
    try:
        # Asked first because snapshot_download would wait for ever for a silent hub.
        HfApi().model_info(name, timeout=HUB_SECONDS)
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # transport, permission and naming errors have no common base
        with suppress(Exception):  # downloaded before?
            return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        raise UnknownModel(
            f"{name[:80]} could not be fetched from the model hub ({type(error).__name__}); check the name and the "
            f"network, or use a shipped model ({known})."
        ) from None


def load_config(name: str | Path) -> ModelConfig:
    """ModelConfig of a model by name or folder; the tokens that end a text are those of both its config files."""
    folder = resolve(name)
    config = ModelConfig.from_hf(read_json(folder / CONFIG))
    if not os.path.isfile(folder / GENERATION):
        return config
    ends = read_json(folder / GENERATION).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(map(is_whole, ends)):
        raise BrokenCheckpoint(
            f"{GENERATION} of {folder.name} says eos_token_id {reprlib.repr(ends)}, and that is no list of token ids; "
            "fetch the folder again."
        )
    # Models that chat often name the end of a turn here alone.
    return replace(config, eos_token_ids=tuple(dict.fromkeys([*config.eos_token_ids, *ends])))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder. Raises BrokenCheckpoint when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BrokenCheckpoint(
            f"{path.name} of {path.parent.name} is not valid JSON (line {error.lineno}); fetch the folder again."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenCheckpoint(
            f"{path.name} of {path.parent.name} cannot be read ({type(error).__name__}); fetch the folder again."
        ) from None
    if not isinstance(content, dict):
        raise BrokenCheckpoint(
            f"{path.name} of {path.parent.name} holds no JSON object; fetch the folder again."
        )
    return content


def to_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"bfloat16"`` -> torch.bfloat16; None -> float32, the format every CPU computes in."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None or dtype == "auto":
        return torch.float32
    if dtype not in DTYPES:
        raise BadParameter(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def to_device(device: str | torch.device) -> torch.device:
    """``"cuda"`` -> torch.device("cuda"). Raises BadParameter when this machine does not have it."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise BadParameter(
            f"The device {device!s:.40} is not available here; use device='cpu', which always is."
        ) from None
    return place


def load_model(
    name: str | Path, dtype: str | torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Transformer:
    """A model ready for inference. ``name``: "pico", a folder, or "org/name" on the hub.

    Raises UnknownModel, UnsafeCheckpoint, BadParameter, BrokenCheckpoint (naming the tensors that are missing,
    misshapen or not the model's).
    """
    number, place = to_dtype(dtype), to_device(device)
    folder = resolve(name)
    config = load_config(folder)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(_read(folder, model, number, place), assign=True)
    model.tie_weights()
    return model.eval().requires_grad_(False)


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file that everyone may read who may read the files beside it: the library makes it the owner's."""
    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copymode(path.with_name(CONFIG), path)


def save_model(model: Transformer, folder: str | Path, max_shard_bytes: int | None = None) -> None:
    """Write ``config.json`` and the weights, in the model's dtype, as transformers and vLLM read them.

    ``max_shard_bytes`` splits the weights over several files with an index. What is in the folder already is
    replaced, once all of the new is complete. Raises BadParameter where that cannot be.
    """
    if model.quantization:
        raise BadParameter(
            f"This model is quantized ({model.quantization}), and a checkpoint holds plain weights; save it before "
            "quantizing, or use lesson export."
        )
    folder = Path(folder)
    hf = model.config.to_hf() | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    tensors = {_hf_name(name): t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as fresh:
            files = _write(hf, tensors, max_shard_bytes, Path(fresh))
            for file in files:
                os.replace(Path(fresh, file), folder / file)
            # An older save may have left more files, and the next reader would not know which weights are meant.
            for old in (folder / WEIGHTS, folder / INDEX, *folder.glob("model-*-of-*.safetensors")):
                if old.name not in files:
                    old.unlink(missing_ok=True)
            os.replace(Path(fresh, CONFIG), folder / CONFIG)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:100].rstrip(".")
        raise BadParameter(
            f"The model could not be saved in {folder.name[:80]} ({reason}); make room there or choose another folder."
        ) from None


def _write(hf: dict[str, Any], tensors: dict[str, Tensor], limit: int | None, folder: Path) -> list[str]:
    """All files of a model, in an empty folder; returns the names of those with the weights."""
    (folder / CONFIG).write_text(json.dumps(hf, indent=2) + "\n")
    shards = _shards(tensors, limit)
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    files = files if len(files) > 1 else [WEIGHTS]
    for file, names in zip(files, shards, strict=True):
        write_tensors({name: tensors[name] for name in names}, folder / file)
    if len(files) > 1:
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        content = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")
        files = [*files, INDEX]
    return files


def _shards(tensors: dict[str, Tensor], limit: int | None) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if limit and held and held + size > limit:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    return shards


def _hf_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
            raise BrokenCheckpoint(f"{INDEX} of {folder.name} has no weight_map; fetch the folder again.")
        wanted = set(names.values())
        if missing := sorted(file for file in wanted if not (folder / file).is_file()):
            raise BrokenCheckpoint(f"{folder.name} lacks the weight files {_some(missing)}; fetch it again.")
        return sorted(folder / file for file in wanted)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if pickles := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise UnsafeCheckpoint(
            f"{folder.name} has its weights in pickle format ({pickles[0].name}), which can run code when loaded; "
            "convert it to safetensors."
        )
    raise BrokenCheckpoint(
        f"{folder.name} has no weights ({WEIGHTS}); fetch the folder again, or choose a model that offers safetensors."
    )


def _read(folder: Path, model: Transformer, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Exactly the tensors the model expects, with the right shapes, or an error that names the others."""
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found: dict[str, Tensor] = {}
    wrong: list[str] = []
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    ours = name.removeprefix("model.")
                    if ours.endswith("rotary_emb.inv_freq"):  # old checkpoints stored what the config says
                        continue
                    if ours not in wanted:
                        wrong.append(f"{name} has no place")
                        continue
                    tensor = file.get_tensor(name)
                    if tuple(tensor.shape) != wanted[ours]:
                        wrong.append(f"{name} is {tuple(tensor.shape)} instead of {wanted[ours]}")
                    found[ours] = tensor.to(dtype)
        except SafetensorError:
            raise BrokenCheckpoint(
                f"{path.name} of {folder.name} is damaged or cut short; fetch it again."
            ) from None
    if "lm_head.weight" not in found and "embed_tokens.weight" in found and model.config.tie_word_embeddings:
        found["lm_head.weight"] = found["embed_tokens.weight"]
    wrong += [f"{_hf_name(name)} is missing" for name in wanted if name not in found]
    if wrong:
        raise BrokenCheckpoint(
            f"The weights of {folder.name} do not fit its config.json: {_some(wrong, '; ')}; fetch the folder again."
        )
    return found


def _some(names: list[str], between: str = ", ") -> str:
    """The first few of a list, for a sentence."""
    return between.join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
