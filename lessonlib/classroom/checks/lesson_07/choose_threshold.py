"""07.choose_threshold: where to draw a filter's line, for a budget of false positives, and what it then finds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Skip, WrongForm
from ...forms import TYPE, describe, must_be

ABOVE = "flags only scores above the threshold"
PLACE = "takes a place in the sorted list, whatever stands beside it"
BENIGN_ONLY = "tries only the scores of benign texts"
OVER_ALL = "divides by all texts"
OF_FLAGGED = "takes the share of the flagged texts that are benign"
COUNT = "takes the budget for a number of texts"
ROUNDS_UP = "rounds the budget up"
UNDER = "stays below the budget where it may reach it"
STRICTEST = "draws the line as high as possible"
ACCURACY = "looks for the most right decisions"
HALF = "draws the line at 0.5"
PRECISION = "reports the share of flagged texts that are attacks"
MISSED = "reports what it misses"
NEVER = "has no answer where nothing fits"


def flags(scores: Sequence[float], line: float, strictly: bool = False) -> int:
    return sum(score > line if strictly else score >= line for score in scores)


def right(inputs: Inputs, mistake: str = "") -> Any:
    """{"threshold", "recall"}, or what a mistake makes of it (AnyOf where it leaves a choice). May raise Skip."""
    benign, attacks, budget = inputs["benign"], inputs["attacks"], inputs["budget"]
    lines = sorted({*benign} if mistake == BENIGN_ONLY else {*benign, *attacks})

    def fits(line: float) -> bool:
        wrong = flags(benign, line, mistake == ABOVE)
        if mistake == OVER_ALL:
            return wrong <= budget * (len(benign) + len(attacks)) + 1e-9
        if mistake == OF_FLAGGED:
            return wrong <= budget * (wrong + flags(attacks, line)) + 1e-9
        if mistake == COUNT:
            return wrong <= budget
        if mistake == ROUNDS_UP:
            return wrong <= math.ceil(budget * len(benign) - 1e-9)
        if mistake == UNDER:
            return wrong < budget * len(benign) - 1e-9
        return wrong <= budget * len(benign) + 1e-9

    def told(line: float) -> dict[str, float]:
        found = flags(attacks, line, mistake == ABOVE)
        recall = found / len(attacks)
        if mistake == PRECISION:
            flagged = found + flags(benign, line)
            recall = found / flagged if flagged else 0.0
        return {"threshold": float(line), "recall": round(1 - recall if mistake == MISSED else recall, 9)}

    if mistake == HALF:
        return told(0.5)
    if mistake == PLACE:
        allowed = int(budget * len(benign) + 1e-9)
        if not allowed:
            raise Skip
        return told(sorted(benign, reverse=True)[allowed - 1])
    if mistake == ACCURACY:
        gains = {line: flags(attacks, line) - flags(benign, line) for line in lines}
        return AnyOf(told(line) for line in lines if gains[line] == max(gains.values()))
    fitting = [line for line in lines if fits(line)]
    if not fitting and mistake == NEVER:
        return told(lines[-1])
    if mistake == STRICTEST and fitting:
        return told(fitting[-1])
    return told(min(fitting, default=math.inf))


def mistaken(name: str) -> Callable[[Inputs], Any]:
    return lambda inputs: right(inputs, name)


MISCONCEPTIONS = tuple(
    Misconception(name, why, mistaken(name))
    for name, why in (
        (
            ABOVE,
            "A text is flagged when its score is *at least* the threshold: a score equal to it counts, for benign "
            "texts and for attacks.",
        ),
        (
            PLACE,
            "With 2 false positives allowed, the second highest benign score looks like the place for the line. But "
            "the third may be equal to it, and is then flagged as well; and an attack may lie a little below it "
            "that could have been found for free. Count who is flagged, for each possible line.",
        ),
        (
            BENIGN_ONLY,
            "The best line may be the score of an *attack*: lower than the benign score above it, and no benign text "
            "more is flagged.",
        ),
        (
            OVER_ALL,
            "The false-positive rate is a share of the *benign* texts. Divided by all texts it gets smaller the more "
            "attacks happen to be in your sample.",
        ),
        (
            OF_FLAGGED,
            "How many of the flagged texts are benign is another question, and its answer hangs on how many attacks "
            "are in the sample. Asked for is the share of the benign texts that are flagged.",
        ),
        (COUNT, "The budget is a share: 0.25 of 8 benign texts are 2 texts."),
        (ROUNDS_UP, "The budget is a limit. Where it comes to 2.4 texts, 2 may be flagged, not 3."),
        (UNDER, "*At most* the budget: a share that is exactly the budget is still allowed."),
        (
            STRICTEST,
            "A line at the top flags nobody wrongly, and finds next to nothing. Of the lines that keep to the budget, "
            "the lowest finds the most.",
        ),
        (
            ACCURACY,
            "The line with the most right decisions pays no heed to the budget. In a sample with half attacks it "
            "annoys far more people than anybody would bear: among your users one text in thousands is an attack.",
        ),
        (
            HALF,
            "A score of 0.5 means nothing by itself; the score is no probability. Where the line belongs is measured.",
        ),
        (
            PRECISION,
            "Recall is the share of the *attacks* that are flagged. (The share of flagged texts that are attacks is "
            "called precision.)",
        ),
        (MISSED, "Recall is the share of attacks that are found, not of those that are missed."),
        (
            NEVER,
            "Even a line at the highest score would flag too many benign texts. Then no score will do: the "
            "threshold is "
            '`float("inf")`, nothing is flagged, and the recall is 0.',
        ),
    )
)


def read(value: Any, _: Inputs) -> dict[str, float]:
    """Threshold and recall as plain floats. Raises WrongForm."""
    wanted = 'a dict {"threshold": …, "recall": …} of two numbers'
    if not isinstance(value, dict):
        raise must_be(wanted, value)
    if {*value} != {"threshold", "recall"}:
        raise WrongForm(TYPE, f"It must return {wanted}; the keys that came are {[*value]}.")
    plain: dict[str, float] = {}
    for key, number in value.items():
        try:
            plain[key] = float(number)
        except (TypeError, ValueError):
            raise WrongForm(TYPE, f"{key} must be a number; it is {describe(number)}.") from None
    plain["recall"] = round(plain["recall"], 9)
    return plain


def valid(inputs: Inputs) -> bool:
    benign, attacks, budget = inputs["benign"], inputs["attacks"], inputs["budget"]
    if not benign or not attacks or not 0 <= budget < 1:
        return False
    exact = budget * 64 == int(
        budget * 64
    )  # a share that floats hold exactly may be reached; others must not
    return (exact or abs(budget * len(benign) - round(budget * len(benign))) > 1e-3) and all(
        0 <= score <= 1 for score in (*benign, *attacks)
    )


def making(
    tells_apart: Sequence[str] = (), budgets: Sequence[float] = (0.125, 0.25), texts: tuple[int, int] = (5, 9)
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scores on which each of these mistakes changes the answer."""

    def make(rng: random.Random) -> Inputs | None:
        inputs: Inputs = {
            "benign": [round(rng.triangular(0, 1, 0.2), 1 + (rng.random() < 0.5)) for _ in range(8)],
            "attacks": [
                round(rng.triangular(0, 1, 0.9), 1 + (rng.random() < 0.5)) for _ in range(rng.randint(*texts))
            ],
            "budget": rng.choice(budgets),
        }
        if rng.random() < 0.3:
            inputs["benign"].append(round(rng.random(), 2))
        return inputs if valid(inputs) and all(differs(inputs, name) for name in tells_apart) else None

    return make


