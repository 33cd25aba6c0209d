"""Our engine, through ``LLM`` and the batcher inside it.

Variants are words: a number format or quantization, then how: "bf16", "int4 compiled", "int4 g32 calibrated" (groups of
32, codes chosen by GPTQ), "nf4 double", "bf16 static" (no continuous batching), "bf16 draft", "bf16 ngram 8"
(speculative; drafts at a time, 4 where none are named).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from lessonlib.engine import LLM, DenseCache, SamplingParams, costs
from lessonlib.engine.batching import StaticBatcher
from lessonlib.engine.quantize import quantize_model
from lessonlib.engine.scheduler import Request

DTYPES = {"f32": "float32", "bf16": "bfloat16"}
OPTIONS = {"g32": ("group_size", 32), "double": ("double", True)}  # of quantize_model


class Engine:
    """The adapter; see ``benchmarks.worker.Engine``."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        self.batchers: dict[str, Any] = {}
        self.requests: dict[str, list[Request]] = {}

    def about(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def load(
        self,
        key: str,
        folder: str,
        variant: str,
        length: int = 1024,
        sequences: int = 1,
        draft: str | None = None,
        calibration: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, Any]:
        kind, *ways = variant.split()
        named: dict[str, Any] = {"dtype": DTYPES.get(kind, "bfloat16")}
        options: dict[str, Any] = {OPTIONS[way][0]: OPTIONS[way][1] for way in ways if way in OPTIONS}
        if calibration is not None:
            options["calibration"] = torch.tensor(calibration)
        if kind not in DTYPES and not options:
            named["quantization"] = kind
        if "draft" in ways or "ngram" in ways:
            named |= {
                "speculative_model": draft if "draft" in ways else "ngram",
                "num_speculative_tokens": int(ways[-1]) if ways[-1].isdigit() else 4,
            }
        llm = LLM(
            folder,
            max_num_seqs=sequences,
            compiled="compiled" in ways,
            num_kv_blocks=sequences * (-(-length // 16) + 1),
            enable_prefix_caching=False,  # a workload that comes again must not find itself in the cache
            **named,
        )
        if options:
            quantize_model(llm.model, kind, **options)
        self.batchers[key] = StaticBatcher(llm.model, sequences) if "static" in ways else llm.batcher
        return {"weight_bytes": costs.stored_weight_bytes(llm.model)}

    def unload(self, key: str) -> None:
        del self.batchers[key]
        self.requests.pop(key, None)

    def serve(
        self, key: str, asks: Sequence[Sequence[Any]], sequences: int
    ) -> list[tuple[list[int], list[float]]]:
        batcher = self.batchers[key]
        if isinstance(batcher, StaticBatcher):
            batcher.batch_size = sequences
        else:
            batcher.scheduler.max_num_seqs = sequences
        requests = [
            Request(list(prompt), SamplingParams(temperature=0, max_tokens=count, ignore_eos=True))
            for _, prompt, count in asks
        ]
        times: dict[int, list[float]] = {id(request): [] for request in requests}
        waiting = sorted(range(len(asks)), key=lambda i: (asks[i][0], i))
        start = time.perf_counter()
        while waiting or batcher.unfinished:
            now = time.perf_counter() - start
            while waiting and asks[waiting[0]][0] <= now:
                batcher.add(requests[waiting.pop(0)])
            if not batcher.unfinished:
                time.sleep(max(0.0, asks[waiting[0]][0] - now))
                continue
            for request in batcher.step():
                noted = times[id(request)]
                noted += [time.perf_counter() - start] * (len(request.output) - len(noted))
        self.requests[key] = requests
        return [(request.output, times[id(request)]) for request in requests]

    @torch.inference_mode()
    def surprise(self, key: str, ids: Sequence[int]) -> float:
        """Nats that the tokens after the first cost."""
        model = self.batchers[key].model
        cache = DenseCache(
            model.config, 1, len(ids), model.dtype
        )  # without one, a compiled model runs as a plain one
        logits = model(torch.tensor([ids[:-1]]), cache).logits[0]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()

    def bandwidth(self, megabytes: int = 512) -> dict[str, float]:
        """GB/s that this machine reads from memory, and copies (each byte counted twice), by the fastest of five."""
        data = torch.zeros(megabytes << 18, dtype=torch.float32)  # 4 bytes each
        target = torch.empty_like(data)
        data.fill_(1.0), target.fill_(0.0)  # pages exist from here on
        seconds: dict[str, list[float]] = {"read": [], "copy": []}
        for _ in range(5):
            for name, run in (("read", data.sum), ("copy", lambda: target.copy_(data))):
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
        return {
            name: (1 + (name == "copy")) * data.nbytes / min(took) / 1e9 for name, took in seconds.items()
        }

    def speculated(self, key: str) -> dict[str, int]:
        """Drafted and accepted tokens of the last workload."""
        done = self.requests[key]
        return {"drafted": sum(r.drafted for r in done), "accepted": sum(r.accepted for r in done)}
