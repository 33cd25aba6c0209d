"""What a returned value has to look like, said in words a beginner can act on."""

from __future__ import annotations

import sys
from typing import Any

from .exercises import WrongForm

NOTHING = "returns nothing"
TYPE = "returns the wrong type"
SHAPE = "returns the wrong shape"
DTYPE = "returns the wrong dtype"
RANGE = "returns an impossible token id"
ONE_ROW = "returns one flat list, not one list for each prompt"
ROWS = "returns the wrong number of rows"
METHOD = "lacks a method"

WHY = {
    NOTHING: (
        "The function reached its end without a `return`, so Python returned `None`. Add `return …` at the "
        "end."
    ),
    TYPE: (
        "The numbers may be right, but the code that uses them needs exactly the type that the exercise "
        "names."
    ),
    SHAPE: "A shape is part of the answer: print `result.shape` inside your function and compare.",
    DTYPE: "Token ids are whole numbers that index a table: PyTorch keeps those as `torch.int64`.",
    ONE_ROW: (
        "Collect the rows of all prompts in one list and return that list, even if there is only one prompt."
    ),
    ROWS: (
        "Every prompt has a row of its own in the answer. A `return` inside the loop ends it after the first "
        "row; a name that is set anew in every turn keeps only the last."
    ),
    METHOD: "A method is a function inside the class, indented, with `self` as its first argument; keep its name.",
    RANGE: "A token id is a position in the vocabulary: it must be at least 0 and below its size.",
}


def describe(value: Any) -> str:
    """A value in words: "a torch.Tensor of int64 with shape (2, 3)", "the float 3.0", "a list of 2 lists"."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if value is None:
        return "nothing (None)"
    if torch is not None and isinstance(value, torch.Tensor):
        return f"a torch.Tensor of {str(value.dtype).removeprefix('torch.')} with shape {tuple(value.shape)}"
    if numpy is not None and isinstance(value, numpy.ndarray):
        return f"a NumPy array of {value.dtype} with shape {value.shape}"
    if isinstance(value, (bool, int, float, complex)):
        return f"the {type(value).__name__} {value}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, (list, tuple, set, dict)):
        name = "an empty" if not value else "a"
        kinds = {type(item).__name__ for item in value}
        kind = f"{kinds.pop()}s" if len(kinds) == 1 else "items of several types"
        return f"{name} {type(value).__name__}" + (f" of {len(value)} {kind}" if value else "")
    return f"a {type(value).__name__}"


def must_be(wanted: str, value: Any, name: str = TYPE) -> WrongForm:
    """The complaint that ``value`` is not ``wanted``; forgetting ``return`` has a name of its own."""
    return WrongForm(
        NOTHING if value is None else name, f"It must return {wanted}; it returned {describe(value)}."
    )


def whole_number(value: Any) -> int:
    """A Python int (a NumPy integer will do). Raises WrongForm."""
    if isinstance(value, bool) or not (isinstance(value, int) or _numpy_integer(value)):
        problem = must_be("a whole number (int)", value)
        if isinstance(value, float):
            problem.text += " In Python / always gives a float, and // between ints a whole number."
        raise problem
    return int(value)


def rows_of_ids(value: Any, rows: int) -> list[list[int]]:
    """A list of ``rows`` lists of Python ints. Raises WrongForm."""
    wanted = f"a list of {rows} list{'s' * (rows != 1)} of ints, one list for each prompt"
    if not isinstance(value, (list, tuple)):
        raise must_be(wanted, value)
    if value and all(isinstance(item, int) or _numpy_integer(item) for item in value):
        raise must_be(wanted, value, ONE_ROW)
    if len(value) != rows:
        raise must_be(wanted, value, ROWS)
    for row in value:
        if not isinstance(row, (list, tuple)):
            raise WrongForm(TYPE, f"It must return {wanted}; one of its rows is {describe(row)}.")
        for token in row:
            if isinstance(token, bool) or not (isinstance(token, int) or _numpy_integer(token)):
                raise WrongForm(
                    TYPE,
                    f"It must return {wanted}; a token in it is {describe(token)}: int(…) makes it plain.",
                )
    return [[int(token) for token in row] for row in value]


def token_tensor(value: Any, batch: int, vocabulary: int) -> list[int]:
    """A torch.int64 tensor of shape (batch,) with ids below ``vocabulary``, as a list. Raises WrongForm."""
    import torch

    wanted = f"a torch.Tensor of int64 with shape ({batch},)"
    if not isinstance(value, torch.Tensor):
        raise must_be(wanted, value)
    if value.shape != (batch,):
        raise must_be(wanted, value, SHAPE)
    if value.dtype != torch.int64:
        raise must_be(wanted, value, DTYPE)
    ids = [int(i) for i in value.tolist()]
    for i in ids:
        if not 0 <= i < vocabulary:
            raise WrongForm(
                RANGE, f"It returned token {i}, but the vocabulary has only ids 0 to {vocabulary - 1}."
            )
    return ids


def memory_of(tensor: Any) -> int:
    """Where a tensor's numbers lie: two with the same answer share them. Of a copy from a student's process, there."""
    return getattr(tensor, "memory", None) or tensor.untyped_storage().data_ptr()


def _numpy_integer(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.integer)
