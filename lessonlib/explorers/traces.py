"""Traces of requests, the clock they run by, and the three ways to batch them: the engine's own replays.

Prefix caching is off here: a request that loses its blocks computes everything again, and nothing is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from lessonlib.engine import ModelConfig, costs
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.scheduler import Scheduler
from lessonlib.engine.simulator import Arrival, StepCost, Timeline, replay, replay_static

BLOCK_SIZE = 16
NO_LIMIT = 10**9  # tokens a step: continuous batching without chunks
POLICIES = ("static", "continuous", "chunked")


class Wish(NamedTuple):
    """A request of a picture: arrival (in shortest possible steps), tokens of its prompt, tokens of its answer."""

    arrival: int
    prompt: int
    output: int


class Device(NamedTuple):
    """Peak of matrix products (FLOP/s, 16-bit floats, dense) and of memory (bytes/s)."""

    name: str
    flops: float
    bandwidth: float


# NVIDIA's data sheets of H100 SXM (2022), A100 80GB SXM (2020) and L4 (2023), without sparsity; Apple's announcement of
# the M2 (June 2022), its GPU.
DEVICES = {
    "h100": Device("NVIDIA H100", 989.4e12, 3.35e12),
    "a100": Device("NVIDIA A100", 312e12, 2.039e12),
    "l4": Device("NVIDIA L4", 121e12, 300e9),
    "m2": Device("Apple M2", 3.6e12, 100e9),
}
# Its model card and config.json (Meta, July 2024).
LLAMA_8B = ModelConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=131_072,
    tie_word_embeddings=False,
)


@dataclass(frozen=True)
class RooflineCost(StepCost):
    """The slower of computing a step's tokens and reading weights and KV cache (Williams et al. 2009, roofline)."""

    def __call__(self, tokens: int, kv_slots: int) -> float:
        return max(self.per_token * tokens, self.fixed + self.per_kv_slot * kv_slots)


STEPS = RooflineCost(1.0, 0.0, 0.0)  # the clock that counts steps: each takes 1


def roofline(config: ModelConfig, device: Device) -> RooflineCost:
    """Seconds of a pass at the device's peaks, in 16 bits.

    The computing of the output layer and of attention is left out: a few per cent at the lengths of the pictures.
    """
    return RooflineCost(
        fixed=costs.weight_bytes(config) / device.bandwidth,
        per_token=costs.body_flops_per_token(config) / device.flops,
        per_kv_slot=costs.kv_bytes_per_token(config) / device.bandwidth,
    )


class Cell(NamedTuple):
    """A request in one step: its row, its place in the trace, and what ran: "prompt", "answer" or "again"."""

    slot: int
    place: int
    kind: str


