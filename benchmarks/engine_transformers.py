"""transformers: ``generate`` (the yardstick), its assisted and prompt-lookup decoding, and its continuous batching.

Variants are words: a number format, then how: "f32", "bf16 continuous", "f32 draft", "f32 ngram 8" (drafts
at a time, 4 where none are named).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria
from transformers.generation import ContinuousBatchingConfig

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PAGE = 256  # tokens of a page in its paged cache; its own default


class Clock(StoppingCriteria):
    """Notes when each row got each token, and ends each row after its own number of them."""

    def __init__(self, prompt_length: int, wanted: Sequence[int], start: float):
        self.prompt_length, self.wanted, self.start = prompt_length, torch.tensor(wanted), start
        self.times: list[list[float]] = [[] for _ in wanted]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        now, got = time.perf_counter() - self.start, input_ids.shape[1] - self.prompt_length
        for times, wanted in zip(self.times, self.wanted.tolist(), strict=True):
            times += [now] * (min(got, wanted) - len(times))  # several at once, when drafts were accepted
        return got >= self.wanted


class Engine:
    """The adapter; see ``benchmarks.worker.Engine``."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
        self.models: dict[str, Any] = {}
        self.options: dict[str, dict[str, Any]] = {}  # of generate
        self.managers: dict[str, Any] = {}  # of continuous batching

    def about(self) -> dict[str, str]:
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def load(
        self,
        key: str,
        folder: str,
        variant: str,
        length: int = 1024,
        sequences: int = 1,
        draft: str | None = None,
    ) -> dict[str, Any]:
        dtype, *way = variant.split()
        drafts = int(way.pop()) if way and way[-1].isdigit() else 4
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="sdpa")
        self.models[key] = model.eval()
        self.options[key] = {}
        if way == ["continuous"]:
            self.managers[key] = model.init_continuous_batching(
                GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
                ContinuousBatchingConfig(
                    # Sized to the workload, for its own default is nine tenths of the memory.
                    num_blocks=sequences * (-(-length // PAGE) + 1),
                    max_batch_tokens=2048,
                    max_requests_per_batch=sequences,
                    allow_block_sharing=False,  # a workload that comes again must not find itself in the cache
                ),
            )
        elif way == ["ngram"]:
            self.options[key] = {"prompt_lookup_num_tokens": drafts}
        elif way == ["draft"]:
            assert draft is not None
            assistant = AutoModelForCausalLM.from_pretrained(draft, dtype=DTYPES[dtype]).eval()
            assistant.generation_config.num_assistant_tokens = drafts
            assistant.generation_config.num_assistant_tokens_schedule = "constant"
            self.options[key] = {"assistant_model": assistant}
        matrices = [p for p in model.parameters() if p.dim() == 2]  # tied ones count once, as they are read
        return {"weight_bytes": sum(p.numel() * p.element_size() for p in matrices)}

    def unload(self, key: str) -> None:
        del self.models[key], self.options[key]
        self.managers.pop(key, None)

    @torch.inference_mode()
    def serve(
        self, key: str, asks: Sequence[Sequence[Any]], sequences: int
    ) -> list[tuple[list[int], list[float]]]:
        if key in self.managers:
            return self._continuous(key, asks)
        waiting = sorted(range(len(asks)), key=lambda i: (asks[i][0], i))
        answers: dict[int, tuple[list[int], list[float]]] = {}
        start = time.perf_counter()
        while waiting:
            now = time.perf_counter() - start
            batch = [i for i in waiting if asks[i][0] <= now][:sequences]
            if not batch:
                time.sleep(max(0.0, asks[waiting[0]][0] - now))
                continue
            answers |= zip(batch, self._generate(key, [asks[i] for i in batch], start), strict=True)
            waiting = [i for i in waiting if i not in answers]
        return [answers[i] for i in range(len(asks))]

    def _generate(
        self, key: str, asks: Sequence[Sequence[Any]], start: float
    ) -> list[tuple[list[int], list[float]]]:
        """One static batch: the next one waits for its slowest row."""
        width, wanted = max(len(prompt) for _, prompt, _ in asks), [count for _, _, count in asks]
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for _, prompt, _ in asks])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for _, prompt, _ in asks])
        clock = Clock(width, wanted, start)
        found = self.models[key].generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(wanted),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=[clock],
            **self.options[key],
        )
        rows = [row[width : width + count].tolist() for row, count in zip(found, wanted, strict=True)]
        return list(zip(rows, clock.times, strict=True))

    @torch.inference_mode()
    def surprise(self, key: str, ids: Sequence[int]) -> float:
        """Nats that the tokens after the first cost."""
        logits = self.models[key](torch.tensor([ids[:-1]])).logits[0].float()
        return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()

    def _continuous(self, key: str, asks: Sequence[Sequence[Any]]) -> list[tuple[list[int], list[float]]]:
        manager = self.managers[key]
        manager.start()
        start = time.perf_counter()
        try:
            for i in sorted(range(len(asks)), key=lambda i: (asks[i][0], i)):
                time.sleep(max(0.0, start + asks[i][0] - time.perf_counter()))
                manager.add_request(
                    list(asks[i][1]),
                    str(i),
                    max_new_tokens=asks[i][2],
                    record_timestamps=True,
                    eos_token_id=-1,
                )
            answers: dict[int, tuple[list[int], list[float]]] = {}
            while len(answers) < len(asks):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("its generation thread ended")
                if result is not None and result.is_finished():
                    if result.error is not None:
                        raise RuntimeError(result.error)
                    times = [moment - start for moment in result.timestamps]
                    answers[int(result.request_id)] = (result.generated_tokens, times)
        finally:
            manager.stop(block=True, timeout=10, keep_for_next_session=True)
        return [answers[i] for i in range(len(asks))]
