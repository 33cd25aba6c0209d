"""What goes wrong in 02.CachedAttention, by name: attention on plain floats, right or with one mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation

NO_OFFSET = "every call counts its positions from 0"
COUNTS_CALLS = "the position counts calls, not tokens"
NO_MASK = "new tokens see the tokens after them"
CORNER = "the mask forgets what is held"
NO_TURN = "nothing is turned by its position"
PLAIN_KEYS = "keys are kept without their turn"
TURNS_AGAIN = "kept keys are turned again in every call"
TURNS_VALUES = "values are turned as well"
NO_SCALE = "the scores are not divided by the square root of dim"
FORGETS = "nothing is kept from call to call"
STALE = "reset leaves the old text in the cache"
OVERWRITES = "use_cache=False overwrites the cache"
ADDS = "use_cache=False adds its tokens to the cache"
READS = "use_cache=False still looks at the cache"
ZERO_MASK = "hidden scores are set to 0"
OVER_QUERIES = "softmax runs over the wrong dimension"
LONGER = "keys are joined along the wrong dimension"

Vector = list[float]


@cache
def vectors(token: int) -> tuple[tuple[float, ...], ...]:
    """Query, key and value of a toy token: ``toys.qkv`` again, on plain floats."""
    return tuple(
        tuple(((7 * token + 5 * i + part + token * i * (part + 2)) % 13) / 4 - 1.5 for i in range(4))
        for part in (1, 4, 6)
    )


def turn(vector: Sequence[float], position: int) -> Vector:
    """Each pair (i, i + dim / 2) turned by an angle that grows with the position (RoPE)."""
    half, turned = len(vector) // 2, [0.0] * len(vector)
    for i in range(half):
        angle = position * 10_000.0 ** (-2 * i / len(vector))
        a, b = vector[i], vector[i + half]
        turned[i] = a * math.cos(angle) - b * math.sin(angle)
        turned[i + half] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns: (new, dim) for ``attend``, None for ``reset``."""
    kept: list[tuple[Vector, Vector]] = []
    found: list[Any] = []
    calls = 0
    for step in inputs["steps"]:
        if step[0] == "reset":
            kept, calls = (kept, calls) if mistake == STALE else ([], 0)
            found.append(None)
            continue
        use = step[2] if len(step) > 2 else True
        rows, kept = _attend(list(step[1]), kept, calls, use, mistake)
        calls += 1
        found.append(rows)
    return found


def _attend(
    tokens: list[int], kept: list[tuple[Vector, Vector]], calls: int, use: bool, mistake: str
) -> tuple[list[Vector], list[tuple[Vector, Vector]]]:
    past = kept if (use or mistake == READS) and mistake != FORGETS else []
    start = {NO_OFFSET: 0, COUNTS_CALLS: calls if use else 0}.get(mistake, len(past))
    at = {token_at: start + token_at for token_at in range(len(tokens))}

    def turned(vector: Sequence[float], i: int) -> Vector:
        return list(vector) if mistake == NO_TURN else turn(vector, at[i])

    queries = [turned(vectors(t)[0], i) for i, t in enumerate(tokens)]
    new = [
        (turned(k, i), turn(v, at[i]) if mistake == TURNS_VALUES else list(v))
        for i, (_, k, v) in enumerate(map(vectors, tokens))
    ]
    if mistake == TURNS_AGAIN:
        past = [(turn(k, i), v) for i, (k, v) in enumerate(past)]
    seen = past + new
    rows = _weigh(queries, seen, len(past), mistake)
    if mistake == PLAIN_KEYS:
        new = [(list(vectors(t)[1]), v) for t, (_, v) in zip(tokens, new, strict=True)]
    if use:
        return rows, past + new
    return rows, {OVERWRITES: new, ADDS: kept + new}.get(mistake, kept)


def _weigh(queries: list[Vector], seen: list[tuple[Vector, Vector]], held: int, mistake: str) -> list[Vector]:
    scale = 1.0 if mistake == NO_SCALE else 1 / math.sqrt(len(queries[0]))
    table = []
    for i, q in enumerate(queries):
        last = {NO_MASK: len(seen) - 1, CORNER: i}.get(mistake, held + i)
        hidden = 0.0 if mistake == ZERO_MASK else -math.inf
        scores = [scale * sum(a * b for a, b in zip(q, k, strict=True)) for k, _ in seen]
        table.append([score if j <= last else hidden for j, score in enumerate(scores)])
    if mistake == OVER_QUERIES:
        weights = _transpose([_softmax(column) for column in _transpose(table)])
    else:
        weights = [_softmax(row) for row in table]
    values = _transpose([v for _, v in seen])
    return [[sum(w * x for w, x in zip(row, column, strict=True)) for column in values] for row in weights]


