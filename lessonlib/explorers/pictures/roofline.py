"""roofline: is a step's time spent on reading or on computing, and what that makes of batches and of fewer bits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.engine import ModelConfig, Transformer, costs
from lessonlib.engine.errors import BadParameter

from ..base import Explorer
from ..sources import as_config
from .autoregressive import coefficients
from .kv_cache import PRESETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BATCHES = sorted({round(2**power * more) for power in range(11) for more in (1, 1.5) if power or more == 1})[
    :-1
]
CONTEXTS = [2**power for power in range(7, 18)]
PROMPT = 2048  # tokens that prefill reads, if the model can
WEIGHTS = {"bf16": "16 bits", "int8": "INT8", "int4": "INT4"}
GROUP = 64  # weights of the engine's INT4 that share a scale and a zero; it also pads rows to multiples of 64


@dataclass(frozen=True)
class Chip:
    """Peaks: FLOP/s of dense matrix products, bytes/s and bytes of its memory."""

    flops: float
    bandwidth: float
    memory: float


# From the makers' data sheets, as of 2023; tensor cores at bfloat16 without sparsity (half of the advertised number).
# NVIDIA: H100 and H200 data sheets, A100 80GB SXM data sheet, L4 data sheet, "Ada GPU architecture" (RTX 4090).
# Apple, M1 Max, October 2021: its GPU at float32. AMD Ryzen 7 7840U: 8 cores × 3.3 GHz (base) × 32 float32 FLOPs a
# cycle (two fused multiply-adds of 8 lanes), two channels of DDR5-5600, with 32 GB of it.
CHIPS = {
    "H100 SXM": Chip(989.4e12, 3.35e12, 80e9),
    "H200": Chip(989.4e12, 4.8e12, 141e9),
    "A100 80 GB": Chip(312e12, 2.039e12, 80e9),
    "L4": Chip(121e12, 300e9, 24e9),
    "RTX 4090": Chip(165.2e12, 1008e9, 24e9),
    "Apple M1 Max": Chip(10.4e12, 400e9, 64e9),
    "Laptop CPU, DDR5": Chip(8 * 3.3e9 * 32, 2 * 8 * 5600e6, 32e9),
}


@dataclass(frozen=True)
class Timed:
    """A step's FLOPs and bytes, and the seconds that each of them needs by itself."""

    flops: float
    bytes: float
    compute: float
    read: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.read)

    @property
    def bound(self) -> str:
        return "memory" if self.read >= self.compute else "compute"


def weight_bytes(config: ModelConfig, scheme: str) -> int:
    """Bytes of weights that a step reads, stored by the engine as "bf16", "int8" or "int4" (output layer: INT8)."""
    full = costs.weight_bytes(config, 2)
    if scheme == "bf16":
        return full
    d, ffn = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = [(q, d), (kv, d), (kv, d), (d, q), (ffn, d), (ffn, d), (d, ffn)]
    head = config.vocab_size, d
    matrices = config.num_hidden_layers * sum(rows * columns for rows, columns in layer) + head[0] * head[1]
    biases = full - 2 * matrices
    store = _int8_bytes if scheme == "int8" else _int4_bytes
    return config.num_hidden_layers * sum(store(*shape) for shape in layer) + _int8_bytes(*head) + biases


def _int8_bytes(rows: int, columns: int) -> int:
    return rows * columns + 2 * rows


def _int4_bytes(rows: int, columns: int) -> int:
    rows, columns = rows + -rows % GROUP, columns + -columns % GROUP
    return rows * columns // 2 + 4 * rows * columns // GROUP


def embedding_bytes(config: ModelConfig, scheme: str) -> int:
    """Bytes of the embedding table, of which a step reads next to nothing; 0 where it is the output layer's."""
    if config.tie_word_embeddings:
        return 0
    shape = config.vocab_size, config.hidden_size
    return 2 * shape[0] * shape[1] if scheme == "bf16" else _int8_bytes(*shape)


def decode_step(config: ModelConfig, scheme: str, batch: int, context: int, chip: Chip) -> Timed:
    """One decode step: ``batch`` sequences, each its next token, which sees ``context`` tokens, itself included."""
    step = _work(config, context - 1, 2)
    traffic = step.kv_bytes_read + step.kv_bytes_written
    return _timed(batch * step.flops, weight_bytes(config, scheme) + batch * traffic, chip)


def prefill_step(config: ModelConfig, scheme: str, length: int, chip: Chip) -> Timed:
    """A prompt of ``length`` tokens read at once, in one sequence."""
    step = _work(config, length, 1)
    return _timed(step.flops, weight_bytes(config, scheme) + step.kv_bytes_read + step.kv_bytes_written, chip)


