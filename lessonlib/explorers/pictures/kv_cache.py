"""kv_cache: what the KV cache makes unnecessary, cell by cell, and what it costs in memory, user by user."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.engine import ModelConfig, Transformer, costs
from lessonlib.engine.errors import BadParameter

from ..base import Explorer
from ..sources import as_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROMPT, STEPS = (
    12,
    12,
)  # longest prompt and number of steps of the matrix: more cells would be too small to see
CONTEXTS = [128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]
LAYERS = 128
HEADS = {1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128}
HEAD_DIMS = {16, 32, 64, 80, 96, 128, 192, 256}
USERS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
FORMATS = ["float32", "float16", "int8", "int4"]

# Shapes from the models' own config.json (meta-llama/Llama-2-7b-hf and -70b-hf, July 2023; Llama-3.1-8B, July 2024).
_LLAMA_2 = {"vocab_size": 32_000, "max_position_embeddings": 4096, "tie_word_embeddings": False}
PRESETS = {
    "Llama-2-7B": ModelConfig(
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=128,
        **_LLAMA_2,  # type: ignore[arg-type]
    ),
    "Llama-3.1-8B": ModelConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131_072,
        tie_word_embeddings=False,
    ),
    "Llama-2-70B": ModelConfig(
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        **_LLAMA_2,  # type: ignore[arg-type]
    ),
}

# Memory as NVIDIA's data sheets give it (RTX 4090, 2022; H100 SXM, 2022; H200, 2023), a GB counted as 10^9 bytes.
CARDS: list[dict[str, Any]] = [
    {"name": f"{gigabytes} GB", "bytes": gigabytes * 10**9} for gigabytes in (24, 80, 141)
]


def shape(config: ModelConfig) -> dict[str, Any]:
    """What shared/kv.js needs of a config."""
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kvHeads": config.num_key_value_heads,
        "headDim": config.head_dim,
        "hidden": config.hidden_size,
        "ffn": config.intermediate_size,
        "vocab": config.vocab_size,
        "context": config.max_position_embeddings,
        "tied": int(config.tie_word_embeddings),
        "qkvBias": int(config.attention_bias),
        "outBias": int(config.output_bias),
        "mlpBias": int(config.mlp_bias),
        "qkNorm": int(config.qk_norm),
        "window": config.sliding_window,
        "windowLayers": None if config.window_layers is None else list(config.window_layers),
    }


def users_that_fit(config: ModelConfig, card_bytes: int, context: int) -> int | None:
    """Users of ``context`` tokens that a card holds beside the weights, all in 16 bits; None: not even the weights."""
    left = card_bytes - 2 * config.num_parameters
    return None if left < 0 else left // (costs.kv_bytes_per_token(config) * context)


class KVCache(Explorer):
    picture = "kv_cache"

    def __init__(self, name: str, config: ModelConfig, view: str, step: int, prompt_tokens: int):
        if view not in ("reuse", "cost"):
            raise BadParameter(f"view {view!r} is not known; choose 'reuse' or 'cost'.")
        self._name, self._config = name, config
        models = {name: config, **PRESETS}
        sizes = shape(config)
        defaults = {
            "view": view,
            "model": name,
            **{key: sizes[key] for key in ("layers", "heads", "kvHeads", "headDim")},
            "format": "float16",
            "context": min(4096, config.max_position_embeddings),
            "users": 4,
            "step": max(1, min(step, STEPS)),
            "prompt": max(1, min(prompt_tokens, PROMPT)),
        }
        super().__init__(
            data={
                "models": {key: shape(value) for key, value in models.items()},
                "cards": CARDS,
                "contexts": CONTEXTS,
                "formats": FORMATS,
                "limits": {
                    "prompt": PROMPT,
                    "steps": STEPS,
                    "layers": max(LAYERS, config.num_hidden_layers),
                },
                "stops": {
                    "heads": sorted(HEADS | {c.num_attention_heads for c in models.values()}),
                    "headDim": sorted(HEAD_DIMS | {c.head_dim for c in models.values()}),
                    "users": USERS,
                },
                "defaults": defaults,
            }
        )

    def _gains(self) -> tuple[list[int], list[int]]:
        """Bytes held and FLOPs saved so far, after each step."""
        prompt, per_token = self.data["defaults"]["prompt"], costs.kv_bytes_per_token(self._config)
        without, cached = (
            costs.predict(self._config, prompt, STEPS, use_cache=use).steps for use in (False, True)
        )
        saved = accumulate(a.flops - b.flops for a, b in zip(without, cached, strict=True))
        return [step.tokens * per_token for step in without], list(saved)

    def _title(self) -> str:
        at = self.data["defaults"]
        step, total = at["step"], at["prompt"] + at["step"] - 1
        every, held = total * (total + 1) // 2, bytes_text(self._gains()[0][step - 1])
        if step == 1:
            return f"Step 1 runs the whole prompt: {every:,} cells either way, and {held} of keys and values to keep."
        return (
            f"Step {step}: without a cache {every:,} cells are computed, with a cache {total:,}, "
            f"for {held} of memory."
        )

    def summary(self) -> str:
        context = self.data["defaults"]["context"]
        per_token = costs.kv_bytes_per_token(self._config)
        rooms = []
        for card in CARDS:
            fit = users_that_fit(self._config, card["bytes"], context)
            rooms.append(f"{card['name']}: {'the weights do not fit' if fit is None else f'{fit:,} users'}")
        return (
            f"{self._title()} {self._name} keeps {bytes_text(per_token)} for every token; beside its weights, a card "
            f"has room for so many users with {context:,} tokens each: {'; '.join(rooms)}."
        )

    def figure(self) -> Figure:
        from ..figure import fills_legend, new_figure

        at = self.data["defaults"]
        figure = new_figure(9.4, 5.2, self._title())
        entries = [
            ("fresh", "computed for the first time"),
            ("again", "computed again"),
            ("reused", "kept in the cache: not computed again"),
        ]
        fills_legend(figure, entries, loc="upper left", bbox_to_anchor=(0.0, 0.94))
        for left, cached in ((0.03, False), (0.345, True)):
            ax = figure.add_axes((left, 0.36, 0.27, 0.27 * 9.4 / 5.2))
            _draw_matrix(ax, at["prompt"], at["step"], cached)
        held, saved = self._gains()
        for bottom, values, fill, title in (
            (0.655, held, "reused", f"Memory held: {bytes_text(held[at['step'] - 1])}"),
            (0.375, saved, "again", f"FLOPs saved so far: {saved[at['step'] - 1] / 1e6:,.0f} M"),
        ):
            ax = figure.add_axes((0.69, bottom, 0.295, 0.15))
            _draw_growth(ax, values, at["step"], fill, title)
        table = figure.add_axes((0.012, 0.0, 0.976, 0.29))
        _draw_table(table, {self._name: self._config, **PRESETS})
        return figure


def bytes_text(amount: float) -> str:
    """Memory in the units of its addresses, as shared/numbers.js writes it: 512 KiB, 1.5 MiB."""
    power = 0
    while amount >= 1024 and power < 4:
        amount, power = amount / 1024, power + 1
    exact = Decimal(amount)  # JavaScript rounds halves up, Python to even
    if amount >= 100 or amount == int(amount):
        text = f"{exact.quantize(Decimal(1), ROUND_HALF_UP):,}"
    else:
        text = f"{Context(3, ROUND_HALF_UP).create_decimal(exact).normalize():f}"
    return f"{text} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _draw_matrix(ax: Axes, prompt: int, step: int, cached: bool) -> None:
    from matplotlib.patches import Rectangle

    from ..figure import BLUE, FILLS, INK, MUTED, VERMILLION

    cells, total = prompt + STEPS - 1, prompt + step - 1
    fresh = total if step == 1 else 1
    ax.set(xlim=(0, cells), ylim=(cells, -4.6))
    ax.axis("off")
    for i in range(cells):
        fill = "none" if i >= total else "fresh" if i >= total - fresh else "reused" if cached else "again"
        look: dict[str, Any] = {**FILLS[fill], "linewidth": 0}
        if fill == "none":
            look["facecolor"] = "#f3f5f7"
        ax.add_patch(Rectangle((0, i), i + 1, 1, **look))
        ax.add_patch(Rectangle((i, -1.5), 1, 1.1, **look))
    for i in range(1, cells):
        ax.plot([i, i], [-1.6, cells], color="white", linewidth=0.9)
        ax.plot([0, cells], [i, i], color="white", linewidth=0.9)
    computed = total if cached and step > 1 else total * (total + 1) // 2
    ax.text(0, -3.3, "With a cache" if cached else "Without a cache", fontweight="bold", color=INK)
    ax.text(
        0,
        -2.0,
        f"{computed:,} cells computed",
        color=BLUE if cached else VERMILLION,
        fontweight="bold",
    )
    small: dict[str, Any] = {"color": MUTED, "fontsize": 7}
    ax.text(cells, -3.3, "strip: keys and values", ha="right", **small)
    ax.text(0, cells + 1.0, "each column: a token looked at", **small)
    if not cached:
        ax.text(-0.9, cells, "each row: a token that looks", rotation=90, va="bottom", ha="center", **small)


def _draw_growth(ax: Axes, values: list[int], step: int, fill: str, title: str) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    from ..figure import FILLS, LINE

    ax.set_title(title)
    ax.grid(axis="y", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    at = range(1, len(values) + 1)
    for first, last, alpha in ((0, step, 1.0), (step, len(values), 0.3)):
        ax.bar(at[first:last], values[first:last], alpha=alpha, linewidth=0.7, **FILLS[fill])
    ax.locator_params(axis="y", nbins=3)
    if fill == "reused":
        unit = 1024 ** (int(math.log2(values[-1])) // 10)
        ax.set_yticks([tick * unit for tick in MaxNLocator(3).tick_values(0, values[-1] / unit)][:-1])
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value) if value else "0"))
    else:
        ax.yaxis.set_major_formatter(EngFormatter(places=0, sep=" "))
    ax.set_xticks([1, step, len(values)] if 1 < step < len(values) else [1, len(values)])
    ax.set_xlabel("step", labelpad=0)


def _draw_table(ax: Axes, models: dict[str, ModelConfig]) -> None:
    from ..figure import INK, LINE, MUTED

    ax.set(xlim=(0, 100), ylim=(len(models) + 1.6, 0))
    ax.axis("off")
    heads = [
        "layers",
        "query heads",
        "KV heads",
        "each token holds",
        *(f"{card['name']} card" for card in CARDS),
    ]
    ends = [27, 38, 48, 64, 76, 88, 100]
    ax.text(
        0, 0.7, "Users with 4,096 tokens each (or the model's most) beside 16-bit weights", fontweight="bold"
    )
    for end, head in zip(ends, heads, strict=True):
        ax.text(end, 1.5, head, ha="right", color=MUTED, fontsize=8)
    for i, (name, config) in enumerate(models.items()):
        y = i + 2.3
        ax.plot([0, 100], [y - 0.62, y - 0.62], color=LINE, linewidth=0.6)
        context = min(4096, config.max_position_embeddings)
        fits = [users_that_fit(config, card["bytes"], context) for card in CARDS]
        cells = [
            f"{config.num_hidden_layers}",
            f"{config.num_attention_heads}",
            f"{config.num_key_value_heads}",
            bytes_text(costs.kv_bytes_per_token(config)),
            *("weights too large" if fit is None else f"{fit:,}" for fit in fits),
        ]
        ax.text(0, y, name, color=INK)
        for end, cell in zip(ends, cells, strict=True):
            small = {"fontsize": 7.5, "color": MUTED} if cell.startswith("weights") else {"color": INK}
            ax.text(end, y, cell, ha="right", **small)  # type: ignore[arg-type]


def kv_cache(
    model: str | Path | Transformer | ModelConfig = "pico",
    view: str = "reuse",
    step: int = 6,
    prompt_tokens: int = 8,
) -> KVCache:
    """Explorer of the KV cache: the attention matrix with and without one, and the memory it takes.

    model: a name, a folder, a model or a ModelConfig, beside which three well-known shapes are offered. view: the side
    shown first, "reuse" or "cost". step and prompt_tokens (1 to 12 each) say where the sliders start. FLOPs and bytes
    are those of ``costs``; weights are counted in 16 bits. Raises BadParameter for another view.
    """
    name = Path(model).name if isinstance(model, str | Path) else "this model"
    return KVCache(name, as_config(model), view, step, prompt_tokens)
