"""What the exercises of lesson 03 share: rounding to a grid on plain numbers, and the form of what comes back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...exercises import Inputs, Misconception, Observation, WrongForm
from ...forms import SHAPE, TYPE, describe, must_be

Row = Sequence[float]
Rounding = Callable[[float], float]
TOLERANCE = 2e-5  # two float32 that are almost equal may differ in the sixth digit


def significant(number: float) -> float:
    """A float32 as people write it: six significant digits."""
    return float(f"{number:.6g}")


def scale_of(weights: Row, levels: float) -> float:
    """The scale by which the largest magnitude becomes ``levels``; 1 for a group of zeros, where any would do."""
    return max(map(abs, weights)) / levels or 1.0


def codes_of(weights: Row, scale: float, rounding: Rounding = round) -> list[int]:
    return [int(rounding(w / scale)) for w in weights]


def cut_off(weights: Row, scale: float, codes: Sequence[int]) -> bool:
    """Whether these codes are w / scale with the digits behind the point thrown away, or rounded down.

    In float32 the quotient of a weight that lies on the grid may be just under a whole number.
    """
    ways = (math.trunc, math.floor)
    return any(
        all(
            code in (way(w / scale - 2e-3), way(w / scale + 2e-3))
            for w, code in zip(weights, codes, strict=True)
        )
        for way in ways
    )


def clear_of_ties(weights: Row, levels: float) -> bool:
    """Whether no weight is so close to the middle between two codes that float32 could decide either way."""
    scale = scale_of(weights, levels)
    return all(abs(abs(w / scale) % 1 - 0.5) > 1e-3 for w in weights)


def is_matrix(rows: Any) -> bool:
    """Whether plain data is a matrix of finite numbers, with at least one column."""
    return bool(
        rows
        and rows[0]
        and all(len(row) == len(rows[0]) for row in rows)
        and all(math.isfinite(w) and abs(w) < 1000 for row in rows for w in row)
    )


def random_row(rng: random.Random, length: int, size: float, tail: float = 0.2) -> list[float]:
    """Weights with two decimals around zero; a share of ``tail`` of them much larger than the others."""
    return [round(rng.gauss(0, size) * (5 if rng.random() < tail else 1), 2) for _ in range(length)]


def matrix_text(rows: Sequence[Row]) -> str:
    return f"torch.tensor({[list(row) for row in rows]!r})"


def two_tensors(value: Any, first: str, second: str, swapped: str) -> tuple[Any, Any]:
    """Two tensors, ``first`` of whole numbers and ``second`` of floats. Raises WrongForm, ``swapped`` if so."""
    import torch

    wanted = f"two tensors, {first} and {second}"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise must_be(wanted, value)
    for part in value:
        if not isinstance(part, torch.Tensor):
            raise WrongForm(TYPE, f"It must return {wanted}; one of the two is {describe(part)}.")
    one, other = value
    if one.is_floating_point() and not other.is_floating_point():
        raise WrongForm(swapped, f"The first is {describe(one)}, the second {describe(other)}.")
    return one, other


def in_float32(scales: Any, shape: tuple[int, ...]) -> list[Any]:
    """Scales of exactly this shape, as nested lists. Raises WrongForm."""
    import torch

    if not scales.is_floating_point() or scales.dtype not in (torch.float32, torch.float64):
        raise WrongForm(TYPE, f"The scales must be float32; they are {describe(scales)}.")
    if tuple(scales.shape) != shape:
        raise WrongForm(SHAPE, f"The scales must have shape {shape}; they are {describe(scales)}.")
    return scales.double().tolist()


def by_form(name: str) -> Callable[[Inputs, Observation], bool]:
    """Recognises a mistake that ``read`` has named already."""
    return lambda _, seen: bool(seen.wrong_form and seen.wrong_form.name == name)


def formal(name: str, why: str) -> Misconception:
    """A mistake that shows in the form of the answer alone."""
    return Misconception(name, why, sees=by_form(name))