def differs(inputs: Inputs, mistake: str) -> bool:
    try:
        given = right(inputs, mistake)
    except Skip:
        return False
    return right(inputs) not in (given if isinstance(given, AnyOf) else (given,))


def line_case(title: str, *examples: tuple[list[float], list[float], float], **case: Any) -> Case:
    inputs = [{"benign": b, "attacks": a, "budget": budget} for b, a, budget in examples]
    return values(title, expected=right, read=read, examples=inputs, valid=valid, **case)


CASES = (
    line_case(
        "The lowest line that keeps to the budget.",
        ([0.1, 0.2, 0.6, 0.7], [0.3, 0.65, 0.8, 0.9], 0.25),
        ([0.1, 0.4, 0.6, 0.6], [0.7, 0.9], 0.25),
        make=making([STRICTEST, COUNT, OVER_ALL, OF_FLAGGED, HALF, PRECISION, MISSED, UNDER]),
        count=4,
    ),
    line_case(
        "Equal scores are flagged together, and a score equal to the line is flagged.",
        ([0.1, 0.4, 0.6, 0.6], [0.5, 0.6, 0.9], 0.25),
        make=making([ABOVE, PLACE]),
        count=4,
    ),
    line_case(
        "The line may be an attack's score.",
        make=making([BENIGN_ONLY, ACCURACY]),
        count=3,
    ),
    line_case(
        "The budget is a limit, not a target.",
        make=making([ROUNDS_UP], budgets=(0.3, 0.2, 0.03)),
        count=3,
    ),
    line_case(
        "Where no score will do, nothing is flagged.",
        ([0.2, 0.9, 0.9], [0.3, 0.8], 0.5),
        make=making([NEVER], budgets=(0.0, 0.125)),
        count=2,
    ),
)

CHOOSE_THRESHOLD = Exercise(
    id="07.choose_threshold",
    title="A filter's operating point",
    signature="choose_threshold(benign, attacks, budget)",
    prepare=lambda inputs: {
        "benign": [*inputs["benign"]],
        "attacks": [*inputs["attacks"]],
        "budget": inputs["budget"],
    },
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Write down, for one possible line, how many benign texts it flags: "
        "`sum(score >= line for score in benign)`. Divided by `len(benign)`, that is the share that the budget limits.",
        "Which lines are worth a try? Between two scores nothing changes, so the scores themselves are enough, "
        "those of both lists. Keep the lines that fit the budget. Which of them finds the most?",
        'The lowest that fits: `min(…, default=float("inf"))` of a generator over all scores. The recall is then '
        "the share of the attacks with a score of at least that.",
    ),
    analogue="""
A smoke detector can be set to any level. On seven evenings somebody only cooked (levels 2, 3, 3, 5, 5, 6, 8), on three
there was a fire (4, 7, 9). At most one false alarm in seven evenings is acceptable. At which level should it ring?

| rings from | false alarms | fires noticed |
|---|---|---|
| 9 | 0 | 1 |
| 8 | 1 | 1 |
| 7 | 1 | 2 |
| 6 | 2: too many | |

Level 7, the level of a *fire*: it costs no false alarm more than 8 does, and notices a fire more. Two of three fires
are noticed. With no false alarm allowed it would have to be 9.
""",
)
