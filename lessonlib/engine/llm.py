"""LLM: the engine behind one door, with the names and shapes of vLLM's offline API."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .acceptance import Costs
from .batching import ContinuousBatcher
from .blocks import BlockPool
from .chat import encode_chat
from .checkpoint import load_model
from .config import check_whole, is_whole
from .errors import BadParameter
from .paged_cache import PagedCache
from .prompts import as_ids, as_prompts, check_prompt
from .sampling import SamplingParams
from .scheduler import Request, Scheduler
from .speculative import DraftModelSpeculator, NgramSpeculator, Speculator
from .tokenizer import Detokenizer, Message, Tokenizer, load_tokenizer

# For keys and values, unless num_kv_blocks says otherwise. On a CPU, only what they fill is really taken.
KV_BYTES = 2**30


@dataclass(frozen=True)
class RequestMetrics:
    """What one request cost. Times in seconds.

    time_to_first_token (TTFT): from the call to its first token, waiting included. time_per_output_token (TPOT):
    average over the tokens after the first; None for a single token. tokens_computed: prompt, output and drafted
    tokens that went through the model, those run again after a preemption included. tokens_cached: tokens taken from
    the KV cache of another request instead. drafted, accepted: speculated tokens. preemptions: times it lost its
    memory to others.
    """

    time_to_first_token: float
    time_per_output_token: float | None
    tokens_computed: int
    tokens_cached: int = 0
    drafted: int = 0
    accepted: int = 0
    preemptions: int = 0


@dataclass(frozen=True)
class CompletionOutput:
    """One continuation. ``finish_reason``: "stop" (end of text, stop text), "length" or "abort"."""

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


@dataclass(eq=False)
class TextRequest(Request):
    """A request that follows its own text, and the clock. ``followed``: the tokens that are in both."""

    detokenizer: Detokenizer = field(kw_only=True)
    text: str = ""
    times: list[float] = field(default_factory=list)
    followed: int = 0

    def follow(self) -> str | None:
        """Take in what came since the last time; "stop" when a stop text has appeared (the text ends before it).

        Interrupted anywhere, it leaves nothing out: the next call takes in the same tokens again.
        """
        count = len(self.output)
        self.times += [time.perf_counter()] * (count - len(self.times))
        detokenizer, text, first, reason = self.detokenizer, self.text, self.followed, None
        if detokenizer.count != first:  # the interrupt came in between: begin again
            detokenizer, text, first = Detokenizer(detokenizer.tokenizer), "", 0
        longest = max(map(len, self.params.stop), default=0)
        for place in range(first, count):
            searched = max(0, len(text) - longest)
            final = self.finish_reason is not None and place == count - 1
            text += detokenizer.add(self.output[place], final)
            found = [at for stop in self.params.stop if (at := text.find(stop, searched)) >= 0]
            if found:
                text, reason = text[: min(found)], "stop"
                break
        # The verdict first: of what is not yet marked as followed, nothing is lost.
        self.finish_reason = reason or self.finish_reason
        self.detokenizer, self.text, self.followed = detokenizer, text, count
        return reason

    @property
    def settled(self) -> str:
        """The text that no stop text can take back any more."""
        if self.finish_reason is not None:
            return self.text
        held = max(
            (n for stop in self.params.stop for n in range(1, len(stop)) if self.text.endswith(stop[:n])),
            default=0,
        )
        return self.text[: len(self.text) - held]


class LLM:
    """A model, its tokenizer and the engine that runs them.

    >>> llm = LLM("pico")
    >>> llm.generate(["def fib(n):"], SamplingParams(temperature=0, max_tokens=32))[0].outputs[0].text

    model: a shipped name, a folder in Hugging Face format, or "org/name" from the hub.
    dtype: "float32" (default), "bfloat16" or "float16". quantization: of the weights, "int8", "int4", "nf4" …
    speculative_model: a draft model by name or folder, or "ngram"; num_speculative_tokens: drafted at a time, at most.
    max_num_seqs, max_num_batched_tokens: requests, and tokens, of one step at most.
    block_size, num_kv_blocks: tokens of a KV block, and how many blocks there are (default: for 1 GiB, but at least one
    full context and no more than can be used). kv_cache_dtype: None (as dtype), "int8" or "int4".
    enable_prefix_caching: reuse the keys and values of prompts that begin alike.
    compiled: run through C++ made on this machine, where it has a compiler. seed: makes requests without a seed of
    their own repeatable.
    """

    def __init__(
        self,
        model: str | Path = "pico",
        *,
        dtype: str | None = None,
        quantization: str | None = None,
        speculative_model: str | Path | None = None,
        num_speculative_tokens: int = 4,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 2048,
        block_size: int = 16,
        num_kv_blocks: int | None = None,
        kv_cache_dtype: str | None = None,
        enable_prefix_caching: bool = True,
        scheduling_policy: str = "fcfs",
        compiled: bool = False,
        device: str = "cpu",
        seed: int = 0,
    ):
        check_whole(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
        if not is_whole(seed):
            raise BadParameter(f"seed={seed!r} has no meaning; it must be a whole number.")
        self.model = _load(model, dtype, device, quantization, compiled, max_num_seqs)
        config = self.model.config
        self.tokenizer: Tokenizer = load_tokenizer(model, config.vocab_size)
        self.max_num_seqs = max_num_seqs
        self._next_seed = int(seed)
        pool = BlockPool(1, block_size)  # refuses a block size that has no meaning
        cache = PagedCache(config, 1, block_size, self.model.dtype, device, kv_cache_dtype)
        if num_kv_blocks is None:
            context = pool.blocks_for(config.max_position_embeddings)
            num_kv_blocks = min(max(context, KV_BYTES // cache.nbytes), context * max(1, max_num_seqs))
        pool = BlockPool(num_kv_blocks, block_size, enable_prefix_caching)
        cache = PagedCache(config, num_kv_blocks, block_size, self.model.dtype, device, kv_cache_dtype)
        scheduler = Scheduler(
            pool, max_num_seqs, max_num_batched_tokens, scheduling_policy, config.max_position_embeddings
        )
        speculator = self._speculator(speculative_model, num_speculative_tokens, pool, dtype, compiled)
        self.batcher = ContinuousBatcher(self.model, cache, scheduler, speculator)

    def generate(
        self,
        prompts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = False,
        priority: int | Sequence[int] = 0,
        cache_salt: str = "",
    ) -> list[RequestOutput]:
        """Continue each prompt (text or token ids); ``params`` and ``priority`` are shared or one a prompt.

        priority: lower runs earlier, under scheduling_policy="priority". cache_salt: prefixes are reused only among
        requests with the same one; give each tenant a salt of its own.

        Raises EmptyPrompt, PromptTooLong, TokenOutOfRange, BadParameter, CacheFull.
        """
        texts, _ = as_prompts(prompts)
        wanted = _each(SamplingParams() if params is None else params, len(texts), "SamplingParams")
        priorities = _each(priority, len(texts), "priorities")
        encoded = [self._encode(text) for text in texts]  # all of them, before any work is done
        groups = [
            self._requests(ids, p, first, cache_salt)
            for ids, p, first in zip(encoded, wanted, priorities, strict=True)
        ]
        start = time.perf_counter()
        with tqdm(total=len(groups), desc="Generating", unit="prompt", disable=not use_tqdm) as bar:
            for _ in self._serve([request for group in groups for request in group]):
                bar.update(sum(all(r.finish_reason for r in group) for group in groups) - bar.n)
        return [
            _output(text if isinstance(text, str) else None, group, start)
            for text, group in zip(texts, groups, strict=True)
        ]

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Iterator[str]:
        """Continue one prompt, yielding text as it becomes certain; the pieces add up to generate's (first) text.

        Raises what generate raises, at once and not with the first piece.
        """
        texts, single = as_prompts(prompt)
        if texts and not single:
            raise BadParameter("stream continues one prompt; call it once for each, or use generate.")
        ids = self._encode(texts[0]) if texts else []
        request = self._requests(ids, params or SamplingParams())[0]
        self.batcher.scheduler.check(request)
        return self._pieces(request)

    def _pieces(self, request: TextRequest) -> Iterator[str]:
        sent = 0
        # Once more after the last step: another call may have run this request to its end.
        for _ in chain(self._serve([request]), (None,)):
            text = request.settled
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation (or several) through the model's chat template. What a message says stays in it:
        the text of a special token is only text there.

        >>> llm.chat([{"role": "user", "content": "…"}])[0].outputs[0].text
        """
        conversations = [messages] if messages and isinstance(messages[0], dict) else messages
        prompts = [self.tokenizer.apply_chat_template(list(c)) for c in conversations]  # type: ignore[arg-type]
        outputs = self.generate([encode_chat(self.tokenizer, c) for c in conversations], params)  # type: ignore[arg-type]
        return [replace(output, prompt=prompt) for output, prompt in zip(outputs, prompts, strict=True)]

    def _encode(self, prompt: Any) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else as_ids(prompt)

    def _requests(
        self, ids: list[int], params: SamplingParams, priority: int = 0, salt: str = ""
    ) -> list[TextRequest]:
        if not isinstance(params, SamplingParams):
            raise BadParameter(f"params must be SamplingParams, not a {type(params).__name__}.")
        check_prompt(self.model, ids, params)
        if not is_whole(priority) or not isinstance(salt, str):
            raise BadParameter(
                f"priority={priority!r} and cache_salt={salt!r} must be a whole number and a text."
            )
        requests: list[TextRequest] = []
        for _ in range(params.n):
            # Each request has a stream of random numbers of its own, so that its neighbours change nothing.
            seed = self._next_seed if params.seed is None else params.seed + len(requests)
            self._next_seed += params.seed is None
            requests.append(
                TextRequest(
                    list(ids),
                    params,
                    generator=torch.Generator("cpu").manual_seed(int(seed) % 2**64),
                    priority=int(priority),
                    salt=salt,
                    leader=requests[0] if requests else None,
                    detokenizer=Detokenizer(self.tokenizer),
                )
            )
        return requests

    def _serve(self, requests: Sequence[TextRequest]) -> Iterator[None]:
        """Run requests to their ends, one step at a time; left early, by an error or by Ctrl-C, they hold nothing."""
        try:
            for request in requests:
                self.batcher.add(request)
            while any(request.finish_reason is None for request in requests):
                # Other calls' requests (an open stream, say) are in the same steps, and follow their own texts.
                self.batcher.step(_follow)
                yield
            self.batcher.tell_again(_follow)  # another call's interrupt may have come into the last token
        finally:
            for request in requests:
                if request.finish_reason is None:
                    self.batcher.abort(request)

    def _speculator(
        self, model: str | Path | None, lookahead: int, pool: BlockPool, dtype: str | None, compiled: bool
    ) -> Speculator | None:
        if model is None:
            return None

        if model == "ngram":
            return NgramSpeculator(lookahead, Costs.of(self.model))
        draft = _load(model, dtype, self.model.device, None, compiled, self.max_num_seqs)
        costs = Costs.of(self.model, draft)
        return DraftModelSpeculator(draft, self.model, pool.num_blocks, pool.block_size, lookahead, costs)


