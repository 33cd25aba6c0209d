"""05.choose_k: from what was counted and what it costs to the number of drafts that pays most."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Skip
from ...forms import whole_number
from .estimate import tokens

NEVER_JUDGED = "counts drafts that were never judged"
ALWAYS_REJECTED = "counts a rejected draft where all stood"
MEAN_OF_RATES = "averages the rates of the rounds"
WITH_OWN = "counts the model's own token as an accepted draft"
AT_LEAST_ONE = "drafts even where none pays"
MOST_TOKENS = "maximises tokens, not speed"
NO_DRAFT_COST = "forgets what a draft costs to make"
NO_VERIFY_COST = "forgets what a draft costs to check"
FIRST_GAIN = "takes the first number that pays"
BELOW_LIMIT = "never tries the limit"
ONE_DRAFT = "pays for one draft, however many there are"

CLEAR = 1e-3  # the best k must be faster than the others by this much


def judged(drafted: int, accepted: int) -> int:
    """Drafts of a round that were looked at: those that stood and the first that did not."""
    return min(accepted + 1, drafted)


def acceptance(rounds: Sequence[Sequence[int]]) -> float:
    return sum(stood for _, stood in rounds) / sum(judged(drafted, stood) for drafted, stood in rounds)


def speeds(
    a: float, inputs: Inputs, charge: Callable[[int, float, float], float] | None = None
) -> list[float]:
    """The speed-up with 0, 1, …, limit drafts. charge(k, draft_cost, verify_cost): what k drafts cost."""
    draft, verify = inputs["draft_cost"], inputs["verify_cost"]
    charge = charge or (lambda k, c, v: k * (c + v))
    return [tokens(a, k) / (1 + charge(k, draft, verify)) for k in range(inputs["limit"] + 1)]


def best(every: Sequence[float]) -> int:
    return max(range(len(every)), key=lambda k: (every[k], -k))


def right(inputs: Inputs) -> int:
    return best(speeds(acceptance(inputs["rounds"]), inputs))


def _with_rate(*rates: Callable[[Sequence[Sequence[int]]], float]) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(best(speeds(min(1.0, rate(inputs["rounds"])), inputs)) for rate in rates)


def _charging(charge: Callable[[int, float, float], float]) -> Callable[[Inputs], int]:
    return lambda inputs: best(speeds(acceptance(inputs["rounds"]), inputs, charge))


def _at_least_one(inputs: Inputs) -> int:
    return 1 + best(speeds(acceptance(inputs["rounds"]), inputs)[1:])


def _most_tokens(inputs: Inputs) -> AnyOf:
    """The limit; or, where no draft stood, the first of many equals."""
    a = acceptance(inputs["rounds"])
    return AnyOf((inputs["limit"], best([tokens(a, k) for k in range(inputs["limit"] + 1)])))


def _first_gain(inputs: Inputs) -> int:
    every = speeds(acceptance(inputs["rounds"]), inputs)
    return next((k for k, speed in enumerate(every) if speed > 1), 0)


def _below_limit(inputs: Inputs) -> int:
    if inputs["limit"] < 2:
        raise Skip
    return best(speeds(acceptance(inputs["rounds"]), inputs)[:-1])


def per_draft(rounds: Sequence[Sequence[int]]) -> float:
    return sum(stood for _, stood in rounds) / sum(drafted for drafted, _ in rounds)


MISTAKES: dict[str, Callable[[Inputs], Any]] = {
    NEVER_JUDGED: _with_rate(per_draft),
    ALWAYS_REJECTED: _with_rate(
        lambda rounds: sum(stood for _, stood in rounds) / sum(stood + 1 for _, stood in rounds)
    ),
    MOST_TOKENS: _most_tokens,
    MEAN_OF_RATES: _with_rate(
        lambda rounds: sum(stood / judged(drafted, stood) for drafted, stood in rounds) / len(rounds),
        lambda rounds: sum(stood / drafted for drafted, stood in rounds) / len(rounds),
    ),
    WITH_OWN: _with_rate(
        lambda rounds: sum(stood + 1 for _, stood in rounds) / sum(drafted + 1 for drafted, _ in rounds),
        lambda rounds: sum(stood + 1 for _, stood in rounds) / sum(drafted for drafted, _ in rounds),
        lambda rounds: sum(stood + 1 for _, stood in rounds) / sum(judged(*pair) for pair in rounds),
    ),
    AT_LEAST_ONE: _at_least_one,
    NO_DRAFT_COST: _charging(lambda k, c, v: k * v),
    NO_VERIFY_COST: _charging(lambda k, c, v: k * c),
    ONE_DRAFT: _charging(lambda k, c, v: c + k * v if k else 0.0),
    FIRST_GAIN: _first_gain,
    BELOW_LIMIT: _below_limit,
}

WHY = {
    NEVER_JUDGED: (
        "Accepted over drafted is too small a rate: what comes behind the first rejected draft is thrown away "
        "*unseen*, so it says nothing about how good the drafts are. Of 4 drafts with 1 accepted, 2 were judged."
    ),
    ALWAYS_REJECTED: (
        "Accepted + 1 is right only where a draft was rejected. In a round like `[4, 4]` all stood, and 4 were judged."
    ),
    MEAN_OF_RATES: (
        "Rounds judge different numbers of drafts, so their rates do not weigh the same. Add up the accepted drafts "
        "of all rounds and divide by the judged ones of all rounds."
    ),
    WITH_OWN: (
        "The model's own token comes in every round, however bad the drafts are. It says nothing about them: the "
        "rate is of accepted *drafts*."
    ),
    AT_LEAST_ONE: (
        "With no drafts the speed-up is 1. Where every k comes out below that, the answer is 0: do not speculate."
    ),
    MOST_TOKENS: (
        "More drafts always bring more tokens for each pass, but each draft costs something as well. Compare the "
        "*speed-up*."
    ),
    NO_DRAFT_COST: "`draft_cost` makes no difference: making a draft takes time, k times in every round.",
    NO_VERIFY_COST: "`verify_cost` makes no difference: every draft makes the model's pass a little longer.",
    ONE_DRAFT: "Drafts are made one after the other: k of them cost k times `draft_cost`.",
    FIRST_GAIN: "That number pays, but a larger one may pay more. Look at all of them, and keep the best.",
    BELOW_LIMIT: "`limit` drafts are allowed. `range(limit)` ends one before.",
}

MISCONCEPTIONS = tuple(Misconception(name, WHY[name], gives) for name, gives in MISTAKES.items())


def valid(inputs: Inputs) -> bool:
    """Whether something was judged, the counts are possible and the best k is clearly the best."""
    rounds = inputs["rounds"]
    if not rounds or inputs["limit"] < 1 or min(inputs["draft_cost"], inputs["verify_cost"]) < 0:
        return False
    if not all(len(pair) == 2 and 0 <= pair[1] <= pair[0] and pair[0] >= 1 for pair in rounds):
        return False
    ranked = sorted(speeds(acceptance(rounds), inputs))
    return ranked[-1] - ranked[-2] > CLEAR


def making(*tells_apart: str, rounds: tuple[int, int] = (3, 8)) -> Callable[[random.Random], Inputs | None]:
    """A generator of logs on which each of these mistakes would choose another number."""

    def make(rng: random.Random) -> Inputs | None:
        drafts, skill = rng.randint(1, 8), rng.random()

        def stood() -> int:
            return next((i for i in range(drafts) if rng.random() > skill), drafts)

        inputs: Inputs = {
            "rounds": [[drafts, stood()] for _ in range(rng.randint(*rounds))],
            "draft_cost": rng.randint(0, 40) / 100,
            "verify_cost": rng.randint(0, 25) / 100,
            "limit": rng.randint(2, 10),
        }
        return inputs if valid(inputs) and all(shows(name, inputs) for name in tells_apart) else None

    return make


def shows(name: str, inputs: Inputs) -> bool:
    given = MISTAKES[name](inputs)
    return right(inputs) not in (given if isinstance(given, AnyOf) else (given,))


def choose_case(title: str, *examples: tuple[list[list[int]], float, float, int], **case: Any) -> Case:
    names = ("rounds", "draft_cost", "verify_cost", "limit")
    return values(
        title,
        expected=right,
        read=lambda value, _: whole_number(value),
        examples=[dict(zip(names, example, strict=True)) for example in examples],
        valid=valid,
        **case,
    )


CASES = (
    choose_case(
        "Each draft makes the round longer, so more of them are not always better.",
        ([[1, 1], [1, 1], [1, 1], [1, 0]], 0.1, 0.0, 8),
        ([[1, 1], [1, 1], [1, 1], [1, 0]], 0.0, 0.1, 8),
        make=making(MOST_TOKENS, NO_DRAFT_COST, NO_VERIFY_COST, ONE_DRAFT),
        count=4,
    ),
    choose_case(
        "The acceptance is accepted drafts over judged ones.",
        ([[4, 1], [4, 2], [4, 0], [4, 4]], 0.05, 0.02, 8),
        make=making(NEVER_JUDGED, MEAN_OF_RATES, WITH_OWN),
        count=4,
    ),
    choose_case(
        "Where no number of drafts pays, the answer is 0.",
        ([[4, 0], [4, 0], [4, 1]], 0.3, 0.1, 6),
        make=making(AT_LEAST_ONE),
        count=3,
    ),
    choose_case(
        "Good, cheap drafts: up to the limit.",
        ([[4, 4], [4, 4]], 0.05, 0.02, 6),
        make=making(BELOW_LIMIT),
        count=3,
    ),
)

CHOOSE_K = Exercise(
    id="05.choose_k",
    title="Choose the number of drafts",
    signature="choose_k(rounds, draft_cost, verify_cost, limit)",
    prepare=lambda inputs: {**inputs, "rounds": [list(pair) for pair in inputs["rounds"]]},
    about="Each pair in `rounds` is (drafted, accepted): `[4, 1]` made 4 drafts, of which 1 stood.",
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "First the acceptance. Write under each pair how many drafts the model really had to *judge*: in `[4, 1]` one "
        "stood, the next was rejected, and the other two were thrown away unseen. In `[4, 4]` all four were judged.",
        "Acceptance = all accepted / all judged, over the whole log. Then compute the speed-up of exercise 3 for "
        "every k from 1 to `limit` (included), and remember the best.",
        "Start with best = 0 and a speed of 1: that is decoding without drafts. Replace it only by something faster.",
    ),
    analogue="""
A courier rings at doors along a street until nobody opens, then drives back. His log says `(doors in the street, doors
that opened)`: `(5, 2), (5, 0), (5, 5)`. How likely does a door open?

Not 7 of 15: at the first street he rang at three doors, not five; the third stayed shut, and he never saw the others.

| street | opened | rung at |
|---|---|---|
| (5, 2) | 2 | 3 |
| (5, 0) | 0 | 1 |
| (5, 5) | 5 | 5 |
| together | **7** | **9** |

So 7 of 9. With a better chance than he had thought, a longer street can be worth the drive. And if even one door costs
more petrol than it earns, he stays at home: that is a possible answer, too.
""",
)
