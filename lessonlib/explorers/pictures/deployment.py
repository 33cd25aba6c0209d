"""deployment: what a million tokens cost from an API, on a server of your own and on your own computer."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.engine.errors import BadParameter

from ..base import Explorer
from ..text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# EXAMPLES, not the truth: round numbers amid what was listed in the middle of 2026. A hosted model of 8 billion
# parameters: $0.03 to $0.30 a million tokens in, $0.05 to $0.83 out (price lists of some twenty providers); an H200
# by the hour: $2.60 to $6.30. A laptop for $1,500, electricity for households at $0.30: nobody's in particular.
SEEN = "mid-2026"
EXAMPLES: dict[str, float] = {
    "api_in": 0.20,
    "api_out": 0.60,
    "api_ms": 50.0,
    "server_hour": 3.00,
    "server_speed": 2000.0,
    "server_ms": 20.0,
    "computer_price": 1500.0,
    "computer_years": 4.0,
    "computer_watts": 60.0,
    "computer_speed": 15.0,
    "electricity": 0.30,
    "prompt_ratio": 2.0,
}
POSITIVE = {"server_hour", "server_speed", "computer_years", "computer_speed"}
DAY = 86_400
AMOUNTS = [round(first * 10**power) for power in range(4, 10) for first in (1, 1.5, 2, 3, 5, 7)] + [
    10**10
]  # of new tokens a day: where the slider stops
NAMES = {"api": "an API", "server": "your own server", "computer": "your own computer"}
RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def capacity(speed: float) -> float:
    """New tokens a day of one machine that makes ``speed`` of them a second and never rests."""
    return speed * DAY


def cost(who: str, at: dict[str, float], tokens: float) -> float:
    """Dollars for a million new tokens and the prompts that they answer, at ``tokens`` new ones a day.

    An API is paid by the token. A server is paid by the hour, busy or not; a computer is bought, and burns power while
    it works. Where one machine is too slow, there are more.
    """
    if who == "api":
        return at["api_out"] + at["prompt_ratio"] * at["api_in"]
    if who == "server":
        return machines(at["server_speed"], tokens) * 24 * at["server_hour"] / tokens * 1e6
    bought = at["computer_price"] / (at["computer_years"] * 365)
    return machines(at["computer_speed"], tokens) * bought / tokens * 1e6 + power(at)


def machines(speed: float, tokens: float) -> int:
    """Machines of this speed that ``tokens`` new tokens a day take."""
    return max(1, math.ceil(tokens / capacity(speed)))


def power(at: dict[str, float]) -> float:
    """Dollars of electricity for a million new tokens on your own computer."""
    return 1e6 / at["computer_speed"] / 3600 * at["computer_watts"] / 1000 * at["electricity"]


def break_even(who: str, at: dict[str, float]) -> float | None:
    """New tokens a day from which one machine costs no more than the API; None when not even a fully busy one does."""
    if who == "server":
        fixed, each, speed = 24 * at["server_hour"], 0.0, at["server_speed"]
    else:
        fixed = at["computer_price"] / (at["computer_years"] * 365)
        each, speed = power(at), at["computer_speed"]
    saved = cost("api", at, 1) - each
    tokens = fixed / saved * 1e6 if saved > 0 else math.inf
    return tokens if tokens <= capacity(speed) else None


def measured(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Speeds that this repository's benchmarks measured, new tokens a second; nothing where they are not shipped."""
    try:
        gpu = json.loads((folder / "cuda.json").read_text(encoding="utf-8"))
        cpu = json.loads((folder / "decode.json").read_text(encoding="utf-8"))["smollm2-360m"]
    except (OSError, KeyError):
        return {"server": [], "computer": []}
    card, day = gpu["machine"].split(",")[0].removeprefix("NVIDIA "), gpu["when"]
    batch = 32 / statistics.median(gpu["decode"]["bf16"]["seconds_batch_32"])
    mixed = gpu["mixed_tokens"][1] / statistics.median(gpu["mixed"]["ours"]["seconds"])
    size, bandwidth = gpu["decode"]["int4"]["bytes"], cpu["memory_gb_per_s"]["read"] * 1e9
    small = next(r for r in cpu["rows"] if (r["engine"], r["variant"]) == ("llama.cpp", "q4_0"))
    return {
        "server": [
            _speed(batch, f"8B, 32 at a time, decoding only, {card}, {day}"),
            _speed(mixed, f"1B, {gpu['requests']} mixed requests, {card}, {day}"),
        ],
        "computer": [
            _speed(
                bandwidth / size,
                f"8B int4, at most: {bandwidth / 1e9:.0f} GB/s / {size / 1e9:.1f} GB",
            ),
            _speed(
                small["tokens_per_s"],
                f"360M 4-bit, llama.cpp, {cpu['machine']['cores']} cores, {cpu['when']}",
            ),
        ],
    }


