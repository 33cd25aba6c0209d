"""batching: requests on the slots of a batch, static against continuous against chunked prefill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lessonlib.engine import costs
from lessonlib.engine.config import is_whole
from lessonlib.engine.errors import BadParameter

from .. import traces
from ..base import Explorer
from ..traces import BLOCK_SIZE, DEVICES, LLAMA_8B, NO_LIMIT, PRESETS, STEPS, Run, Wish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the controls offer: (smallest and step, largest); arrivals begin at 0.
MOST_REQUESTS = 12
LIMITS = {
    "arrival": (0, 64),
    "prompt": (8, 2048),
    "output": (1, 64),
    "slots": (1, 6),
    "chunk": (32, 1024),
    "blocks": (4, 256),
}
NAMES = {
    "static": "Static batching",
    "continuous": "Continuous batching",
    "chunked": "… with chunked prefill",
}


def _half_up(value: float, digits: int = 0) -> str:
    """As JavaScript is told to round: halves go up."""
    scale = 10**digits
    return f"{math.floor(value * scale + 0.5) / scale:,.{digits}f}"


def duration(value: float, in_steps: bool) -> str:
    """A time in words: seconds in milliseconds, or steps."""
    if in_steps:
        amount = _half_up(value, 0 if abs(value - round(value)) < 0.05 else 1)
        return f"{amount} step{'' if amount == '1' else 's'}"
    ms = value * 1000
    if ms >= 999.5:
        return f"{_half_up(value, 2 if value < 9.995 else 1)} s"
    return f"{_half_up(ms, 1 if ms < 9.95 else 0)} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def finding(runs: dict[str, Run], chunk: int, in_steps: bool) -> str:
    """The sentence above the picture, as batching.js writes it."""

    def time(value: float) -> str:
        return duration(value, in_steps)

    static, continuous, chunked = (runs[policy] for policy in traces.POLICIES)
    if continuous.preemptions:
        often = "once" if continuous.preemptions == 1 else f"{continuous.preemptions} times"
        return (
            f"The KV cache is too small: {often} a request is sent back, and "
            f"{_count(continuous.again, 'token')} are computed again."
        )
    faster = static.duration / continuous.duration
    shorter = continuous.pause / chunked.pause if chunked.pause else 1.0
    if shorter >= 1.5 and shorter > faster:
        return (
            f"A long prompt lets the others wait {time(continuous.pause)} for a token; "
            f"in chunks of {chunk:,} tokens, {time(chunked.pause)} at most."
        )
    if faster < 1.02:
        return (
            f"Here static batching is as good: done after {time(static.duration)}, "
            f"and continuous batching after {time(continuous.duration)}."
        )
    return (
        f"Continuous batching is done after {time(continuous.duration)}; "
        f"static needs {time(static.duration)}, and {_half_up(100 * static.idle_share)}% of its slot-steps are idle."
    )


class Batching(Explorer):
    picture = "batching"

    def __init__(self, start: dict[str, Any]):
        def as_js(cost: traces.RooflineCost) -> dict[str, float]:
            return {"fixed": cost.fixed, "perToken": cost.per_token, "perKvToken": cost.per_kv_slot}

        devices = {
            key: {"name": device.name, "cost": as_js(traces.roofline(LLAMA_8B, device))}
            for key, device in DEVICES.items()
        }
        presets = {key: {"name": PRESETS[key].name, "settings": _settings(key)} for key in PRESETS}
        data = {
            "model": "Llama 3.1 8B",
            "blockSize": BLOCK_SIZE,
            "blockBytes": BLOCK_SIZE * costs.kv_bytes_per_token(LLAMA_8B),
            "noLimit": NO_LIMIT,
            "steps": as_js(STEPS),
            "devices": devices,
            "presets": presets,
            "limits": {**LIMITS, "requests": MOST_REQUESTS},
            "defaults": start,
        }
        super().__init__(data=data)

    def _runs(self) -> dict[str, Run]:
        at = self.data["defaults"]
        wishes = [Wish(**request) for request in at["requests"]]
        cost = STEPS if self._in_steps else traces.roofline(LLAMA_8B, DEVICES[at["device"]])
        pool = max(at["blocks"], traces.blocks_needed(wishes))
        settings = {"slots": at["slots"], "chunk": at["chunk"], "blocks": pool}
        return {policy: traces.run(policy, wishes, cost, **settings) for policy in traces.POLICIES}

    @property
    def _in_steps(self) -> bool:
        return self.data["defaults"]["clock"] == "steps"

    def summary(self) -> str:
        at, runs = self.data["defaults"], self._runs()
        words = [
            f"{NAMES[policy].removeprefix('… ')}: all answered after {duration(run.duration, self._in_steps)}, "
            f"median first token after {duration(run.timeline.percentile('ttft', 50), self._in_steps)}, "
            f"{_half_up(100 * run.idle_share)}% of slot-steps idle."
            for policy, run in runs.items()
        ]
        words = [word[0].upper() + word[1:] for word in words]
        what = f"{_count(len(at['requests']), 'request')} on {_count(at['slots'], 'slot')}."
        return " ".join([finding(runs, at["chunk"], self._in_steps), what, *words])

    def figure(self) -> Figure:
        from matplotlib.ticker import MaxNLocator

        from ..figure import MUTED, fills_legend, new_figure

        at, runs = self.data["defaults"], self._runs()
        figure = new_figure(9.4, 6.3, finding(runs, at["chunk"], self._in_steps))
        device = DEVICES[at["device"]].name
        clock = (
            "every step is drawn equally long"
            if self._in_steps
            else f"milliseconds, modelled: {self.data['model']} on {device} at the data sheet's peak"
        )
        fills_legend(
            figure,
            [
                ("fresh", "prompt"),
                ("answer", "one token of the answer"),
                ("again", "computed again"),
                ("cut", "idle slot"),
                ("reused", "KV blocks in use"),
            ],
            loc="upper left",
            bbox_to_anchor=(0.0, 0.955),
        )
        pool = max(at["blocks"], traces.blocks_needed([Wish(**request) for request in at["requests"]]))
        scale = 1 if self._in_steps else 1000
        top = scale * max(run.timeline.steps[-1].end for run in runs.values()) * 1.01
        for i, (policy, run) in enumerate(runs.items()):
            bottom = 0.655 - i * 0.29
            lane = figure.add_axes((0.07, bottom + 0.055, 0.92, 0.165))
            memory = figure.add_axes((0.07, bottom, 0.92, 0.045))
            for ax in (lane, memory):
                ax.set(xlim=(0, top), xticks=[])
                ax.tick_params(length=0, labelsize=7.5)
                ax.spines[["left", "bottom"]].set_visible(False)
            lane.set_title(NAMES[policy], pad=5)
            median = duration(run.timeline.percentile("ttft", 50), self._in_steps)
            said = (
                f"all answered after {duration(run.duration, self._in_steps)},  median first token after {median},  "
                f"{_half_up(100 * run.idle_share)}% idle"
            )
            lane.text(top, -0.17 * at["slots"] / 4, said, ha="right", va="bottom", fontsize=8.5)
            _draw_lane(lane, run, at["slots"], scale)
            _draw_memory(memory, run, pool, scale)
        memory.xaxis.set_major_locator(MaxNLocator(8))
        memory.set_xlabel(f"Time: {clock}", fontsize=8.5)
        memory.xaxis.label.set_color(MUTED)
        return figure


def _draw_lane(ax: Axes, run: Run, slots: int, scale: float) -> None:
    from matplotlib.collections import PolyCollection

    from ..figure import FILLS, INK

    timeline = run.timeline
    boxes: dict[str, list[list[tuple[float, float]]]] = {"cut": [], "prompt": [], "answer": [], "again": []}
    names: dict[tuple[int, int], float] = {}
    for step, row in zip(timeline.steps, traces.cells(timeline), strict=True):
        left, right = step.start * scale, step.end * scale
        taken = {cell.slot: cell for cell in row}
        for slot in range(slots):
            kind = taken[slot].kind if slot in taken else "cut"
            boxes[kind].append([(left, slot), (right, slot), (right, slot + 1), (left, slot + 1)])
        for cell in row:
            if cell.kind == "answer":
                names.setdefault((cell.place, cell.slot), left)
    for kind, polygons in boxes.items():
        style = FILLS["fresh" if kind == "prompt" else kind]
        edge = {"cut": "none", "again": style["edgecolor"]}.get(kind, "white")
        looks = style | {"edgecolor": style["edgecolor"] if kind == "cut" else edge}
        ax.add_collection(PolyCollection(polygons, linewidths=0.0 if kind == "cut" else 0.5, **looks))
    for (place, slot), left in names.items():
        ax.text(left, slot + 0.5, f" {chr(65 + place)}", va="center", fontsize=7.5, color=INK, clip_on=True)
    ax.set(ylim=(slots, 0))
    ax.set_yticks([slot + 0.5 for slot in range(slots)], [f"slot {slot + 1}" for slot in range(slots)])


def _draw_memory(ax: Axes, run: Run, pool: int, scale: float) -> None:
    from matplotlib.patheffects import withStroke

    from ..figure import FILLS, INK, VERMILLION

    steps = run.timeline.steps
    edges = [step.start * scale for step in steps] + [steps[-1].end * scale]
    ax.stairs(run.blocks, edges, fill=True, linewidth=0, **FILLS["reused"])
    ax.axhline(pool, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    peak = max(run.blocks)
    ax.set(ylim=(0, max(pool, peak)))
    ax.set_yticks([pool], [f"{pool} blocks"])
    halo = withStroke(linewidth=2.5, foreground="white")
    if peak > pool:
        said = f"needs {peak} blocks: it would not fit"
        where = steps[run.blocks.index(peak)].end * scale, 0.3 * pool
        ax.text(*where, said, ha="right", color=VERMILLION, fontsize=7.5, path_effects=[halo])
    for step in steps:
        if step.preempted:
            who = ", ".join(chr(65 + place) for place in step.preempted)
            where = step.start * scale, 0.4 * pool
            ax.text(*where, f"▲ {who} sent back", color=VERMILLION, fontsize=7.5, path_effects=[halo])


def batching(
    preset: str = "long",
    requests: Sequence[tuple[int, int, int]] | None = None,
    *,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    num_blocks: int | None = None,
    clock: str = "ms",
    device: str = "h100",
) -> Batching:
    """Explorer of batching: a Gantt chart of the same requests in static, continuous and chunked batches.

    preset: a situation: "long", "equal", "prompt", "rush" or "recorded". requests: your own instead, each (arrival in
    shortest possible steps, tokens of the prompt, tokens of the answer). max_num_seqs, max_num_batched_tokens (of the
    chunked one) and num_blocks (of 16 tokens) are the scheduler's. clock: "ms", modelled on ``device`` ("h100", "a100",
    "l4" or "m2"), or "steps". The schedules are those of ``lessonlib.engine.simulator``.

    Raises BadParameter for a name that is not known and for numbers outside the sliders.
    """
    for name, given, known in (
        ("preset", preset, PRESETS),
        ("clock", clock, ("ms", "steps")),
        ("device", device, DEVICES),
    ):
        if given not in known:
            raise BadParameter(f"{name} {given!r} is not known; choose one of {', '.join(known)}.")
    start = _settings(preset)
    if requests is not None:
        start |= {"requests": [Wish(*request)._asdict() for request in requests], "selected": 0}
    asked = {"slots": max_num_seqs, "chunk": max_num_batched_tokens, "blocks": num_blocks}
    start |= {key: number for key, number in asked.items() if number is not None}
    _check(start)
    name = preset if start == _settings(preset) else "own"
    return Batching({"preset": name, "clock": clock, "device": device, **start})


def _check(start: dict[str, Any]) -> None:
    count = len(start["requests"])
    if not 1 <= count <= MOST_REQUESTS:
        raise BadParameter(f"There are {count} requests; choose 1 to {MOST_REQUESTS}.")
    for key in ("slots", "chunk", "blocks"):
        _check_within(key, start[key])
    for request in start["requests"]:
        for key, number in request.items():
            _check_within(key, number)


def _check_within(key: str, number: int) -> None:
    least, most = LIMITS[key]
    least = min(least, 1)
    if not is_whole(number, least) or number > most:
        raise BadParameter(
            f"{key}={number!r} is outside the picture; choose a whole number from {least} to {most}."
        )


def _settings(preset: str) -> dict[str, Any]:
    _, requests, slots, chunk, blocks, selected = PRESETS[preset]
    return {
        "requests": [wish._asdict() for wish in requests],
        "slots": slots,
        "chunk": chunk,
        "blocks": blocks,
        "selected": selected,
    }
