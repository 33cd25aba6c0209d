"""The kinds of case: a value that must be right, an object that must answer, draws that must follow a distribution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from .exercises import FAR, Call, Case, Comparison, Inputs, WrongForm
from .forms import METHOD, describe
from .observing import Stopped

FALSE_ALARM = 1e-9  # how often a right function may fail one trial by bad luck
Distribution = Mapping[Hashable, float]


def values(
    title: str,
    expected: Callable[[Inputs], Any],
    read: Callable[[Any, Inputs], Any] = lambda value, inputs: value,
    tolerance: float = 0.0,
    **case: Any,
) -> Case:
    """A case whose answer is one right value.

    read(value, inputs) turns the returned value into plain data or raises WrongForm. tolerance: largest
    difference of a number, relative to the larger of 1 and the expected number (0: exactly equal).
    """

    def trial(call: Call, inputs: Inputs) -> Any:
        return read(call(inputs), inputs)

    def distance(_: Inputs, observed: Any, predicted: Any) -> float:
        return 0.0 if close(predicted, observed, tolerance) else FAR

    def compare(_: Inputs, observed: Any, predicted: Any) -> Comparison:
        return Comparison(show(predicted), show(observed))

    return Case(title, expected, distance, compare, **{"trial": trial, **case})


def script(
    title: str,
    expected: Callable[[Inputs], list[Any]],
    act: Callable[[Call, Any, Sequence[Any]], Any] | None = None,
    errors: Sequence[str] = (),
    tolerance: float = 0.0,
    name: str = "it",
    write: Callable[[str, Sequence[Any]], str] | None = None,
    **case: Any,
) -> Case:
    """A case for a class: makes the object, plays ``inputs["steps"]``, compares what each step returned.

    A step is a list [method, *arguments] of plain values. act(call, object, step) plays one and returns a plain
    value or raises WrongForm; by default it calls the method. errors: names of the exceptions that may be the right
    answer of a step; their value is "raises <name>". expected(inputs): one value for each step. name: of the object,
    on the card. write(name, step): a step as Python, where ``act`` makes more of it than a plain call.
    """
    play = act or play_step

    def trial(call: Call, inputs: Inputs) -> list[Any]:
        made = call(inputs)
        return [answer(call, made, step) for step in inputs["steps"]]

    def answer(call: Call, made: Any, step: Sequence[Any]) -> Any:
        try:
            return play(call, made, step)
        except Stopped as stopped:
            if stopped.error.kind == "raised" and stopped.error.type in errors:
                return f"raises {stopped.error.type}"
            raise

    def distance(_: Inputs, observed: Any, predicted: Any) -> float:
        return 0.0 if close(predicted, observed, tolerance) else FAR

    def compare(inputs: Inputs, observed: Any, predicted: Any) -> Comparison:
        pairs = list(zip(predicted, observed, strict=True))
        i = next((i for i, (e, o) in enumerate(pairs) if not close(e, o, tolerance)), 0)
        note = f"from {(write or step_text)(name, inputs['steps'][i])}, line {i + 2}"
        return Comparison(show(pairs[i][0]), show(pairs[i][1]), note=note)

    return Case(title, expected, distance, compare, **{"trial": trial, **case})


def play_step(call: Call, made: Any, step: Sequence[Any]) -> Any:
    """Call the method that a step names. Raises WrongForm where the object has none of that name."""
    method = getattr(made, step[0], None)
    if not callable(method):
        raise WrongForm(METHOD, f"The exercise asks for a method {step[0]}(…); there is none.")
    return call.then(method, *step[1:])


def step_text(name: str, step: Sequence[Any]) -> str:
    return f"{name}.{step[0]}({', '.join(map(repr, step[1:]))})"


def script_text(
    name: str, making: str, inputs: Inputs, write: Callable[[str, Sequence[Any]], str] = step_text
) -> str:
    """The script as Python to be pasted into a cell: ``making`` the object, then one line for each step."""
    return "\n".join([f"{name} = {making}", *(write(name, step) for step in inputs["steps"])])


def close(expected: Any, got: Any, tolerance: float) -> bool:
    """Whether two plain values are equal, numbers within ``tolerance``, item by item."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(close(expected[k], got[k], tolerance) for k in expected)
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(expected) == len(got) and all(
            close(e, g, tolerance) for e, g in zip(expected, got, strict=True)
        )
    numbers = (int, float)
    if isinstance(expected, numbers) and isinstance(got, numbers) and tolerance:
        return math.isfinite(got) and abs(expected - got) <= tolerance * max(1.0, abs(expected))
    return type(expected) is type(got) and bool(expected == got)


