"""``python -m benchmarks.cuda``: the engine on an NVIDIA GPU, beside transformers, in one run.

Random weights in the shapes of Llama-3-8B and Llama-3.2-1B, made on the GPU; both engines use the same tensors. Leaves
cuda.json among the results; picture and table are made from it (``report_cuda.py``).
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from lessonlib.engine import ModelConfig, SamplingParams, Transformer
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.cuda import cuda_model
from lessonlib.engine.paged_cache import PagedCache
from lessonlib.engine.quantize import quantize_model
from lessonlib.engine.scheduler import Request, Scheduler

from .report_cuda import draw, table

HERE = Path(__file__).resolve().parent

LLAMA_8B = ModelConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=8192, rope_theta=500_000.0, tie_word_embeddings=False,
)  # fmt: skip
LLAMA_1B = ModelConfig(
    vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8, head_dim=64, max_position_embeddings=8192, rope_theta=500_000.0, tie_word_embeddings=True,
)  # fmt: skip
PROMPT, NEW = 512, 128  # of the batch-1 decode
REQUESTS, PROMPTS, OUTPUTS = (
    256,
    (32, 512),
    (16, 256),
)  # of the mixed workload; lengths drawn evenly from these
BUDGET = 8192  # tokens of one step at most
ROUNDS = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "int8": {"scheme": "int8"},
    "int4": {"scheme": "int4", "group_size": 128},
}


def random_model(config: ModelConfig) -> Transformer:
    """A model in bfloat16 on the GPU; the seed makes it the same every time."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return Transformer(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def in_transformers(model: Transformer) -> Any:
    """transformers' model around the very same weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    hf = model.config.to_hf()
    config = AutoConfig.for_model(hf.pop("model_type"), **hf)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            theirs = AutoModelForCausalLM.from_config(
                config, attn_implementation="sdpa", dtype=torch.bfloat16
            )
    finally:
        torch.set_default_dtype(before)
    names = {
        name if name.startswith("lm_head") else f"model.{name}": t for name, t in model.state_dict().items()
    }
    theirs.load_state_dict(names, assign=True)
    theirs.tie_weights()
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    return theirs.eval()


def copy_bandwidth(size: int = 4 << 30) -> float:
    """Bytes per second, read and written, of a copy within the GPU's memory: the median of 20."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / statistics.median(timed(lambda: target.copy_(source), 20))


def timed(run: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each run on the GPU, by its own clock, after three that do not count."""
    for _ in range(3):
        run()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]


def bytes_read(model: Any, context: int) -> int:
    """What one decode step has to fetch: every weight once (of the embedding, one row), and the keys and values."""
    modules = dict(model.model.named_modules())
    weights = {
        t.data_ptr(): t.nbytes
        for name, module in modules.items()
        if not name.startswith("embed_tokens")
        for t in [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    }
    config = model.config
    cached = (
        2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    )
    return sum(weights.values()) + context * cached


def engine(model: Any, requests: int, longest: int) -> ContinuousBatcher:
    """A batcher with room for so many requests of so many tokens."""
    blocks = requests * -(-longest // 16) + 1
    pool = BlockPool(blocks, 16, enable_prefix_caching=False)
    cache = PagedCache(model.config, blocks, 16, model.dtype, "cuda")
    return ContinuousBatcher(model, cache, Scheduler(pool, requests, BUDGET))


def some_ids(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(10, 128_000) for _ in range(length)]


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


def decode(model: Any, batcher: ContinuousBatcher, batch: int = 1) -> float:
    """Seconds of a decode step through the whole engine, by the wall clock: the median over NEW - 1 of them."""
    rng = random.Random(0)
    for _ in range(batch):
        batcher.add(Request(some_ids(rng, PROMPT), greedy(NEW)))
    while sum(bool(request.output) for request in batcher.scheduler.running) < batch:
        batcher.step()
    times = []
    while batcher.unfinished:
        start = time.perf_counter()
        batcher.step()  # ends with the new tokens on the CPU
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def generate(theirs: Any, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """transformers' generate on one static batch, padded on the left; every row gets ``tokens`` tokens."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device="cuda")
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device="cuda")
    out = theirs.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
    )
    return out[:, width:].tolist()


def workload() -> list[tuple[list[int], int]]:
    """(prompt, new tokens) of each request."""
    rng = random.Random(1)
    return [(some_ids(rng, rng.randint(*PROMPTS)), rng.randint(*OUTPUTS)) for _ in range(REQUESTS)]


def serve(batcher: ContinuousBatcher, asks: Sequence[tuple[list[int], int]]) -> tuple[float, list[list[int]]]:
    """Seconds for all of them, and their tokens."""
    start = time.perf_counter()
    requests = [Request(prompt, greedy(tokens)) for prompt, tokens in asks]
    for request in requests:
        batcher.add(request)
    while batcher.unfinished:
        batcher.step()
    return time.perf_counter() - start, [request.output for request in requests]


def serve_static(
    theirs: Any, asks: Sequence[tuple[list[int], int]], batch: int, ordered: bool
) -> tuple[float, list[list[int]]]:
    """The same in static batches: each runs until its longest answer is complete. ordered: by answer length."""
    queue = sorted(range(len(asks)), key=lambda i: asks[i][1] if ordered else i)
    answers: dict[int, list[int]] = {}
    start = time.perf_counter()
    for first in range(0, len(queue), batch):
        group = queue[first : first + batch]
        out = generate(theirs, [asks[i][0] for i in group], max(asks[i][1] for i in group))
        answers |= {i: tokens[: asks[i][1]] for i, tokens in zip(group, out, strict=True)}
    torch.cuda.synchronize()
    return time.perf_counter() - start, [answers[i] for i in range(len(asks))]


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """The share of each answer before its first difference: in bfloat16 a near-tie can fall either way."""
    shares = []
    for a, b in zip(ours, theirs, strict=True):
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
        shares.append(same / len(a))
    return statistics.mean(shares)


