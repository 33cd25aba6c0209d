"""What generation costs, counted: forward passes, tokens, FLOPs and bytes.

``count`` measures what a model really does; ``predict`` says beforehand, by arithmetic, what it will do.
They agree exactly, and a test holds them to it. A multiply-add is two FLOPs; only matrix products count
(Kaplan et al. 2020, arXiv:2001.08361 §2.1), norms and activations being a rounding error beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .errors import BadParameter
from .model import Attention, Transformer


@dataclass
class Step:
    """Work of one forward pass.

    tokens: tokens that went through the layers, padding and idle rows included. linear_flops: matrix products
    with weights. attention_flops: scores and weighted sums over visible keys. weight_bytes: weights read once.
    kv_bytes_written, kv_bytes_read: traffic with the KV cache (none without one), as the cache itself reports it.
    """

    tokens: int = 0
    linear_flops: int = 0
    attention_flops: int = 0
    weight_bytes: int = 0
    kv_bytes_written: int = 0
    kv_bytes_read: int = 0

    @property
    def flops(self) -> int:
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes_written + self.kv_bytes_read


@dataclass
class Work(Step):
    """Work of many forward passes: every field is the sum over ``steps``."""

    steps: list[Step] = field(default_factory=list)

    @property
    def forward_calls(self) -> int:
        return len(self.steps)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        for f in fields(Step):
            setattr(self, f.name, getattr(self, f.name) + getattr(step, f.name))


@contextmanager
def count(model: Transformer) -> Iterator[Work]:
    """Count everything ``model`` does inside the ``with`` block; outside, nothing is hooked and nothing costs.

    >>> with count(model) as work:
    ...     generate(model, prompt, max_tokens=10)
    >>> work.forward_calls, work.tokens, work.flops

    Raises BadParameter for a compiled model, or one on a GPU's own path: they do not run the layers that are counted.
    """
    if not isinstance(model, Transformer) or type(model).forward is not Transformer.forward:
        raise BadParameter("Only the plain model's work can be counted; load it with load_model, for a CPU.")
    work, step = Work(), Step()
    config = model.config

    def before_model(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal step
        step = Step(tokens=(args[0] if args else named["ids"]).numel())

    def after_model(*_: Any) -> None:
        work.add(step)

    def after_linear(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows = args[0].numel() // args[0].shape[-1]
        step.linear_flops += 2 * rows * args[0].shape[-1] * output.shape[-1]
        step.weight_bytes += stored_bytes(module)

    def after_attention(module: nn.Module, args: tuple[Any, ...], _: Tensor) -> None:
        assert isinstance(module, Attention)
        x, _cos, _sin, cache = args
        positions = cache.positions  # where each new token stands: it sees that many tokens before itself
        pairs = _visible_pairs(positions, config.window(module.layer))
        step.attention_flops += attention_flops_per_pair(config, layers=1) * pairs
        per_slot = kv_bytes_per_token(config, x.element_size(), layers=1)
        step.kv_bytes_written += cache.slots_written * per_slot
        step.kv_bytes_read += cache.slots_read * per_slot

    hooks = [
        model.register_forward_pre_hook(before_model, with_kwargs=True),
        model.register_forward_hook(after_model),
    ]
    for module in model.modules():
        if isinstance(module, Attention):
            hooks.append(module.register_forward_hook(after_attention))
        elif hasattr(module, "in_features"):  # nn.Linear, or a quantized module in its place
            hooks.append(module.register_forward_hook(after_linear))
    try:
        yield work
    finally:
        for hook in hooks:
            hook.remove()


def stored_bytes(module: nn.Module) -> int:
    """Bytes of a module's own weights and buffers as they are stored."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return sum(t.numel() * t.element_size() for t in tensors)


def stored_weight_bytes(model: nn.Module) -> int:
    """Bytes that one pass reads of its linear layers, as they are stored: scales included, tied ones once."""
    layers = [module for module in model.modules() if hasattr(module, "in_features")]
    tensors = [
        t for layer in layers for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    ]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def _visible_pairs(positions: Tensor, window: int | None) -> int:
    seen = positions + 1
    return int((seen if window is None else seen.clamp(max=window)).sum())


def body_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of all layers' weight matrices for one token: twice their number of weights."""
    d, ffn = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return 2 * config.num_hidden_layers * (d * (q + 2 * kv) + q * d + 3 * d * ffn)


def head_flops_per_token(config: ModelConfig) -> int:
    """FLOPs of the output layer for one row of logits."""
    return 2 * config.hidden_size * config.vocab_size


def attention_flops_per_pair(config: ModelConfig, layers: int | None = None) -> int:
    """FLOPs for one query looking at one key: a dot product for the score, a scaled sum for the value."""
    layers = config.num_hidden_layers if layers is None else layers
    return 4 * layers * config.num_attention_heads * config.head_dim


def kv_bytes_per_token(config: ModelConfig, bytes_per_number: int = 2, layers: int | None = None) -> int:
    """Bytes of keys and values that one token leaves in the cache (2 bytes a number in float16/bfloat16)."""
    layers = config.num_hidden_layers if layers is None else layers
    return 2 * layers * config.num_key_value_heads * config.head_dim * bytes_per_number


def weight_bytes(config: ModelConfig, bytes_per_number: int = 2) -> int:
    """Bytes of the weight matrices that one forward pass reads (layers and output layer, biases included)."""
    heads, kv_heads, d = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    biases = (heads + 2 * kv_heads) * config.head_dim * config.attention_bias
    biases += d * config.output_bias + (2 * config.intermediate_size + d) * config.mlp_bias
    matrices = body_flops_per_token(config) // 2 + head_flops_per_token(config) // 2
    return (matrices + config.num_hidden_layers * biases) * bytes_per_number


def predict(
    config: ModelConfig,
    prompt_tokens: int,
    new_tokens: int,
    use_cache: bool = True,
    bytes_per_number: int = 4,
) -> Work:
    """The work of generating ``new_tokens`` after ``prompt_tokens`` for one row, by arithmetic alone.

    Without a cache, step i runs all prompt_tokens + i tokens again. With one, the first step runs the prompt
    (prefill) and every later step a single token (decode); the last token chosen is never run.
    """
    work = Work()
    for i in range(new_tokens):
        held = prompt_tokens + i - 1 if use_cache and i else 0  # in the cache when the step begins
        total = prompt_tokens + i
        positions = torch.arange(held, total)[None]
        per_token = kv_bytes_per_token(config, bytes_per_number)
        work.add(
            Step(
                tokens=total - held,
                linear_flops=(total - held) * body_flops_per_token(config) + head_flops_per_token(config),
                attention_flops=sum(
                    attention_flops_per_pair(config, layers=1)
                    * _visible_pairs(positions, config.window(layer))
                    for layer in range(config.num_hidden_layers)
                ),
                weight_bytes=weight_bytes(config, bytes_per_number),
                kv_bytes_written=(total - held) * per_token if use_cache else 0,
                kv_bytes_read=total * per_token if use_cache else 0,
            )
        )
    return work