def _load(
    name: str | Path,
    dtype: str | None,
    device: str | torch.device,
    quantization: str | None,
    compiled: bool,
    max_num_seqs: int,
) -> Any:
    """The model, behind the fastest forward pass that this device and these settings have."""
    model = load_model(name, dtype, device)
    if quantization is not None:
        from .quantize import quantize_model

        model = quantize_model(model, quantization)
    if compiled:
        from .compiled import compile_model

        return compile_model(model)
    from .cuda import cuda_model

    return cuda_model(model, max_num_seqs)


def _follow(request: Request) -> str | None:
    return request.follow() if isinstance(request, TextRequest) else None


def _each(given: Any, count: int, name: str) -> list[Any]:
    """One for each of ``count`` prompts."""
    each = list(given) if isinstance(given, Sequence) else [given] * count
    if len(each) != count:
        raise BadParameter(f"{count} prompts came with {len(each)} {name}; give one, or one each.")
    return each


def _output(prompt: str | None, group: Sequence[TextRequest], start: float) -> RequestOutput:
    outputs = []
    for index, request in enumerate(group):
        # As in vLLM: the chosen token first, wherever it ranks, then the top ones.
        tops = [
            {c.token: c.logprob, **c.top}
            for c in request.choices
            if c.logprob is not None and c.top is not None
        ]
        outputs.append(
            CompletionOutput(index, request.text, request.output, request.finish_reason, tops or None)
        )
    times = [request.times for request in group]
    first = min((t[0] for t in times if t), default=math.nan)  # none: all were aborted before
    gaps = [(t[-1] - t[0]) / (len(t) - 1) for t in times if len(t) > 1]
    metrics = RequestMetrics(
        first - start,
        sum(gaps) / len(gaps) if gaps else None,
        *(
            sum(getattr(request, name) for request in group)
            for name in ("processed", "cached", "drafted", "accepted", "preemptions")
        ),
    )
    return RequestOutput(prompt, group[0].prompt, outputs, metrics)
