"""LLM: the engine behind one door, with the names and shapes of vLLM's offline API."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import load_model
from .config import is_whole
from .errors import BadParameter
from .generate import Row, run
from .prompts import as_ids, as_prompts, check_prompt
from .sampling import SamplingParams
from .tokenizer import Detokenizer, Message, load_tokenizer


@dataclass(frozen=True)
class RequestMetrics:
    """What one request cost. Times in seconds.

    time_to_first_token (TTFT): from the call to its first token. time_per_output_token (TPOT): average over
    the tokens after the first; None for a single token. tokens_computed: prompt and output tokens that went
    through the model. tokens_cached: prompt tokens taken from a cache instead.
    """

    time_to_first_token: float
    time_per_output_token: float | None
    tokens_computed: int
    tokens_cached: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class CompletionOutput:
    """One continuation. ``finish_reason``: "stop" (end of text, stop text) or "length"."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    logprobs: list[dict[int, float]] | None = None


@dataclass(frozen=True)
class RequestOutput:
    """One prompt with its ``n`` continuations."""

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    metrics: RequestMetrics


@dataclass
class _Request:
    """A row being generated, its text so far, and the clock."""

    row: Row
    detokenizer: Detokenizer
    text: str = ""
    times: list[float] = field(default_factory=list)

    def follow(self) -> str | None:
        """Take in the row's newest token; "stop" when a stop text has appeared (the text ends before it)."""
        self.times.append(time.perf_counter())
        searched = max(0, len(self.text) - max(map(len, self.row.params.stop), default=0))
        self.text += self.detokenizer.add(self.row.output[-1], final=self.row.finish_reason is not None)
        found = [at for stop in self.row.params.stop if (at := self.text.find(stop, searched)) >= 0]
        if found:
            self.text = self.text[: min(found)]
        return "stop" if found else None

    @property
    def settled(self) -> str:
        """The text that no stop text can take back any more."""
        if self.row.finish_reason is not None:
            return self.text
        held = max(
            (n for stop in self.row.params.stop for n in range(1, len(stop)) if self.text.endswith(stop[:n])),
            default=0,
        )
        return self.text[: len(self.text) - held]


