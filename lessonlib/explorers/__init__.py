"""Interactive pictures, one per idea. ``from lessonlib import explorers; explorers.autoregressive()``.

Each is imported when it is first asked for: a lesson pays only for the pictures it shows.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pictures.autoregressive import autoregressive as autoregressive
    from .pictures.next_token import next_token as next_token
    from .pictures.pipeline import pipeline as pipeline
    from .pictures.sampling import sampling as sampling
    from .pictures.tokenizer import tokenizer as tokenizer

__all__ = ["autoregressive", "next_token", "pipeline", "sampling", "tokenizer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"There is no explorer {name!r}; there are {', '.join(__all__)}.")
    return getattr(importlib.import_module(f".pictures.{name}", __name__), name)


def __dir__() -> list[str]:
    return __all__
