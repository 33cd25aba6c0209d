"""Every number of the recipe in one place."""

from __future__ import annotations

from dataclasses import dataclass

from lessonlib.engine import ModelConfig

VOCAB_SIZE = 4096
CONTEXT = 2048
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)  # ids 0, 1, 2

# Share of each source in a training batch: before the final decay, and during it. The library is what the model
# shall know best, but at 50 passes over it (a share of 0.22 in a billion tokens) it was learnt by heart: 0.7 nats
# a token there and 2.3 on the held-out modules. These shares mean 4 to 10 passes over each source.
MIX = {"library": 0.045, "tests": 0.085, "packages": 0.81, "dialogue": 0.06}
FINAL_MIX = {"library": 0.08, "tests": 0.06, "packages": 0.78, "dialogue": 0.08}


@dataclass(frozen=True)
class Recipe:
    """One model: its shape and how it is trained. ``tokens`` and ``batch_tokens`` count training tokens.

    The learning rate warms up, stays, then falls linearly to zero over the last ``decay`` of the steps
    (warmup-stable-decay, Hu et al. 2024, arXiv:2404.06395 §4). ``teacher``: distil from that model's
    distribution (Hinton et al. 2015, arXiv:1503.02531), ``distill`` being its share of the loss.
    """

    name: str
    config: ModelConfig
    tokens: int
    batch_tokens: int = 65_536
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    decay: float = 0.35
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float = 1.0
    seed: int = 0
    teacher: str | None = None
    distill: float = 0.0

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens


def _config(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_ids=(0, 2),
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Deep and narrow, so that a draft model and quantization have something real to win and to lose.
        Recipe("pico", _config(hidden=256, ffn=704, layers=12, heads=4, kv_heads=2), tokens=350_000_000),
        # Two layers only: a draft has to be quick before it has to be right.
        Recipe(
            "pico-draft",
            _config(hidden=256, ffn=512, layers=2, heads=4, kv_heads=1),
            tokens=590_000_000,
            learning_rate=4e-3,
            teacher="pico",
            distill=0.9,
        ),
    )
}
