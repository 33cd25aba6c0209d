"""What goes wrong in 01.sample, by name: each mistake as the distribution it leads to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...exercises import Inputs, Misconception, Observation, Skip

REPEAT, CALLS = 500, 2  # every row is drawn REPEAT times in each of CALLS calls
MULTIPLIES = "multiplies by the temperature"
NO_TEMPERATURE = "the temperature has no effect"
NO_TOP_K = "top_k has no effect"
NO_TOP_P = "top_p has no effect"
ARGMAX = "always takes the most likely token"
ONE_TOO_MANY = "top-k keeps one token too many"
DROPS = "top-p drops the token that reaches the threshold"
UNSORTED = "top-p adds up unsorted probabilities"
COUNTS_REMOVED = "top-p counts tokens that top-k removed"
TOP_P_FIRST = "top-p is applied before the temperature"
ZEROED = "removed tokens get the logit 0"
PLACE = "returns the place in the sorted order, not the token id"
TWICE = "applies softmax twice"
NO_SOFTMAX = "draws from the logits without softmax"
OVER_BATCH = "softmax runs over the batch, not the vocabulary"
FIRST_ROW = "every row uses the logits of the first"
SHARED = "one draw is shared by the whole batch"
DIVIDES = "divides by zero at temperature 0"
NO_GENERATOR = "ignores the generator"


def softmax(x: Sequence[float]) -> list[float]:
    top = max(x)
    weights = [math.exp(v - top) for v in x]
    return [w / sum(weights) for w in weights]


def spread(row: Sequence[float], inputs: Inputs, mistake: str = "") -> dict[Any, float]:
    """What one row of logits is drawn from, {token id: probability}, rightly or with one mistake."""
    temperature, k, p = inputs.get("temperature", 1.0), inputs.get("top_k", 0), inputs.get("top_p", 1.0)
    if temperature == 0 or mistake == ARGMAX:
        return {row.index(max(row)): 1.0}
    scale = temperature if mistake == MULTIPLIES else 1.0 if mistake == NO_TEMPERATURE else 1 / temperature
    x = [v * scale for v in row]
    ranked = sorted(range(len(x)), key=lambda i: -x[i])
    if k > 0 and mistake != NO_TOP_K:
        k += mistake == ONE_TOO_MANY
        kept = ranked[:k]
    else:
        kept = ranked
    if p < 1 and mistake != NO_TOP_P:
        kept = nucleus(row if mistake == TOP_P_FIRST else x, kept, p, mistake)
    place = {token: i for i, token in enumerate(ranked)}
    if mistake == ZEROED:
        return _normal({i: math.exp(x[i] if i in kept else 0.0) for i in range(len(x))})
    if mistake == NO_SOFTMAX:
        if min(x[i] for i in kept) < 0 or sum(x[i] for i in kept) <= 0:
            raise Skip
        return _normal({i: x[i] for i in kept})
    if mistake == TWICE:
        once = _normal({i: math.exp(x[i]) for i in kept})
        return _normal({i: math.exp(once[i]) for i in kept})
    return _normal({place[i] if mistake == PLACE else i: math.exp(x[i]) for i in kept})


def nucleus(x: Sequence[float], kept: list[int], p: float, mistake: str) -> list[int]:
    """The tokens of ``kept`` (most likely first) that top-p leaves."""
    probability = softmax(x)
    if mistake != COUNTS_REMOVED:
        total = sum(probability[i] for i in kept)
        probability = [v / total for v in probability]
    reached, chosen = 0.0, []
    for i in sorted(kept) if mistake == UNSORTED else kept:
        if reached >= p:
            break
        reached += probability[i]
        chosen.append(i)
    if mistake == DROPS and len(chosen) > 1 and reached > p:
        chosen.pop()
    return chosen


def _normal(weights: dict[Any, float]) -> dict[Any, float]:
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items() if weight > 0}


def expected(inputs: Inputs) -> list[dict[Any, float]]:
    return [spread(row, inputs) for row in inputs["logits"]]


def mistaken(name: str) -> Any:
    return lambda inputs: [spread(row, inputs, name) for row in inputs["logits"]]


def over_batch(inputs: Inputs) -> list[dict[Any, float]]:
    """Softmax down each column: the more rows like this one, the flatter it gets."""
    temperature = inputs.get("temperature", 1.0)
    if not temperature or {"top_k", "top_p"} & set(inputs):
        raise Skip
    columns = [softmax([v / temperature for v in column]) for column in zip(*inputs["logits"], strict=True)]
    return [_normal({i: column[r] for i, column in enumerate(columns)}) for r in range(len(inputs["logits"]))]


def seems_shared(inputs: Inputs, seen: Observation) -> bool:
    """Whether each call returned one token again and again where it should not."""
    if not isinstance(seen.value, list) or all(max(row.values()) > 0.9 for row in expected(inputs)):
        return False
    calls = [row[turn * REPEAT : (turn + 1) * REPEAT] for row in seen.value for turn in range(CALLS)]
    return all(len(set(tokens)) == 1 for tokens in calls)


def broke_at_zero(inputs: Inputs, seen: Observation) -> bool:
    return bool(inputs.get("temperature") == 0 and seen.error and _no_probabilities(seen))


def _no_probabilities(seen: Observation) -> bool:
    """Whether a draw was refused because of negative, infinite or missing (nan) probabilities."""
    error = seen.error
    return bool(error and ("probability" in error.message or error.type == "ZeroDivisionError"))


def emptied(inputs: Inputs, seen: Observation) -> bool:
    """Whether the probabilities broke because top-p removed every token."""
    return "top_p" in inputs and inputs.get("temperature") != 0 and _no_probabilities(seen)


def negative_probabilities(inputs: Inputs, seen: Observation) -> bool:
    return not {"temperature", "top_k", "top_p"} & set(inputs) and _no_probabilities(seen)


def ignored_generator(inputs: Inputs, seen: Observation) -> bool:
    return isinstance(seen.value, dict) and not all(seen.value.values())


MISCONCEPTIONS = (
    Misconception(
        DIVIDES,
        "`logits / 0` is infinite, and softmax of infinity is not a number. Temperature 0 means *always "
        "take the most likely token*, which is a case of its own.",
        sees=broke_at_zero,
    ),
    Misconception(
        MULTIPLIES,
        "A temperature of 0.5 must make the favourite *more* likely. Work out `[2, 1]` by hand both ways: "
        "which one pulls the logits further apart?",
        mistaken(MULTIPLIES),
    ),
    Misconception(
        ARGMAX,
        "The favourite comes every time. Drawing means that a token with probability 0.2 comes in one of "
        "five draws.",
        mistaken(ARGMAX),
    ),
    Misconception(
        NO_TEMPERATURE,
        "The draws are those of temperature 1. Check that the scaled logits are the ones the softmax gets.",
        mistaken(NO_TEMPERATURE),
    ),
    Misconception(
        ONE_TOO_MANY,
        "`top_k=2` leaves two tokens. Python counts from 0: which index has the k-th largest logit after "
        "sorting?",
        mistaken(ONE_TOO_MANY),
    ),
    Misconception(
        NO_TOP_K,
        "Tokens outside the k most likely ones still come. They must become impossible.",
        mistaken(NO_TOP_K),
    ),
    Misconception(
        DROPS,
        "The kept set has to *reach* `top_p`, so the token that crosses the line belongs to it, and the "
        "most likely token always stays. Ask of each token how much was gathered *before* it.",
        mistaken(DROPS),
        sees=emptied,
    ),
    Misconception(
        UNSORTED,
        "The running sum goes through the vocabulary in id order. The smallest set is found by going from "
        "the most likely token downwards.",
        mistaken(UNSORTED),
    ),
    Misconception(
        COUNTS_REMOVED,
        "top-p comes after top-k and works on what is left: after top-k the remaining probabilities are "
        "scaled up to sum to 1 before they are added up.",
        mistaken(COUNTS_REMOVED),
    ),
    Misconception(
        TOP_P_FIRST,
        "The set was chosen from probabilities without the temperature. The order is temperature, top-k, "
        "top-p.",
        mistaken(TOP_P_FIRST),
    ),
    Misconception(
        NO_TOP_P,
        "Tokens outside the set that reaches `top_p` still come. They must become impossible.",
        mistaken(NO_TOP_P),
    ),
    Misconception(
        ZEROED,
        'A logit of 0 is not "impossible": softmax turns it into exp(0) = 1 part. Which logit has '
        "exp(logit) = 0?",
        mistaken(ZEROED),
    ),
    Misconception(
        PLACE,
        "After sorting, position 0 is the most likely token, not token 0. The sort also returns which id "
        "stands at each place: look the drawn place up there.",
        mistaken(PLACE),
    ),
    Misconception(
        NO_SOFTMAX,
        "Logits are scores: they can be negative and do not sum to 1. Softmax makes them probabilities.",
        mistaken(NO_SOFTMAX),
        sees=negative_probabilities,
    ),
    Misconception(
        TWICE,
        "Probabilities went through softmax again, which makes them nearly equal. Softmax takes logits, "
        "once.",
        mistaken(TWICE),
    ),
    Misconception(
        OVER_BATCH,
        "Each row must sum to 1 over the *vocabulary*, which is the last dimension: `dim=-1`.",
        over_batch,
    ),
    Misconception(
        FIRST_ROW,
        "Every row of the batch is its own text with its own logits; all of them were drawn from row 0.",
        lambda inputs: [spread(inputs["logits"][0], inputs)] * len(inputs["logits"]),
    ),
    Misconception(
        SHARED,
        "All rows of a call got the same luck. Each row of a batch needs a draw of its own.",
        sees=seems_shared,
    ),
    Misconception(
        NO_GENERATOR,
        "The same seed must give the same tokens and another seed others. Hand `generator` to the function "
        "that draws; otherwise PyTorch uses a global one.",
        sees=ignored_generator,
    ),
)
