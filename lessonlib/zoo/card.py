"""The model card: what the model is, what it reached, and with which command, hardware and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .recipe import Recipe
from .training import Log

TEMPLATE = """---
license: mit
language: code
library_name: transformers
pipeline_tag: text-generation
---
# {name}

A {parameters:.1f} M-parameter Llama-architecture model that completes Python. It ships with a course on LLM
inference and is meant to be taken apart, not to be relied on.

| | |
|---|---|
| shape | {layers} layers, hidden {hidden}, {heads} heads × {head_dim}, {kv_heads} KV heads, FFN {ffn}, vocabulary {vocab}, context {context} |
| stored | bfloat16, {megabytes:.1f} MB |
{figures}

Held-out code: the thirty standard-library modules of `held_out.txt`, never trained on, nor their tests.

## Training

`{command}` on {hardware}: {steps:,} steps of {batch_tokens:,} tokens in {minutes:.1f} minutes
(torch {torch}). {method}

Corpus: Python {python}'s standard library and the permissively licensed packages of `packages.txt` as pinned in
`constraints.txt`; {documents:,} files, {megabytes_text:.0f} MB, {million_tokens:.0f} M tokens,
SHA-256 `{sha256}`.

Training loss (nats a token): {losses}.

## What it writes (greedy)

{samples}

## Limits

It knows Python's own library best, gets long functions wrong, knows no facts, and may repeat lines of the corpus,
whose licences stay with their authors. Chat answers are functions or one-line explanations: nothing else was
in its dialogues.
"""


def write_card(
    folder: Path,
    recipe: Recipe,
    log: Log,
    manifest: Mapping[str, Any],
    figures: Mapping[str, str],
    samples: list[str],
    command: str,
) -> None:
    """Write ``README.md``; ``figures`` are rows of the table, measured after training."""
    config, size = recipe.config, (folder / "model.safetensors").stat().st_size
    shown = log.losses[:: max(1, len(log.losses) // 8)] + log.losses[-1:]
    method = "AdamW, warmup-stable-decay, bfloat16 autocast."
    if recipe.teacher:
        method += f" {recipe.distill:.0%} of the loss imitates the token distribution of {recipe.teacher}."
    text = TEMPLATE.format(
        name=recipe.name,
        parameters=config.num_parameters / 1e6,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        head_dim=config.head_dim,
        kv_heads=config.num_key_value_heads,
        ffn=config.intermediate_size,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        megabytes=size / 1e6,
        figures="\n".join(f"| {name} | {value} |" for name, value in figures.items()),
        command=command,
        hardware=log.hardware,
        steps=recipe.steps,
        batch_tokens=recipe.batch_tokens,
        minutes=log.seconds / 60,
        torch=log.torch,
        method=method,
        python=manifest["python"],
        documents=manifest["documents"],
        megabytes_text=manifest["bytes"] / 1e6,
        million_tokens=sum(manifest["tokens"].values()) / 1e6,
        sha256=manifest["sha256"],
        losses=", ".join(f"{step}: {loss:.2f}" for step, loss in shown),
        samples="\n\n".join(f"```python\n{sample.rstrip()}\n```" for sample in samples),
    )
    (folder / "README.md").write_text(text)
