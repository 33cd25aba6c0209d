"""07.TokenLimiter: tokens a minute for each user, in a window that slides, with a clock that is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import TYPE, describe

NAME = "limiter"
WINDOW = 60  # seconds

REQUESTS = "counts requests, not tokens"
ONE_BUDGET = "all users share one budget"
FIXED = "the window begins anew every minute"
FOR_EVER = "counts for ever"
REFUSED_COSTS = "refused requests cost tokens"
NOT_FULL = "does not let the limit be reached"
SECOND_MORE = "counts a second too long"
SECOND_LESS = "counts a second too short"
NEVER = "lets those wait who can never be admitted"
OLDEST_ONLY = "waits for the oldest request only"
ALL_OVER = "waits until all requests are over"
WHOLE_MINUTE = "always says a whole minute"
MOMENT = "says when, not how long"
NO_SETTLE = "gives nothing back"
GIVES_ALL = "gives back the whole request"
GIVES_USED = "gives back what was used"

FROM_FIRST = "a minute from the first request"  # another way of FIXED


class Played:
    """A limiter with at most one mistake."""

    def __init__(self, limit: int, mistake: str = ""):
        self.limit, self.mistake = limit, mistake
        self.held: dict[str, list[list[int]]] = {}  # of each user: [moment, tokens], oldest first
        self.window = {SECOND_MORE: WINDOW + 1, SECOND_LESS: WINDOW - 1, FOR_EVER: 10**9}.get(mistake, WINDOW)

    def admit(self, user: str, tokens: int, now: int) -> int | None:
        user = "everybody" if self.mistake == ONE_BUDGET else user
        tokens = 1 if self.mistake == REQUESTS else tokens
        most = self.limit - 1 if self.mistake == NOT_FULL else self.limit
        if tokens > most and self.mistake != NEVER:
            return None
        held = self.held.setdefault(user, [])
        held[:] = [entry for entry in held if now < self.over(held, entry)]
        if sum(amount for _, amount in held) + tokens <= most:
            held.append([now, tokens])
            return 0
        wait = self.wait(held, tokens, most, now)
        if self.mistake == REFUSED_COSTS:
            held.append([now, tokens])
        return wait

    def over(self, held: list[list[int]], entry: list[int]) -> int:
        """The moment from which an entry counts no longer."""
        if self.mistake == FIXED:
            return (entry[0] // WINDOW + 1) * WINDOW
        return (held[0][0] if self.mistake == FROM_FIRST else entry[0]) + self.window

    def wait(self, held: list[list[int]], tokens: int, most: int, now: int) -> int:
        if self.mistake == WHOLE_MINUTE or not held:  # nothing held: NEVER's request
            return WINDOW
        ends = [self.over(held, entry) for entry in held]
        if self.mistake == FOR_EVER:
            ends = [moment + WINDOW for moment, _ in held]
        if self.mistake == OLDEST_ONLY:
            return ends[0] - now
        if self.mistake == ALL_OVER:
            return ends[-1] - now
        left = sum(amount for _, amount in held)
        for (_, amount), end in zip(held, ends, strict=True):
            left -= amount
            if left + tokens <= most:
                return end if self.mistake == MOMENT else end - now
        return ends[-1] - now

    def settle(self, user: str, used: int) -> None:
        held = self.held.get("everybody" if self.mistake == ONE_BUDGET else user, [])
        if not held or self.mistake in (NO_SETTLE, REQUESTS):
            return
        if self.mistake == GIVES_ALL:
            held[-1][1] = 0
        elif self.mistake == GIVES_USED:
            held[-1][1] -= min(used, held[-1][1])
        else:
            held[-1][1] = used


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns."""
    played = Played(inputs["limit"], mistake)
    return [getattr(played, method)(*arguments) for method, *arguments in inputs["steps"]]


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


def act(call: Call, made: Any, step: Sequence[Any]) -> Any:
    """One step: seconds to wait, or None. Raises WrongForm."""
    value = play_step(call, made, step)
    if step[0] == "settle":
        return None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongForm(
            TYPE,
            f"admit must return 0, a number of seconds, or None for never; it returned {describe(value)}.",
        )
    return int(value) if value == int(value) else value


