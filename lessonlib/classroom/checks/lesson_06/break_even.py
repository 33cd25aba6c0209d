"""06.break_even: from how many tokens a day a server of one's own costs no more than an API."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import TYPE, describe

DAY = 86_400
NAMES = ("price_in", "price_out", "prompt_ratio", "hourly", "speed")

NO_PROMPTS = "forgets that prompts are paid for"
ONE_FOR_ONE = "takes one prompt token for each new one"
OTHER_PRICE = "multiplies the wrong price by the ratio"
ONE_HOUR = "pays the server for one hour of the day"
PER_TOKEN = "takes the price of a million tokens for that of one"
NO_LIMIT = "asks more of the server than it can do"
HOUR_LIMIT = "holds a day's tokens against an hour's capacity"
ALL_LIMIT = "holds prompt tokens against the speed as well"
IDLE_IS_FREE = "believes that an idle server is free"
TOTAL = "counts prompt tokens as well"
TOTAL_LIMIT = "counts them, and holds them against the speed"  # another way to make the mistake above


def right(inputs: Inputs, mistake: str = "") -> float | None:
    """New tokens a day, or None where even a server that never rests makes too few."""
    price_in, price_out, ratio, hourly, speed = (inputs[name] for name in NAMES)
    million = {
        NO_PROMPTS: price_out,
        ONE_FOR_ONE: price_out + price_in,
        OTHER_PRICE: price_in + ratio * price_out,
    }.get(mistake, price_out + ratio * price_in)
    hours = 1 if mistake == ONE_HOUR else 24
    tokens = hours * hourly / million * (1 if mistake == PER_TOKEN else 1e6)
    if mistake == IDLE_IS_FREE:
        return None if hourly / (speed * 3600) > million / 1e6 else 0.0
    if mistake == NO_LIMIT:
        return tokens
    capacity = speed * (3600 if mistake == HOUR_LIMIT else DAY)
    if tokens * (1 + ratio if mistake in (ALL_LIMIT, TOTAL_LIMIT) else 1) > capacity:
        return None
    return tokens * (1 + ratio) if mistake in (TOTAL, TOTAL_LIMIT) else tokens


def mistaken(name: str) -> Callable[[Inputs], float | None]:
    return lambda inputs: right(inputs, name)


MISCONCEPTIONS = (
    Misconception(
        NO_PROMPTS,
        "An API is paid for what you send as well. For each new token there are `prompt_ratio` prompt tokens, at "
        "`price_in` a million.",
        mistaken(NO_PROMPTS),
    ),
    Misconception(
        ONE_FOR_ONE,
        "`prompt_ratio` says how many prompt tokens there are for each new one: the prompts cost that many times "
        "`price_in`.",
        mistaken(ONE_FOR_ONE),
    ),
    Misconception(
        OTHER_PRICE,
        "The ratio counts *prompt* tokens, so it belongs to the price of input, not to that of output.",
        mistaken(OTHER_PRICE),
    ),
    Misconception(
        ONE_HOUR,
        "The server is rented by the hour, and a day has 24 of them, whether somebody asks or not.",
        mistaken(ONE_HOUR),
    ),
    Misconception(
        PER_TOKEN,
        "Prices are in dollars for a *million* tokens. Look at the size of your answer: a server for a few dozen "
        "tokens a day?",
        mistaken(PER_TOKEN),
    ),
    Misconception(
        IDLE_IS_FREE,
        "Dollars an hour divided by tokens an hour is the price of a server that is *never idle*. At night you "
        "pay as well: a day costs the same with one token or with a million.",
        mistaken(IDLE_IS_FREE),
    ),
    Misconception(
        NO_LIMIT,
        "How many tokens can this server make in a day, if it never rests? Where that is less than your answer, "
        "it never breaks even: `None`.",
        mistaken(NO_LIMIT),
    ),
    Misconception(
        HOUR_LIMIT,
        "`speed` is in tokens a *second*; the limit is what it makes in a day of 86,400 of them.",
        mistaken(HOUR_LIMIT),
    ),
    Misconception(
        ALL_LIMIT,
        "`speed` counts *new* tokens, and reading their prompts is in it. Only new tokens use it up.",
        mistaken(ALL_LIMIT),
    ),
    Misconception(
        TOTAL,
        "Asked for are *new* tokens a day. Their prompts come on top; they are in the price already.",
        lambda inputs: AnyOf((right(inputs, TOTAL), right(inputs, TOTAL_LIMIT))),
    ),
)


def read(value: Any, _: Inputs) -> float | None:
    """A finite number or None. Raises WrongForm."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not math.isfinite(number):
        raise WrongForm(
            TYPE, f"It must return a number of tokens, or None for never; it returned {describe(value)}."
        )
    return number