def _speed(value: float, words: str) -> dict[str, Any]:
    return {"speed": float(f"{value:.3g}"), "words": words}


def short(value: float) -> str:
    """Three significant digits and a prefix: 10 M, 72 M, 1.5 k."""
    for scale, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{float(f'{value / scale:.3g}'):g}{prefix}"
    return f"{float(f'{value:.3g}'):g}"


def money(value: float) -> str:
    """$1,234, $1.23, $0.18, $0.0029."""
    if value >= 100 or value == 0:
        return f"${math.floor(value + 0.5):,}"
    decimals = 2 if value >= 1 else min(1 - math.floor(math.log10(value)), 12)
    return f"${value:.{decimals}f}"


def title_text(at: dict[str, float], tokens: float) -> str:
    """The sentence above the picture."""
    costs = {who: cost(who, at, tokens) for who in NAMES}
    best = min(costs, key=costs.__getitem__)
    even = break_even("server", at)
    if even is None:
        more = "Even a server that is always busy costs more than the API."
    else:
        busy = even / capacity(at["server_speed"])
        more = f"A server breaks even at {short(even)}, {math.floor(100 * busy + 0.5)}% busy."
    return f"At {short(tokens)} new tokens a day {NAMES[best]} is cheapest: {money(costs[best])} a million. {more}"


class Deployment(Explorer):
    picture = "deployment"

    def _at(self) -> tuple[dict[str, float], float]:
        start = self.data["defaults"]
        return {name: start[name] for name in EXAMPLES}, start["tokens"]

    def summary(self) -> str:
        at, tokens = self._at()
        each = "; ".join(f"{NAMES[who]} {money(cost(who, at, tokens))}" for who in NAMES)
        return (
            f"{title_text(at, tokens)} A million new tokens, with {at['prompt_ratio']:g} prompt tokens to each: "
            f"{each}. Prices are examples of {SEEN}."
        )

    def figure(self) -> Figure:
        from ..figure import MUTED, new_figure

        at, tokens = self._at()
        title = title_text(at, tokens).split(". ")
        figure = new_figure(9.4, 4.4, f"{title[0]}.")
        figure.text(0.012, 0.905, " ".join(title[1:]), color=MUTED, fontsize=9, va="top")
        _draw_costs(figure.add_axes((0.075, 0.13, 0.5, 0.66)), at, tokens)
        _draw_table(figure.add_axes((0.62, 0.08, 0.37, 0.74)), at, tokens)
        figure.text(0.62, 0.035, f"EXAMPLE prices of {SEEN}: put your own in.", color=MUTED, fontsize=8.5)
        return figure


