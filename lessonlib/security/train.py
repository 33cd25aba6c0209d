"""Train the validator: ``python -m lessonlib.security.train`` writes the same ``validator.npz`` again.

Logistic regression (scikit-learn, needed only here) over the windows of all examples. Of a long attack only the window
that looks worst is one (multiple-instance learning as in Andrews et al. 2002, mi-SVM, with one witness a text); all
windows of benign texts are benign. Thresholds come from texts of families that the scoring model has not seen.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import features as _features
from .corpus import Example, examples, fingerprint
from .corpus.grammar import pick
from .corpus.stdlib import passages, texts
from .features import COLUMNS, Features, Reading
from .validator import MODEL, Model, dequantized, quantized
from .views import fold

PER_FAMILY, LIBRARY, FOLDS, C, ROUNDS = 300, 6000, 4, 4.0, 2
RATES = (0.01, 0.001)


class Data(NamedTuple):
    """Examples and their windows: ``matrix`` (windows, COLUMNS), sparse; ``owner`` (windows,): of which example."""

    examples: list[Example]
    matrix: object
    owner: NDArray[np.int64]

    @property
    def attacks(self) -> NDArray[np.bool_]:
        return np.array([example.attack for example in self.examples])

    def worst(self, margins: NDArray) -> NDArray:
        """Each example's largest margin, from those of the windows."""
        found = np.full(len(self.examples), -np.inf)
        np.maximum.at(found, self.owner, margins)
        return found


def gather(per_family: int = PER_FAMILY, library: int = LIBRARY, seed: int = 0) -> list[Example]:
    """All examples: the grammar's, and Python's own library as one more benign source."""
    written, prose = examples(per_family, seed), texts(library, seed)
    found = [Example(text, False, f"library_{i % FOLDS}", "library") for i, text in enumerate(prose)]
    # Attacks stand in such texts as well; else everything that reads like documentation would be let through.
    attacks = [example for example in written if example.attack]
    random = Random(f"carriers/{seed}")
    for text in prose[: len(attacks) // 10]:
        attack = pick(attacks, random)
        cut = text.find("\n", int(random.random() * len(text))) + 1
        found.append(attack._replace(text=f"{text[:cut]}\n{attack.text}\n{text[cut:]}".strip()))
    return written + found


def read(found: Sequence[Example]) -> Data:
    """Features of every window of every example."""
    from scipy.sparse import csr_matrix

    rows: list[Features] = []
    owner: list[int] = []
    for number, example in enumerate(found):
        reading = Reading(fold(example.text).text)
        for window in reading.windows():
            rows.append(reading.features(*window))
            owner.append(number)
    ends = np.cumsum([0, *(len(row.columns) for row in rows)])
    columns = np.concatenate([row.columns for row in rows])
    values = np.concatenate([row.values for row in rows])
    matrix = csr_matrix((values, columns, ends), shape=(len(rows), COLUMNS))
    return Data(list(found), matrix, np.array(owner, np.int64))


def fit(data: Data, chosen: NDArray[np.bool_], c: float = C) -> tuple[NDArray[np.float64], float]:
    """Weights (COLUMNS,) and bias from the chosen examples."""
    from sklearn.linear_model import LogisticRegression

    labels = data.attacks[data.owner]
    several = np.bincount(data.owner)[data.owner] > 1
    unsure = several & labels
    used = chosen[data.owner] & ~unsure
    for _ in range(ROUNDS):
        model = LogisticRegression(
            C=c, solver="liblinear", class_weight="balanced", random_state=0, max_iter=300
        )
        model.fit(data.matrix[used], labels[used])  # type: ignore[index]
        weights, bias = model.coef_[0], float(model.intercept_[0])
        margins = data.matrix @ weights + bias  # type: ignore[operator]
        used = chosen[data.owner] & (~unsure | (margins >= data.worst(margins)[data.owner]))
    return weights, bias


def held_out(data: Data, groups: Sequence[object], c: float = C) -> NDArray[np.float64]:
    """Each example's margin (examples,) under a model that has seen no example of its group."""
    names = sorted(set(groups), key=str)
    member = np.array([names.index(group) for group in groups])
    margins = np.empty(len(member))
    for number in range(len(names)):
        weights, bias = fit(data, member != number, c)
        margins[member == number] = data.worst(data.matrix @ weights + bias)[member == number]  # type: ignore[operator]
    return margins


def family_folds(found: Sequence[Example], folds: int = FOLDS) -> list[int]:
    """The fold of each example; a family is never divided."""
    names = sorted({(example.attack, example.family) for example in found})
    return [names.index((example.attack, example.family)) % folds for example in found]


def threshold_lines(margins: NDArray, lengths: NDArray) -> NDArray[np.float64]:
    """Thresholds that grow with the length, (2, 2); RATES of the benign texts lie above.

    The slope is that of the 95 % quantiles of five groups of like length.
    """
    sizes = np.log2(np.maximum(lengths, 16))
    parts = np.array_split(np.argsort(sizes, kind="stable"), 5)
    slope, _ = np.polyfit(
        [sizes[part].mean() for part in parts], [np.quantile(margins[part], 0.95) for part in parts], 1
    )
    slope = max(float(slope), 0.0)
    return np.array([(np.quantile(margins - slope * sizes, 1 - rate), slope) for rate in RATES])


def train(per_family: int = PER_FAMILY, library: int = LIBRARY, seed: int = 0) -> Model:
    """A model from scratch; the same numbers give the same model."""
    import sklearn

    data = read(gather(per_family, library, seed))
    benign = ~data.attacks
    margins = held_out(data, family_folds(data.examples))
    lengths = np.array([len(example.text) for example in data.examples])
    lines = threshold_lines(margins[benign], lengths[benign])
    weights, bias = fit(data, np.ones(len(benign), bool))
    meta = {
        "data": fingerprint(),
        "features": code_fingerprint(),
        "settings": [per_family, library, seed, FOLDS, C, ROUNDS],
        "examples": [int((~benign).sum()), int(benign.sum())],
        "library passages": len(passages()),
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }
    return Model(dequantized(*quantized(weights)), bias, np.round(lines, 6), meta)


def code_fingerprint() -> str:
    """SHA-256 of the modules that decide which features a text has."""
    folder = Path(_features.__file__).parent
    digest = hashlib.sha256()
    for name in ("concepts.py", "confusables.py", "features.py"):
        digest.update((folder / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lessonlib.security.train", description=__doc__)
    parser.add_argument("--output", type=Path, default=MODEL, help="where the model goes")
    output = parser.parse_args().output
    model = train()
    model.save(output)
    print(f"{output}: {output.stat().st_size:,} bytes, {model.meta}")


if __name__ == "__main__":
    main()