class LLM:
    """A model, its tokenizer and the loop that runs them.

    >>> llm = LLM("pico")
    >>> llm.generate(["def fib(n):"], SamplingParams(temperature=0, max_tokens=32))[0].outputs[0].text

    model: a shipped name, a folder in Hugging Face format, or "org/name" from the hub.
    dtype: "float32" (default), "bfloat16" or "float16". seed: makes requests without a seed of their own
    repeatable. max_num_seqs: rows that run together. use_cache=False re-runs everything at every step.
    """

    def __init__(
        self,
        model: str | Path = "pico",
        dtype: str | None = None,
        device: str = "cpu",
        seed: int = 0,
        max_num_seqs: int = 32,
        use_cache: bool = True,
    ):
        if not is_whole(max_num_seqs, least=1):
            raise BadParameter(
                f"max_num_seqs={max_num_seqs!r} has no meaning; it must be 1 or more, and whole."
            )
        self.model = load_model(model, dtype, device)
        self.tokenizer = load_tokenizer(model, self.model.config.vocab_size)
        self.seed, self.max_num_seqs, self.use_cache = seed, max_num_seqs, use_cache
        self._served = 0

    def generate(
        self,
        prompts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Continue each prompt (text or token ids); ``params`` is shared or one a prompt.

        Raises EmptyPrompt, PromptTooLong, TokenOutOfRange, BadParameter.
        """
        texts, _ = as_prompts(prompts)
        wanted = list(params) if isinstance(params, Sequence) else [params or SamplingParams()] * len(texts)
        if len(wanted) != len(texts):
            raise BadParameter(
                f"{len(texts)} prompts came with {len(wanted)} SamplingParams; give one, or one each."
            )
        encoded = [self._encode(text) for text in texts]  # all of them, before any work is done
        groups = [self._requests(ids, p) for ids, p in zip(encoded, wanted, strict=True)]
        requests = [request for group in groups for request in group]
        start = time.perf_counter()
        bar = _progress(len(requests)) if use_tqdm else None
        for first in range(0, len(requests), self.max_num_seqs):
            for _ in self._run(requests[first : first + self.max_num_seqs]):
                pass
            if bar:
                bar.update(min(self.max_num_seqs, len(requests) - first))
        if bar:
            bar.close()
        return [
            _output(text if isinstance(text, str) else None, group, start, self.use_cache)
            for text, group in zip(texts, groups, strict=True)
        ]

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Iterator[str]:
        """Continue one prompt, yielding text as it becomes certain; the pieces add up to generate's text.

        Raises what generate raises, at once and not with the first piece.
        """
        texts, single = as_prompts(prompt)
        if not single:
            raise BadParameter("stream continues one prompt; call it once for each, or use generate.")
        return self._pieces(self._requests(self._encode(texts[0]), params or SamplingParams())[0])

    def _pieces(self, request: _Request) -> Iterator[str]:
        sent = 0
        for _ in self._run([request]):
            text = request.settled
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation (or several) through the model's chat template.

        >>> llm.chat([{"role": "user", "content": "…"}])[0].outputs[0].text
        """
        conversations = [messages] if messages and isinstance(messages[0], dict) else messages
        prompts = [self.tokenizer.apply_chat_template(list(c)) for c in conversations]  # type: ignore[arg-type]
        # The template already wrote the special tokens a prompt begins with.
        ids = [self.tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
        outputs = self.generate(ids, params)
        return [replace(output, prompt=prompt) for output, prompt in zip(outputs, prompts, strict=True)]

    def _encode(self, prompt: Any) -> list[int]:
        """Ids of one prompt, text or ids, that the model can continue."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else as_ids(prompt)
        check_prompt(self.model, ids)
        return ids

    def _requests(self, ids: list[int], params: SamplingParams) -> list[_Request]:
        if not isinstance(params, SamplingParams):
            raise BadParameter(f"params must be SamplingParams, not a {type(params).__name__}.")
        requests: list[_Request] = []
        for _ in range(params.n):
            # Each request has a stream of random numbers of its own, so that its neighbours change nothing.
            seed = self.seed + self._served if params.seed is None else params.seed + len(requests)
            self._served += params.seed is None
            requests.append(_Request(Row(list(ids), replace(params, seed=seed)), Detokenizer(self.tokenizer)))
        return requests

    def _run(self, requests: Sequence[_Request]) -> Iterator[list[Row]]:
        by_row = {id(request.row): request for request in requests}
        rows = [request.row for request in requests]
        return run(self.model, rows, self.use_cache, on_token=lambda row: by_row[id(row)].follow())


def _progress(total: int):
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Generating", unit="prompt")


def _output(prompt: str | None, group: Sequence[_Request], start: float, cached: bool) -> RequestOutput:
    outputs, times = [], []
    computed = 0
    for index, request in enumerate(group):
        row = request.row
        # As in vLLM: the chosen token first, wherever it ranks, then the top ones.
        tops = [
            {c.token: c.logprob, **c.top} for c in row.choices if c.logprob is not None and c.top is not None
        ]
        outputs.append(CompletionOutput(index, request.text, row.output, row.finish_reason, tops or None))
        times.append(request.times)
        p, n = len(row.prompt), len(row.output)
        computed += p + n - 1 if cached else sum(range(p, p + n))
    first = min(t[0] for t in times)
    gaps = [(t[-1] - t[0]) / (len(t) - 1) for t in times if len(t) > 1]
    metrics = RequestMetrics(first - start, sum(gaps) / len(gaps) if gaps else None, computed)
    return RequestOutput(prompt, group[0].row.prompt, outputs, metrics)
