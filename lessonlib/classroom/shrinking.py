"""Makes a failing input small: tries simpler inputs for as long as they fail in the same way.

A greedy descent over plain data, after the idea of QuickCheck's shrinking (Claessen & Hughes 2000) and
delta debugging (Zeller 1999): drop optional arguments, drop list items, pull numbers towards zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

TRIES = 2000  # candidates looked at, at most


def shrink(
    inputs: dict[str, Any],
    optional: tuple[str, ...],
    fails: Callable[[dict[str, Any]], bool],
    tries: int = TRIES,
) -> dict[str, Any]:
    """A smallest input found that still ``fails``. Keys that start with an underscore stay as they are."""
    best, improved = inputs, True
    while improved:
        improved = False
        for candidate in _simpler_inputs(best, optional):
            if tries <= 0:
                return best
            tries -= 1
            if fails(candidate):
                best, improved = candidate, True
                break
    return best


def _simpler_inputs(inputs: dict[str, Any], optional: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for name in optional:
        if name in inputs:
            yield {k: v for k, v in inputs.items() if k != name}
    for name, value in inputs.items():
        if not name.startswith("_"):
            for smaller in simpler(value):
                yield {**inputs, name: smaller}


def simpler(value: Any) -> Iterator[Any]:
    """Values like this one but simpler, the boldest first; always finitely many steps from the simplest."""
    if isinstance(value, bool):
        if value:
            yield False
    elif isinstance(value, int):
        steps = [0, value // 2 if value > 0 else -(-value // 2), value - (value > 0) + (value < 0)]
        yield from dict.fromkeys(s for s in steps if abs(s) < abs(value))
        if value < 0:
            yield -value
    elif isinstance(value, float):
        steps_f = [0.0, 1.0, float(round(value)), float(int(value / 2)), round(value, 1)]
        yield from dict.fromkeys(s for s in steps_f if _float_cost(s) < _float_cost(value))
    elif isinstance(value, (list, tuple)):
        items = list(value)
        if len(items) > 3:
            yield items[: len(items) // 2]
            yield items[len(items) // 2 :]
        for i in range(len(items)):
            yield items[:i] + items[i + 1 :]
        for i, item in enumerate(items):
            for smaller in simpler(item):
                yield [*items[:i], smaller, *items[i + 1 :]]
    elif isinstance(value, str):
        if len(value) > 3:
            yield value[: len(value) // 2]
        yield from (value[:i] + value[i + 1 :] for i in range(len(value)))


def _float_cost(number: float) -> tuple[int, int, float]:
    """How hard a number is to read: its written length, then its size, negative after positive."""
    return (len(f"{abs(number):g}"), number < 0, abs(number))
