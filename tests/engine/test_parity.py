"""Against transformers, the field's reference: same logits, same greedy tokens, same log-probabilities."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList
from transformers.generation import logits_process as hf_logits

from lessonlib.engine import DenseCache, SamplingParams, generate, load_model, save_model
from lessonlib.engine.config import RopeScaling
from lessonlib.engine.sampling import distribution, penalize

from .conftest import random_model, tiny_config

LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, original_max_position_embeddings=32)
FAMILIES = {
    "llama": {},
    "llama-mha-untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "llama-mqa": {"num_key_value_heads": 1},
    "llama-wide-heads": {"head_dim": 24},
    "llama-bias": {"attention_bias": True, "output_bias": True, "mlp_bias": True},
    "llama-rope-linear": {"rope_scaling": RopeScaling("linear", 4.0)},
    "llama-rope-llama3": {"rope_scaling": LLAMA3, "rope_theta": 500_000.0},
    "mistral": {"family": "mistral"},
    "mistral-window": {"family": "mistral", "sliding_window": 7},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen2-window-some-layers": {
        "family": "qwen2",
        "attention_bias": True,
        "sliding_window": 5,
        "window_layers": (1, 2),
    },
    "qwen3": {"family": "qwen3", "qk_norm": True, "head_dim": 32},
    "qwen3-bias-window-untied": {
        "family": "qwen3",
        "qk_norm": True,
        "attention_bias": True,
        "output_bias": True,
        "sliding_window": 6,
        "window_layers": (0,),
        "tie_word_embeddings": False,
    },
}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def pair(request, tmp_path_factory):
    """Our model, and transformers' model loaded from the folder we wrote."""
    ours = random_model(tiny_config(**FAMILIES[request.param]))
    folder = tmp_path_factory.mktemp(request.param)
    save_model(ours, folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ours, theirs.eval(), folder


def prompt(length: int, batch: int = 1) -> torch.Tensor:
    return torch.randint(3, 97, (batch, length), generator=torch.Generator().manual_seed(length))


@torch.inference_mode()
def test_logits_equal(pair):
    ours, theirs, _ = pair
    ids = prompt(50, batch=3)
    difference = (ours(ids).logits - theirs(ids).logits).abs().max().item()
    assert difference < 1e-4


@torch.inference_mode()
def test_logits_equal_when_fed_in_pieces(pair):
    ours, theirs, _ = pair
    ids = prompt(50, batch=3)
    cache = DenseCache(ours.config, batch=3)
    pieces = [ours(piece, cache=cache).logits for piece in ids.split([20, 1, 1, 17, 11], dim=1)]
    assert (torch.cat(pieces, dim=1) - theirs(ids).logits).abs().max().item() < 1e-4


def test_64_greedy_tokens_equal_with_and_without_cache(pair):
    ours, theirs, _ = pair
    ids = prompt(20)
    reference = theirs.generate(
        ids, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )[0].tolist()
    best = ours(torch.tensor([reference])).logits[0, 19:-1].topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > 1e-3, (
        "a near-tie would make the test a coin toss: change the prompt"
    )
    assert len(set(reference)) > 20, "a loop would prove little: change the prompt"
    assert generate(ours, ids[0].tolist(), 64) == reference
    assert generate(ours, ids[0].tolist(), 64, use_cache=False) == reference


def test_folder_round_trip(pair):
    ours, _, folder = pair
    again = load_model(folder)
    assert again.config == ours.config
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_reads_what_transformers_writes(pair, tmp_path):
    ours, theirs, _ = pair
    theirs.save_pretrained(tmp_path)
    ids = prompt(30)
    with torch.inference_mode():
        assert (load_model(tmp_path)(ids).logits - ours(ids).logits).abs().max().item() < 1e-5


def test_reads_sharded_checkpoints(pair, tmp_path):
    ours, theirs, _ = pair
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    save_model(ours, tmp_path / "ours", max_shard_bytes=60_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 1
    ids = prompt(30)
    with torch.inference_mode():
        expected = ours(ids).logits
        assert torch.equal(load_model(tmp_path / "ours")(ids).logits, expected)
        assert torch.equal(load_model(tmp_path / "theirs")(ids).logits, expected)
        reference = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
        assert (reference(ids).logits - expected).abs().max().item() < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@torch.inference_mode()
def test_half_precision_stays_close(pair, dtype):
    ours, _, folder = pair
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = prompt(40)
    exact = ours(ids).logits
    mine = (load_model(folder, dtype)(ids).logits - exact).abs().mean().item()
    theirs_error = (reference(ids).logits.float() - exact).abs().mean().item()
    assert mine < 1.5 * theirs_error + 1e-3


@torch.inference_mode()
def test_logprobs_agree(pair):
    from lessonlib.engine.generate import Row, run

    ours, theirs, _ = pair
    ids = prompt(10)
    row = Row(ids[0].tolist(), SamplingParams(temperature=0, max_tokens=12, logprobs=3))
    for _ in run(ours, [row]):
        pass
    reference = theirs(torch.tensor([row.ids])).logits.log_softmax(-1)[0, len(row.prompt) - 1 : -1]
    for choice, logprobs in zip(row.choices, reference, strict=True):
        assert choice.logprob == pytest.approx(logprobs[choice.token].item(), abs=1e-4)
        assert list(choice.top) == logprobs.topk(3).indices.tolist()


SHAPES = [
    ({"temperature": 0.7}, [hf_logits.TemperatureLogitsWarper(0.7)]),
    ({"top_k": 5}, [hf_logits.TopKLogitsWarper(5)]),
    ({"top_p": 0.6}, [hf_logits.TopPLogitsWarper(0.6)]),
    ({"min_p": 0.1}, [hf_logits.MinPLogitsWarper(0.1)]),
    (
        {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        [
            hf_logits.TemperatureLogitsWarper(1.7),
            hf_logits.TopKLogitsWarper(20),
            hf_logits.TopPLogitsWarper(0.9),
            hf_logits.MinPLogitsWarper(0.05),
        ],
    ),
]


@pytest.mark.parametrize(
    ("settings", "warpers"), SHAPES, ids=lambda x: str(sorted(x)) if isinstance(x, dict) else ""
)
def test_shaping_equals_transformers(settings, warpers):
    logits = torch.randn(64, 97, generator=torch.Generator().manual_seed(1)) * 3
    expected = LogitsProcessorList(warpers)(None, logits.clone()).softmax(-1)
    torch.testing.assert_close(distribution(logits, SamplingParams(**settings)), expected)


def test_repetition_penalty_equals_transformers():
    logits = torch.randn(97, generator=torch.Generator().manual_seed(2)) * 3
    history = [3, 3, 8, 41]
    expected = hf_logits.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([history]), logits[None].clone())[
        0
    ]
    mine = penalize(logits, SamplingParams(repetition_penalty=1.3), history[:2], history[2:])
    torch.testing.assert_close(mine, expected)
