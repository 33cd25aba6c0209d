"""Small models with tokenizers of every kind, in folders, ready to be exported."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.worker import Worker
from lessonlib.engine import save_model
from lessonlib.engine.config import RopeScaling
from tests.engine.conftest import random_model, tiny_config

STDLIB = Path(sysconfig.get_paths()["stdlib"])
HELD_OUT = ["base64.py", "heapq.py", "shlex.py", "weakref.py"]  # of lessonlib/zoo/held_out.txt
TEMPLATE = "{% for m in messages %}<|q|>{{ m['content'] }}<|a|>{% endfor %}"

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Everything a family can have that changes what is written: heads, biases, norms, RoPE, ties, padding, windows.
FAMILIES = {
    "llama": {},
    "llama-untied-mqa": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "llama-wide-heads": {"head_dim": 24},
    "llama-bias": {"attention_bias": True, "output_bias": True, "mlp_bias": True},
    "llama-rope-linear": {"rope_scaling": RopeScaling("linear", 4.0), "rope_theta": 500.0},
    "llama-rope-llama3": {
        "rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, original_max_position_embeddings=32),
        "rope_theta": 1000.0,
    },
    "llama-more-ids-than-tokens": {"vocab_size": 416},
    "mistral": {"family": "mistral", "rms_norm_eps": 1e-2},
    "mistral-window": {"family": "mistral", "sliding_window": 80},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen3": {"family": "qwen3", "qk_norm": True, "head_dim": 32},
    "qwen3-untied": {"family": "qwen3", "qk_norm": True, "head_dim": 32, "tie_word_embeddings": False},
}
CODE = (
    'def read(path):\n    """Say \'it\'s 2026\'."""\n\n\n'
    "    x = [1234, 0x1F]\t # ünïcode ½ 日本語 😀\n    return  x  \n"
)


def _split(digits: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT % digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# As the models of that name spell their rule in tokenizer.json.
RULES: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen2": lambda: _split(""),
    "llama-bpe": lambda: _split("{1,3}"),
}


def held_out() -> list[str]:
    """Code that pico was never trained on."""
    return [(STDLIB / name).read_text() for name in HELD_OUT]


def write_tokenizer(folder: Path, rule: str = "gpt-2", size: int = 400, bos: bool = False) -> None:
    """A byte-level BPE tokenizer, trained on a little code, with two special tokens and a chat template."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    tokenizer.pre_tokenizer = RULES[rule]()
    tokenizer.decoder = decoders.ByteLevel()
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|q|>", "<|a|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(held_out(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|q|> $A", special_tokens=[("<|q|>", 0)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<|q|>" if bos else None,
        "eos_token": "<|a|>",
        "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model(folder: Path, rule: str = "gpt-2", bos: bool = False, **changes) -> Path:
    """A model folder: random weights, sizes that fill GGUF's blocks of 32, and a tokenizer."""
    sizes = {"vocab_size": 400, "intermediate_size": 128, "eos_token_ids": (1,)}
    save_model(random_model(tiny_config(**{**sizes, **changes})), folder)
    write_tokenizer(folder, rule, bos=bos)
    return folder


@pytest.fixture(scope="module")
def llama(needs: Callable[[str], None]) -> Iterator[Worker]:
    """llama.cpp, in a process of its own."""
    needs("llama.cpp")
    with Worker("llama.cpp", threads=1) as worker:
        yield worker