def valid(inputs: Inputs) -> bool:
    if (
        min(inputs[name] for name in NAMES if name != "prompt_ratio") <= 0
        or not 0 <= inputs["prompt_ratio"] <= 100
    ):
        return False
    tokens = right(inputs, NO_LIMIT)
    assert tokens is not None
    return abs(tokens / (inputs["speed"] * DAY) - 1) > 1e-6  # rounding must not decide


def making(
    tells_apart: Sequence[str] = (), reachable: bool = True, ratios: Sequence[float] = (0.5, 1.5, 2, 3, 5, 10)
) -> Callable[[random.Random], Inputs | None]:
    """A generator of prices on which each of these mistakes changes the answer."""

    def make(rng: random.Random) -> Inputs | None:
        inputs: Inputs = {
            "price_in": rng.randint(2, 60) / 100,
            "price_out": rng.randint(5, 300) / 100,
            "prompt_ratio": rng.choice(ratios),
            "hourly": rng.randint(2, 14) / 2,
            "speed": rng.randint(1, 60) * 100,
        }
        answer = right(inputs)
        if not valid(inputs) or (answer is not None) != reachable:
            return None
        return inputs if all(right(inputs, mistake) != answer for mistake in tells_apart) else None

    return make


def price_case(title: str, *examples: tuple[float, float, float, float, float], **case: Any) -> Case:
    inputs = [dict(zip(NAMES, example, strict=True)) for example in examples]
    return values(title, expected=right, read=read, tolerance=1e-9, examples=inputs, valid=valid, **case)


CASES = (
    price_case(
        "Without prompts: what a day of the server costs, over the price of a new token.",
        (0.2, 0.5, 0, 3.0, 2000),
        make=making([ONE_HOUR, PER_TOKEN, IDLE_IS_FREE], ratios=(0,)),
        count=3,
    ),
    price_case(
        "Each new token brings `prompt_ratio` prompt tokens with it, and an API charges for them.",
        (0.2, 0.6, 2, 3.0, 2000),
        make=making([NO_PROMPTS, ONE_FOR_ONE, OTHER_PRICE, TOTAL]),
        count=4,
    ),
    price_case(
        "A server that could not make so many tokens in a day never breaks even.",
        (0.1, 0.2, 1, 3.0, 500),
        make=making([NO_LIMIT], reachable=False),
        count=3,
    ),
    price_case(
        "Close to the limit, it is the day's limit that counts.",
        (0.2, 0.6, 2, 3.0, 1000),
        make=making([HOUR_LIMIT]),
        count=3,
    ),
)

BREAK_EVEN = Exercise(
    id="06.break_even",
    title="When a server of your own pays",
    signature="break_even(price_in, price_out, prompt_ratio, hourly, speed)",
    prepare=lambda inputs: dict(inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "What does the server cost in a day, whatever it does? What does the API charge for *one* new token and "
        "the prompt tokens that belong to it? Write these two numbers down for 3 dollars an hour, "
        "0.20 and 0.60 dollars, ratio 2.",
        "They are 72 dollars, and (0.60 + 2 × 0.20) / 1,000,000 dollars. How many times does the second go "
        "into the first?",
        "Then ask whether one server can do it: `speed` tokens in each of 86,400 seconds. If the answer is more "
        "than that, return `None`.",
    ),
    analogue="""
A monthly ticket costs 60 euros, a single ride 2.50 with a transfer of 0.50 on each. From how many rides a month
does the monthly ticket pay?

```python
ride = 2.50 + 1 * 0.50      # the ride, and what belongs to it
rides = 60 / ride           # 20.0
possible = 2 * 30           # there and back, every day: more is not possible
rides if rides <= possible else None
```

With a ticket for 240 euros it would be 80 rides, and nobody rides 80 times: it never pays. The ticket costs the
same in a month spent at home.
""",
)