def _draw_costs(ax: Axes, at: dict[str, float], tokens: float) -> None:
    from ..figure import BLUE, GREEN, INK, LINE, MUTED, VERMILLION

    days = [10 ** (4 + i / 50) for i in range(301)]
    lines = (
        ("api", BLUE, "-", "API"),
        ("server", VERMILLION, (0, (6, 3)), "own server"),
        ("computer", GREEN, (0, (1.5, 2)), "own computer"),
    )
    for who, colour, dashes, name in lines:
        ax.plot(
            days,
            [cost(who, at, day) for day in days],
            color=colour,
            linestyle=dashes,
            linewidth=2,
            label=name,
        )
        ax.plot(
            tokens, cost(who, at, tokens), "o", color=colour, markersize=5, markeredgecolor="white", zorder=4
        )
    ax.axvline(tokens, color=MUTED, linewidth=0.8, linestyle=":")
    for who in ("server", "computer"):
        if even := break_even(who, at):
            ax.plot(
                even, cost("api", at, even), "D", markersize=8, markerfacecolor="none", markeredgecolor=INK
            )
            ax.annotate(
                f"break-even\n{short(even)} a day",
                (even, cost("api", at, even)),
                (-6, -8),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )
    ax.set(xscale="log", yscale="log", xlim=(days[0], days[-1]), xlabel="new tokens a day")
    ax.set_title("Dollars for a million new tokens")
    ax.grid(color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.minorticks_off()
    ax.set_xticks([10**n for n in range(4, 11)], [short(10**n) for n in range(4, 11)])
    ax.yaxis.set_major_formatter(lambda value, _: money(value).removesuffix(".00"))
    ax.legend(loc="upper right", handlelength=3.2)


def _draw_table(ax: Axes, at: dict[str, float], tokens: float) -> None:
    from ..figure import LINE, MUTED

    ax.axis("off")
    ax.set(xlim=(0, 100), ylim=(0, 100))
    share = tokens * (1 + at["prompt_ratio"])
    rows = [["", "API", "server", "computer"]]
    costs = [cost(who, at, tokens) for who in NAMES]
    rows.append(["$ a million", *map(money, costs)])
    rows.append(["$ in 30 days", *(money(each * tokens * 30 / 1e6) for each in costs)])
    counts = [machines(at[f"{who}_speed"], tokens) for who in ("server", "computer")]
    rows.append(["machines", "none", *(f"{count:,}" for count in counts)])
    busy = [
        tokens / capacity(at[f"{who}_speed"]) / n
        for who, n in zip(("server", "computer"), counts, strict=True)
    ]
    rows.append(["busy", "", *map(percent, busy)])
    rows.append(["network, at least", f"{at['api_ms']:g} ms", f"{at['server_ms']:g} ms", "0 ms"])
    rows.append(["texts leave", f"{short(share)} a day", f"{short(share)} a day", "none"])
    rows.append(["read by", "provider", "you, the host", "you"])
    rows.append(["model changed by", "provider", "you", "you"])
    for i, row in enumerate(rows):
        y = 96 - i * 11.2
        for x, words in zip((0, 52, 76, 100), row, strict=True):
            quiet = i == 0 or x == 0
            ax.text(
                x,
                y,
                words,
                ha="left" if x == 0 else "right",
                va="center",
                fontsize=8,
                color=MUTED if quiet else None,
                fontweight="bold" if i == 0 else None,
            )
        ax.plot([0, 100], [y - 5.6] * 2, color=LINE, linewidth=0.6)


def deployment(*, tokens: float = 10_000_000, results: Path = RESULTS, **settings: float) -> Deployment:
    """Explorer of deployment: dollars for a million new tokens, and what else differs, by who runs the model.

    tokens: new ones a day, to begin with (the nearest stop of the slider). ``settings`` replace the examples:
    ``api_in``, ``api_out`` ($ a million tokens), ``api_ms``, ``server_ms`` (network round trips, ms), ``server_hour``
    ($), ``server_speed``, ``computer_speed`` (new tokens a second on your work: measure them), ``computer_price`` ($),
    ``computer_years``, ``computer_watts``, ``electricity`` ($ a kWh), ``prompt_ratio`` (prompt tokens to each new one).

    Prices age: the ones here are examples. Speeds are the benchmarks' own where ``results`` (their folder) is there.

    Raises BadParameter.
    """
    if unknown := sorted(set(settings) - set(EXAMPLES)):
        raise BadParameter(f"deployment() does not know {unknown[0]!r}; it knows {', '.join(EXAMPLES)}.")
    speeds = measured(results)
    start: dict[str, Any] = dict(EXAMPLES)
    for who, found in speeds.items():
        chosen = bool(found) and f"{who}_speed" not in settings
        start[f"{who}_preset"] = "0" if chosen else "own"
        if chosen:
            start[f"{who}_speed"] = found[0]["speed"]
    for name, value in settings.items():
        least = "above 0" if name in POSITIVE else "0 or more"
        if not math.isfinite(value) or value < 0 or (value == 0 and name in POSITIVE):
            raise BadParameter(f"{name}={value!r} makes no sense; give a number {least}.")
        start[name] = value
    if not tokens > 0:
        raise BadParameter(f"tokens={tokens!r} makes no sense; give a number above 0.")
    start["tokens"] = min(AMOUNTS, key=lambda amount: abs(math.log(amount / tokens)))
    start["rule"] = "anywhere"
    data = {
        "defaults": start,
        "amounts": AMOUNTS,
        "speeds": speeds,
        "seen": SEEN,
        "positive": sorted(POSITIVE),
    }
    return Deployment(data=data)
