"""Why a window was taken for an attack: the stretches of text and the kind of thing that counted most."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from .concepts import NAMES
from .features import CHAR_COLUMNS, CONCEPTS, WORD_COLUMNS, Features

MAX_SPANS = 3
_FIRST_PAIR = CHAR_COLUMNS + WORD_COLUMNS + CONCEPTS
_WORD = re.compile(r"\S+")

# Concepts of which a pair, in either order, makes a kind; the first kind that fits counts.
_KINDS = {
    "tells the model to set aside its instructions": ("drop", {"order", "prior", "prompt", "all", "system"}),
    "asks for hidden instructions or secrets": (
        "reveal say ask make",
        {"prompt", "hidden", "order", "key", "prior"},
    ),
    "gives the model a role without rules": (
        "persona free character refuse safety break harm",
        {
            "free",
            "safety",
            "refuse",
            "not",
            "persona",
            "must",
            "now",
            "order",
            "harm",
            "you",
            "ai",
            "answer",
            "break",
        },
    ),
    "imitates a system message or a special mode": (
        "mark system enable mode",
        {"system", "mode", "mark", "enable"},
    ),
    "makes the model act with tools or data": (
        "send tool",
        {"data", "tool", "user", "hidden", "me", "prior", "send"},
    ),
}


def why(features: Features, weights: NDArray) -> str:
    """The kind of attack that the concept pairs speak for, as the end of a sentence that begins with "It".

    weights: what each of the columns adds to the margin, (n,).
    """
    totals = dict.fromkeys(_KINDS, 0.0)
    for column, weight in zip(features.columns.tolist(), weights.tolist(), strict=True):
        if column < _FIRST_PAIR or weight <= 0:
            continue
        one, two = (NAMES[number] for number in divmod((column - _FIRST_PAIR) // 2, CONCEPTS))
        for kind, (first, second) in _KINDS.items():
            if (one in first.split() and two in second) or (two in first.split() and one in second):
                totals[kind] += weight
                break
    best = max(totals, key=lambda kind: totals[kind])
    return best if totals[best] > 0 else "reads like known attacks"


def spans(text: str, window: tuple[int, int], features: Features, weights: NDArray) -> list[tuple[int, int]]:
    """Up to three stretches of whole words, in the order of the text, that add most to the margin."""
    start, stop = window
    counts = np.bincount(features.owners, minlength=len(weights))
    each = (weights / np.maximum(counts, 1))[features.owners] / np.maximum(features.ends - features.starts, 1)
    size = max(int(features.ends.max(initial=stop)), stop) - start + 1
    slopes = np.bincount(features.starts - start, each, size) - np.bincount(features.ends - start, each, size)
    sums = np.concatenate([[0.0], np.cumsum(np.cumsum(slopes))])  # of the weights of the characters so far
    words = [(match.start() + start, match.end() + start) for match in _WORD.finditer(text[start:stop])]
    if not words:
        return [(start, stop)]
    gains = np.array([sums[end - start] - sums[begin - start] for begin, end in words])
    gains -= max(float(gains.mean()), 0.0) / 2  # a stretch ends where words add less than half of the usual
    found: list[tuple[int, int]] = []
    enough = 0.0
    for _ in range(MAX_SPANS):
        first, last, gain = _best_run(gains)
        if gain <= enough:
            break
        found.append((words[first][0], words[last][1]))
        gains[first : last + 1] = -np.inf
        enough = enough or gain / 3
    return sorted(found) or [(words[0][0], words[-1][1])]


def _best_run(gains: NDArray) -> tuple[int, int, float]:
    """The first and last place of the run with the largest sum, and that sum (Kadane)."""
    best = (0, 0, -np.inf)
    run, first = 0.0, 0
    for place, gain in enumerate(gains.tolist()):
        if run <= 0:
            run, first = 0.0, place
        run += gain
        if run > best[2]:
            best = (first, place, run)
    return best
