"""Our models in other programs' formats: GGUF for llama.cpp, a folder for transformers and vLLM.

The engine knows how a model computes; this room knows how others write one down. Each file imports what it needs
when it is used, so that naming the formats costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """What was written: the file or folder, its size in bytes, the format of its matrices, and what to know of it."""

    path: Path
    nbytes: int
    quantization: str
    notes: tuple[str, ...] = ()


FORMATS = {
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0"),
    "hf": ("float32", "float16", "bfloat16"),
}
