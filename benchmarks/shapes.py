"""The models that are measured: pico, and random weights in the shapes of two real models.

Speed does not depend on what the weights say, so random ones do, and nothing has to be downloaded. What does depend on
it (acceptance of drafts, damage done by quantization) is measured on pico alone.
"""

from __future__ import annotations

import random
import shutil
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from lessonlib.engine import ModelConfig, Transformer, load_config, load_tokenizer, resolve, save_model
from lessonlib.export.gguf import export_gguf

from .worker import ROOT, Worker

BUILD = ROOT / "build" / "bench"  # not committed
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
HELD_OUT = (
    "base64.py",
    "heapq.py",
    "shlex.py",
    "weakref.py",
)  # pico never saw these (lessonlib/zoo/held_out.txt)
SEEN = (
    "argparse.py",
    "ast.py",
    "inspect.py",
    "socket.py",
    "tarfile.py",
    "logging/__init__.py",
)  # and these it did


def _smollm2(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=49152,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=2048,
        rope_theta=100_000.0,
    )


SHAPES = {
    "smollm2-135m": _smollm2(576, 1536, 30, 9, 3),
    "smollm2-360m": _smollm2(960, 2560, 32, 15, 5),
    "tiny": ModelConfig(4096, 64, 128, 2, 2, 1, 32, 512),  # for the harness's own tests
}
MODELS = ("pico", *SHAPES)


@dataclass(frozen=True)
class Model:
    """A model in every format that an engine may want."""

    name: str
    folder: Path
    config: ModelConfig
    trained: bool

    def ids(self, count: int, seed: int = 0) -> list[int]:
        """A prompt: held-out code for a trained model, otherwise any tokens."""
        dice = random.Random(f"{seed}")
        if not self.trained:
            return [dice.randrange(3, self.config.vocab_size) for _ in range(count)]
        ids = self.held_out()
        start = dice.randrange(0, len(ids) - count)
        return list(ids[start : start + count])

    def held_out(self) -> tuple[int, ...]:
        """Code that no shipped model was trained on, as one long text."""
        return _held_out(self.folder)

    def calibration(self) -> list[list[int]]:
        """Code for calibrating a quantization: rows of 256 tokens that no evaluation uses."""
        tokenizer = load_tokenizer(self.folder)
        return [tokenizer.encode((LIBRARY / name).read_text(encoding="utf-8"))[500:756] for name in SEEN]

    def gguf(self, kind: str, llama: Worker) -> Path:
        """The GGUF file: our export in F16, which llama.cpp's own quantizer makes smaller."""
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / f"{self.name}-{kind}.gguf"
        newest = max(file.stat().st_mtime for file in self.folder.iterdir())
        if path.exists() and path.stat().st_mtime > newest:
            return path
        if kind == "f16":
            return export_gguf(self.folder, path, "f16").path
        llama.call("quantize", source=str(self.gguf("f16", llama)), target=str(path), variant=kind)
        return path


@cache
def _held_out(folder: Path) -> tuple[int, ...]:
    text = "\n\n".join((LIBRARY / name).read_text(encoding="utf-8") for name in HELD_OUT)
    return tuple(load_tokenizer(folder).encode(text))


def prepare(name: str) -> Model:
    """The model's folder, made on first use (random weights from seed 0, stored in bfloat16, pico's tokenizer)."""
    if name not in SHAPES:
        folder = resolve(name)
        return Model(name, folder, load_config(folder), trained=True)
    folder, config = BUILD / name, SHAPES[name]
    if not (folder / "tokenizer.json").exists():
        torch.manual_seed(0)
        save_model(Transformer(config).bfloat16(), folder)
        for file in (
            "tokenizer_config.json",
            "tokenizer.json",
        ):  # the last one says that the folder is complete
            shutil.copyfile(resolve("pico") / file, folder / file)
    return Model(name, folder, config, trained=False)
