"""From documents to batches: token streams on disk, mixed by the recipe's shares."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .corpus import Document, collect, digest
from .dialogue import dialogues
from .recipe import CONTEXT, MIX
from .vocabulary import render, save_tokenizer, train_tokenizer

VOCABULARY_SAMPLE = 3  # every third package file is enough to learn merges from


def prepare(folder: Path) -> dict[str, object]:
    """Collect the corpus, train the tokenizer, write ``<source>.npy`` (uint16 ids) and ``manifest.json``.

    Does nothing when the manifest is already there. Returns the manifest.
    """
    manifest_path = folder / "manifest.json"
    if manifest_path.is_file():
        return json.loads(manifest_path.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    documents = collect()
    tokenizer = train_tokenizer(
        d.text
        for i, d in enumerate(documents)
        if d.source == "library" or (d.source == "packages" and i % VOCABULARY_SAMPLE == 0)
    )
    save_tokenizer(tokenizer, folder / "tokenizer")
    sizes = {}
    for source in MIX:
        texts = _texts(source, documents)
        encoded = tokenizer.encode_batch_fast(texts)
        ids = np.concatenate([np.array([*e.ids, 0], dtype=np.uint16) for e in encoded])  # 0 ends a document
        np.save(folder / f"{source}.npy", ids)
        sizes[source] = len(ids)
    held_out = {d.name: d.text for d in documents if d.source == "held_out"}
    (folder / "held_out.json").write_text(json.dumps(held_out))
    manifest: dict[str, object] = {
        "python": platform.python_version(),
        "sha256": digest(documents),
        "documents": len(documents),
        "bytes": sum(len(d.text.encode()) for d in documents if d.source != "held_out"),
        "tokens": sizes,
    }
    manifest_path.write_text(json.dumps(manifest, indent=2) + "\n")  # last: it says that all of it is there
    return manifest


def _texts(source: str, documents: list[Document]) -> list[str]:
    if source == "dialogue":
        from_code = [d for d in documents if d.source in ("library", "packages")]
        return [render(user, assistant) for user, assistant in dialogues(from_code)]
    return [d.text for d in documents if d.source == source]


class Mixture:
    """Endless training sequences drawn from the sources at random places, by their shares.

    The n-th batch depends on ``seed`` and n alone, so a resumed run sees what it would have seen.
    """

    def __init__(self, folder: Path, device: torch.device, seed: int):
        self.streams = {
            source: torch.from_numpy(np.load(folder / f"{source}.npy").astype(np.int16)).to(device)
            for source in MIX
        }
        self.device, self.seed = device, seed

    def batch(self, step: int, rows: int, shares: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 (rows, CONTEXT): the targets are the inputs shifted by one."""
        rng = np.random.default_rng((self.seed, step))
        sources = rng.choice(list(shares), size=rows, p=list(shares.values()))
        window = torch.arange(CONTEXT + 1, device=self.device)
        parts = []
        for source, stream in self.streams.items():
            starts = rng.integers(0, len(stream) - CONTEXT - 1, size=int((sources == source).sum()))
            parts.append(stream[torch.from_numpy(starts).to(self.device)[:, None] + window])
        tokens = torch.cat(parts).long()
        return tokens[:, :-1], tokens[:, 1:]


def held_out(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every held-out module."""
    yield from sorted(json.loads((folder / "held_out.json").read_text()).items())
