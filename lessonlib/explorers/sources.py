"""What an explorer may be given: a name, or the thing itself. Names are resolved by the engine."""

from __future__ import annotations

from pathlib import Path

from lessonlib.engine import ModelConfig, Tokenizer, Transformer, load_config, load_model, load_tokenizer


def as_config(model: str | Path | Transformer | ModelConfig) -> ModelConfig:
    """The shape of a model; no weights are read for a name."""
    if isinstance(model, ModelConfig):
        return model
    return load_config(model) if isinstance(model, str | Path) else model.config


def as_model(model: str | Path | Transformer) -> Transformer:
    return load_model(model) if isinstance(model, str | Path) else model


def as_tokenizer(tokenizer: str | Path | Tokenizer) -> Tokenizer:
    return load_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
