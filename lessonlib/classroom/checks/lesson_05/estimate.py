"""05.estimate: tokens for each pass, and how much faster decoding gets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import TYPE, describe, must_be

NO_OWN = "forgets the model's own token"
ONE_FEWER = "counts one draft too few"
EVERY_DRAFT = "lets drafts stand behind a rejected one"
ALL_STAND = "takes every draft for accepted"
FREE = "the drafts cost nothing"
ONE_DRAFT = "pays for one draft pass only"
NO_PASS = "forgets the model's own pass"
NO_VERIFY = "checking the drafts costs nothing"
VERIFY_ONCE = "pays for checking one draft only"
OWN_CHECKED = "pays for checking the model's own token"
SWAPPED = "returns the two numbers the other way round"
UPSIDE_DOWN = "the speed-up is upside down"
PER_DRAFT = "divides by the number of passes, not by their cost"
BY_ZERO = "divides by zero when every draft is accepted"


def tokens(a: float, k: int) -> float:
    """1 + a + … + a^k: Leviathan et al. 2023, equation 1."""
    return float(sum(a**i for i in range(k + 1)))


def cost(inputs: Inputs) -> float:
    """One round, in passes of the model over one token."""
    return float(1 + inputs["k"] * (inputs["draft_cost"] + inputs.get("verify_cost", 0.0)))


def right(inputs: Inputs) -> tuple[float, float]:
    brought = tokens(inputs["acceptance"], inputs["k"])
    return brought, brought / cost(inputs)


Of = Callable[[float, int, float, float], float]  # from acceptance, k, draft_cost, verify_cost


def _numbers(inputs: Inputs) -> tuple[float, int, float, float]:
    return inputs["acceptance"], inputs["k"], inputs["draft_cost"], inputs.get("verify_cost", 0.0)


def _brings(*counts: Of) -> Callable[[Inputs], AnyOf]:
    """Mistakes in the tokens; the cost is right."""
    return lambda inputs: AnyOf(
        (count(*_numbers(inputs)), count(*_numbers(inputs)) / cost(inputs)) for count in counts
    )


def _costs(*speeds: Of) -> Callable[[Inputs], AnyOf]:
    """Mistakes in the speed-up; the tokens are right."""
    return lambda inputs: AnyOf((right(inputs)[0], speed(*_numbers(inputs))) for speed in speeds)


def _divided(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and seen.error.type == "ZeroDivisionError" and inputs["acceptance"] == 1)


MISCONCEPTIONS = (
    Misconception(
        BY_ZERO,
        "The short formula divides by 1 - acceptance, and that is 0 when every draft stands. Then a pass brings k + 1 "
        "tokens. Adding up 1 + a + a² + … needs no such exception.",
        sees=_divided,
    ),
    Misconception(
        NO_OWN,
        "Even if no draft stands, a pass brings one token: the model's own.",
        _brings(lambda a, k, c, v: tokens(a, k) - 1),
    ),
    Misconception(
        ONE_FEWER,
        "k drafts and the model's own token make k + 1 terms: 1 + a + … + a^k. The last one, a^k, is the chance that "
        "*all* drafts stand and the bonus comes.",
        _brings(lambda a, k, c, v: tokens(a, k - 1)),
    ),
    Misconception(
        EVERY_DRAFT,
        "k · a would count each draft for itself. But a draft stands only if all those *before* it stood: the "
        "second one with a², the third with a³.",
        _brings(lambda a, k, c, v: 1 + k * a, lambda a, k, c, v: k * a),
    ),
    Misconception(
        ALL_STAND,
        "That many tokens come only if every draft stands. The acceptance says how often one does.",
        _brings(lambda a, k, c, v: k + 1, lambda a, k, c, v: k),
    ),
    Misconception(
        FREE,
        "Nothing was paid for the drafts. A round costs one pass of the model and k passes of whoever drafts.",
        _costs(lambda a, k, c, v: tokens(a, k), lambda a, k, c, v: tokens(a, k) / (1 + k * v)),
    ),
    Misconception(
        ONE_DRAFT,
        "Drafts are made one after the other, each from the ones before it: k of them cost k times `draft_cost`.",
        _costs(
            lambda a, k, c, v: tokens(a, k) / (1 + (c if k else 0) + k * v),
            lambda a, k, c, v: tokens(a, k) / (1 + c + k * v),
        ),
    ),
    Misconception(
        NO_PASS,
        "Only the drafts were paid for. The model itself runs once in every round: that is the 1 in the cost.",
        _costs(lambda a, k, c, v: tokens(a, k) / (k * (c + v)) if k * (c + v) else 0.0),
        sees=lambda inputs, seen: bool(
            seen.error and seen.error.type == "ZeroDivisionError" and inputs["k"] * inputs["draft_cost"] == 0
        ),
    ),
    Misconception(
        NO_VERIFY,
        "`verify_cost` makes no difference. It is what each draft adds to the model's pass: k of them in every round.",
        _costs(lambda a, k, c, v: tokens(a, k) / (1 + k * c)),
    ),
    Misconception(
        VERIFY_ONCE,
        "Each of the k drafts makes the pass longer by `verify_cost`; one was paid for.",
        _costs(lambda a, k, c, v: tokens(a, k) / (1 + k * c + v)),
    ),
    Misconception(
        OWN_CHECKED,
        "One token is what a pass without drafts has as well: that is the 1. Only the k drafts make it longer.",
        _costs(lambda a, k, c, v: tokens(a, k) / (1 + k * c + (k + 1) * v)),
    ),
    Misconception(
        SWAPPED,
        "Both numbers are right, but the tokens come first: `(tokens, speedup)`.",
        lambda inputs: right(inputs)[::-1],
    ),
    Misconception(
        UPSIDE_DOWN,
        "A speed-up of 2 means *twice as fast*: more tokens make it larger, more cost makes it smaller.",
        _costs(lambda a, k, c, v: (1 + k * (c + v)) / tokens(a, k)),
    ),
    Misconception(
        PER_DRAFT,
        "A draft's pass is not as dear as the model's: it costs `draft_cost` of one.",
        _costs(lambda a, k, c, v: tokens(a, k) / (k + 1), lambda a, k, c, v: tokens(a, k) / max(k, 1)),
    ),
)


def read(value: Any, _: Inputs) -> tuple[float, float]:
    """Two numbers. Raises WrongForm."""
    wanted = "two numbers, (tokens, speedup)"
    if not isinstance(value, (list, tuple)):
        raise must_be(wanted, value)
    if len(value) != 2:
        raise WrongForm(TYPE, f"It must return {wanted}; it returned {describe(value)}.")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise WrongForm(TYPE, f"It must return {wanted}; one of them is {describe(number)}.")
    return float(value[0]), float(value[1])


def valid(inputs: Inputs) -> bool:
    costs = inputs["draft_cost"], inputs.get("verify_cost", 0.0)
    return 0 <= inputs["acceptance"] <= 1 and inputs["k"] >= 0 and min(costs) >= 0


def making(*, verify: bool = False, sure: bool = False) -> Callable[[random.Random], Inputs]:
    """sure: every draft stands."""

    def make(rng: random.Random) -> Inputs:
        made: Inputs = {
            "acceptance": rng.choice([1, 1.0]) if sure else rng.randint(10, 95) / 100,
            "k": rng.randint(2, 10),
            "draft_cost": rng.randint(1, 60) / 100,
        }
        return made | ({"verify_cost": rng.randint(1, 30) / 100} if verify else {})

    return make


def estimate_case(title: str, *examples: tuple[float, ...], **case: Any) -> Case:
    names = ("acceptance", "k", "draft_cost", "verify_cost")
    inputs = [dict(zip(names, example, strict=False)) for example in examples]
    return values(title, expected=right, read=read, tolerance=1e-6, examples=inputs, valid=valid, **case)


CASES = (
    estimate_case(
        "The mean tokens of a pass, and the speed-up.", (0.5, 1, 0.5), (0.5, 2, 0.1), make=making(), count=5
    ),
    estimate_case(
        "Checking the drafts costs as well.", (0.5, 2, 0.1, 0.2), make=making(verify=True), count=4
    ),
    estimate_case("Every draft stands.", (1.0, 3, 0.25), make=making(sure=True), count=2),
    estimate_case(
        "No draft stands, none is made, or they cost nothing.", (0.0, 3, 0.25), (0.8, 0, 0.25), (0.5, 2, 0.0)
    ),
)

ESTIMATE = Exercise(
    id="05.estimate",
    title="Foresee the speed-up",
    signature="estimate(acceptance, k, draft_cost, verify_cost=0.0)",
    prepare=lambda inputs: dict(inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "First the tokens. With k = 2, how likely is it that the model's own token comes at all? That the first draft "
        "stands? That the second stands, too? Each of these chances is what that token adds to the mean.",
        "The chances are 1, a, a², …, a^k: the own token always comes, and each draft needs all those before it. Add "
        "them up. Then the cost of a round, in passes of the model over one token: 1, and something for each draft.",
        "The speed-up is tokens for each unit of cost; without drafts it is 1 token for a cost of 1. Each of the k "
        "drafts costs `draft_cost` to make and `verify_cost` to check.",
    ),
    analogue="""
You climb a ladder whose rungs hold with a chance of 0.9 each; where one breaks, you are down. The ground is rung 0, and
that one always holds. On how many rungs do you stand in one try, on average, if there are 3 above the ground?

| rung | to get there, these must hold | chance |
|---|---|---|
| ground | none | 1 |
| 1 | one | 0.9 |
| 2 | both | 0.9² = 0.81 |
| 3 | all three | 0.9³ = 0.729 |

Together 3.44, and not 1 + 3 · 0.9 = 3.7: a sound third rung is of no use if the second broke. If a ladder costs 10
minutes to set up and each rung 2 to fix, that is 3.44 rungs in 16 minutes.
""",
)
