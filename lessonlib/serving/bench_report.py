"""What a load run met, request by request, and the figures drawn from it: a table, JSON, a picture.

Only answered requests have latencies. A failed one counts in the errors, and as one that met no objective; one that was
still running when the user stopped the run counts nowhere.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

PERCENTILES = (50, 95, 99)
BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"  # Okabe & Ito 2008


@dataclass(frozen=True)
class Load:
    """One stage: ``rate`` requests a second (open loop), or ``users`` at a time (closed loop)."""

    rate: float | None = None
    users: int = 1

    def __str__(self) -> str:
        return f"{self.users} at a time" if self.rate is None else f"{self.rate:g}/s"


@dataclass
class Record:
    """One request, times in seconds since its stage began.

    due: the scheduled arrival (open loop), or when its user sent it. first, last: when the first and the latest text
    came. end: when the answer was complete. chunks: pieces of text. output_tokens, prompt_tokens: as the server counts.
    retry_after: seconds that a refusal asked to wait. error: "HTTP 429" and the like, "timeout", "no connection",
    "disconnect", "cut off" (in good order, but without a finish_reason), "malformed", "error in the stream", or
    "interrupted" (by the user). detail: what was said.
    """

    due: float
    sent: float
    first: float | None = None
    last: float | None = None
    end: float | None = None
    chunks: int = 0
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    retry_after: float = 0.0
    error: str | None = None
    detail: str = ""

    def fail(self, kind: str, detail: str = "") -> None:
        self.error = kind
        self.detail = "".join(c if c.isprintable() else " " for c in detail[:200]).strip()

    @property
    def tokens(self) -> int:
        """Output tokens: as the server counted them, else the chunks of the stream."""
        return self.chunks if self.output_tokens is None else self.output_tokens

    @property
    def latency(self) -> float | None:
        return None if self.end is None else self.end - self.due

    @property
    def ttft(self) -> float | None:
        """Time to first token. An answer without any text is there when its end is."""
        first = self.end if self.first is None else self.first
        return None if first is None else first - self.due

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None where it cannot be seen: one token, or all in one chunk."""
        if self.first is None or self.last is None or self.tokens < 2 or self.chunks < 2:
            return None
        return (self.last - self.first) / (self.tokens - 1)


@dataclass
class Stage:
    """A load, what its requests met, and how long it took in seconds, the last answers included."""

    load: Load
    records: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False


@dataclass
class Run:
    """All stages at one server. Interrupted, it holds what was measured until then."""

    settings: dict[str, Any]
    model: str
    started: str
    stages: list[Stage] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        return any(stage.interrupted for stage in self.stages)


@dataclass(frozen=True)
class SLO:
    """Service level objective: a request is good if it was answered within both times, in seconds; None: any."""

    ttft: float | None = None
    tpot: float | None = None

    def met(self, record: Record) -> bool:
        """Where a time cannot be seen (TPOT of a single token), it was not missed."""
        pairs = ((record.ttft, self.ttft), (record.tpot, self.tpot))
        return not record.error and all(t is None or limit is None or t <= limit for t, limit in pairs)


