"""Small models with random weights, big enough to make every mechanism matter."""

from __future__ import annotations

import pytest
import torch

from lessonlib.engine import ModelConfig, Transformer


def tiny_config(**changes) -> ModelConfig:
    settings = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    return ModelConfig(**{**settings, **changes})


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Weights large enough that the next token really depends on the whole prefix."""
    torch.manual_seed(seed)
    model = Transformer(config)
    model.initialize(std=0.2)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny() -> Transformer:
    return random_model(tiny_config())