@cache
def _work(config: ModelConfig, prompt: int, steps: int) -> costs.Step:
    return costs.predict(config, prompt, steps, bytes_per_number=2).steps[-1]


def _timed(flops: float, size: float, chip: Chip) -> Timed:
    return Timed(flops, size, flops / chip.flops, size / chip.bandwidth)


def duration(seconds: float) -> str:
    """Three digits and a unit: 5.44 ms."""
    scale, unit = next(
        ((scale, unit) for scale, unit in ((1, "s"), (1e-3, "ms")) if seconds >= 0.9995 * scale), (1e-6, "µs")
    )
    value = seconds / scale
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


class Roofline(Explorer):
    picture = "roofline"

    def __init__(self, models: dict[str, ModelConfig], start: dict[str, Any]):
        self._models = models
        data = {
            "models": {name: _sent(config) for name, config in models.items()},
            "chips": {name: asdict(chip) for name, chip in CHIPS.items()},
            "weights": WEIGHTS,
            "batches": BATCHES,
            "prompts": {name: prompt_length(config) for name, config in models.items()},
            "contexts": {name: contexts(config) for name, config in models.items()},
            "defaults": start,
        }
        super().__init__(data=data)

    def _start(self) -> tuple[ModelConfig, Chip, str, int, int]:
        at = self.data["defaults"]
        return self._models[at["model"]], CHIPS[at["chip"]], at["weights"], at["batch"], at["context"]

    def _title(self) -> str:
        config, chip, scheme, batch, context = self._start()
        step = decode_step(config, scheme, batch, context, chip)
        slow, fast = sorted((step.read, step.compute), reverse=True)
        names = ("Reading", "computing") if step.bound == "memory" else ("Computing", "reading")
        ratio = slow / fast
        times = f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"
        return (
            f"Batch {batch:,}: {step.bound}-bound. {names[0]} takes {times} times as long as {names[1]}, "
            f"{duration(step.seconds)} a step."
        )

    def summary(self) -> str:
        at = self.data["defaults"]
        config, chip, _, batch, context = self._start()
        rows = []
        for scheme, name in WEIGHTS.items():
            decode = decode_step(config, scheme, batch, context, chip)
            prefill = prefill_step(config, scheme, prompt_length(config), chip)
            rows.append(f"{name} {duration(decode.seconds)} and {duration(prefill.seconds)}")
        return (
            f"{self._title()} {at['model']} on {at['chip']}, {context:,} tokens of context, at the peaks of the data "
            f"sheet. A decode step and a prefill of {prompt_length(config):,} tokens take, with weights in "
            f"{'; '.join(rows)}."
        )

    def figure(self) -> Figure:
        from ..figure import MUTED, new_figure

        at = self.data["defaults"]
        figure = new_figure(9.4, 3.6, self._title())
        where = (
            f"{at['model']} on {at['chip']}, weights in {WEIGHTS[at['weights']]}, {at['context']:,} tokens of context, "
            "at the peaks of the data sheet"
        )
        figure.text(0.012, 0.895, where, color=MUTED, fontsize=8.5, va="top")
        axes = [figure.add_axes((left, 0.13, 0.265, 0.6)) for left in (0.055, 0.385, 0.72)]
        self._draw_time(axes[0])
        self._draw_throughput(axes[1])
        self._draw_roof(axes[2])
        return figure

    def _draw_time(self, ax: Axes) -> None:
        from ..figure import BLUE, VERMILLION

        config, chip, scheme, batch, context = self._start()
        steps = [decode_step(config, scheme, size, context, chip) for size in BATCHES]
        _axes(ax, "Time of a decode step, ms", "sequences at once (batch)", batch)
        for name, color, style, field, drop in (
            ("reading", BLUE, "-", "read", 8),
            ("computing", VERMILLION, (0, (4, 2)), "compute", -3),
        ):
            values = [1e3 * getattr(step, field) for step in steps]
            ax.plot(BATCHES, values, color=color, linestyle=style, linewidth=1.6)
            ax.set_ylim(bottom=min(values) / 2.5)
            ax.annotate(name, (1, values[0]), (8, drop), textcoords="offset points", color=color, va="center")

    def _draw_throughput(self, ax: Axes) -> None:
        from ..figure import BLUE, GREEN, VERMILLION

        config, chip, _, batch, context = self._start()
        _axes(ax, "Tokens a second, all sequences", "sequences at once (batch)", batch)
        looks = {"bf16": (BLUE, "-"), "int8": (GREEN, (0, (5, 2))), "int4": (VERMILLION, (0, (1.5, 1.5)))}
        for scheme, (color, style) in looks.items():
            speeds = [n / decode_step(config, scheme, n, context, chip).seconds for n in BATCHES]
            ax.plot(BATCHES, speeds, color=color, linestyle=style, linewidth=1.6, label=WEIGHTS[scheme])
        ax.legend(loc="lower right", title="weights in", title_fontsize=8)

    def _draw_roof(self, ax: Axes) -> None:
        from ..figure import BLUE, INK, VERMILLION

        config, chip, scheme, batch, context = self._start()
        ridge = chip.flops / chip.bandwidth
        ends = (0.5, 20_000)
        _axes(ax, "FLOP/s that can be reached", "FLOPs for each byte read", None)
        roof = [(x, min(x * chip.bandwidth, chip.flops)) for x in (ends[0], ridge, ends[1])]
        ax.plot(*zip(*roof, strict=True), color=INK, linewidth=1.6)
        ax.plot([ridge], [chip.flops], "D", color=INK, markersize=5)
        ax.annotate(
            f"ridge: {ridge:,.0f}", (ridge, chip.flops), (0, 7), textcoords="offset points", ha="center"
        )
        for name, mark, color, drop, step in (
            ("decode", "o", BLUE, -9, decode_step(config, scheme, batch, context, chip)),
            ("prefill", "s", VERMILLION, 9, prefill_step(config, scheme, prompt_length(config), chip)),
        ):
            x = min(step.flops / step.bytes, 15_000)
            y = min(x * chip.bandwidth, chip.flops)
            ax.plot([x], [y], mark, color=color, markersize=7, markeredgecolor="white")
            ax.annotate(name, (x, y), (5, drop), textcoords="offset points", color=color, va="center")
        ax.set(xlim=ends, ylim=(3e10, 6e15))


