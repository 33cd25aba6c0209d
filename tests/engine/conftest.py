"""Small models with random weights, big enough to make every mechanism matter."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import settings

from lessonlib.engine import LLM, EngineError, ModelConfig, Span, Transformer

# Every kind of step over a paged cache, for the forward passes that must equal the plain model's.
STEPS = [
    [Span([5, 2, 9], 0, 9)],  # a prefill
    [Span([5, 2, 9], 9, 1), Span([7, 1, 30, 11], 0, 13)],  # a decode beside another's prefill
    [Span([5, 2, 9], 10, 1), Span([7, 1, 30, 11], 13, 1), Span([20], 0, 1)],
    [Span([5, 2, 9], 11, 1)],
    [Span([5, 2, 9, 12], 12, 3), Span([7, 1, 30, 11], 14, 2)],  # a few tokens each: drafts
    [Span([5, 2, 9, 12], 15, 1), Span([7, 1, 30, 11, 33], 16, 1), Span([20], 1, 1)],
]

QUIET = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def tiny_config(**changes) -> ModelConfig:
    sizes = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    return ModelConfig(**{**sizes, **changes})


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Weights large enough that the next token really depends on the whole prefix."""
    torch.manual_seed(seed)
    model = Transformer(config)
    model.initialize(std=0.2)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.1)
    return model.eval().requires_grad_(False)


def some_ids(length: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random ids (batch, length), none of them special."""
    return torch.randint(
        3, 97, (batch, length), generator=torch.Generator().manual_seed(1000 * seed + length)
    )


def is_one_sentence(text: str) -> bool:
    """What every message must be: it ends with a period, in one line, and no second sentence follows a first."""
    return (
        "\n" not in text and text.endswith(".") and len(text) <= 250 and not re.search(r"[.!?] [A-Z]", text)
    )


class Refused:
    """``with refuses(Kind) as told:`` is ``pytest.raises`` that also wants one good sentence."""

    def __init__(self, kind: type[EngineError], match: str | None = None):
        self._raises = pytest.raises(kind, match=match)
        self._kind = kind

    def __enter__(self):
        self._info = self._raises.__enter__()
        return self._info

    def __exit__(self, *exception) -> bool:
        swallowed = bool(self._raises.__exit__(*exception))
        if swallowed:
            assert type(self._info.value) is self._kind  # by its own name, not that of a relative
            assert is_one_sentence(str(self._info.value)), str(self._info.value)
        return swallowed


refuses = Refused


@pytest.fixture(scope="session")
def tiny() -> Transformer:
    return random_model(tiny_config())


@pytest.fixture(scope="session")
def draft() -> LLM:
    """The smallest real model there is: text in, text out."""
    return LLM("pico-draft")


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Models this small are faster on one core, and the other one may be busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
