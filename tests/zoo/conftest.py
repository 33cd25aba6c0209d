"""A standard library of a few files, and a recipe that trains in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonlib.zoo import corpus, data, training
from lessonlib.zoo.recipe import MIX, RECIPES, Recipe

CONTEXT = 32


def module(seed: int, functions: int = 6) -> str:
    """Source of a plausible module: long enough to be kept, and unlike the modules of other seeds."""
    lines = [f'"""Module number {seed}."""', ""]
    for i in range(functions):
        lines += [
            f"def function_{seed}_{i}(first_argument_{seed}, second_argument_{seed}):",
            f'    """Combine two arguments in the way number {i} of module {seed}."""',
            f"    intermediate_{seed}_{i} = first_argument_{seed} * {i} + second_argument_{seed}",
            f"    another_{seed}_{i} = [intermediate_{seed}_{i}, first_argument_{seed}]",
            f"    return sorted(another_{seed}_{i}), intermediate_{seed}_{i}",
            "",
        ]
    return "\n".join(lines)


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(standard library, packages): small folders, and committed lists that fit them."""
    stdlib, packages = tmp_path / "lib", tmp_path / "packages"
    write(stdlib, "alpha.py", module(1))
    write(stdlib, "beta/__init__.py", module(2))
    write(stdlib, "kept/secret.py", module(3))
    write(stdlib, "_heap.py", module(4))
    write(stdlib, "test/test_alpha.py", module(5))
    write(packages, "listed/core.py", module(6))
    write(packages, "listed/tests/test_core.py", module(7))
    write(packages, "single.py", module(8))
    write(packages, "unlisted/core.py", module(9))
    lists = {
        "held_out.txt": ["kept/secret.py", "_heap.py"],
        "packages.txt": ["single", "listed", "not_installed"],
    }
    monkeypatch.setattr(corpus, "named_in", lists.__getitem__)
    return stdlib, packages


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two steps of learning rate warm-up, a tiny model, 128 tokens a step."""
    monkeypatch.setattr(data, "CONTEXT", CONTEXT)
    monkeypatch.setattr(training, "CONTEXT", CONTEXT)
    monkeypatch.setattr(training, "REPORT_EVERY", 5)
    shape = replace(
        RECIPES["pico"].config,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=CONTEXT,
    )
    return Recipe("tiny", shape, tokens=30 * 128, batch_tokens=128, learning_rate=1e-2, warmup_steps=2)


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """A prepared folder whose every source repeats a pattern of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, source in enumerate(MIX):
        pattern = np.arange(3 + 10 * i, 13 + 10 * i, dtype=np.uint16)
        np.save(folder / f"{source}.npy", np.tile(pattern, 40))
    return folder


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Sums in one order, for bit-for-bit comparisons; and models this small are faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
