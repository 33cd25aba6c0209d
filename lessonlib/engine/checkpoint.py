"""Models on disk: find a folder by name, read and write it in the Hugging Face format.

A folder holds ``config.json``, ``*.safetensors`` (one file, or shards with an index) and ``tokenizer.json``.
Pickle checkpoints are refused: unpickling runs code chosen by whoever wrote the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import ModelConfig
from .errors import BadParameter, BrokenCheckpoint, UnknownModel, UnsafeCheckpoint
from .model import Transformer

ZOO = Path(__file__).resolve().parent.parent / "zoo"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def shipped_models() -> list[str]:
    """Names of the models that come with the course."""
    return sorted(folder.parent.name for folder in ZOO.glob("*/config.json"))


def resolve(name: str | Path) -> Path:
    """The local folder of a shipped model, of a path, or of ``org/name`` on the hub (downloaded once).

    Raises UnknownModel with the names that would have worked.
    """
    folder = Path(name).expanduser()
    if (ZOO / str(name) / "config.json").is_file():
        return ZOO / str(name)
    if (folder / "config.json").is_file():
        return folder
    known = ", ".join(shipped_models()) or "none"
    if folder.is_dir():
        raise BrokenCheckpoint(
            f"The folder {name} has no config.json, so it is not a model in Hugging Face format; "
            f"give the folder that holds one, or a shipped model ({known})."
        )
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_hub(str(name), known)
    raise UnknownModel(
        f"No model is called {str(name)!r}: give a shipped one ({known}), a folder, or a hub name such as org/name."
    )


def _from_hub(name: str, known: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UnknownModel(
            f"{name} could not be fetched from the model hub ({type(error).__name__}); check the name and the "
            f"network, or use a shipped model ({known})."
        ) from None


def load_config(name: str | Path) -> ModelConfig:
    """ModelConfig of a model by name or folder."""
    path = resolve(name) / "config.json"
    try:
        return ModelConfig.from_hf(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise BrokenCheckpoint(
            f"{path.name} of {name} is not valid JSON (line {error.lineno}); fetch the folder again."
        ) from None


def to_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"bfloat16"`` -> torch.bfloat16; None -> float32, the format every CPU computes in."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None or dtype == "auto":
        return torch.float32
    if dtype not in DTYPES:
        raise BadParameter(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def load_model(
    name: str | Path, dtype: str | torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Transformer:
    """A model ready for inference. ``name``: "pico", a folder, or "org/name" on the hub.

    Raises UnknownModel, UnsafeCheckpoint, BrokenCheckpoint (naming the tensors that are missing or misshapen).
    """
    folder, config = resolve(name), load_config(name)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(_read(folder, model, to_dtype(dtype), device), assign=True)
    model.tie_weights()
    return model.eval().requires_grad_(False)


def save_model(model: Transformer, folder: str | Path, max_shard_bytes: int | None = None) -> None:
    """Write ``config.json`` and the weights, in the model's dtype, as transformers and vLLM read them.

    ``max_shard_bytes`` splits the weights over several files with an index.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hf = model.config.to_hf() | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n")
    tensors = {_hf_name(name): t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")


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
        wanted = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        if missing := sorted(file for file in wanted if not (folder / file).is_file()):
            raise BrokenCheckpoint(
                f"{folder.name} lacks the weight files {', '.join(missing)}; fetch it again."
            )
        return sorted(folder / file for file in wanted)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if pickles := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        raise UnsafeCheckpoint(
            f"{folder.name} has its weights in pickle format ({pickles[0].name}), which can run code when loaded; "
            "convert it to safetensors."
        )
    raise BrokenCheckpoint(f"{folder.name} has no {WEIGHTS}; fetch the model folder again.")


def _read(
    folder: Path, model: Transformer, dtype: torch.dtype, device: str | torch.device
) -> dict[str, Tensor]:
    """Exactly the tensors the model expects, with the right shapes, or an error that names the others."""
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found: dict[str, Tensor] = {}
    wrong: list[str] = []
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    ours = name.removeprefix("model.")
                    if ours not in wanted:
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
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise BrokenCheckpoint(
            f"The weights of {folder.name} do not fit its config.json: {'; '.join(wrong[:4])}{more}; "
            "fetch the folder again."
        )
    return found
