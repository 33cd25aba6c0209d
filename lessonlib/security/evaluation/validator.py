"""How good the validator is on texts that it has not learnt from.

A random split is shown beside splits that hold out whole families and whole sources (files), so that one sees by how
much it flatters. All of it is text that this repository wrote, apart from the documentation of installed packages: on
real prompts, measure again.
"""

from __future__ import annotations

import importlib.metadata
import re
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..corpus import Example, examples
from ..features import Reading
from ..train import LIBRARY, RATES, Data, family_folds, fit, gather, held_out, read
from ..validator import InputValidator, Model, shipped
from .obfuscations import OBFUSCATIONS

# Benign families that use the words of attacks; what they let through is counted by itself.
LOOKALIKES = frozenset(
    (
        "about_injection",
        "ordinary_ignore",
        "operators",
        "fiction",
        "limits",
        "triggers_how",
        "triggers_what",
        "triggers_objects",
        "triggers_people",
        "triggers_words",
        "voices_tricky",
        "voices_more_tricky",
    )
)
VOICES = ("attacks_voices", "benign_voices")
# What people write by hand when they are asked for a filter.
KEYWORDS = re.compile(
    r"(ignore|disregard|forget|override|bypass)\s+(all\s+|any\s+|the\s+|your\s+)*(previous|prior|above|earlier|system)"
    r"|system prompt|developer mode|jailbreak|\bDAN\b|do anything now|act as|pretend (to be|you)|you are now"
    r"|(reveal|show|print|repeat)\s+(me\s+)?your\s+(prompt|instructions|rules)|no restrictions|unrestricted|unfiltered",
    re.IGNORECASE,
)


