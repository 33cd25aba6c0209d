"""InputValidator: does a text look like an attempt to take over the model? Advisory, and says why.

No filter stops prompt injection. This one is for English; it was trained on attacks and look-alikes that this
repository wrote itself, and misses attacks in other languages and in words it has not met, Caesar ciphers other than
ROT13, Morse, words inside pictures, instructions split over several messages, and whatever is phrased politely enough.
Whoever knows the weights can write around them. What holds is privilege separation: a model that reads untrusted text
must not have rights that the text's author may not have. Use this to be warned, and to measure.

It reads each *view* of the text (``views``) window by window, takes the worst window (``features``, a linear model
trained by ``train``), and compares it with what benign texts of that length reach.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .explain import spans, why
from .features import CHAR_COLUMNS, COLUMNS, PAIR_COLUMNS, WORD_COLUMNS, Features, Reading
from .views import View, views

MODEL = Path(__file__).with_name("validator.npz")
MODES = ("block", "flag", "log")
AT_1_PERCENT, AT_1_PER_MILLE = 0.5, 0.9
_BLOCKS = (CHAR_COLUMNS, WORD_COLUMNS, PAIR_COLUMNS)
_logger = logging.getLogger(__name__)


class Match(NamedTuple):
    """Part of the user's own text, ``text[start:end]``, that counted most; ``view`` says how it was read."""

    start: int
    end: int
    text: str
    view: str


@dataclass(frozen=True)
class Verdict:
    """What analyze() says.

    is_malicious: score at or above the threshold. score: 0 to 1; 0.5 is reached by 1 % and 0.9 by 0.1 % of the benign
    texts of that length it was calibrated on; it is not a probability. matches: where it comes from, when malicious.
    action: "allow", or the validator's mode when malicious.
    """

    is_malicious: bool
    reason: str
    score: float
    matches: tuple[Match, ...]
    action: str


@dataclass(frozen=True)
class Model:
    """Weights (COLUMNS,), a bias, and two thresholds that are straight lines over log2 of the length.

    lines: (2, 2), for 1 % and for 0.1 % of false positives: margin = line[0] + line[1] * log2(characters).
    """

    weights: NDArray[np.float32]
    bias: float
    lines: NDArray[np.float64]
    meta: dict[str, Any]

    def margin(self, features: Features) -> float:
        return float(self.weights[features.columns] @ features.values) + self.bias

    def score(self, margin: float, length: int) -> float:
        """The margin on a scale where 0.5 and 0.9 are the two thresholds for this length."""
        size = np.log2(max(length, 16))
        one, tenth = self.lines[:, 0] + self.lines[:, 1] * size
        steep = np.log(AT_1_PER_MILLE / (1 - AT_1_PER_MILLE)) / max(tenth - one, 1e-6)
        return float(1 / (1 + np.exp(-np.clip(steep * (margin - one), -40, 40))))

    def save(self, path: Path) -> None:
        """As an .npz without pickle: 8-bit weights with a scale for each block."""
        codes, scales = quantized(self.weights)
        np.savez_compressed(
            path,
            codes=codes,
            scales=scales,
            bias=np.float64(self.bias),
            lines=self.lines,
            meta=np.frombuffer(json.dumps(self.meta, sort_keys=True).encode(), np.uint8),
        )

    @classmethod
    def load(cls, path: Path = MODEL) -> Model:
        with np.load(path, allow_pickle=False) as file:
            if file["codes"].shape != (COLUMNS,):
                raise ValueError(
                    f"{path.name} was trained for other features; run python -m lessonlib.security.train."
                )
            weights = dequantized(file["codes"], file["scales"])
            meta = json.loads(file["meta"].tobytes())
            return cls(weights, float(file["bias"]), file["lines"], meta)


def quantized(weights: NDArray) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (COLUMNS,) and one scale for each block (3,)."""
    parts = np.split(weights, np.cumsum(_BLOCKS)[:-1])
    scales = np.array([max(float(np.abs(part).max()), 1e-12) / 127 for part in parts], np.float32)
    codes = [np.round(part / scale).astype(np.int8) for part, scale in zip(parts, scales, strict=True)]
    return np.concatenate(codes), scales


def dequantized(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return codes.astype(np.float32) * np.repeat(scales, _BLOCKS)


@cache
def shipped() -> Model:
    """The model that comes with the course."""
    return Model.load()


class Worst(NamedTuple):
    """The window that looks worst, and where it is."""

    margin: float
    view: View
    reading: Reading
    window: tuple[int, int]
    length: int


def worst_window(text: str, model: Model) -> Worst | None:
    """Over all windows of all views; None for a text with nothing to see."""
    worst: Worst | None = None
    read = views(text)
    for view in read:
        if not view.text.strip():
            continue
        reading = Reading(view.text)
        for window in reading.windows():
            margin = model.margin(reading.features(*window))
            if worst is None or margin > worst.margin:
                worst = Worst(margin, view, reading, window, len(view.text))
    return worst


class InputValidator:
    """Looks for prompt injection and jailbreaks in what users and documents say.

    mode: what ``.action`` says of a malicious text: "block", "flag" or "log" (which also writes a line to the log,
    without the text). threshold: 0.5 lets 1 % of benign texts be taken for attacks, 0.9 lets 0.1 % (of those it was
    calibrated on; measure on your own). model: another one than that shipped, made by ``lessonlib.security.train``.
    """

    def __init__(self, mode: str = "block", threshold: float = AT_1_PERCENT, model: Model | None = None):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not known; choose 'block', 'flag' or 'log'.")
        if isinstance(threshold, bool) or not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold!r} has no meaning; it must lie between 0 and 1.")
        self.mode, self.threshold = mode, threshold
        self.model = shipped() if model is None else model

    def analyze(self, text: str) -> Verdict:
        """Judge a text of any length, in time linear in it: about a millisecond for 400 characters."""
        if not isinstance(text, str):
            raise TypeError(f"Only text can be analyzed; this is {type(text).__name__}.")
        worst = worst_window(text, self.model)
        if worst is None:
            return Verdict(False, "The text is empty.", 0.0, (), "allow")
        score = self.model.score(worst.margin, worst.length)
        if score < self.threshold:
            return Verdict(False, "Nothing in it looks like an attack.", score, (), "allow")
        verdict = self._explained(text, worst, score)
        if self.mode == "log":
            _logger.warning("%s (score %.2f, %d characters)", verdict.reason, score, len(text))
        return verdict

    def _explained(self, text: str, worst: Worst, score: float) -> Verdict:
        features = worst.reading.features(*worst.window)
        weights = self.model.weights[features.columns] * features.values
        view = ", then ".join(worst.view.names)
        places = [
            worst.view.span(*span) for span in spans(worst.reading.text, worst.window, features, weights)
        ]
        matches = tuple(Match(start, end, text[start:end], view) for start, end in places)
        reason = f"It {why(features, weights)}{f' (read as {view})' if view else ''}."
        return Verdict(True, reason, score, matches, self.mode)