@dataclass(frozen=True)
class Run:
    """A replay. kv_tokens: tokens whose keys and values each step read."""

    timeline: Timeline
    kv_tokens: list[int]

    @property
    def duration(self) -> float:
        """From the first arrival to the last token."""
        return max(t[-1] for t in self.timeline.tokens) - min(a.time for a in self.timeline.trace)

    @property
    def idle_share(self) -> float:
        return self.timeline.idle_slot_steps / (self.timeline.capacity * len(self.timeline.steps))

    @property
    def preemptions(self) -> int:
        return sum(len(step.preempted) for step in self.timeline.steps)

    @property
    def pause(self) -> float:
        """The longest wait between two tokens of one answer."""
        return max((b - a for times in self.timeline.tokens for a, b in pairwise(times)), default=0.0)

    @property
    def again(self) -> int:
        """Tokens computed a second time, after a preemption."""
        once = sum(_prompt(arrival) + arrival.output - 1 for arrival in self.timeline.trace)
        return sum(tokens for step in self.timeline.steps for _, tokens in step.ran) - once

    @property
    def blocks(self) -> list[int]:
        """KV blocks in use at each step; for static batching, what its padded rows would fill."""
        steps = self.timeline.steps
        if any(step.blocks for step in steps):
            return [step.blocks for step in steps]
        return [-(-tokens // BLOCK_SIZE) for tokens in self.kv_tokens]


def _prompt(arrival: Arrival) -> int:
    assert isinstance(arrival.prompt, int)  # these traces have lengths, not texts
    return arrival.prompt


def blocks_needed(wishes: Sequence[Wish]) -> int:
    """Blocks that the largest request fills in the end; the last token chosen is never run."""
    return max(-(-(wish.prompt + wish.output - 1) // BLOCK_SIZE) for wish in wishes)


def run(policy: str, wishes: Sequence[Wish], cost: StepCost, *, slots: int, chunk: int, blocks: int) -> Run:
    """Replay the trace with one of POLICIES. Raises CacheFull for a request that the blocks cannot hold."""
    kv_tokens: list[int] = []

    @dataclass(frozen=True)
    class Recording(StepCost):
        def __call__(self, tokens: int, kv_slots: int) -> float:
            kv_tokens.append(kv_slots)
            return cost(tokens, kv_slots)

    trace = [Arrival(wish.arrival * cost.fixed, wish.prompt, wish.output) for wish in wishes]
    if policy == "static":
        return Run(replay_static(trace, slots, Recording()), kv_tokens)
    scheduler = Scheduler(
        BlockPool(blocks, BLOCK_SIZE, enable_prefix_caching=False),
        max_num_seqs=slots,
        max_num_batched_tokens=chunk if policy == "chunked" else NO_LIMIT,
    )
    return Run(replay(trace, scheduler, Recording()), kv_tokens)


def cells(timeline: Timeline) -> list[list[Cell]]:
    """For each step a cell for every request that ran, in the lowest row that was free when it was let in."""
    seats: list[int | None] = [None] * timeline.capacity
    computed, seen = [0] * len(timeline.trace), [0] * len(timeline.trace)
    drawn = []
    for step in timeline.steps:
        for place in step.preempted:
            seats[seats.index(place)] = None
            computed[place] = 0
        row = []
        for place, count in step.ran:
            if place not in seats:
                seats[seats.index(None)] = place
            start = computed[place]
            kind = "answer" if start >= _prompt(timeline.trace[place]) else "prompt"
            row.append(Cell(seats.index(place), place, "again" if start < seen[place] else kind))
            computed[place] = start + count
            seen[place] = max(seen[place], start + count)
        drawn.append(row)
        for place, _ in step.ran:
            if timeline.tokens[place][-1] <= step.end:
                seats[seats.index(place)] = None
    return drawn


class Preset(NamedTuple):
    """A situation to look at: its name in the menu, the requests, and where the sliders stand."""

    name: str
    requests: Sequence[Wish]
    slots: int
    chunk: int
    blocks: int
    selected: int = 0


# What pico did with these beginnings, greedy, until an empty line or 64 tokens: (beginning, prompt, answer tokens).
# A test records it again.
RECORDED = [
    ("def fib(n):\n", 7, 27),
    ("import os\n\ndef walk(", 9, 16),
    ("class Stack:\n    def __init__(self):\n", 12, 64),
    ('def read_json(path):\n    """Read a JSON file."""\n', 16, 27),
    ("for i in range(", 5, 64),
    ("try:\n    import ssl\nexcept ImportError:\n", 12, 21),
    ("def main():\n    parser = argparse.ArgumentParser()\n", 13, 1),
    (
        "class Queue:\n    def __init__(self, maxsize=0):\n        self.maxsize = maxsize\n"
        "        self._init(maxsize)\n\n    def get(self, block=True, timeout=None):\n",
        48,
        39,
    ),
    ("if __name__ == '__main__':\n", 10, 23),
    ("def copy(self):\n    return ", 8, 13),
    ("import re\nimport sys\nimport time\n\n__all__ = [", 15, 64),
    ("def send(self, data, flags=0):\n    self._checkClosed()\n    if self._sslobj is not None:\n", 31, 51),
]
# Their arrivals: a Poisson process, 2 steps apart on average (numpy's default_rng(0), rounded).
RECORDED_ARRIVALS = (1, 3, 3, 3, 5, 8, 9, 11, 16, 28, 35, 35)


def _wishes(*numbers: tuple[int, int, int]) -> list[Wish]:
    return [Wish(*three) for three in numbers]


PRESETS = {
    "long": Preset(
        "one long among short",
        _wishes(
            (0, 96, 8), (0, 160, 44), (0, 64, 10), (0, 128, 6), (3, 96, 12), (5, 192, 9), (6, 64, 14), (8, 128, 7),
            (10, 96, 11), (13, 64, 6), (15, 160, 9)
        ),
        slots=4, chunk=256, blocks=64, selected=4,
    ),
    "equal": Preset(
        "equal lengths", _wishes(*[(0, 128, 20)] * 8), slots=4, chunk=512, blocks=64, selected=4
    ),
    "prompt": Preset(
        "a long prompt arrives",
        _wishes((0, 64, 40), (0, 96, 34), (2, 64, 30), (12, 2048, 12), (22, 1536, 8)),
        slots=4, chunk=256, blocks=192, selected=0,
    ),
    "rush": Preset(
        "rush hour",
        _wishes(
            (0, 64, 56), (0, 48, 64), (0, 96, 60), (0, 80, 44), (0, 64, 64), (2, 48, 52), (5, 112, 24), (7, 64, 28),
            (9, 96, 32), (12, 48, 16), (15, 80, 24), (18, 64, 20),
        ),
        slots=6, chunk=128, blocks=36, selected=5,
    ),
    "recorded": Preset(
        "a mixed trace, recorded with pico",
        [
            Wish(arrival, prompt, output)
            for arrival, (_, prompt, output) in zip(RECORDED_ARRIVALS, RECORDED, strict=True)
        ],
        slots=4, chunk=256, blocks=24, selected=7,
    ),
}  # fmt: skip
