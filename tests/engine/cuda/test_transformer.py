"""The whole forward pass and the batcher on the kernels, against the plain model."""

from __future__ import annotations

import copy

import pytest
import torch

from lessonlib.engine import LLM, SamplingParams, Transformer, load_model
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.kv_cache import DenseCache
from lessonlib.engine.paged_cache import PagedCache, Span
from lessonlib.engine.quantize import quantize_model
from lessonlib.engine.scheduler import Request, Scheduler

from ..conftest import STEPS, random_model, some_ids, tiny_config
from .place import DEVICE, GPU, error, needs_gpu, needs_kernels

pytestmark = needs_kernels


def fast(model: Transformer, **options):
    from lessonlib.engine.cuda.transformer import CudaTransformer

    return CudaTransformer(model, **{"max_batch": 8, "graphs": GPU, **options})


VARIANTS = {
    "llama": {},
    "qwen3 with a window": {"family": "qwen3", "qk_norm": True, "head_dim": 24, "sliding_window": 6},
    "qwen2, untied": {"family": "qwen2", "attention_bias": True, "tie_word_embeddings": False},
}
SCHEMES = [None, "int8", "int4", "nf4"]


@pytest.mark.parametrize("scheme", SCHEMES if GPU else SCHEMES[:1])
@pytest.mark.parametrize("variant", VARIANTS if GPU else ["qwen3 with a window"])
def test_logits_of_all_kinds_of_steps(variant: str, scheme: str | None) -> None:
    config = tiny_config(**{**VARIANTS[variant], "num_hidden_layers": 2})
    ours, theirs = (random_model(config).to(DEVICE) for _ in range(2))
    if scheme:
        quantize_model(ours, scheme)
        quantize_model(theirs, scheme)
    ours = fast(ours)
    caches = [PagedCache(config, 40, 4, device=DEVICE) for _ in range(2)]
    for number, spans in enumerate(STEPS):
        total = sum(span.count for span in spans)
        ids = some_ids(total, seed=number).to(DEVICE)
        at = [None, torch.tensor([total - 1, 0], device=DEVICE), torch.arange(total, device=DEVICE)][
            number % 3
        ]
        logits = []
        for model, cache in zip((ours, theirs), caches, strict=True):
            cache.plan(spans)
            place = ids.device if model is theirs or number % 2 else model.input_device  # either will do
            with torch.inference_mode():
                logits.append(
                    model(ids.to(place), cache=cache, at=None if at is None else at.to(place)).logits
                )
        assert logits[0].shape == logits[1].shape and logits[0].dtype == torch.float32
        assert error(*logits) < (1e-5 if scheme is None else 0.08)
    assert caches[0].slots_read == caches[1].slots_read and caches[0].spans == ()


def test_what_the_kernels_do_not_know_runs_as_before() -> None:
    config = tiny_config(num_hidden_layers=2)
    plain = random_model(config).to(DEVICE)
    ours = fast(copy.deepcopy(plain))
    ids = some_ids(7, batch=2).to(DEVICE)
    assert error(ours(ids).logits, plain(ids).logits) < 1e-5
    caches = [DenseCache(config, 2, 20, device=DEVICE) for _ in range(2)]
    assert error(ours(ids, caches[0]).logits, plain(ids, caches[1]).logits) < 1e-5
    pair = [PagedCache(config, 10, 4, device=DEVICE, quantization="int8") for _ in range(2)]
    for cache in pair:
        cache.plan([Span([1, 2], 0, 7)])
    assert error(ours(ids[:1], pair[0]).logits, plain(ids[:1], pair[1]).logits) < 1e-5


def requests(params: SamplingParams) -> list[Request]:
    """A dozen prompts of all lengths, some of which begin alike."""
    common = some_ids(40, seed=7)[0].tolist()
    prompts = [some_ids(length, seed=length)[0].tolist() for length in (1, 2, 15, 16, 17, 33, 64, 90)]
    prompts += [common + some_ids(n, seed=50 + n)[0].tolist() for n in (1, 8, 20, 31)]
    return [Request(prompt, params) for prompt in prompts]


def serve(model, blocks: int, params: SamplingParams, dtype: torch.dtype = torch.float32):
    """Answers, and the scheduler that gave them."""
    pool = BlockPool(blocks, 16)
    cache = PagedCache(model.config, blocks, 16, dtype, model.device)
    batcher = ContinuousBatcher(model, cache, Scheduler(pool, 8, 64))
    waiting = requests(params)
    for request in waiting:
        batcher.add(request)
    while batcher.unfinished:
        batcher.step()
    assert pool.free == blocks
    return [request.output for request in waiting], sum(r.cached for r in waiting), batcher.scheduler


@needs_gpu
def test_pico_says_the_same_on_a_gpu_with_preemption_and_prefix_reuse() -> None:
    params = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    expected, _, _ = serve(load_model("pico"), 400, params)
    model = fast(load_model("pico", device="cuda"))
    for blocks in (400, 26):
        answers, cached, scheduler = serve(model, blocks, params)
        assert answers == expected
        assert cached > 0
        assert (scheduler.preemptions > 0) == (blocks == 26)


@needs_gpu
def test_recorded_steps_say_what_single_launches_say() -> None:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    recorded, single = (fast(load_model("pico", device="cuda"), graphs=graphs) for graphs in (True, False))
    assert serve(recorded, 400, params)[0] == serve(single, 400, params)[0]


@needs_gpu
def test_two_caches_have_recordings_of_their_own() -> None:
    model = fast(load_model("pico", device="cuda"))
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    first, _, _ = serve(model, 400, params)
    second, _, _ = serve(model, 300, params)
    assert first == second


@needs_gpu
def test_bfloat16_logits_are_close() -> None:
    exact = load_model("pico", device="cuda")
    rough = fast(load_model("pico", "bfloat16", "cuda"))
    ids = some_ids(60).to("cuda")
    cache = PagedCache(exact.config, 8, 16, torch.bfloat16, "cuda")
    table = [3, 7, 1, 5]
    expected = exact(ids).logits[0]
    cache.plan([Span(table, 0, 50)])
    assert error(rough(ids[:, :50], cache).logits[0], expected[:50]) < 0.05
    for i in range(50, 60):
        cache.plan([Span(table, i, 1)])
        assert error(rough(ids[:, i : i + 1], cache).logits[0], expected[i : i + 1]) < 0.05


@needs_gpu
def test_llm_on_a_gpu_answers_as_on_a_cpu() -> None:
    prompts = ["def fib(n):", "import os\n", "class Stack:"]
    params = SamplingParams(temperature=0, max_tokens=24)
    expected = LLM("pico").generate(prompts, params)
    llm = LLM("pico", device="cuda")
    assert type(llm.model).__name__ == "CudaTransformer"
    answers = llm.generate(prompts, params)
    assert [a.outputs[0].text for a in answers] == [e.outputs[0].text for e in expected]
