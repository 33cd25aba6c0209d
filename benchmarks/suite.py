"""What is measured: for each benchmark its rows (engine and variant), its workload, and what its figure counts.

Every figure is tokens a second, so that larger is better and a ratio reads as a speed-up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .shapes import Model
from .worker import Answer, Ask

BASELINE = "transformers f32"  # `generate` in float32 with sdpa: what everybody has

Rows = tuple[tuple[str, str], ...]  # (engine, variant)


def _rows(engine: str, *variants: str) -> Rows:
    return tuple((engine, variant) for variant in variants)


ALL = (
    *_rows("transformers", "f32", "bf16"),
    *_rows("llama.cpp", "f16", "q8_0", "q4_0"),
    *_rows("ours", "f32", "bf16", "int8", "int4", "nf4"),
    *_rows("ours", "bf16 compiled", "int8 compiled", "int4 compiled"),
)
BATCHED = (
    *_rows("transformers", "f32", "bf16", "bf16 continuous"),
    *_rows("llama.cpp", "f16", "q8_0", "q4_0"),
    *_rows("ours", "f32", "bf16", "int8", "int4", "bf16 compiled", "int8 compiled", "int4 compiled"),
)
MIXED = (
    *_rows("transformers", "f32", "bf16", "bf16 continuous"),
    *_rows("llama.cpp", "f16", "q8_0", "q4_0"),
    *_rows("ours", "bf16 static", "bf16", "int8", "bf16 compiled", "int8 compiled"),
)
SPECULATIVE = (
    *_rows("transformers", "f32", "f32 draft", "f32 ngram 8"),
    *(
        row
        for kind in ("f32", "bf16", "int8", "int4", "bf16 compiled", "int8 compiled")
        for row in _rows("ours", kind, f"{kind} draft", f"{kind} ngram 8")
    ),
)
QUANTIZED = (
    *_rows("transformers", "f32"),
    *_rows("llama.cpp", "f16", "q8_0", "q4_0"),
    *_rows("ours", "f32", "bf16", "int8", "int4", "int4 calibrated", "int4 g32", "int4 g32 calibrated"),
    *_rows("ours", "nf4", "nf4 double", "q8_0", "q4_0", "int8 compiled", "int4 compiled"),
)


@dataclass(frozen=True)
class Benchmark:
    """What one table compares.

    title: what the table shows. counts: what its tokens a second count. asks(model, quick): the workload. speed: the
    figure of one run. sequences: requests that run at a time. seconds: rounds go on for so long, but there are at least
    three. quality: also measure how well each row predicts held-out code.
    """

    name: str
    title: str
    counts: str
    rows: Rows
    asks: Callable[[Model, bool], list[Ask]]
    speed: Callable[[Sequence[Ask], Sequence[Answer]], float]
    models: tuple[str, ...]
    sequences: int = 1
    seconds: float = 30.0
    quality: bool = False


# ---------------------------------------------------------------- workloads


def decode_asks(model: Model, quick: bool) -> list[Ask]:
    return [Ask(0.0, model.ids(16), 4 if quick else 64)]


def prefill_asks(model: Model, quick: bool) -> list[Ask]:
    return [Ask(0.0, model.ids(32 if quick else 512), 1)]


def batch_asks(size: int) -> Callable[[Model, bool], list[Ask]]:
    def asks(model: Model, quick: bool) -> list[Ask]:
        return [Ask(0.0, model.ids(32, seed), 2 if quick else 32) for seed in range(2 if quick else size)]

    return asks


def mixed_asks(model: Model, quick: bool) -> list[Ask]:
    """Poisson arrivals in a burst that keeps every engine busy; lengths are log-uniform, as in real traffic."""
    dice = random.Random("mixed")
    # Short enough that even the fastest row is still busy when the last one comes.
    count, window = (4, 0.01) if quick else (24, 0.05 if model.name == "pico" else 0.8)
    asks, moment = [], 0.0
    for seed in range(count):
        prompt, new = round(8 * 16 ** dice.random()), round(4 * 16 ** dice.random())  # 8 to 128, 4 to 64
        asks.append(Ask(moment, model.ids(min(prompt, 16) if quick else prompt, seed), 4 if quick else new))
        moment += dice.expovariate(count / window)
    return asks


def speculative_asks(model: Model, quick: bool) -> list[Ask]:
    """All are there from the beginning; since one runs at a time, they run one after the other."""
    return [Ask(0.0, model.ids(128, seed), 8 if quick else 96) for seed in range(1 if quick else 4)]


# ---------------------------------------------------------------- figures


def decode_speed(asks: Sequence[Ask], answers: Sequence[Answer]) -> float:
    """Tokens after the first, over the time they took: prefill does not count."""
    tokens = sum(len(answer.times) - 1 for answer in answers)
    return tokens / sum(answer.times[-1] - answer.times[0] for answer in answers)


def prefill_speed(asks: Sequence[Ask], answers: Sequence[Answer]) -> float:
    """Prompt tokens over the time to the first token."""
    return sum(len(ask.prompt) for ask in asks) / max(answer.times[0] for answer in answers)


def output_speed(asks: Sequence[Ask], answers: Sequence[Answer]) -> float:
    """All output tokens over the whole time, prefill and waiting included."""
    return sum(len(answer.tokens) for answer in answers) / max(answer.times[-1] for answer in answers)


SIZES = ("pico", "smollm2-135m", "smollm2-360m")
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "decode",
            "One request: 64 tokens after a prompt of 16",
            "output tokens after the first",
            ALL,
            decode_asks,
            decode_speed,
            SIZES,
        ),
        Benchmark(
            "prefill",
            "One request: a prompt of 512 tokens, until its first output token",
            "prompt tokens",
            ALL,
            prefill_asks,
            prefill_speed,
            SIZES,
        ),
        Benchmark(
            "batch8",
            "8 requests at once: 32 tokens each after prompts of 32",
            "output tokens of all requests, prefill included in the time",
            BATCHED,
            batch_asks(8),
            output_speed,
            SIZES[:2],
            sequences=8,
        ),
        Benchmark(
            "batch32",
            "32 requests at once: 32 tokens each after prompts of 32",
            "output tokens of all requests, prefill included in the time",
            BATCHED,
            batch_asks(32),
            output_speed,
            SIZES[:2],
            sequences=32,
        ),
        Benchmark(
            "mixed",
            "24 requests in a Poisson burst, prompts of 8 to 128, outputs of 4 to 64, at most 8 running",
            "output tokens of all requests, waiting and prefill included in the time",
            MIXED,
            mixed_asks,
            output_speed,
            SIZES[:2],
            sequences=8,
        ),
        Benchmark(
            "quantized",
            "What each format of the weights costs in bits and in bits per byte of held-out code",
            "output tokens after the first, as in decode",
            QUANTIZED,
            decode_asks,
            decode_speed,
            SIZES[:1],
            quality=True,
        ),
        Benchmark(
            "speculative",
            "Held-out code, one request at a time: 96 tokens after prompts of 128, temperature 0",
            "output tokens after the first",
            SPECULATIVE,
            speculative_asks,
            decode_speed,
            SIZES[:1],
        ),
    )
}
