"""What goes wrong in 01.sample, by name: each mistake as the distribution it leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation, Skip

REPEAT, CALLS = 500, 2  # every row is drawn REPEAT times in each of CALLS calls
MULTIPLIES = "multiplies by the temperature"
NO_TEMPERATURE = "the temperature has no effect"
NO_TOP_K = "top_k has no effect"
NO_TOP_P = "top_p has no effect"
ARGMAX = "always takes the most likely token"
ONE_TOO_MANY = "top-k keeps one token too many"
DROPS = "top-p drops the token that reaches the threshold"
DROPS_PLACE = "drops the token that reaches top_p, and returns the place in the sorted order"
MORE = "top-p keeps one token too many"
ASCENDING = "sorted from the smallest up"
ASCENDING_DROPS = "sorted from the smallest up, and drops the token that reaches the threshold"
SINGLE = "compares single probabilities with top_p"
ROW_ZERO = "row 0 decides what all rows keep"
FLAT_THRESHOLD = "the threshold has shape (batch,)"
ZERO_K = "top_k=0 removes every token"
UNSORTED = "top-p adds up unsorted probabilities"
COUNTS_REMOVED = "top-p counts tokens that top-k removed"
TOP_P_FIRST = "top-p is applied before the temperature"
ZEROED = "removed tokens get the logit 0"
PLACE = "returns the place in the sorted order, not the token id"
PLACE_UP = "returns the place in the order from the smallest up"
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
    if mistake == PLACE_UP:
        place = {token: len(x) - 1 - i for token, i in place.items()}
    return _normal(
        {place[i] if mistake in (PLACE, PLACE_UP, DROPS_PLACE) else i: math.exp(x[i]) for i in kept}
    )


def nucleus(x: Sequence[float], kept: list[int], p: float, mistake: str) -> list[int]:
    """The tokens of ``kept`` (most likely first) that top-p leaves."""
    probability = softmax(x)
    if mistake != COUNTS_REMOVED:
        total = sum(probability[i] for i in kept)
        probability = [v / total for v in probability]
    if mistake == SINGLE:
        return [i for i in kept if probability[i] >= p]
    order = kept
    if mistake == UNSORTED:
        order = sorted(kept)
    elif mistake in (ASCENDING, ASCENDING_DROPS):
        order = kept[::-1]
    reached, chosen = 0.0, []
    for i in order:
        if reached >= p:
            break
        reached += probability[i]
        chosen.append(i)
    if mistake in (DROPS, DROPS_PLACE, ASCENDING_DROPS) and len(chosen) > 1 and reached > p:
        chosen.pop()
    if mistake == MORE:
        chosen += order[len(chosen) :][:1]
    return chosen


def _normal(weights: dict[Any, float]) -> dict[Any, float]:
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items() if weight > 0}


def expected(inputs: Inputs) -> list[dict[Any, float]]:
    return [spread(row, inputs) for row in inputs["logits"]]


def mistaken(name: str) -> Any:
    return lambda inputs: [spread(row, inputs, name) for row in inputs["logits"]]


def only_with_top_p(*names: str) -> Any:
    """What mistakes in top-p lead to (any of them), where there is a top_p."""

    def gives(inputs: Inputs) -> AnyOf:
        if inputs.get("top_p", 1.0) == 1 or inputs.get("temperature") == 0:
            raise Skip
        return AnyOf(mistaken(name)(inputs) for name in names)

    return gives


def row_zero(inputs: Inputs) -> AnyOf:
    """The kept tokens of row 0, their number, or its smallest kept logit, used for every row."""
    rows, temperature = inputs["logits"], inputs.get("temperature", 1.0)
    if len(rows) == 1 or not temperature or not {"top_k", "top_p"} & set(inputs):
        raise Skip
    first = spread(rows[0], inputs)
    ranked = sorted(range(len(rows[0])), key=lambda i: -rows[0][i])
    lowest = min(rows[0][i] for i in first)

    def keep(kept: Callable[[Sequence[float]], Iterable[int]]) -> list[dict[Any, float]]:
        return [_normal({i: math.exp(row[i] / temperature) for i in kept(row)}) for row in rows]

    return AnyOf(
        (
            keep(lambda row: first),
            keep(lambda row: spread(row, {**inputs, "top_p": 1.0}).keys() & first.keys()),
            keep(lambda row: _until(row, ranked, inputs)),
            keep(lambda row: sorted(range(len(row)), key=lambda i: -row[i])[: len(first)]),
            keep(lambda row: [i for i, v in enumerate(row) if v >= lowest]),
        )
    )


def over_batch(inputs: Inputs) -> list[dict[Any, float]]:
    """Softmax down each column: the more rows like this one, the flatter it gets."""
    temperature = inputs.get("temperature", 1.0)
    if not temperature or {"top_k", "top_p"} & set(inputs):
        raise Skip
    columns = [softmax([v / temperature for v in column]) for column in zip(*inputs["logits"], strict=True)]
    return [_normal({i: column[r] for i, column in enumerate(columns)}) for r in range(len(inputs["logits"]))]


def seems_shared(inputs: Inputs, seen: Observation) -> bool:
    """Whether each call returned one token again and again, not because all others were removed."""
    if not isinstance(seen.value, list) or all(max(row.values()) > 0.9 for row in expected(inputs)):
        return False
    calls = [row[turn * REPEAT : (turn + 1) * REPEAT] for row in seen.value for turn in range(CALLS)]
    plain = not {"temperature", "top_k", "top_p"} & set(inputs)
    moves = any(len({*row}) > 1 for row in seen.value)
    return all(len(set(tokens)) == 1 for tokens in calls) and (plain or moves)


def broke_at_zero(inputs: Inputs, seen: Observation) -> bool:
    return bool(inputs.get("temperature") == 0 and seen.error and _no_probabilities(seen))


def _no_probabilities(seen: Observation) -> bool:
    """Whether a draw was refused because of negative, infinite or missing (nan) probabilities."""
    error = seen.error
    return bool(error and ("probabilit" in error.message or error.type == "ZeroDivisionError"))


def _until(row: Sequence[float], order: Sequence[int], inputs: Inputs) -> list[int]:
    """The tokens that top-p keeps of a row when it goes through them in this order."""
    before = spread(row, {**inputs, "top_p": 1.0})
    reached, chosen = 0.0, []
    for i in order:
        if i in before and reached < inputs.get("top_p", 1.0):
            reached += before[i]
            chosen.append(i)
    return chosen


def emptied(inputs: Inputs, seen: Observation) -> bool:
    """Whether the probabilities broke because top-p dropped even the most likely token, which reaches it."""
    return bool(_no_probabilities(seen) and any(p >= inputs.get("top_p", 1.0) for p in _largest(inputs)))


def too_small(inputs: Inputs, seen: Observation) -> bool:
    """Whether the probabilities broke where no single token has as much as top_p."""
    return bool(_no_probabilities(seen) and any(p < inputs.get("top_p", 1.0) for p in _largest(inputs)))


def _largest(inputs: Inputs) -> list[float]:
    """The largest probability of each row just before top-p; none at temperature 0."""
    if inputs.get("temperature") == 0:
        return []
    before = {**inputs, "top_p": 1.0}
    return [max(spread(row, before).values()) for row in inputs["logits"]]


def lost_favourite(inputs: Inputs, seen: Observation) -> bool:
    """Whether only the most likely token is gone from some row, without top_p: rounded, the sum exceeded 1."""
    if inputs.get("top_p", 1.0) < 1 or inputs.get("temperature") == 0 or not isinstance(seen.value, list):
        return False
    missing = [p.keys() - {*row} for p, row in zip(expected(inputs), seen.value, strict=True)]
    favourites = [{max(p, key=p.__getitem__)} for p in expected(inputs)]
    return any(missing) and all(gone <= best for gone, best in zip(missing, favourites, strict=True))


def no_threshold(inputs: Inputs, seen: Observation) -> bool:
    """Whether top_k=0 (or its default) ended in an error."""
    if inputs.get("top_k") or inputs.get("temperature") == 0:
        return False
    return _no_probabilities(seen) or bool(seen.error and seen.error.type == "IndexError")


def lost_dimension(inputs: Inputs, seen: Observation) -> bool:
    """Whether one number a row met a table of (batch, vocabulary)."""
    cut = {"top_k", "top_p"} & set(inputs)
    return bool(cut and seen.error and "must match the size of tensor" in seen.error.message)


def emptied_by_row_zero(inputs: Inputs, seen: Observation) -> bool:
    return len(inputs["logits"]) > 1 and bool(inputs.get("top_k")) and _no_probabilities(seen)


def negative_probabilities(inputs: Inputs, seen: Observation) -> bool:
    plain = not {"temperature", "top_k", "top_p"} & set(inputs)
    return plain and min(map(min, inputs["logits"])) < 0 and _no_probabilities(seen)


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
        DROPS_PLACE,
        "Two things at once. The kept set has to *reach* `top_p`: the token that crosses the line belongs to it. "
        "And after sorting, position 0 is the most likely token, not token 0: look up which id stands there.",
        only_with_top_p(DROPS_PLACE),
        sees=emptied,
    ),
    Misconception(
        MORE,
        "The set is complete as soon as it reaches `top_p`: the token that crosses the line is its last. The one "
        "after it was kept as well. Which probability do you compare, the sum *before* a token or with it?",
        only_with_top_p(MORE),
    ),
    Misconception(
        ASCENDING,
        "The running sum began with the *least* likely token, so the favourites are the ones that go. `sort` "
        "puts the smallest first unless you ask for `descending=True`.",
        only_with_top_p(ASCENDING, ASCENDING_DROPS),
        sees=lost_favourite,
    ),
    Misconception(
        SINGLE,
        "No token has to reach `top_p` alone: the running sum counts, from the most likely token down.",
        only_with_top_p(SINGLE),
        sees=too_small,
    ),
    Misconception(
        ROW_ZERO,
        "Every row of the batch has its own logits, so its own order, its own threshold and its own set of kept "
        "tokens. Look for a `[0]` that should be a `:`.",
        row_zero,
        sees=emptied_by_row_zero,
    ),
    Misconception(
        FLAT_THRESHOLD,
        "One number for each row has shape (batch,), and PyTorch lines that up with the *vocabulary*: it fits "
        "one row by luck, but not several. Keep the dimension: (batch, 1) is compared row by row.",
        sees=lost_dimension,
    ),
    Misconception(
        ZERO_K,
        "`top_k=0` is the default and means *keep all*; here it kept none. Leave the step out when `top_k` is 0.",
        sees=no_threshold,
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
        "After sorting, position 0 is no longer token 0, but the most likely one (or, sorted from the smallest "
        "up, the least). The sort also returns which id stands at each place: look the drawn place up there.",
        lambda inputs: AnyOf(mistaken(name)(inputs) for name in (PLACE, PLACE_UP)),
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