MISCONCEPTIONS = tuple(
    Misconception(name, why, gives)
    for name, why, gives in (
        (
            REQUESTS,
            "One request for 2,000 tokens costs the machine what two hundred requests for 10 do. Count `tokens`.",
            mistaken(REQUESTS),
        ),
        (
            ONE_BUDGET,
            "Each user has a limit of their own: otherwise one flood locks out everybody else, which is what its "
            "sender wanted.",
            mistaken(ONE_BUDGET),
        ),
        (
            FIXED,
            "A counter that is set back once a minute lets twice the limit through in a few seconds: all of it at "
            "the end of one minute, all of it again at the beginning of the next. Each request counts for 60 "
            "seconds of its own.",
            mistaken(FIXED, FROM_FIRST),
        ),
        (FOR_EVER, "What was admitted 60 seconds ago counts no longer.", mistaken(FOR_EVER)),
        (
            REFUSED_COSTS,
            "A refused request has cost the machine nothing. If it is charged, somebody who asks again too early is "
            "never let in again.",
            mistaken(REFUSED_COSTS),
        ),
        (NOT_FULL, "*At most* the limit: a request that exactly fills it is let in.", mistaken(NOT_FULL)),
        (
            SECOND_MORE,
            "A request admitted at 10 counts at 69 for the last time. At 70 it is over.",
            mistaken(SECOND_MORE),
        ),
        (
            SECOND_LESS,
            "A request admitted at 10 still counts at 69; only at 70 it is over.",
            mistaken(SECOND_LESS),
        ),
        (
            NEVER,
            "A request for more than the whole limit can never be admitted: `None`, and not a number of seconds after "
            "which it is refused again.",
            mistaken(NEVER),
        ),
        (
            OLDEST_ONLY,
            "When the oldest request is over, there may still be too little room. Go on to the next one, until it "
            "fits.",
            mistaken(OLDEST_ONLY),
        ),
        (
            ALL_OVER,
            "Nobody has to wait until everything is over: only until enough is.",
            mistaken(ALL_OVER),
        ),
        (
            WHOLE_MINUTE,
            "The oldest request was not admitted just now, so it is over in less than a minute.",
            mistaken(WHOLE_MINUTE),
        ),
        (
            MOMENT,
            "`admit` returns how many seconds to wait, counted from `now`, not the moment itself.",
            mistaken(MOMENT),
        ),
        (
            NO_SETTLE,
            "Reserved was the most that the request could use. After `settle`, only what it did use may count.",
            mistaken(NO_SETTLE),
        ),
        (
            GIVES_ALL,
            "What was really used still counts after `settle`; only the rest is given back.",
            mistaken(GIVES_ALL),
        ),
        (
            GIVES_USED,
            "`used` is what the request did use, and stays counted. Given back is what it reserved and did *not* use.",
            mistaken(GIVES_USED),
        ),
    )
)


def valid(inputs: Inputs) -> bool:
    """Whether time goes forward, and each ``settle`` speaks of a user's last admitted request, once."""
    if inputs["limit"] < 2 or not inputs["steps"]:
        return False
    played, clock, under_way = Played(inputs["limit"]), 0, dict[str, tuple[int, int]]()
    for step in inputs["steps"]:
        shape = (step[0] if step else "", len(step))
        if shape == ("admit", 4):
            _, user, tokens, now = step
            if not user or tokens < 1 or now < clock:
                return False
            clock = now
            if played.admit(user, tokens, now) == 0:
                under_way[user] = (tokens, now)
        elif shape == ("settle", 3):
            _, user, used = step
            tokens, at = under_way.pop(user, (-1, 0))
            if not 1 <= used <= tokens or clock >= at + WINDOW:
                return False
            played.settle(user, used)
        else:
            return False
    return True


