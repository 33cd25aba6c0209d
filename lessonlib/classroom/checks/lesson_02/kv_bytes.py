"""02.kv_bytes: how much memory the KV cache of a real model takes, from its config.json."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception, Observation
from ...forms import whole_number

KEYS_ONLY = "forgets that there are keys and values"
QUERY_HEADS = "counts the query heads"
HIDDEN = "takes the whole hidden size, as if nothing were shared"
ONE_LAYER = "counts one layer only"
IN_BITS = "answers in bits"
ALWAYS_16 = "ignores the number of bits"
ONE_TOKEN = "counts one token only"
DIVIDES = "works out head_dim although the file says it"
MISSING = "needs an entry that the file may lack"

Config = dict[str, int]

# From the models' own config.json on the Hugging Face hub: meta-llama/Llama-2-7b-hf and -70b-hf, Llama-3.1-8B,
# huggyllama/llama-7b (which says nothing of KV heads), Qwen/Qwen3-0.6B (whose heads are wider than their share).
MODELS: dict[str, Config] = {
    "Llama-2-7B": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "Llama-2-70B": {
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "Llama-3.1-8B": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "LLaMA-7B": {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32},
    "Qwen3-0.6B": {
        "num_hidden_layers": 28,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


def right(config: Config, tokens: int, bits: int, mistake: str = "") -> float:
    """Bytes of keys and values, or what one mistake makes of them."""
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    dim = config["hidden_size"] // heads
    if mistake != DIVIDES:
        dim = config.get("head_dim", dim)
    if mistake == QUERY_HEADS:
        kv_heads = heads
    numbers = 2 * config["num_hidden_layers"] * kv_heads * dim * tokens
    if mistake == HIDDEN:
        numbers = 2 * config["num_hidden_layers"] * config["hidden_size"] * tokens
    numbers //= {KEYS_ONLY: 2, ONE_LAYER: config["num_hidden_layers"], ONE_TOKEN: tokens}.get(mistake, 1)
    if mistake == IN_BITS:
        return numbers * bits
    return numbers * (16 if mistake == ALWAYS_16 else bits) // 8


def expected(inputs: Inputs) -> int:
    return int(right(inputs["config"], inputs["tokens"], inputs.get("bits", 16)))


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(
        right(inputs["config"], inputs["tokens"], inputs.get("bits", 16), name) for name in names
    )


def lacked(_: Inputs, seen: Observation) -> bool:
    return bool(seen.error and seen.error.type in ("KeyError", "TypeError"))


MISCONCEPTIONS = (
    Misconception(
        MISSING,
        "Not every `config.json` has every entry: without `num_key_value_heads` there are as many as query "
        "heads, and "
        'without `head_dim` it is hidden size / query heads. `config.get("head_dim", instead)` asks politely.',
        sees=lacked,
    ),
    Misconception(
        KEYS_ONLY,
        "Exactly half: each token leaves a key *and* a value in every layer.",
        mistaken(KEYS_ONLY),
    ),
    Misconception(
        QUERY_HEADS,
        "Queries are not kept. Keys and values have their own number of heads, `num_key_value_heads`.",
        mistaken(QUERY_HEADS),
    ),
    Misconception(
        HIDDEN,
        "The hidden size is right only where every query head has a KV head of its own, and its share of the "
        "width. Count KV heads × head_dim.",
        mistaken(HIDDEN),
    ),
    Misconception(ONE_LAYER, "Every layer has keys and values of its own.", mistaken(ONE_LAYER)),
    Misconception(
        IN_BITS,
        "A byte has 8 bits: this is 8 times too much.",
        mistaken(IN_BITS),
    ),
    Misconception(
        ALWAYS_16,
        "16 bits a number is only the default; with `bits=8` half as many bytes are needed.",
        mistaken(ALWAYS_16),
    ),
    Misconception(ONE_TOKEN, "That is what one token takes. How many are there?", mistaken(ONE_TOKEN)),
    Misconception(
        DIVIDES,
        "Where the file has an entry `head_dim`, it counts: some models' heads are wider than their share of "
        "the hidden size.",
        mistaken(DIVIDES),
    ),
)


def valid(inputs: Inputs) -> bool:
    config = inputs["config"]
    needed = {"num_hidden_layers", "hidden_size", "num_attention_heads"}
    return bool(
        needed <= {*config}
        and all(isinstance(n, int) and n >= 1 for n in config.values())
        and config["hidden_size"] % config["num_attention_heads"] == 0
        and inputs["tokens"] >= 1
        and inputs.get("bits", 16) in (4, 8, 16, 32)
    )


def making(tells_apart: Sequence[str] = (), lacking: Sequence[str] = ("head_dim",)) -> Any:
    """A generator of models on which each of these mistakes shows."""

    def make(rng: random.Random) -> Inputs | None:
        heads = rng.choice([4, 8, 16, 32])
        dim = rng.choice([32, 64, 128])
        config = {
            "num_hidden_layers": rng.randint(2, 80),
            "hidden_size": heads * dim,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // rng.choice([1, 2, 4]),
            "head_dim": dim * rng.choice([1, 2]),
        }
        shown = {name: n for name, n in config.items() if name not in lacking}
        tokens, bits = rng.randint(2, 9000), rng.choice([4, 8, 16, 32])
        if any(right(shown, tokens, bits, m) == right(shown, tokens, bits) for m in tells_apart):
            return None
        return {"config": shown, "tokens": tokens, "bits": bits}

    return make


def bytes_case(title: str, *examples: tuple[str, int, int], **case: Any) -> Case:
    """examples: (model, tokens, bits); bits 16 is left to the default."""
    inputs = [
        {"config": dict(MODELS[name]), "tokens": tokens, **({} if bits == 16 else {"bits": bits})}
        for name, tokens, bits in examples
    ]
    return values(
        title, expected, read=lambda value, _: whole_number(value), examples=inputs, valid=valid, **case
    )


CASES = (
    bytes_case("One token of Llama-2-7B, 16 bits a number: half a MiB.", ("Llama-2-7B", 1, 16)),
    bytes_case(
        "Eight query heads share a KV head in Llama-2-70B, four in Llama-3.1-8B.",
        ("Llama-2-70B", 1, 16),
        ("Llama-3.1-8B", 1000, 16),
    ),
    bytes_case("Fewer bits a number.", ("Llama-3.1-8B", 1, 8), ("Llama-2-7B", 3, 4)),
    bytes_case(
        "Entries that a config.json may lack, or have: LLaMA-7B and Qwen3-0.6B.",
        ("LLaMA-7B", 1, 16),
        ("Qwen3-0.6B", 1, 16),
    ),
    bytes_case("Any other shape.", make=making([QUERY_HEADS, ALWAYS_16]), count=4),
)

KV_BYTES = Exercise(
    id="02.kv_bytes",
    title="The price of a token",
    signature="kv_bytes(config, tokens, bits=16)",
    prepare=lambda inputs: {**inputs, "config": dict(inputs["config"])},
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Count *numbers* first, then bytes. For one token, in one layer and one head: how many numbers has a "
        "key, how many a value?",
        "One token leaves 2 × layers × KV heads × head_dim numbers. A number of 16 bits is 2 bytes; so "
        "multiply by the bits and divide by 8 at the very end, with `//`, which keeps it whole.",
        '`kv_heads = config.get("num_key_value_heads", heads)` takes the entry if it is there and `heads` if not. '
        "`head_dim` goes the same way, with hidden size // query heads in its place.",
    ),
    analogue="""
How many bytes is a video of 10 seconds, at 25 pictures a second, 640 × 360 points each, three colours a point?
Count the numbers, then turn them into bytes:

```python
def video_bytes(info, seconds, bits=8):
    height = info.get("height", info["width"] * 9 // 16)     # many files do not say it
    numbers = 3 * info["rate"] * info["width"] * height * seconds
    return numbers * bits // 8

video_bytes({"rate": 25, "width": 640}, seconds=10)     # 172,800,000
```

Each factor can be asked for on its own: what does *twice as many seconds* cost, what *half the bits*?
""",
)