def _softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    if top == -math.inf:
        return [0.0] * len(scores)
    weights = [math.exp(s - top) for s in scores]
    return [w / sum(weights) for w in weights]


def _transpose(table: list[Vector]) -> list[Vector]:
    return [list(column) for column in zip(*table, strict=True)]


def mistaken(*names: str) -> Any:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


def joined_wrongly(inputs: Inputs, seen: Observation) -> bool:
    """Whether a second call met keys of another width, or more of them than of something else."""
    words = ("cannot be multiplied", "must match", "Sizes of tensors", "size mismatch", "must be the same")
    several = sum(step[0] == "attend" for step in inputs["steps"]) > 1
    return bool(several and seen.error and any(word in seen.error.message for word in words))


MISCONCEPTIONS = (
    Misconception(
        LONGER,
        "Joining two tables of (tokens, dim) must give more *tokens*, not longer vectors: that is dimension "
        "0. Print the shape of your keys after the second call.",
        sees=joined_wrongly,
    ),
    Misconception(
        NO_OFFSET,
        "The first new token of a call stands *behind* everything held: with 3 tokens held, at position 3.",
        mistaken(NO_OFFSET),
    ),
    Misconception(
        COUNTS_CALLS,
        "A call may bring several tokens. The next position is the number of *tokens* held, not of calls made.",
        mistaken(COUNTS_CALLS),
    ),
    Misconception(
        NO_MASK,
        "Of several new tokens the first must not see the second. One token at a time this never shows; a "
        "prompt is many.",
        mistaken(NO_MASK),
    ),
    Misconception(
        CORNER,
        "Row 0 of the mask is the first *new* token. It sees all held tokens and itself, not place 0 alone.",
        mistaken(CORNER),
    ),
    Misconception(
        NO_TURN,
        "Without `rope` the order of the tokens makes no difference. Queries and keys are turned by their positions.",
        mistaken(NO_TURN),
    ),
    Misconception(
        PLAIN_KEYS,
        "The new keys were turned for this call but kept as they came, so that in later calls they stand "
        "nowhere. Keep the turned ones.",
        mistaken(PLAIN_KEYS),
    ),
    Misconception(
        TURNS_AGAIN,
        "A key is turned once, when its token is new. Turned again in every call, it seems to wander off.",
        mistaken(TURNS_AGAIN),
    ),
    Misconception(
        TURNS_VALUES,
        "Positions decide *where a token looks*, which is between queries and keys. What it gets, the value, "
        "is not turned.",
        mistaken(TURNS_VALUES),
    ),
    Misconception(
        NO_SCALE,
        "The scores are divided by `math.sqrt(dim)` before softmax, dim being the length of one vector.",
        mistaken(NO_SCALE),
    ),
    Misconception(
        FORGETS,
        "Each call sees its own tokens only. What must still be there in the next call belongs to `self`.",
        mistaken(FORGETS),
    ),
    Misconception(
        STALE,
        "After `reset` a new text begins, at position 0 and with nothing to look back at. The old one is still seen.",
        mistaken(STALE),
    ),
    Misconception(
        OVERWRITES,
        "After a call with `use_cache=False`, the tokens that were kept before are gone. Such a call only "
        "looks; it must not write to `self`.",
        mistaken(OVERWRITES),
    ),
    Misconception(
        ADDS,
        "A call with `use_cache=False` is not part of the text: the next call must not see its tokens.",
        mistaken(ADDS),
    ),
    Misconception(
        READS,
        "With `use_cache=False` the tokens are a text of their own: position 0, nothing held.",
        mistaken(READS),
    ),
    Misconception(
        ZERO_MASK,
        "A score of 0 is not *hidden*: softmax gives it exp(0) = 1 part. Which score has exp(score) = 0?",
        mistaken(ZERO_MASK),
    ),
    Misconception(
        OVER_QUERIES,
        "The weights of *one* token over all that it looks at sum to 1. In (new, all) that is the last dimension.",
        mistaken(OVER_QUERIES),
    ),
)