def making(
    tells_apart: Sequence[str] = (), requests: int = 6, users: str = "a", settles: float = 0.0
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scripts on which each of these mistakes changes an answer. settles: how often one follows."""
    names = {"a": "ann", "b": "bob", "c": "cy"}

    def make(rng: random.Random) -> Inputs | None:
        limit, clock, steps = rng.randint(4, 12) * 100, rng.randint(0, 90), list[list[Any]]()
        played = Played(limit)
        for _ in range(requests):
            user, tokens = names[rng.choice(users)], rng.randint(1, 7) * limit // 8
            if rng.random() < 0.15:
                tokens = limit
            steps.append(["admit", user, tokens, clock])
            if played.admit(user, tokens, clock) == 0 and rng.random() < settles:
                steps.append(["settle", user, rng.randint(1, tokens)])
                played.settle(user, steps[-1][2])
            clock += rng.choice([1, 5, 10, 20, 29, 30, 31, 40, 59, 60])
        inputs: Inputs = {"limit": limit, "steps": steps}
        right = answers(inputs)
        told = all(answers(inputs, mistake) != right for mistake in tells_apart)
        return inputs if told and valid(inputs) else None

    return make


def limit_case(title: str, *examples: tuple[int, Sequence[Any]], **case: Any) -> Case:
    inputs = [{"limit": limit, "steps": list(steps)} for limit, steps in examples]
    return script(title, answers, act, name=NAME, examples=inputs, valid=valid, **case)


CASES = (
    limit_case(
        "Tokens count, up to the limit and no further.",
        (1000, [["admit", "ann", 600, 0], ["admit", "ann", 400, 0], ["admit", "ann", 100, 5]]),
        make=making([REQUESTS, NOT_FULL, WHOLE_MINUTE, MOMENT], 4),
        count=3,
    ),
    limit_case(
        "Each request counts for 60 seconds of its own.",
        (
            1000,
            [
                *[["admit", "ann", 900, 50], ["admit", "ann", 900, 65], ["admit", "ann", 100, 80]],
                *[["admit", "ann", 900, 109], ["admit", "ann", 900, 110], ["admit", "ann", 900, 170]],
            ],
        ),
        make=making([FIXED, FROM_FIRST, FOR_EVER], 7),
        count=3,
    ),
    limit_case("To the second.", make=making([SECOND_MORE, SECOND_LESS], 8), count=3),
    limit_case(
        "Refused requests cost nothing.",
        (1000, [["admit", "ann", 800, 0], ["admit", "ann", 800, 30], ["admit", "ann", 800, 61]]),
        make=making([REFUSED_COSTS]),
        count=2,
    ),
    limit_case(
        "Until enough is over, and never where nothing helps.",
        (
            900,
            [
                *(["admit", "ann", 300, now] for now in (0, 10, 20)),
                *[["admit", "ann", 500, 30], ["admit", "ann", 901, 30]],
            ],
        ),
        make=making([OLDEST_ONLY, ALL_OVER], 6),
        count=3,
    ),
    limit_case("A user's flood is nobody else's trouble.", make=making([ONE_BUDGET], 6, "ab"), count=2),
    limit_case(
        "What was reserved and not used is given back.",
        (
            1000,
            [
                ["admit", "ann", 900, 0],
                ["settle", "ann", 200],
                ["admit", "ann", 900, 1],
                ["admit", "ann", 800, 1],
            ],
        ),
        make=making([NO_SETTLE, GIVES_ALL, GIVES_USED], 6, "ab", settles=0.7),
        count=4,
    ),
)

TOKEN_LIMITER = Exercise(
    id="07.TokenLimiter",
    title="Limit tokens, not requests",
    signature="TokenLimiter(tokens_per_minute)",
    prepare=lambda inputs: {"tokens_per_minute": inputs["limit"]},
    show=lambda inputs: script_text(NAME, f"TokenLimiter({inputs['limit']})", inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Keep, for each user, a list of what was admitted: the moment and the tokens, `[now, tokens]`. "
        "`self.admitted = {}` and `self.admitted.setdefault(user, [])` do. At the beginning of `admit`, throw away "
        "what is 60 seconds old or older.",
        "Add up what is left in the list. If `tokens` more fit, append and return 0. A refused request is not "
        "appended. A request larger than the whole limit is `None` before anything else.",
        "How long to wait? Walk along the list from the oldest: take its tokens off the sum; as soon as the request "
        "fits, the answer is *that* entry's moment + 60 - `now`. `settle` changes the tokens of the user's last "
        "entry to `used`.",
    ),
    analogue="""
A bridge bears 10 tonnes. A lorry needs four minutes to cross it; each lorry that comes is weighed, let on, or told how
long to wait.

| minute | lorry | on the bridge before | answer |
|---|---|---|---|
| 0 | 6 t | nothing | 0: drive |
| 1 | 4 t | 6 | 0: exactly full |
| 2 | 5 t | 6 + 4 | 2: at minute 4 the first lorry is over, 4 + 5 fit |
| 2 | 8 t | 6 + 4 | 3: at minute 4 still 4 + 8; at minute 5 it fits |
| 2 | 11 t | | never |

```python
on_bridge = [[0, 6], [1, 4]]
weight = 10
for came, tonnes in on_bridge:       # the oldest first
    weight -= tonnes
    if weight + 8 <= 10:
        print(came + 4 - 2)          # 3
        break
```

The lorry that was sent to wait is not on the bridge. And if the second one throws off 3 tonnes, its entry becomes
`[1, 1]`: from then on it weighs less, and leaves when it would have left.
""",
)
