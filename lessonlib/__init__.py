"""lessonlib: a complete LLM inference engine and the classroom built around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import explorers as explorers
    from .engine import LLM as LLM
    from .engine import SamplingParams as SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "explorers"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import: only those who ask for the engine pay for it.
    if name in ("LLM", "SamplingParams"):
        from . import engine

        return getattr(engine, name)
    if name == "explorers":
        import importlib

        return importlib.import_module(".explorers", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