def _axes(ax: Axes, title: str, label: str, batch: int | None) -> None:
    from ..figure import LINE, MUTED

    ax.set_title(title)
    ax.set(xscale="log", yscale="log", xlabel=label)
    ax.grid(color=LINE, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.minorticks_off()
    if batch is not None:
        ax.axvline(batch, color=MUTED, linewidth=0.8, linestyle=":")


def prompt_length(config: ModelConfig) -> int:
    """Tokens of the prompt that is prefilled."""
    return min(PROMPT, config.max_position_embeddings)


def contexts(config: ModelConfig) -> list[int]:
    """The lengths that the slider offers for this model."""
    longest = config.max_position_embeddings
    return [length for length in CONTEXTS if length <= longest] or [longest]


def _sent(config: ModelConfig) -> dict[str, Any]:
    """What shared/roofline.js needs of a model."""
    return {
        "costs": coefficients(config),
        "kvBytes": costs.kv_bytes_per_token(config),
        "weights": {scheme: weight_bytes(config, scheme) for scheme in WEIGHTS},
        "embedding": {scheme: embedding_bytes(config, scheme) for scheme in WEIGHTS},
    }


def roofline(
    model: str | Path | Transformer | ModelConfig = "Llama-3.1-8B",
    chip: str = "H100 SXM",
    *,
    weights: str = "bf16",
    batch: int = 16,
    context: int = 256,
) -> Roofline:
    """Explorer of the roofline: time of a step and tokens a second, from FLOPs and bytes alone.

    ``model``: "Llama-3.1-8B", "Llama-2-70B" or "pico", which are always among the choices, or any other model.
    ``chip``: a name of ``CHIPS``; ``weights``: "bf16", "int8" or "int4"; ``batch`` sequences of ``context`` tokens.
    They say where the controls start; numbers between two stops of a slider become the stop below.

    Raises BadParameter.
    """
    models = {name: PRESETS[name] for name in ("Llama-3.1-8B", "Llama-2-70B")} | {"pico": as_config("pico")}
    name = model if isinstance(model, str) and model in models else "your model"
    if name not in models:
        models[name] = as_config(model)
    for value, known in ((chip, CHIPS), (weights, WEIGHTS)):
        if value not in known:
            raise BadParameter(f"roofline() does not know {value!r}; choose one of {', '.join(known)}.")
    start = {
        "model": name,
        "chip": chip,
        "weights": weights,
        "batch": max((b for b in BATCHES if b <= batch), default=1),
        "context": max(
            (c for c in contexts(models[name]) if c <= context), default=contexts(models[name])[0]
        ),
    }
    return Roofline(models, start)