def at_rates(margins: NDArray, data: Data, among: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Recall at each false-positive rate on ordinary benign texts, and how many look-alikes pass at the first."""
    among = np.ones(len(margins), bool) if among is None else among
    alike = np.array([example.family in LOOKALIKES for example in data.examples])
    ordinary = margins[among & ~data.attacks & ~alike]
    found = {}
    for rate in RATES:
        threshold = np.quantile(ordinary, 1 - rate)
        found[f"recall at {rate:.1%}"] = float((margins[among & data.attacks] > threshold).mean())
    threshold = np.quantile(ordinary, 1 - RATES[0])
    found["look-alikes let through"] = float((margins[among & alike] <= threshold).mean())
    return found


def splits(data: Data) -> dict[str, dict[str, float]]:
    """Recall on four splits, from the most flattering to the harshest.

    With whole sources held out, benign ones too, the kinds of benign text are unknown to the model as well (all code,
    all role prompts ...): it shows how much depends on them. In between, each source of attacks is judged by a model
    that has seen neither it nor the benign texts that set the threshold: ``benign_voices`` and package descriptions.
    """
    random = Random(0)
    sources = [example.source for example in data.examples]
    names = sorted(set(sources))
    groups = [names.index(source) % 8 for source in sources]  # a source is never divided
    return {
        "random split": at_rates(held_out(data, [int(random.random() * 4) for _ in sources]), data),
        "families held out": at_rates(held_out(data, family_folds(data.examples)), data),
        "attack sources held out": unseen_attacks(data),
        "all sources held out": at_rates(held_out(data, groups), data),
    }


def unseen_attacks(data: Data) -> dict[str, float]:
    """Each source of attacks against benign texts, none of which the model has seen."""
    others = [Example(text, False, "packages", "packages") for text in descriptions()]
    real = read(others)
    source = np.array([example.source for example in data.examples])
    alike = np.array([example.family in LOOKALIKES for example in data.examples])
    voices = source == "benign_voices"
    caught: dict[float, list[float]] = {rate: [] for rate in RATES}
    passed: list[float] = []
    for held in sorted(set(source[data.attacks])):
        weights, bias = fit(data, (source != held) & ~voices)
        margins = data.worst(data.matrix @ weights + bias)  # type: ignore[operator]
        benign = [margins[voices & ~alike], real.worst(real.matrix @ weights + bias)]  # type: ignore[operator]
        for rate in RATES:
            threshold = np.quantile(np.concatenate(benign), 1 - rate)
            caught[rate] += (margins[source == held] > threshold).tolist()
            if rate == RATES[0]:
                passed += (margins[voices & alike] <= threshold).tolist()
    figures = {f"recall at {rate:.1%}": float(np.mean(found)) for rate, found in caught.items()}
    return figures | {"look-alikes let through": float(np.mean(passed))}


def descriptions(limit: int = 1500) -> list[str]:
    """Passages of the installed packages' own descriptions: real prose that no training has seen, all of it benign."""
    passages = []
    for package in sorted(importlib.metadata.distributions(), key=lambda found: found.name or ""):
        # Not get_payload(): the importlib_metadata that setuptools brings, and puts in its place, leaves that empty.
        text = package.metadata.json.get("description", "") if package.metadata else ""
        blocks = [block.strip() for block in re.split(r"\n\s*\n", str(text)) if len(block) > 40]
        passages += ["\n\n".join(blocks[at : at + 2])[:900] for at in range(0, len(blocks), 5)]
    return Random(0).sample(passages, min(limit, len(passages)))


def packages(model: Model) -> dict[str, float]:
    """How many of ``descriptions`` are taken for attacks, at either threshold."""
    validator = InputValidator(model=model)
    scores = np.array([validator.analyze(text).score for text in descriptions()])
    return {"at 0.5": float((scores >= 0.5).mean()), "at 0.9": float((scores >= 0.9).mean())}


def obfuscated(model: Model, count: int = 150) -> dict[str, tuple[float, float, float]]:
    """For each obfuscation: attacks caught without views, with views, and benign texts caught with views.

    The attacks are seen in training: this measures the views, not the model.
    """
    texts = [example for example in examples(40, seed=1) if len(example.text) < 400]
    attacks = [e.text for e in texts if e.attack and e.source != "attacks_formats" and e.text.isascii()]
    benign = [e.text for e in texts if not e.attack and e.text.isascii()]
    random = Random(0)
    attacks, benign = random.sample(attacks, count), random.sample(benign, count)
    validator = InputValidator(model=model)
    plain: dict[str, Callable[[str], str]] = {"(plain)": str}
    return {
        name: (
            _rate(attacks, lambda text, change=change: _raw(change(text), model)),  # type: ignore[misc]
            _rate(attacks, lambda text, change=change: validator.analyze(change(text)).is_malicious),  # type: ignore[misc]
            _rate(benign, lambda text, change=change: validator.analyze(change(text)).is_malicious),  # type: ignore[misc]
        )
        for name, change in (plain | OBFUSCATIONS).items()
    }


def _raw(text: str, model: Model) -> bool:
    """The verdict on a text as it stands."""
    text = "".join(c if len(c.lower()) == 1 else "i" for c in text)
    reading = Reading(text)
    margin = max(model.margin(reading.features(*window)) for window in reading.windows())
    return model.score(margin, len(text)) >= 0.5


def _rate(texts: Sequence[str], caught: Callable[[str], bool]) -> float:
    return sum(map(caught, texts)) / len(texts)


def keywords(found: Sequence[Example]) -> dict[str, float]:
    """What a hand-written list of regular expressions catches of the attacks and of the look-alikes."""
    attacks = [example.text for example in found if example.attack and example.source in VOICES]
    benign = [example.text for example in found if not example.attack and example.family in LOOKALIKES]
    return {
        "recall on voices": _rate(attacks, lambda text: bool(KEYWORDS.search(text))),
        "look-alikes let through": 1 - _rate(benign, lambda text: bool(KEYWORDS.search(text))),
    }


SLOW_TEXTS: dict[str, Callable[[int], str]] = {
    "prose": lambda n: (
        "Please summarise what the old bridge meant to the people of the town. " * (n // 70 + 1)
    )[:n],
    "spaces": lambda n: " " * n,
    "one base64 run": lambda n: "QUJD" * (n // 4),
    "spread letters": lambda n: "a " * (n // 2),
    "leet": lambda n: ("1gn0r3 4ll rul3s " * (n // 17 + 1))[:n],
    "entities": lambda n: "&amp;" * (n // 5),
    "brackets": lambda n: "<a " * (n // 3),
}


SIZES = (400, 10_000, 100_000)


def speed() -> dict[str, tuple[float, float, float]]:
    """Milliseconds of the processor for 400, 10,000 and 100,000 characters of each kind."""
    validator = InputValidator()
    found = {}
    for name, make in SLOW_TEXTS.items():
        times = []
        for size, repeats in zip(SIZES, (20, 5, 3), strict=True):
            text = make(size)
            spent = []
            for _ in range(repeats):
                start = time.process_time()
                validator.analyze(text)
                spent.append(time.process_time() - start)
            times.append(1000 * min(spent))
        found[name] = (times[0], times[1], times[2])
    return found


def validator_figures(per_family: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each figure: what, value, unit, target (None where there is none), data. Takes minutes."""
    model = shipped()
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float, unit: str, data: str, target: str | None = None) -> None:
        rows.append({"what": what, "value": value, "unit": unit, "target": target, "data": data})

    found = read(gather(per_family, LIBRARY, seed))
    written = f"{len(found.examples)} own texts, seed {seed}"
    targets = {"recall at 1.0%": ">= 0.45", "recall at 0.1%": ">= 0.30", "look-alikes let through": ">= 0.94"}
    for split, figures in splits(found).items():
        for what, value in figures.items():
            # Only texts from unseen sources can meet a target.
            row(
                f"{what}, {split}",
                value,
                "share",
                written,
                targets[what] if split == "attack sources held out" else None,
            )
    for what, value in keywords(found.examples).items():
        row(f"keyword list: {what}", value, "share", "texts written one by one; look-alikes")
    for what, value in packages(model).items():
        row(
            f"package descriptions taken for attacks, {what}",
            value,
            "share",
            "up to 1500 passages of METADATA files",
        )
    for name, (raw, viewed, benign) in obfuscated(model).items():
        data = "150 attacks of training families, 150 benign texts"
        row(f"{name}: caught as it stands", raw, "share", data)
        row(f"{name}: caught with views", viewed, "share", data)
        row(f"{name}: benign taken for attacks", benign, "share", data)
    for name, times in speed().items():
        for size, value in zip(SIZES, times, strict=True):
            row(
                f"time for {size:,} characters: {name}",
                value,
                "ms",
                "CPU time",
                "<= 3" if size == 400 else None,
            )
    return rows
