"""Interactive pictures, one per idea. ``from lessonlib import explorers; explorers.autoregressive()``.

Each is imported when it is first asked for: a lesson pays only for the pictures it shows.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pictures.autoregressive import autoregressive as autoregressive
    from .pictures.batching import batching as batching
    from .pictures.deployment import deployment as deployment
    from .pictures.kv_cache import kv_cache as kv_cache
    from .pictures.next_token import next_token as next_token
    from .pictures.paged_blocks import paged_blocks as paged_blocks
    from .pictures.pipeline import pipeline as pipeline
    from .pictures.quantization import quantization as quantization
    from .pictures.roofline import roofline as roofline
    from .pictures.sampling import sampling as sampling
    from .pictures.security import security as security
    from .pictures.speculative import speculative as speculative
    from .pictures.tokenizer import tokenizer as tokenizer

__all__ = [
    "autoregressive",
    "batching",
    "deployment",
    "kv_cache",
    "next_token",
    "paged_blocks",
    "pipeline",
    "quantization",
    "roofline",
    "sampling",
    "security",
    "speculative",
    "tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"There is no explorer {name!r}; there are {', '.join(__all__)}.")
    return getattr(importlib.import_module(f".pictures.{name}", __name__), name)


def __dir__() -> list[str]:
    return __all__
