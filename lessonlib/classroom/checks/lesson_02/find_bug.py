"""02.find_bug: the experiments that tell a stale cache, a missing offset and a wrong dimension from a right cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import NOTHING, describe

ANSWERS = ("none", "offset", "stale", "dimension")
KINDS = {  # of toy_caches.ToyCache, and what find_bug must answer
    "right": "none",
    "right, in a slab": "none",
    "from 0": "offset",
    "counts calls": "offset",
    "one behind": "offset",
    "reset does nothing": "stale",
    "reset leaves the first": "stale",
    "reset leaves the last": "stale",
    "longer vectors": "dimension",
    "one more batch": "dimension",
}

UNKNOWN = "answers something else than the four words"
LETS_THROUGH = "lets the cache's own error through"
NO_RESET = "never tries reset"
ONE_GO = "tries everything in one go"
ONE_BY_ONE = "tries single tokens only"
BROADCAST = "compares tables of different shapes"
FALSE_ALARM = "accuses a right cache"
MIXES = "asks about reset before it has asked about positions"


def expected(inputs: Inputs) -> str:
    return KINDS[inputs["kind"]]


def read(value: Any, _: Inputs) -> str:
    if not isinstance(value, str) or value not in ANSWERS:
        name = NOTHING if value is None else UNKNOWN
        raise WrongForm(
            name, f"It must return one of {', '.join(map(repr, ANSWERS))}; it returned {describe(value)}."
        )
    return value


def instead(answers: dict[str, str]) -> Callable[[Inputs], str]:
    """What a mistake answers: these for some kinds, otherwise what is right."""
    return lambda inputs: answers.get(inputs["kind"], expected(inputs))


def error_through(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and seen.error.kind == "raised" and expected(inputs) == "dimension")


def unknown(_: Inputs, seen: Observation) -> bool:
    return seen.wrong_form is not None and seen.wrong_form.name == UNKNOWN


_RESETS = {kind: "none" for kind, answer in KINDS.items() if answer == "stale"}
_POSITIONS = {kind: "stale" for kind, answer in KINDS.items() if answer == "offset"}

MISCONCEPTIONS = (
    Misconception(
        UNKNOWN,
        'The answer is one of the words "none", "offset", "stale" and "dimension", in small letters.',
        sees=unknown,
    ),
    Misconception(
        LETS_THROUGH,
        "A broken cache may stop with an error of its own, and that *is* the finding. Put the calls into "
        "`try: … except RuntimeError: return …`.",
        sees=error_through,
    ),
    Misconception(
        NO_RESET,
        "A stale cache is right until a second text comes. Use the same cache for two texts, with `reset()` "
        "between them, and compare the second answer with that of a fresh cache.",
        instead(_RESETS),
    ),
    Misconception(
        ONE_GO,
        "A single call with all tokens cannot show what a cache does between calls. Give it the same tokens "
        "in pieces.",
        instead({kind: "none" for kind, answer in KINDS.items() if answer in ("offset", "dimension")}),
    ),
    Misconception(
        ONE_BY_ONE,
        "This cache is right as long as every call brings one token: it counts *calls*. Let one of your "
        "pieces have several tokens, followed by another piece.",
        instead({"counts calls": "none"}),
    ),
    Misconception(
        BROADCAST,
        "This cache answered with a table of another *shape*, and the comparison quietly stretched one to "
        "fit. Compare the shapes first.",
        instead({"one more batch": "offset"}),
    ),
    Misconception(
        MIXES,
        "Its positions are wrong, its reset is not. Ask one thing at a time: first in one go against in "
        "pieces, each with a fresh cache, and only then about `reset`.",
        instead(_POSITIONS),
    ),
    Misconception(
        FALSE_ALARM,
        "This cache is right. The same sum in another order differs in the last digits: compare with "
        "`torch.allclose` and some tolerance, and shapes with shapes.",
        lambda inputs: AnyOf(ANSWERS[1:]) if expected(inputs) == "none" else expected(inputs),
    ),
)


def valid(inputs: Inputs) -> bool:
    return inputs["kind"] in KINDS


def bug_case(title: str, *kinds: str, **case: Any) -> Case:
    inputs = [{"kind": kind} for kind in kinds]
    return values(title, expected, read, examples=inputs, valid=valid, **case)


def prepare(inputs: Inputs) -> dict[str, Any]:
    from .toy_caches import toy_cache

    return {"make": lambda: toy_cache(inputs["kind"])}


CASES = (
    bug_case("A right cache gets the answer none.", "right"),
    bug_case("Missing offset: every call begins at position 0.", "from 0"),
    bug_case(
        "Wrong dimension: the second call fails, or answers in another shape.",
        "longer vectors",
        "one more batch",
    ),
    bug_case("Stale: `reset` does not forget.", "reset does nothing", "reset leaves the first"),
    bug_case("A subtler offset: positions count calls instead of tokens.", "counts calls"),
    bug_case("Another right cache, differently written.", "right, in a slab"),
)

FIND_BUG = Exercise(
    id="02.find_bug",
    title="Find the bug",
    signature="find_bug(make)",
    prepare=prepare,
    show=lambda inputs: f'find_bug(lambda: toy_cache("{inputs["kind"]}"))',
    about=(
        "`make` is a function without arguments: each call of it gives a fresh cache of this kind. To try it "
        "yourself, paste the line into a cell."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "You need no right answers to compare with: a right cache agrees *with itself*. The same tokens must "
        "give the same, however they are cut into calls; and after `reset()` a cache must be as good as a "
        "fresh one.",
        "First experiment: `whole = make().attend(*qkv(tokens))`, then a second `cache = make()` gets the "
        "same tokens in pieces, say 2, 2 and 1, and `torch.cat` joins its answers. An error or another shape "
        "is one finding, other numbers are another.",
        "Second experiment, if the first found nothing: a cache that has seen one text, then `reset()`, then "
        "another text. Compare with a fresh cache that sees only the second text. For numbers use "
        "`torch.allclose(a, b, atol=1e-4)`, and put what may fail into `try: … except RuntimeError: …`.",
    ),
    analogue="""
A parking garage counts its free places with two sensors, and something is wrong. There is no second garage to compare
it with; but some things must be true of *any* garage:

```python
def find_fault(build):
    garage = build()
    before = garage.free()
    garage.enter(), garage.enter(), garage.leave(), garage.leave()
    if garage.free() != before:
        return "counter"                   # in and out again must change nothing

    used = build()
    used.enter()
    used.close_for_the_night()
    if used.free() != build().free():      # the next morning must be like the first one
        return "night"
    return "none"
```

The order matters: with a broken counter the second experiment would blame the night for it.
""",
)
