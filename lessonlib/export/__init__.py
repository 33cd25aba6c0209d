"""Our models in other programs' formats: GGUF for llama.cpp, a folder for transformers and vLLM.

The engine knows how a model computes; this room knows how others write one down. The modules import what they need,
torch and gguf among it, so naming the formats costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FORMATS = {
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0"),
    "hf": ("float32", "float16", "bfloat16", "int8", "int4"),
}


@dataclass(frozen=True)
class Exported:
    """What was written: the file or folder, its size in bytes, the format of its matrices, and what to know of it."""

    path: Path
    nbytes: int
    quantization: str
    notes: tuple[str, ...] = ()


def check_range(tensors: Iterable[torch.Tensor], dtype: torch.dtype) -> None:
    """Raise BadParameter when a finite weight would become infinite: float16 ends at 65,504, bfloat16 does not."""
    import torch

    from lessonlib.engine.errors import BadParameter

    largest = torch.finfo(dtype).max
    if any(float(tensor.abs().max()) > largest for tensor in tensors):
        raise BadParameter(
            f"This model has weights beyond {largest:,.0f}, where {str(dtype).removeprefix('torch.')} ends; "
            "choose bfloat16 or float32."
        )
