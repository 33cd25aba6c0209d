"""ModelConfig: the numbers that define a model, to and from the Hugging Face ``config.json``."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from .errors import BadParameter, BrokenCheckpoint

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
FAMILIES = tuple(ARCHITECTURES)
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Is this a whole number of any kind (True and False are none), and at least that?"""
    return isinstance(value, Integral) and not isinstance(value, bool) and operator.index(value) >= least


def check_whole(least: int = 1, **settings: Any) -> None:
    """Raise BadParameter for the first setting that is no whole number of at least that."""
    for name, value in settings.items():
        if not is_whole(value, least):
            raise BadParameter(f"{name}={value!r} has no meaning; it must be {least} or more, and whole.")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    ``linear`` divides every frequency by ``factor`` (Chen et al. 2023, arXiv:2306.15595);
    ``llama3`` divides only the slow ones and blends in between (Llama 3.1 release).
    """

    kind: str = "default"  # "default" | "linear" | "llama3"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ("default", "linear", "llama3"):
            raise BrokenCheckpoint(
                f"RoPE scaling {self.kind!r} is not supported; this engine knows default, linear and llama3."
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder-only transformer of the Llama, Mistral, Qwen2 or Qwen3 family.

    Sizes count elements, ``max_position_embeddings`` counts tokens (the context length).
    ``num_key_value_heads`` below ``num_attention_heads`` is grouped-query attention (1: multi-query).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling = RopeScaling()
    tie_word_embeddings: bool = True
    attention_bias: bool = False  # bias on the q, k and v projections
    output_bias: bool = False  # bias on the attention's output projection
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm on every head's query and key (Qwen3)
    sliding_window: int | None = None  # tokens a query can see, itself included; None: all
    window_layers: tuple[int, ...] | None = None  # layers with the window; None: every layer
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    family: str = "llama"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eos_token_ids", _as_tuple(self.eos_token_ids))
        if self.family not in FAMILIES:
            raise BrokenCheckpoint(
                f"family {self.family!r} is not known; this engine knows {', '.join(FAMILIES)}."
            )
        for name in SIZES:
            size = getattr(self, name)
            if not is_whole(size, least=1):
                raise BrokenCheckpoint(f"{name} is {size!r}, but it must be a whole number, 1 or more.")
        if self.head_dim % 2:
            raise BrokenCheckpoint(
                f"head_dim is {self.head_dim}, but RoPE turns pairs; choose an even number."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise BrokenCheckpoint(
                f"{self.num_attention_heads} attention heads cannot be shared evenly by "
                f"{self.num_key_value_heads} key/value heads; choose a divisor."
            )

    def window(self, layer: int) -> int | None:
        """Sliding window of this layer in tokens, or None when it sees everything."""
        if self.window_layers is not None and layer not in self.window_layers:
            return None
        return self.sliding_window

    @property
    def num_parameters(self) -> int:
        """Number of weights, norms and biases included, tied embeddings counted once."""
        d, ffn = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        layer = d * (q + 2 * kv) + q * d + 3 * d * ffn + 2 * d
        layer += (q + 2 * kv) * self.attention_bias + d * self.output_bias
        layer += (2 * ffn + d) * self.mlp_bias + 2 * self.head_dim * self.qk_norm
        embeddings = self.vocab_size * d * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + d

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any]) -> ModelConfig:
        """Read a parsed ``config.json``. Raises BrokenCheckpoint for an unknown family or a missing field."""
        family = hf.get("model_type")
        if family not in FAMILIES:
            raise BrokenCheckpoint(
                f"config.json says model_type {family!r}, but this engine knows {', '.join(FAMILIES)}; "
                "convert the model or choose another one."
            )
        if hf.get("hidden_act", "silu") != "silu":
            raise BrokenCheckpoint(
                f"config.json says hidden_act {hf['hidden_act']!r}, but this engine knows only silu; choose another "
                "model."
            )
        if hf.get("quantization_config"):
            raise BrokenCheckpoint(
                "The weights of this model are stored quantized, which cannot be read yet; choose the model they "
                "were made from."
            )
        try:
            heads = hf["num_attention_heads"]
            return cls(
                vocab_size=hf["vocab_size"],
                hidden_size=hf["hidden_size"],
                intermediate_size=hf["intermediate_size"],
                num_hidden_layers=hf["num_hidden_layers"],
                num_attention_heads=heads,
                num_key_value_heads=hf.get("num_key_value_heads") or heads,
                head_dim=hf.get("head_dim") or (128 if family == "qwen3" else hf["hidden_size"] // heads),
                max_position_embeddings=hf["max_position_embeddings"],
                rms_norm_eps=hf.get("rms_norm_eps", 1e-6),
                tie_word_embeddings=hf.get("tie_word_embeddings", False),
                # Qwen2 always has the bias and never says so in its config; Mistral never has any.
                attention_bias=family == "qwen2" or (family != "mistral" and hf.get("attention_bias", False)),
                output_bias=family in ("llama", "qwen3") and hf.get("attention_bias", False),
                mlp_bias=family == "llama" and hf.get("mlp_bias", False),
                qk_norm=family == "qwen3",
                bos_token_id=hf.get("bos_token_id"),
                eos_token_ids=_as_tuple(hf.get("eos_token_id")),
                family=family,
                **_rope_from_hf(hf),
                **_window_from_hf(hf, family),
            )
        except KeyError as missing:
            raise BrokenCheckpoint(f"config.json lacks {missing}; fetch the model folder again.") from None
        except (AttributeError, TypeError, ZeroDivisionError) as error:
            raise BrokenCheckpoint(
                f"config.json holds a value of the wrong kind ({error}); fetch the model folder again."
            ) from None

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` that transformers, vLLM and llama.cpp's converter read.

        Raises BadParameter for a mixture that no family has: others would read it as a different model.
        """
        hf: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "hidden_act": "silu",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": _rope_scaling_to_hf(self.rope_scaling),
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(self.eos_token_ids)
            if len(self.eos_token_ids) > 1
            else next(iter(self.eos_token_ids), None),
        }
        if self.sliding_window is not None or self.family == "mistral":
            hf["sliding_window"] = self.sliding_window
        if self.family in ("qwen2", "qwen3") and self.sliding_window is not None:
            windowed = range(self.num_hidden_layers) if self.window_layers is None else self.window_layers
            hf["use_sliding_window"] = True
            hf["layer_types"] = [
                "sliding_attention" if i in windowed else "full_attention"
                for i in range(self.num_hidden_layers)
            ]
        if lost := self._differences(ModelConfig.from_hf(hf)):
            raise BadParameter(
                f"A {self.family} model cannot have this {', '.join(lost)}, so other programs would misread it; "
                "choose the family that has it."
            )
        return hf

    def _differences(self, other: ModelConfig) -> list[str]:
        """Names of the settings in which two configs differ in effect."""
        window = [self.window(i) for i in range(self.num_hidden_layers)]
        names = [f.name for f in fields(self) if f.name not in ("sliding_window", "window_layers")]
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        if window != [other.window(i) for i in range(other.num_hidden_layers)]:
            found.append("sliding_window")
        return found


