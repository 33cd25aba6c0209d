"""Side by side: every engine serves the same workload in turn, round after round, one process at a time.

Machines drift (clocks, neighbours), so no row is measured in one go: a round runs each row once, and a row's figure is
the median over the rounds. Before them, every row serves the workload once, cut to four tokens a request, unmeasured:
caches warm up, kernels are chosen and compiled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from lessonlib.engine import costs, load_tokenizer, resolve

from .shapes import Model
from .suite import BASELINE, Benchmark
from .worker import Answer, Ask, Worker, WorkerFailed

THREADS = 2
LEAST, MOST = 3, 15  # rounds
WARM_UP = 4  # tokens a request
WINDOWS, WINDOW = 4, 512  # quality: so many pieces of held-out code, of so many tokens


@dataclass
class Row:
    """One engine's variant in one table.

    samples: tokens a second of each round. waits: mean seconds to the first token of each round. facts: what else is
    told.
    """

    engine: str
    variant: str
    samples: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    failed: str | None = None

    @property
    def name(self) -> str:
        return f"{self.engine} {self.variant}"

    @property
    def speed(self) -> float:
        return statistics.median(self.samples)


class Bench:
    """The engines' processes, started when first needed, and the models they hold. A context manager."""

    def __init__(self, say: Callable[[str], None] = print, threads: int = THREADS):
        self.say, self.threads = say, threads
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}
        self._held: dict[tuple[str, str], tuple[dict[str, int], dict[str, float]]] = {}  # limits and facts

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def worker(self, engine: str) -> Worker:
        if engine not in self._workers:
            self._workers[engine] = self._stack.enter_context(Worker(engine, self.threads))
        return self._workers[engine]

    def bandwidth(self, quick: bool = False) -> dict[str, float]:
        """GB/s of this machine's memory, read and copied by all threads."""
        return self.worker("ours").call("bandwidth", megabytes=32 if quick else 512)

    def about(self) -> dict[str, str]:
        """Versions of the engines that ran."""
        found: dict[str, str] = {}
        for worker in self._workers.values():
            found |= worker.call("about")
        return found

    def measure(self, benchmark: Benchmark, model: Model, quick: bool = False) -> tuple[list[Row], int]:
        """All rows of one table, and the number of rounds. A row that an engine cannot do says why in ``failed``."""
        asks = benchmark.asks(model, quick)
        short = [ask._replace(new_tokens=min(ask.new_tokens, WARM_UP)) for ask in asks]
        rows = [Row(*row) for row in benchmark.rows]
        answers: dict[str, list[Answer]] = {}

        def prepare(row: Row) -> None:
            self._load(benchmark, model, row, asks)
            self._serve(benchmark, model, row, short)

        def run(row: Row) -> None:
            answers[row.name] = self._serve(benchmark, model, row, asks)
            row.samples.append(benchmark.speed(asks, answers[row.name]))
            waits = [
                answer.times[0] - ask.arrival for ask, answer in zip(asks, answers[row.name], strict=True)
            ]
            row.waits.append(statistics.mean(waits))

        for row in rows:
            self._attempt(row, partial(prepare, row))
        start, rounds = time.perf_counter(), 0
        least, most = (1, 1) if quick else (LEAST, MOST)
        while rounds < least or (rounds < most and time.perf_counter() - start < benchmark.seconds):
            for row in rows:
                self._attempt(row, partial(run, row))
            rounds += 1
        for row in rows:
            self._attempt(row, partial(self._facts, benchmark, model, row, asks, answers))
        return rows, rounds

    def forget(self, model: Model) -> None:
        """Free what the engines hold of a model."""
        for held in [held for held in self._held if held[1].startswith(f"{model.name} ")]:
            self._unload(held)

    def _load(self, benchmark: Benchmark, model: Model, row: Row, asks: Sequence[Ask]) -> None:
        """Have the engine hold the row's model, with room for the workload."""
        held = (row.engine, f"{model.name} {row.variant}")
        length = max(WINDOW * benchmark.quality, *(len(ask.prompt) + ask.new_tokens for ask in asks))
        wanted = {"length": length, "sequences": benchmark.sequences}
        have = self._held.get(held, ({}, {}))[0]
        # Loading and quantizing take time, and more room than needed costs nothing: except where the engine's own
        # data structures are cut for a number of sequences.
        cut = row.engine == "llama.cpp" or "continuous" in row.variant
        if have != wanted if cut else any(have.get(name, 0) < wanted[name] for name in wanted):
            self._unload(held)
            if not cut:
                wanted = {name: max(have.get(name, 0), value) for name, value in wanted.items()}
            worker = self.worker(row.engine)
            place = model.gguf(row.variant, worker) if row.engine == "llama.cpp" else model.folder
            extra: dict[str, object] = {"draft": str(resolve("pico-draft"))} if "draft" in row.variant else {}
            if "calibrated" in row.variant:
                extra["calibration"] = model.calibration()
            facts = worker.call(
                "load", key=held[1], folder=str(place), variant=row.variant, **wanted, **extra
            )
            self._held[held] = (wanted, facts)
        row.facts |= self._held[held][1]

    def _unload(self, held: tuple[str, str]) -> None:
        if self._held.pop(held, None):
            self._workers[held[0]].call("unload", key=held[1])

    def _serve(self, benchmark: Benchmark, model: Model, row: Row, asks: Sequence[Ask]) -> list[Answer]:
        return self.worker(row.engine).serve(f"{model.name} {row.variant}", asks, benchmark.sequences)

    def _facts(
        self,
        benchmark: Benchmark,
        model: Model,
        row: Row,
        asks: Sequence[Ask],
        answers: dict[str, list[Answer]],
    ) -> None:
        key, worker, mine = f"{model.name} {row.variant}", self.worker(row.engine), answers[row.name]
        row.facts["read_bytes"] = read_bytes(model, row, asks)
        if BASELINE in answers:
            row.facts["same_tokens"] = agreement(mine, answers[BASELINE])
        row.facts["first_token"] = statistics.median(row.waits)
        if row.engine == "ours" and {"draft", "ngram"} & set(row.variant.split()):
            row.facts |= worker.call("speculated", key=key)
        if benchmark.quality:
            ids, tokenizer = model.held_out(), load_tokenizer(model.folder)
            pieces = [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(WINDOWS)]
            row.facts["nats"] = sum(worker.call("surprise", key=key, ids=piece) for piece in pieces)
            row.facts["text_bytes"] = sum(len(tokenizer.decode(piece[1:]).encode()) for piece in pieces)

    def _attempt(self, row: Row, part: Callable[[], None]) -> None:
        """Do a part of a row's work. A row that failed stays failed, with the reason, and the others go on."""
        if row.failed is None:
            try:
                part()
            except WorkerFailed as error:
                row.failed = str(error)
                self.say(f"  {row.name}: {error}")


def read_bytes(model: Model, row: Row, asks: Sequence[Ask]) -> float:
    """Bytes that one decode step of one request has to read: all matrices once, and the keys and values so far."""
    number = 4 if row.variant.split()[0] == "f32" else 2
    context = statistics.mean(len(ask.prompt) + ask.new_tokens / 2 for ask in asks)
    return row.facts["weight_bytes"] + context * costs.kv_bytes_per_token(model.config, number)


def agreement(mine: Sequence[Answer], reference: Sequence[Answer]) -> float:
    """Share of output tokens before the first difference from the reference, request by request."""
    same = total = 0
    for ours, theirs in zip(mine, reference, strict=True):
        total += len(theirs.tokens)
        pairs = list(zip(ours.tokens, theirs.tokens, strict=False))
        same += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return same / total
