"""06.load_curve: throughput and latency for each load, and the load beyond which more is worse."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import TYPE, describe, must_be

REFUSED_TOO = "counts refusals as quick answers"
SINGLE_SPEEDS = "averages the speeds of the requests"
SUM_OF_TIMES = "adds up times that ran side by side"
FROM_ZERO = "counts the time of the loads before"
PER_MS = "throughput is per millisecond"
IN_SECONDS = "latency is in seconds"
REQUESTS = "counts requests instead of tokens"
MEDIAN = "takes the median for the mean"
UNSORTED = "leaves the loads in the order of the log"
MOST = "takes the highest throughput for the knee"
QUICKEST = "takes the lowest latency for the knee"
PLACE = "returns the knee's place in the list"

Line = Sequence[Any]  # users, sent, end, status, tokens


def right(inputs: Inputs, mistake: str = "") -> dict[str, Any]:
    """{"curve": [[users, tokens a second, mean latency in ms], …], "knee": users}, or what a mistake makes of it."""
    log = inputs["log"]
    loads = list(dict.fromkeys(line[0] for line in log))
    curve = [
        [users, *_figures(log, users, mistake)] for users in (loads if mistake == UNSORTED else sorted(loads))
    ]
    score = {MOST: lambda row: row[1], QUICKEST: lambda row: -row[2]}.get(
        mistake, lambda row: row[1] / row[2]
    )
    best = max(curve, key=score)
    return {"curve": curve, "knee": curve.index(best) if mistake == PLACE else best[0]}


def _figures(log: Sequence[Line], users: int, mistake: str) -> tuple[float, float]:
    lines = [line for line in log if line[0] == users]
    answered = [line for line in lines if line[3] == 200]
    times = [line[2] - line[1] for line in (lines if mistake == REFUSED_TOO else answered)]
    latency = statistics.median(times) if mistake == MEDIAN else statistics.mean(times)
    latency /= 1000 if mistake == IN_SECONDS else 1
    begin = 0 if mistake == FROM_ZERO else min(line[1] for line in lines)
    seconds = (max(line[2] for line in lines) - begin) / 1000
    done = len(answered) if mistake == REQUESTS else sum(line[4] for line in answered)
    if mistake == SUM_OF_TIMES:
        seconds = sum(times) / 1000
    if mistake == SINGLE_SPEEDS:
        return statistics.mean(1000 * line[4] / (line[2] - line[1]) for line in answered), latency
    return done / seconds / (1000 if mistake == PER_MS else 1), latency


def mistaken(name: str) -> Callable[[Inputs], dict[str, Any]]:
    return lambda inputs: right(inputs, name)


MISCONCEPTIONS = (
    Misconception(
        REFUSED_TOO,
        "A refusal (429) comes within a millisecond or two. In the mean it makes an overloaded server look quick: "
        "latency is about answers.",
        mistaken(REFUSED_TOO),
    ),
    Misconception(
        SINGLE_SPEEDS,
        "Throughput is about the server: all tokens over the whole time. What one request saw of it says how fast "
        "*its* text flowed, and several flowed at once.",
        mistaken(SINGLE_SPEEDS),
    ),
    Misconception(
        SUM_OF_TIMES,
        "The requests overlap. Two that run side by side for a second take one second of the clock, not two.",
        mistaken(SUM_OF_TIMES),
    ),
    Misconception(
        FROM_ZERO,
        "The clock of the log goes on from one load to the next. Each load has its own beginning, its first `sent`.",
        mistaken(FROM_ZERO),
    ),
    Misconception(
        PER_MS,
        "The log is in milliseconds; the throughput is asked for in tokens a *second*.",
        mistaken(PER_MS),
    ),
    Misconception(
        IN_SECONDS, "The latency is asked for in milliseconds, as it is in the log.", mistaken(IN_SECONDS)
    ),
    Misconception(REQUESTS, "The throughput is asked for in *tokens* a second.", mistaken(REQUESTS)),
    Misconception(
        MEDIAN,
        "Asked for is the mean. (The median is often the better summary, but Little's law speaks of means.)",
        mistaken(MEDIAN),
    ),
    Misconception(
        UNSORTED,
        "A curve goes from the smallest load to the largest, wherever they stand in the log.",
        mistaken(UNSORTED),
    ),
    Misconception(
        MOST,
        "The highest throughput is often the *end* of the curve, where a little more work is bought with a lot of "
        "waiting. The knee weighs both: throughput divided by latency.",
        mistaken(MOST),
    ),
    Misconception(
        QUICKEST,
        "The lowest latency is where the server is nearly alone. The knee weighs both: throughput divided by latency.",
        mistaken(QUICKEST),
    ),
    Misconception(PLACE, "`knee` is a number of users, not a place in the list.", mistaken(PLACE)),
)


def read(value: Any, _: Inputs) -> dict[str, Any]:
    """The curve with plain floats, and the knee as an int. Raises WrongForm."""
    wanted = 'a dict {"curve": [[users, tokens a second, latency], …], "knee": users}'
    if value is None:
        raise must_be(wanted, value)
    if not isinstance(value, dict) or {*value} != {"curve", "knee"}:
        keys = f"a dict with the keys {[*value]}" if isinstance(value, dict) else describe(value)
        raise WrongForm(TYPE, f"It must return {wanted}; it returned {keys}.")
    try:
        curve = [[int(users), float(x), float(latency)] for users, x, latency in value["curve"]]
        return {"curve": curve, "knee": int(value["knee"])}
    except (TypeError, ValueError):
        raise WrongForm(TYPE, f"It must return {wanted}; what came does not look like that.") from None


def expected(inputs: Inputs) -> dict[str, Any]:
    return read(right(inputs), inputs)


def valid(inputs: Inputs) -> bool:
    """Whether it is a log in which nothing hangs on a reading of the words: no ties, no refusal first or last."""
    log = inputs["log"]
    if not log or any(len(line) != 5 for line in log):
        return False
    for users, sent, end, status, tokens in log:
        if users < 1 or not 0 <= sent < end or (status, tokens > 0) not in ((200, True), (429, False)):
            return False
    for users in {line[0] for line in log}:
        lines = [line for line in log if line[0] == users]
        answered = [line for line in lines if line[3] == 200]
        if not answered or min(a[1] for a in answered) > min(a[1] for a in lines):
            return False
        if max(a[2] for a in answered) < max(a[2] for a in lines):
            return False
    power = sorted((x / latency for _, x, latency in right(inputs)["curve"]), reverse=True)
    return len(power) < 2 or power[0] > 1.02 * power[1]


def making(
    tells_apart: Sequence[str] = (), loads: int = 3, refusals: bool = False, shuffled: bool = False
) -> Callable[[random.Random], Inputs | None]:
    """A generator of logs of a server that takes so many at a time, on which each of these mistakes shows."""

    def make(rng: random.Random) -> Inputs | None:
        log: list[list[Any]] = []
        clock, room = rng.randint(50, 400), rng.choice([2, 3, 4])
        for users in sorted(rng.sample([1, 2, 3, 4, 6, 8, 12], loads)):
            start, end = clock, clock
            for i in range(rng.randint(2, 3) if users < 3 else users):
                sent = start + (0 if i == 0 else rng.randint(0, 8))
                wait = rng.randint(80, 140) * (1 + i % users // room)
                log.append([users, sent, sent + wait + 5 * users, 200, rng.randint(4, 12)])
                end = max(end, log[-1][2])
            if refusals and users > room:
                log.append([users, start + 3, start + 5, 429, 0])
            clock = end + rng.randint(100, 300)
        if shuffled:
            rng.shuffle(log)
        inputs: Inputs = {"log": log}
        good = valid(inputs) and all(right(inputs, m) != right(inputs) for m in tells_apart)
        return inputs if good else None

    return make


def log_case(title: str, *examples: list[list[Any]], **case: Any) -> Case:
    inputs = [{"log": log} for log in examples]
    return values(title, expected=expected, read=read, tolerance=1e-9, examples=inputs, valid=valid, **case)


ONE = [[1, 100, 300, 200, 10], [1, 310, 600, 200, 20]]
RISING = [
    [1, 100, 200, 200, 10],
    [1, 200, 300, 200, 10],
    [4, 500, 620, 200, 10],
    [4, 500, 640, 200, 12],
    [4, 510, 640, 200, 10],
    [4, 510, 660, 200, 14],
    [8, 900, 1200, 200, 30],
    [8, 900, 1290, 200, 40],
    [8, 910, 1300, 200, 46],
]  # fmt: skip
REFUSING = [[2, 0, 400, 200, 10], [2, 10, 410, 200, 12], [2, 20, 22, 429, 0]]
CASES = (
    log_case(
        "One load: all tokens over its time, and the mean time of an answer.",
        ONE,
        make=making([SINGLE_SPEEDS, FROM_ZERO, REQUESTS, PER_MS], loads=1),
        count=2,
    ),
    log_case(
        "Requests that ran side by side share the clock.",
        [[2, 50, 250, 200, 10], [2, 50, 450, 200, 30], [2, 250, 460, 200, 10]],
        make=making([SUM_OF_TIMES, SINGLE_SPEEDS, MEDIAN], loads=2),
        count=3,
    ),
    log_case(
        "The knee is where throughput over latency is highest.",
        RISING,
        make=making([MOST, QUICKEST, PLACE], loads=4),
        count=4,
    ),
    log_case(
        "A refused request (429) is no answer.",
        REFUSING,
        make=making([REFUSED_TOO], loads=3, refusals=True),
        count=3,
    ),
    log_case("Lines may stand in any order.", make=making([UNSORTED], loads=3, shuffled=True), count=3),
)

LOAD_CURVE = Exercise(
    id="06.load_curve",
    title="The load curve and its knee",
    signature="load_curve(log)",
    prepare=lambda inputs: {"log": [list(line) for line in inputs["log"]]},
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Begin with a single load. Take its lines, and of them the answered ones (status 200). How long did all "
        "of it take, from the first `sent` to the last `end`? How many tokens were made in that time?",
        "Then the loop: `for users in sorted({line[0] for line in log})`, with a list of three for each: the "
        "load, tokens a second, mean of `end - sent` over the answered.",
        "For the knee: `max(curve, key=…)` with a function that divides a row's throughput by its latency, and of "
        "the row that wins, the number of users.",
    ),
    analogue="""
A café with two waiters. How many guests at a time are good for it? Cups an hour (what the café earns) and minutes
until a cup comes (what a guest bears), on three days:

| guests at a time | cups an hour | minutes | cups an hour for each minute |
|---|---|---|---|
| 1 | 20 | 3 | 6.7 |
| 4 | 60 | 4 | **15** |
| 12 | 65 | 11 | 5.9 |

```python
days = [[1, 20, 3], [4, 60, 4], [12, 65, 11]]
max(days, key=lambda day: day[1] / day[2])[0]     # 4
```

Most cups are sold with twelve guests, and the quickest cup comes to the only one. With four the café works nearly
as much as it can and nobody waits long. Who was turned away at the door drank nothing in no time, and is in neither
column.
""",
)