def _as_tuple(ids: int | Iterable[int] | None) -> tuple[int, ...]:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _rope_from_hf(hf: Mapping[str, Any]) -> dict[str, Any]:
    # transformers 5 keeps everything under rope_parameters; before, theta stood beside rope_scaling.
    rope = {**(hf.get("rope_parameters") or hf.get("rope_scaling") or {})}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    known = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    scaling = RopeScaling(kind, **{name: value for name, value in rope.items() if name in known})
    theta = rope.get("rope_theta") or hf.get("rope_theta")
    return {"rope_theta": 10_000.0 if theta is None else theta, "rope_scaling": scaling}


def _rope_scaling_to_hf(scaling: RopeScaling) -> dict[str, Any] | None:
    if scaling.kind == "default":
        return None
    hf: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        hf |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    return hf


def _window_from_hf(hf: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Each family's own rule: llama has no window, mistral has it everywhere, qwen where its config says."""
    window = hf.get("sliding_window")
    if family == "llama" or (family != "mistral" and not hf.get("use_sliding_window", False)):
        window = None
    if window is None or family == "mistral":
        return {"sliding_window": window}
    layers, types = range(hf["num_hidden_layers"]), hf.get("layer_types")
    if types and len(types) < len(layers):
        raise BrokenCheckpoint(
            f"config.json has {len(types)} layer_types for {len(layers)} layers; fetch the model folder again."
        )
    first = hf.get("max_window_layers", 28)
    windowed = tuple(i for i in layers if (types[i] == "sliding_attention" if types else i >= first))
    return {"sliding_window": window, "window_layers": None if len(windowed) == len(layers) else windowed}