def measure_decode(found: dict[str, Any], log: Callable[[str], None]) -> None:
    """Batch-1 decode of the 8B shapes: bf16, int8, int4, and transformers, in turns."""
    rows = found["decode"] = {}
    models: dict[str, tuple[Any, ContinuousBatcher]] = {}
    for name, options in VARIANTS.items():
        plain = random_model(LLAMA_8B)
        if options:
            quantize_model(plain, **options)
        model = cuda_model(plain)
        batcher = engine(model, 32, PROMPT + NEW)
        models[name] = (model, batcher)
        decode(model, batcher)  # compiles, records
        rows[name] = {"bytes": bytes_read(model, PROMPT + NEW // 2), "seconds": [], "seconds_batch_32": []}
        gc.collect()
        torch.cuda.empty_cache()
        log(f"  {name}: ready, {torch.cuda.memory_allocated() / 1e9:.1f} GB in use")
    for batch, key in ((1, "seconds"), (32, "seconds_batch_32")):
        if batch > 1:
            for model, batcher in models.values():
                decode(model, batcher, batch)
        for _ in range(ROUNDS):
            for name, (model, batcher) in models.items():
                rows[name][key].append(decode(model, batcher, batch))
    for name, (model, batcher) in models.items():
        replay = model._recorded[batcher.cache][1].graph.replay
        rows[name]["gpu_seconds"] = statistics.median(timed(replay, 50))
        log(f"  {name}: {rows[name]}")
    theirs = in_transformers(models["bf16"][0].model)
    rng = random.Random(0)
    prompt = some_ids(rng, PROMPT)
    generate(theirs, [prompt], 8)
    samples = []
    for _ in range(ROUNDS):
        times = []
        for tokens in (1, 49):  # the difference is 48 decode steps
            start = time.perf_counter()
            generate(theirs, [prompt], tokens)
            times.append(time.perf_counter() - start)
        samples.append((times[1] - times[0]) / 48)
    rows["transformers bf16"] = {"bytes": rows["bf16"]["bytes"], "seconds": samples}
    log(f"  transformers: {samples}")


def measure_mixed(found: dict[str, Any], log: Callable[[str], None]) -> None:
    """256 requests of mixed lengths at once, 1B shapes in bf16: ours, and transformers' generate in static batches."""
    rows = found["mixed"] = {}
    asks = workload()
    found["mixed_tokens"] = [sum(len(p) for p, _ in asks), sum(n for _, n in asks)]
    model: Any = cuda_model(random_model(LLAMA_1B))
    batcher = engine(model, REQUESTS, PROMPTS[1] + OUTPUTS[1])
    serve(batcher, asks)  # warm-up: the whole workload once
    theirs = in_transformers(model.model)
    static = {
        "transformers generate, one batch": (REQUESTS, False),
        "transformers generate, batches of 64 by length": (64, True),
    }
    for n, _ in static.values():
        generate(theirs, [prompt for prompt, _ in asks[:n]], 4)
    rows["ours"] = {"seconds": []}
    rows |= {name: {"seconds": []} for name in static}
    for turn in range(ROUNDS):
        seconds, answers = serve(batcher, asks)
        rows["ours"]["seconds"].append(seconds)
        log(f"  ours: {seconds:.2f} s")
        for name, (n, ordered) in static.items():
            if turn and ordered:
                continue  # slower than the whole batch at once, and once is enough to see it
            seconds, theirs_said = serve_static(theirs, asks, n, ordered)
            rows[name]["seconds"].append(seconds)
            rows[name]["agreement"] = agreement(answers, theirs_said)
            log(f"  {name}: {seconds:.2f} s, {rows[name]['agreement']:.3f}")


def main(
    what: Annotated[list[str] | None, typer.Argument(help="decode or mixed (otherwise both).")] = None,
    results: Annotated[Path, typer.Option(help="Where JSON and PNG files go.")] = HERE / "results",
    readme: Annotated[Path, typer.Option(help="The page that shows the tables.")] = HERE / "README.md",
) -> None:
    """Measure the CUDA path beside transformers on this machine's GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs an NVIDIA GPU: run it where there is one.")
    import transformers
    import triton

    found: dict[str, Any] = {
        "command": "python -m benchmarks.cuda",
        "machine": f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, Triton {triton.__version__}, "
        f"transformers {transformers.__version__}",
        "when": time.strftime("%Y-%m-%d"),
        "prompt": PROMPT,
        "new": NEW,
        "requests": REQUESTS,
        "prompts": PROMPTS,
        "outputs": OUTPUTS,
        "copy_bandwidth": copy_bandwidth(),
        "failed": {},
    }
    measures = {"decode": measure_decode, "mixed": measure_mixed}
    for name in what or list(measures):
        start = time.perf_counter()
        try:
            measures[name](found, typer.echo)
        except Exception as error:  # the other half is still worth having
            traceback.print_exc()
            found.pop(name, None)
            found["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
        gc.collect()
        torch.cuda.empty_cache()
        typer.echo(f"{name}: {time.perf_counter() - start:.0f} s")
    results.mkdir(parents=True, exist_ok=True)
    (results / "cuda.json").write_text(json.dumps(found, indent=1) + "\n")
    typer.echo(table(found))
    draw(found, results / "cuda.png")
    from .report import write_readme  # needs what the other benchmarks need

    write_readme(readme, results)


if __name__ == "__main__":
    typer.run(main)
