"""What a student's function may do with the objects a probe hands it: call this, read that, nothing else.

The objects themselves (a toy model with counters, a cache) stay with the grader. What is not named here does not exist
over there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import Any

from .inside.wire import Away

LARGEST = 10_000  # a whole number, or a tensor's numbers, that a student's function may hand to ours: it sizes a table


@dataclass(frozen=True)
class Face:
    """What shows of an object: methods to be called, values to be read anew each time, constants that came along.

    selves: methods that change nothing here and give the object itself, such as ``model.eval()``.
    """

    methods: tuple[str, ...] = ("__call__",)
    values: tuple[str, ...] = ()
    selves: tuple[str, ...] = ()
    constants: Callable[[Any], Mapping[str, Any]] = field(default=lambda made: {})


@cache
def faces() -> dict[type, Face]:
    """The faces of the course's probe objects, by type."""
    import torch

    from lessonlib.classroom.checks.lesson_02.toy_caches import ToyCache
    from lessonlib.classroom.checks.lesson_08.runners import Cache, Runner
    from lessonlib.classroom.toys import ToyModel

    return {
        FunctionType: Face(),
        ToyModel: Face(
            values=("forward_calls", "tokens"),
            selves=("eval", "train", "to", "cpu", "float", "requires_grad_"),
            constants=lambda model: {
                "config": model.config,
                "training": model.training,
                "nothing": torch.zeros(1),
                "_parameters": [torch.zeros(1)],
            },
        ),
        ToyCache: Face(methods=("attend", "reset")),
        Runner: Face(
            methods=("__call__", "new_caches"),
            values=("forward_calls", "tokens", "widest"),
            constants=lambda runner: {"layers": runner.layers, "dim": runner.dim, "vocab": runner.vocab},
        ),
        Cache: Face(methods=("append", "rewind"), values=("length", "keys", "values")),
    }


def face_of(made: Any) -> Face:
    """Raises TypeError where a probe hands out an object that has no face: a mistake in the probe."""
    for kind in type(made).__mro__:
        if kind in faces():
            return faces()[kind]
    raise TypeError(f"a probe hands out a {type(made).__name__}, which has no face in grader/faces.py")


def too_large(value: Any) -> bool:
    """Whether a student's function hands ours a whole number, or a tensor of so many numbers, beyond LARGEST."""
    if isinstance(value, int):
        return abs(value) > LARGEST
    if isinstance(value, Away):
        return False
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return math.prod(shape) > LARGEST or any(map(too_large, shape))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(too_large, value))
    return isinstance(value, dict) and any(too_large(part) for pair in value.items() for part in pair)