def show(value: Any) -> str:
    """A plain value as Python, long ones cut."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:280]} … ({describe(value)})"


def draws(
    title: str,
    expected: Callable[[Inputs], Sequence[Distribution]],
    trial: Callable[[Call, Inputs], Sequence[Sequence[Hashable]]],
    label: Callable[[Hashable], str] = lambda outcome: f"token {outcome}",
    **case: Any,
) -> Case:
    """A case whose answer is random: many draws must follow the expected distribution.

    expected(inputs) gives one distribution {outcome: probability} for each row of a batch, trial one list of
    draws for each row. The set of outcomes must match; for the rest the total variation distance (half the
    sum of |share - probability|) must stay under the bound that a right function exceeds with probability
    FALSE_ALARM: P(TV >= e) <= 2^k exp(-2 n e^2) for n draws among k outcomes (Bretagnolle & Huber; van der
    Vaart & Wellner 1996, A.6.6).
    """

    def distance(_: Inputs, observed: Any, predicted: Any) -> float:
        if not _are_distributions(predicted) or len(predicted) != len(observed):
            return FAR
        return max(map(row_distance, observed, predicted), default=0.0)

    def compare(inputs: Inputs, observed: Any, predicted: Any) -> Comparison:
        worst = max(range(len(observed)), key=lambda i: row_distance(observed[i], predicted[i]))
        share = shares(observed[worst])
        outcomes = sorted({*share, *predicted[worst]}, key=str)
        if all(isinstance(o, int) for o in outcomes):
            outcomes.sort()
        outcomes = sorted(outcomes, key=lambda o: -max(share.get(o, 0), predicted[worst].get(o, 0)))[:8]
        table = tuple((label(o), predicted[worst].get(o, 0.0), share.get(o, 0.0)) for o in outcomes)
        row = f" for row {worst} of the batch" if len(observed) > 1 else ""
        return Comparison(shares=table, note=f"{len(observed[worst]):,} draws{row}")

    return Case(title, expected, distance, compare, trial, **case)


def shares(observed: Sequence[Hashable]) -> dict[Hashable, float]:
    """How often each outcome came, as shares of 1."""
    return {outcome: count / len(observed) for outcome, count in Counter(observed).items()}


def total_variation(a: Distribution, b: Distribution) -> float:
    """Half the sum of absolute differences: the largest difference of any event's probability."""
    return sum(abs(a.get(o, 0.0) - b.get(o, 0.0)) for o in {*a, *b}) / 2


def row_distance(observed: Sequence[Hashable], predicted: Distribution) -> float:
    """Total variation in units of its bound: at most 1 is "the same".

    FAR when something impossible came, or when something never came that n draws could not miss by bad luck.
    """
    possible = {o: p for o, p in predicted.items() if p > 0}
    share = shares(observed)
    if not observed or any(o not in possible for o in share):
        return FAR
    if any(o not in share and (1 - p) ** len(observed) < FALSE_ALARM for o, p in possible.items()):
        return FAR
    return total_variation(share, possible) / bound(len(observed), len(possible))


def bound(n: int, outcomes: int) -> float:
    """The total variation that n right draws among this many outcomes exceed with probability FALSE_ALARM."""
    return math.sqrt((outcomes * math.log(2) - math.log(FALSE_ALARM)) / (2 * n))


def rows_of(tokens: Sequence[int], rows: int) -> list[list[int]]:
    """Draws of a batch that repeats its ``rows`` rows again and again, back to one list for each row."""
    if len(tokens) % rows:
        raise WrongForm(
            "returns the wrong shape", f"It returned {len(tokens)} tokens for a batch of {rows} rows."
        )
    return [list(tokens[i::rows]) for i in range(rows)]


def _are_distributions(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(row, Mapping) for row in value)
