"""04.latencies: time to first token, time per output token and throughput, out of a server's log."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import TYPE, describe, must_be

KEYS = ("ttft", "tpot", "throughput")

FROM_START = "time to first token leaves out the queue"
FROM_ZERO = "time to first token counts from the log's beginning"
WHOLE = "takes the last token for the first"
DIVIDES_BY_N = "divides by the tokens, not by the gaps between them"
FROM_ARRIVAL = "time per output token includes the wait for the first"
SINGLE_ZERO = "a single token counts as a gap of 0"
POOLED = "pools the gaps of all requests"
MEAN = "takes the mean instead of a percentile"
NEAREST = "takes the nearest value instead of interpolating"
FROM_ABOVE = "counts the percentile from above"
SUM_OF_RATES = "averages the speeds of the requests"
CLOCK_FROM_ZERO = "throughput counts time before anybody came"
PER_MS = "throughput is per millisecond"

Times = dict[str, dict[str, Any]]


def by_request(log: Sequence[Sequence[Any]]) -> Times:
    """{name: {"arrives": ms, "starts": ms, "tokens": [ms, …]}} in order of arrival."""
    found: Times = {}
    for time, kind, name in log:
        if kind == "arrives":
            found[name] = {"arrives": time, "starts": time, "tokens": []}
        elif kind == "starts":
            found[name]["starts"] = time
        else:
            found[name]["tokens"].append(time)
    return found


def percentile(numbers: Sequence[float], q: float, mistake: str = "") -> float | None:
    """As ``numpy.percentile``: q % of the way from the smallest to the largest, between two values in proportion."""
    ranked = sorted(numbers)
    if not ranked:
        return None
    if mistake == MEAN:
        return sum(ranked) / len(ranked)
    if mistake == FROM_ABOVE:
        q = 100 - q
    place = q / 100 * (len(ranked) - 1)
    below = int(place)
    if mistake == NEAREST:
        return float(ranked[min(len(ranked) - 1, int(q / 100 * len(ranked)))])
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


def summary(inputs: Inputs, mistake: str = "") -> dict[str, Any]:
    """The right answer, or what a mistake makes of it."""
    log, q = inputs["log"], inputs["q"]
    requests = list(by_request(log).values())
    begin = {FROM_START: "starts"}.get(mistake, "arrives")
    last = -1 if mistake == WHOLE else 0
    ttft = [r["tokens"][last] - (log[0][0] if mistake == FROM_ZERO else r[begin]) for r in requests]
    tpot: list[float] = []
    for r in requests:
        tokens = r["tokens"]
        gaps = len(tokens) - 1
        if mistake == POOLED:
            tpot += [b - a for a, b in pairwise(tokens)]
        elif gaps and mistake == DIVIDES_BY_N:
            tpot.append((tokens[-1] - tokens[0]) / len(tokens))
        elif mistake == FROM_ARRIVAL:
            tpot.append((tokens[-1] - r["arrives"]) / len(tokens))
        elif gaps:
            tpot.append((tokens[-1] - tokens[0]) / gaps)
        elif mistake == SINGLE_ZERO:
            tpot.append(0.0)
    return {
        "ttft": percentile(ttft, q, mistake),
        "tpot": percentile(tpot, q, mistake),
        "throughput": _throughput(requests, mistake),
    }


def _throughput(requests: Sequence[dict[str, Any]], mistake: str) -> float:
    tokens = sum(len(r["tokens"]) for r in requests)
    end = max(r["tokens"][-1] for r in requests)
    begin = 0 if mistake == CLOCK_FROM_ZERO else min(r["arrives"] for r in requests)
    if mistake == SUM_OF_RATES:
        rates = [len(r["tokens"]) / (r["tokens"][-1] - r["arrives"]) for r in requests]
        return 1000 * sum(rates) / len(rates)
    return (1 if mistake == PER_MS else 1000) * tokens / (end - begin)


def nearest_ways(inputs: Inputs) -> AnyOf:
    """Percentiles without interpolation, rounded down, up or to the nearer neighbour."""
    import numpy as np

    right = summary(inputs)
    requests = list(by_request(inputs["log"]).values())
    ttft = [r["tokens"][0] - r["arrives"] for r in requests]
    tpot = [(t[-1] - t[0]) / (len(t) - 1) for r in requests if len(t := r["tokens"]) > 1]
    found = [summary(inputs, NEAREST)]
    for method in ("lower", "higher", "nearest", "inverted_cdf"):
        found.append(
            {
                **right,
                "ttft": float(np.percentile(ttft, inputs["q"], method=method)),  # type: ignore[call-overload]
                "tpot": float(np.percentile(tpot, inputs["q"], method=method)) if tpot else None,  # type: ignore[call-overload]
            }
        )
    return AnyOf(found)


def read(value: Any, _: Inputs) -> dict[str, Any]:
    """The three numbers, the times rounded to a thousandth of a millisecond. Raises WrongForm."""
    wanted = 'a dict {"ttft": …, "tpot": …, "throughput": …}'
    if not isinstance(value, dict):
        raise must_be(wanted, value)
    if {*value} != {*KEYS}:
        raise WrongForm(TYPE, f"It must return {wanted}; the keys that came are {[*value]}.")
    plain: dict[str, Any] = {}
    for key in KEYS:
        number = value[key]
        if number is None and key == "tpot":
            plain[key] = None
            continue
        try:
            plain[key] = round(float(number), 6)
        except (TypeError, ValueError):
            raise WrongForm(TYPE, f"{key} must be a number; it is {describe(number)}.") from None
    return plain


def mistaken(name: str) -> Callable[[Inputs], dict[str, Any]]:
    return lambda inputs: summary(inputs, name)


MISCONCEPTIONS = (
    Misconception(
        FROM_START,
        "The person waits from the moment they *ask*, the queue included. `starts` is when the server gets round to "
        "them; nobody but the server cares.",
        mistaken(FROM_START),
    ),
    Misconception(
        FROM_ZERO,
        "Every request has its own arrival: take the difference from that, not from the beginning of the log.",
        mistaken(FROM_ZERO),
    ),
    Misconception(WHOLE, "That is the time to the *last* token, the latency as a whole.", mistaken(WHOLE)),
    Misconception(
        DIVIDES_BY_N,
        "Five tokens have four gaps between them. The first token's wait is the TTFT and has no part in the TPOT.",
        mistaken(DIVIDES_BY_N),
    ),
    Misconception(
        FROM_ARRIVAL,
        "The wait for the first token is measured by the TTFT already. The TPOT says how fast the text flows *after* "
        "it.",
        mistaken(FROM_ARRIVAL),
    ),
    Misconception(
        SINGLE_ZERO,
        "A request with one token has no gap, so it has no time per output token. A 0 would make the server look fast: "
        "leave the request out.",
        mistaken(SINGLE_ZERO),
    ),
    Misconception(
        POOLED,
        "First one number for each request, the mean of *its* gaps, then the percentile over the requests. In a common "
        "pool a single long answer counts as much as a hundred short ones.",
        mistaken(POOLED),
    ),
    Misconception(
        MEAN,
        "The q-th percentile is the value that q % of the requests do not exceed. A mean can hide one of them waiting "
        "for minutes.",
        mistaken(MEAN),
    ),
    Misconception(
        NEAREST,
        "Between two values the percentile lies between them, in proportion, as `numpy.percentile` does by default.",
        nearest_ways,
    ),
    Misconception(
        FROM_ABOVE,
        "The 90th percentile is a value that most stay *below*: sort ascending.",
        mistaken(FROM_ABOVE),
    ),
    Misconception(
        SUM_OF_RATES,
        "Throughput is about the server: all tokens, divided by the whole time. The speeds of single requests overlap "
        "in time and must not be averaged.",
        mistaken(SUM_OF_RATES),
    ),
    Misconception(
        CLOCK_FROM_ZERO,
        "The clock of the server runs all day. Count from the first arrival to the last token.",
        mistaken(CLOCK_FROM_ZERO),
    ),
    Misconception(
        PER_MS,
        "The log is in milliseconds, and the throughput is asked for in tokens per *second*: times 1,000.",
        mistaken(PER_MS),
    ),
)


def valid(inputs: Inputs) -> bool:
    """Whether it is a log: in order, every request arriving, starting, then getting tokens some time later."""
    log = inputs["log"]
    if not log or not 0 <= inputs["q"] <= 100 or any(len(line) != 3 for line in log):
        return False
    if any(a[0] > b[0] for a, b in pairwise(log)):
        return False
    stage: dict[str, int] = {}
    for time, kind, name in log:
        if not isinstance(time, int) or time < 0 or name not in tuple("abcdefgh"):
            return False
        if kind not in ("arrives", "starts", "token"):
            return False
        if stage.get(name, 0) != {"arrives": 0, "starts": 1, "token": max(2, stage.get(name, 0))}[kind]:
            return False
        stage[name] = {"arrives": 1, "starts": 2, "token": 3}[kind]
    requests = by_request(log).values()
    return all(s == 3 for s in stage.values()) and all(r["tokens"][-1] > r["arrives"] for r in requests)


def making(
    tells_apart: Sequence[str] = (), requests: tuple[int, int] = (3, 5), most: int = 5, single: bool = False
) -> Callable[[random.Random], Inputs | None]:
    """A generator of logs on which each of these mistakes changes the answer. single: one answer has one token."""

    def make(rng: random.Random) -> Inputs | None:
        log: list[list[Any]] = []
        for i, name in enumerate("abcdefgh"[: rng.randint(*requests)]):
            clock = rng.randint(100, 900)
            log.append([clock, "arrives", name])
            clock += rng.randint(10, 300)
            log.append([clock, "starts", name])
            for _ in range(1 if single and i == 1 else rng.randint(2, most)):
                clock += rng.randint(10, 90)
                log.append([clock, "token", name])
        log.sort(key=lambda line: line[0])
        inputs: Inputs = {"log": log, "q": rng.choice([50, 75, 90, 95])}
        right = read(summary(inputs), inputs)
        same = any(read(summary(inputs, m), inputs) == right for m in tells_apart)
        return inputs if valid(inputs) and not same else None

    return make


def log_case(title: str, *examples: tuple[list[list[Any]], int], **case: Any) -> Case:
    inputs = [{"log": log, "q": q} for log, q in examples]
    return values(
        title,
        expected=lambda inputs: read(summary(inputs), inputs),
        read=read,
        tolerance=1e-6,
        examples=inputs,
        valid=valid,
        **case,
    )


ONE = [
    [100, "arrives", "a"],
    [140, "starts", "a"],
    [150, "token", "a"],
    [170, "token", "a"],
    [180, "token", "a"],
]
SHORT = [[0, "arrives", "a"], [0, "starts", "a"], [20, "token", "a"]]
CASES = (
    log_case(
        "One request: from its arrival to its first token, and the mean gap after it.",
        (ONE, 50),
        make=making([DIVIDES_BY_N, FROM_ARRIVAL, WHOLE], requests=(1, 1)),
        count=2,
    ),
    log_case(
        "Several requests at once: one number for each, then the percentile.",
        make=making([POOLED, FROM_START, FROM_ZERO, MEAN, NEAREST, FROM_ABOVE]),
        count=4,
    ),
    log_case(
        "A request with a single token has no time per output token.",
        (SHORT, 50),
        make=making([SINGLE_ZERO], single=True),
        count=3,
    ),
)

LATENCIES = Exercise(
    id="04.latencies",
    title="What a log says about waiting",
    signature="latencies(log, q)",
    prepare=lambda inputs: {"log": [list(line) for line in inputs["log"]], "q": inputs["q"]},
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Sort the log into one record for each request first: when it arrived, and the list of times at which its "
        "tokens came. Two dictionaries do it: `arrived[name] = time`, `tokens.setdefault(name, []).append(time)`.",
        "For one request with tokens at t[0] … t[-1]: TTFT is t[0] minus its arrival; TPOT is (t[-1] - t[0]) divided "
        "by the number of *gaps*. Collect both in lists, leaving out a TPOT where there is no gap.",
        "`float(np.percentile(numbers, q))` over each list (None for an empty one). Throughput needs no list: the "
        "number of token lines, times 1,000, divided by last token minus first arrival.",
    ),
    analogue="""
A bakery's day: customers come, are served their first roll, and are served the rest. How long did people wait, and
how fast were they served?

| | comes | first roll | last roll | rolls |
|---|---|---|---|---|
| Ann | 8:00 | 8:04 | 8:10 | 3 |
| Ben | 8:02 | 8:12 | 8:12 | 1 |

Waits for the first roll: 4 and 10 minutes, counted from when *each* came. Minutes per further roll: Ann
(10 - 4) / 2 = 3; Ben has none, so the list is `[3]`. The shop as a whole: 4 rolls in the 12 minutes from 8:00 to
8:12, a third of a roll a minute.

```python
waits = np.percentile([4, 10], 90)       # 9.4: nine tenths of the way from 4 to 10
```
""",
)
