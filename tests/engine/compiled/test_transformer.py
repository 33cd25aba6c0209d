"""The whole forward pass in C++ against the plain model's, over every cache and kind of step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lessonlib.engine import (
    LLM,
    DenseCache,
    PagedCache,
    SamplingParams,
    Span,
    Transformer,
    generate,
    load_model,
)
from lessonlib.engine.compiled import build, compile_model
from lessonlib.engine.errors import BadParameter, PromptTooLong, TokenOutOfRange
from lessonlib.engine.quantize import quantize_model

from ..conftest import STEPS, random_model, refuses, some_ids, tiny_config

pytestmark = pytest.mark.needs("c++")

VARIANTS = {
    "llama": {},
    "one KV head for many": {"num_attention_heads": 40, "num_key_value_heads": 1},
    "qwen3 with a window": {"family": "qwen3", "qk_norm": True, "head_dim": 24, "sliding_window": 6},
    "a window in one layer": {"family": "qwen2", "attention_bias": True, "sliding_window": 5, "window_layers": (1,)},
    "untied, with all biases": {
        "attention_bias": True, "output_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
        "hidden_size": 56, "intermediate_size": 90,
    },
}  # fmt: skip
FORMATS = {"float32": 2e-5, "bfloat16": 0.06, "int8": 0.06, "int4": 0.08}  # and how far logits may be apart

# More tokens than queries share a piece of keys.
MANY = [Span([*range(13, 20), *range(21, 30)], 0, 64)]


def pair(variant: str, kind: str = "float32") -> tuple[Transformer, Transformer]:
    """The compiled model, and the plain one that it must equal."""
    model = quantize_model(random_model(tiny_config(**VARIANTS[variant])), kind)
    return compile_model(model), model


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(params=[1, 3])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_logits_over_a_paged_cache(variant, kind, threads):
    ours, plain = pair(variant, kind)
    caches = [PagedCache(plain.config, 40, 4, plain.dtype) for _ in range(2)]
    for number, spans in enumerate([*STEPS, MANY]):
        total = sum(span.count for span in spans)
        ids = some_ids(total, seed=number)
        at = [None, torch.tensor([total - 1, 0]), torch.arange(total)[::2]][number % 3]
        logits = []
        for model, cache in zip((ours, plain), caches, strict=True):
            cache.plan(spans)
            logits.append(model(ids, cache=cache, at=at).logits)
        assert error(*logits) < FORMATS[kind]
        assert (caches[0].slots_written, caches[0].slots_read) == (total, caches[1].slots_read)
        assert caches[0].spans == ()
    assert error(caches[0].keys.float(), caches[1].keys.float()) < FORMATS[kind]
    assert error(caches[0].values.float(), caches[1].values.float()) < FORMATS[kind]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_over_a_dense_cache_with_padding(variant):
    ours, plain = pair(variant)
    caches = [DenseCache(plain.config, 3, 40) for _ in range(2)]
    for step, lengths in enumerate([[7, 2, 5], [1, 1, 1], [0, 1, 1], None, [3, 0, 2]]):
        new = 1 if lengths is None else max(lengths)
        ids = some_ids(new, batch=3, seed=step)
        last_only = step % 2 == 0
        real = torch.tensor(
            [[True]] * 3 if last_only else [[i < n for i in range(new)] for n in lengths or [1] * 3]
        )
        real &= torch.tensor([[True]] * 3 if lengths is None else [[n > 0] for n in lengths])
        ours_said, plain_said = (
            model(ids, cache, lengths, last_only).logits
            for model, cache in zip((ours, plain), caches, strict=True)
        )
        assert ours_said.shape == plain_said.shape
        assert error(ours_said[real], plain_said[real]) < 2e-5
        assert caches[0].lengths == caches[1].lengths
    for cache in caches:
        cache.rewind([2, 3, 4])
    ids = some_ids(4, batch=3, seed=9)
    assert error(ours(ids, caches[0]).logits, plain(ids, caches[1]).logits) < 2e-5


def test_threads_do_not_change_a_bit():
    ours, plain = pair("llama", "int8")
    ids, said = some_ids(50), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        said.append(ours(ids, DenseCache(plain.config, 1, dtype=plain.dtype)).logits)
    torch.set_num_threads(1)
    assert torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])


def test_long_contexts_are_exact():
    """Many pieces of keys, the last one cut anywhere, for one query and for several."""
    ours, plain = pair("llama")
    for length in (31, 32, 33, 95, 100):
        caches = [DenseCache(plain.config, 1) for _ in range(2)]
        for ids in (some_ids(length), some_ids(1, seed=1), some_ids(5, seed=2)):
            assert error(ours(ids, caches[0]).logits, plain(ids, caches[1]).logits) < 2e-5


def test_what_the_kernels_do_not_know_runs_as_before():
    ours, plain = pair("llama")
    ids = some_ids(9, batch=2)
    assert torch.equal(ours(ids).logits, plain(ids).logits)  # no cache
    caches = [DenseCache(plain.config, 2, quantization="int8") for _ in range(2)]
    assert torch.equal(ours(ids, caches[0]).logits, plain(ids, caches[1]).logits)
    with refuses(BadParameter, match="float16"):
        ours(ids, DenseCache(plain.config, 2, dtype=torch.float16))


def test_it_refuses_what_the_plain_model_refuses():
    ours, plain = pair("llama")
    with refuses(TokenOutOfRange):
        ours(torch.tensor([[97]]), DenseCache(plain.config))
    with refuses(PromptTooLong):
        ours(some_ids(129), DenseCache(plain.config))
    with refuses(BadParameter, match="another model"):
        ours(some_ids(3), DenseCache(tiny_config(num_key_value_heads=4)))


def test_whatever_pytorch_takes_for_an_index_asks_for_logits():
    ours, plain = pair("llama")
    ids = some_ids(6)
    mask = torch.tensor([True, False, False, True, False, True])
    for at in (
        torch.tensor([0, 3, 5], dtype=torch.int32),
        torch.tensor([-1, -6]),
        mask,
        torch.tensor([]).long(),
    ):
        said = [model(ids, DenseCache(plain.config), at=at).logits for model in (ours, plain)]
        assert said[0].shape == said[1].shape
        assert said[0].numel() == 0 or error(*said) < 2e-5
    for at in ([6], [-7]):
        with refuses(BadParameter, match="0 to 5"):
            ours(ids, DenseCache(plain.config), at=torch.tensor(at))
    cache = DenseCache(plain.config)
    ours(ids, cache, at=torch.tensor([]).long())  # keys and values are kept all the same
    assert error(ours(ids[:, :1], cache).logits, plain(torch.cat([ids, ids[:, :1]], 1)).logits[:, -1:]) < 2e-5


def test_models_without_kernels():
    for scheme in ("nf4", "q8_0", "float16"):
        model = quantize_model(random_model(tiny_config(hidden_size=64, intermediate_size=96)), scheme)
        with refuses(BadParameter, match="leave compiled=False"):
            compile_model(model)
    with refuses(BadParameter, match="heads of up to 256"):
        compile_model(random_model(tiny_config(head_dim=272, num_hidden_layers=1)))
    mixed = random_model(tiny_config(num_hidden_layers=1))
    mixed.layers[0].self_attn.q_proj.bfloat16()
    with refuses(BadParameter, match="one format"):
        compile_model(mixed)


def test_later_changes_to_the_weights_do_not_reach_it():
    ours, plain = pair("llama")
    ids = some_ids(4)
    before = ours(ids, DenseCache(plain.config)).logits
    plain.layers[0].mlp.down_proj.weight.data.zero_()
    assert torch.equal(ours(ids, DenseCache(plain.config)).logits, before)


def test_pico_says_the_same_words():
    prompts = ["def fib(n):", "import os\n", "class Stack:\n    def push(self, item):", "x"]
    params = SamplingParams(temperature=0, max_tokens=40)
    said = [
        [
            output.outputs[0].token_ids
            for output in LLM("pico", compiled=compiled, **ways).generate(prompts, params)
        ]
        for compiled, ways in (
            (False, {}),
            (True, {}),
            (True, {"max_num_batched_tokens": 7, "num_kv_blocks": 128, "block_size": 8}),
            (True, {"speculative_model": "pico-draft"}),
            (True, {"speculative_model": "ngram"}),
        )
    ]
    assert all(words == said[0] for words in said)
    model, ids = load_model("pico"), [[5, 6, 7], [8]]
    assert generate(compile_model(model), ids, 12) == generate(model, ids, 12)


def test_it_knows_what_it_is():
    for kind in ("float32", "int8"):
        ours, plain = pair("llama", kind)
        assert ours.quantization == plain.quantization == (None if kind == "float32" else kind)


def test_a_model_on_another_device_is_refused(monkeypatch):
    model = random_model(tiny_config(num_hidden_layers=1))
    monkeypatch.setattr(Transformer, "device", torch.device("meta"))
    with refuses(BadParameter, match="CPU"):
        compile_model(model)
    assert build.find_compiler()