@dataclass(frozen=True)
class Summary:
    """The figures of one stage. Times in seconds, rates a second; percentiles by name, none if nothing was answered.

    requests: all that ended by themselves. lateness: from the scheduled arrival to when this machine sent; the
    latencies include it. tokens_from: "usage" (the server's count), "chunks" (counted here), "both", or "none".
    goodput_share: of all requests, those that met the SLO; goodput: of these, how many a second (as in vLLM's and
    NVIDIA's benchmarks). None without an SLO.
    """

    load: Load
    seconds: float
    requests: int
    completed: int
    interrupted: int
    errors: dict[str, int]
    examples: dict[str, str]
    ttft: dict[str, float]
    tpot: dict[str, float]
    latency: dict[str, float]
    lateness: dict[str, float]
    prompt_tokens: int | None
    output_tokens: int
    tokens_from: str
    requests_per_second: float
    output_tokens_per_second: float
    goodput_share: float | None
    goodput: float | None


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile (0 to 100) of at least one value, linear between neighbours.

    Hyndman & Fan 1996, definition 7; NumPy's default.
    """
    ordered = sorted(values)
    below, part = divmod(p / 100 * (len(ordered) - 1), 1)
    low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
    return min(high, low + part * (high - low))


def percentiles(values: Sequence[float | None]) -> dict[str, float]:
    """p50, p95 and p99 of the values that are there."""
    known = [value for value in values if value is not None]
    return {f"p{p}": percentile(known, p) for p in PERCENTILES} if known else {}


def summarise(stage: Stage, slo: SLO | None = None) -> Summary:
    """The figures of a stage."""
    ended = [record for record in stage.records if record.error != "interrupted"]
    done = [record for record in ended if not record.error]
    failed = [record for record in ended if record.error]
    output = sum(record.tokens for record in done)
    prompt = [record.prompt_tokens for record in done if record.prompt_tokens is not None]
    sources = {"chunks" if record.output_tokens is None else "usage" for record in done}
    good = None if slo is None else sum(map(slo.met, ended))

    def per_second(count: int) -> float:
        return count / stage.seconds if stage.seconds else 0.0

    return Summary(
        load=stage.load,
        seconds=stage.seconds,
        requests=len(ended),
        completed=len(done),
        interrupted=len(stage.records) - len(ended),
        errors=dict(Counter(str(record.error) for record in failed).most_common()),
        examples={str(record.error): record.detail for record in reversed(failed)},
        ttft=percentiles([record.ttft for record in done]),
        tpot=percentiles([record.tpot for record in done]),
        latency=percentiles([record.latency for record in done]),
        lateness=percentiles([record.sent - record.due for record in ended]),
        prompt_tokens=sum(prompt) if prompt else None,
        output_tokens=output,
        tokens_from="both" if len(sources) == 2 else next(iter(sources), "none"),
        requests_per_second=per_second(len(done)),
        output_tokens_per_second=per_second(output),
        goodput_share=None if good is None or not ended else good / len(ended),
        goodput=None if good is None else per_second(good),
    )


def table(summaries: Sequence[Summary]) -> Table:
    """A column for each stage."""
    shown = Table(title_justify="left")
    shown.add_column("load")
    for summary in summaries:
        shown.add_column(str(summary.load), justify="right")

    def row(name: str, values: Sequence[float | None], factor: float = 1.0, end: bool = False) -> None:
        cells = ("–" if value is None else _short(value * factor) for value in values)
        shown.add_row(name, *cells, end_section=end)

    row("answered", [s.completed for s in summaries])
    row("failed", [s.requests - s.completed for s in summaries], end=True)
    for name, times in (
        ("TTFT, ms", [s.ttft for s in summaries]),
        ("TPOT, ms", [s.tpot for s in summaries]),
        ("latency, ms", [s.latency for s in summaries]),
    ):
        for p in PERCENTILES:
            row(f"{name}, p{p}", [time.get(f"p{p}") for time in times], 1000, end=p == PERCENTILES[-1])
    row("requests/s", [s.requests_per_second for s in summaries])
    row("output tokens/s", [s.output_tokens_per_second for s in summaries])
    if any(s.goodput is not None for s in summaries):
        row("goodput, requests/s", [s.goodput for s in summaries])
        row("goodput, %", [s.goodput_share for s in summaries], 100)
    return shown


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def notes(summaries: Sequence[Summary]) -> list[str]:
    """What a reader has to know beside the figures, a sentence each."""
    said = []
    for s in summaries:
        for kind, count in s.errors.items():
            example = f": {s.examples[kind]}" if s.examples[kind] else ""
            said.append(f"{s.load}: {count} × {kind}{example}")
        if s.interrupted:
            said.append(f"{s.load}: stopped; {s.interrupted} still running, which count nowhere.")
        if s.lateness.get("p99", 0) > 0.05:
            late = _short(s.lateness["p99"] * 1000)
            said.append(f"{s.load}: this machine sent late (p99 {late} ms), which the latencies include.")
    sources = {s.tokens_from for s in summaries} - {"none"}
    if sources == {"usage"}:
        said.append("Output tokens: as the server counts them (usage).")
    elif sources:
        some = "" if sources == {"chunks"} else " for some requests"
        said.append(
            f"Output tokens: chunks of the streams{some}, as the server gave no usage; a chunk may hold several."
        )
    if any(0 < s.completed < 100 for s in summaries):
        said.append("Of fewer than 100 answers, p99 is little more than the slowest.")
    return said


def to_json(run: Run, slo: SLO | None = None) -> str:
    """The whole run: settings (without the key), the figures of each stage, and every request."""
    stages = [
        asdict(summarise(stage, slo)) | {"samples": [asdict(record) for record in stage.records]}
        for stage in run.stages
    ]
    head = {"model": run.model, "started": run.started, "interrupted": run.interrupted}
    whole = {**head, "settings": run.settings, "slo": slo and asdict(slo), "stages": stages}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def plot(summaries: Sequence[Summary], form: str, slo: SLO | None = None) -> bytes:
    """Latency and throughput against load, as an image in this form ("png", "svg" or "pdf")."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    is_open = summaries[0].load.rate is not None
    loads = [s.load.users if s.load.rate is None else s.load.rate for s in summaries]
    goal = slo or SLO()
    objective = {"color": BLACK, "linestyle": "-.", "linewidth": 1}
    for ax, title, times, limit in (
        (axes[0, 0], "Time to first token, ms", [s.ttft for s in summaries], goal.ttft),
        (axes[0, 1], "Time per output token, ms", [s.tpot for s in summaries], goal.tpot),
        (axes[0, 2], "Latency of the whole answer, ms", [s.latency for s in summaries], None),
    ):
        for p, colour, style in zip(PERCENTILES, (BLUE, VERMILLION, GREEN), ("-o", "--s", ":^"), strict=True):
            values = [1000 * time.get(f"p{p}", float("nan")) for time in times]
            ax.plot(loads, values, style, color=colour, label=f"p{p}")
        if limit is not None:
            ax.axhline(1000 * limit, label="objective", **objective)
        ax.set_title(title, loc="left")
    requests, tokens, share = axes[1]
    if is_open:
        requests.plot(loads, loads, label="arriving", **objective)
    requests.plot(loads, [s.requests_per_second for s in summaries], "-o", color=BLUE, label="answered")
    requests.set_title("Requests a second", loc="left")
    tokens.plot(loads, [s.output_tokens_per_second for s in summaries], "-o", color=BLUE, label="answered")
    tokens.set_title("Output tokens a second", loc="left")
    failed = [100 * (s.requests - s.completed) / max(1, s.requests) for s in summaries]
    share.plot(loads, failed, ":^", color=VERMILLION, label="failed")
    share.set_title("Share of the requests, %", loc="left")
    if slo is not None:
        good = [float("nan") if s.goodput is None else s.goodput for s in summaries]
        requests.plot(loads, good, "--s", color=GREEN, label="within the objectives")
        met = [float("nan") if s.goodput_share is None else 100 * s.goodput_share for s in summaries]
        share.plot(loads, met, "--s", color=GREEN, label="within the objectives")
    for ax in axes.flat:
        ax.set_xticks(loads)
        ax.set_ylim(bottom=0, top=105 if ax is share else None)
        ax.set_xlabel("requests arriving a second" if is_open else "requests at a time")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format=form, dpi=150)
    return image.getvalue()
