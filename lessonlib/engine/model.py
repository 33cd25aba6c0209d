"""The model: ids in, logits out. A decoder-only transformer with RMSNorm, RoPE, GQA and SwiGLU.

It does not know how keys and values are kept (``cache.attend`` does) nor how weights are stored (a
quantized module may stand where an ``nn.Linear`` stood). Module names follow the Hugging Face checkpoints.

Sources: Touvron et al. 2023 (Llama, arXiv:2302.13971 §2.2); Su et al. 2021 (RoPE, arXiv:2104.09864 §3.4);
Ainslie et al. 2023 (GQA, arXiv:2305.13245); Shazeer 2020 (SwiGLU, arXiv:2002.05202).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .errors import BadParameter, EmptyPrompt
from .kv_cache import Cache, NoCache
from .prompts import check_ids


@dataclass
class Output:
    """Result of one forward pass: ``logits`` (batch, length, vocab), float32."""

    logits: Tensor


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Rotation speed of each pair of dimensions in radians a token, float32 (head_dim / 2,)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "llama3":
        # Pairs that turn often within the old context keep their speed, slow ones are stretched, between: blend.
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * keep + frequencies / scaling.factor * (1 - keep)
    return frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim/2) of x (batch, heads, new, head_dim) by its angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Project to queries, keys and values; rotate; let the cache attend; project back."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        d, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(d, heads * self.head_dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(d, kv_heads * self.head_dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(d, kv_heads * self.head_dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, d, bias=config.output_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        batch, new, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, new, -1, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, new, -1, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, new, -1, self.head_dim).transpose(1, 2)
        y = cache.attend(self.layer, rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.o_proj(y.transpose(1, 2).reshape(batch, new, -1))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        d, ffn, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(d, ffn, bias=bias)
        self.up_proj = nn.Linear(d, ffn, bias=bias)
        self.down_proj = nn.Linear(ffn, d, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then MLP, each behind a norm and beside a residual."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """A decoder-only language model with random weights; ``load_model`` gives it trained ones.

    >>> model(ids).logits                 # ids int64 (batch, length) -> float32 (batch, length, vocab)
    >>> model(ids, cache=cache).logits    # the same, for ids that follow what the cache already holds
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()
        self.quantization: str | None = None  # set by quantize_model
        self._turns: tuple[Tensor, Tensor] | None = None

    def initialize(self, std: float = 0.02) -> None:
        """Random weights: normal, with the layers that write to the residual scaled down (GPT-2 §2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(
                    parameter, std=std / math.sqrt(2 * self.config.num_hidden_layers) if residual else std
                )

    def tie_weights(self) -> None:
        """Let the output layer be the embedding matrix itself, when the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.weight.dtype

    def forward(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        lengths: Sequence[int] | None = None,
        last_only: bool = False,
        at: Tensor | None = None,
    ) -> Output:
        """One forward pass.

        ids: int64 (batch, new). cache: what came before; None: nothing did, and nothing is kept.
        lengths: how many tokens of each row are real when short rows are padded on the right.
        last_only: logits of each row's last real token alone, (batch, 1, vocab): a decoder needs no others.
        at: logits of these tokens alone, (1, len(at), vocab): places int64 among the batch * new tokens, row by row.

        Raises BadParameter, EmptyPrompt, TokenOutOfRange, PromptTooLong.
        """
        self._check(ids, lengths)
        batch, new = ids.shape
        cache = NoCache(self.config) if cache is None else cache
        positions = cache.begin(batch, new, lengths, ids.device)
        cos, sin = self._rope(positions)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, cache)
        cache.end()
        if last_only:
            last = [new - 1] * batch if lengths is None else [max(n, 1) - 1 for n in lengths]
            x = x[torch.arange(batch, device=x.device), torch.tensor(last, device=x.device)][:, None]
        elif at is not None:
            x = x.flatten(0, 1)[at][None]
        return Output(self.lm_head(self.norm(x)).float())

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of each position's angles, in the model's dtype, (batch, 1, new, head_dim)."""
        if self._turns is None or (self._turns[0].device, self._turns[0].dtype) != (self.device, self.dtype):
            steps = torch.arange(self.config.max_position_embeddings, dtype=torch.float32)
            angles = torch.outer(steps, rope_frequencies(self.config)).repeat(1, 2)
            self._turns = (
                angles.cos().to(self.device, self.dtype),
                angles.sin().to(self.device, self.dtype),
            )
        cos, sin = self._turns
        return cos[positions][:, None], sin[positions][:, None]

    def _check(self, ids: Tensor, lengths: Sequence[int] | None) -> None:
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            given = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise BadParameter(f"The model needs token ids as a tensor of type int64, not {given}.")
        if ids.dim() != 2 or ids.numel() == 0:
            raise EmptyPrompt(
                f"The model needs ids of shape (batch, length) with at least one token, not {tuple(ids.shape)}."
            )
        batch, new = ids.shape
        if lengths is not None and (len(lengths) != batch or not all(0 <= n <= new for n in lengths)):
            raise BadParameter(
                f"lengths={list(lengths)} does not fit ids of shape {(batch, new)}; give a number from 0 to {new} "
                "for each row."
            )
        if not (ids.is_meta or torch.compiler.is_compiling()):
            low, high = torch.stack(ids.aminmax()).tolist()
            check_ids(self.config, low, high)
