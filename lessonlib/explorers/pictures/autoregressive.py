"""autoregressive: the work of generating token by token, with and without reuse, step by step."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.engine import ModelConfig, Transformer, costs

from ..base import Explorer
from ..sources import as_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 512  # tokens of prompt, and of answer, that the sliders offer


def coefficients(config: ModelConfig) -> dict[str, Any]:
    """The numbers from which a browser can compute ``costs.predict``: FLOPs per token and per query–key pair.

    ``attention`` has one entry for each size of sliding window among the layers (None: no window).
    """
    windows = Counter(config.window(layer) for layer in range(config.num_hidden_layers))
    return {
        "body_flops_per_token": costs.body_flops_per_token(config),
        "head_flops_per_token": costs.head_flops_per_token(config),
        "attention": [
            {"window": window, "flops_per_pair": costs.attention_flops_per_pair(config, layers=layers)}
            for window, layers in windows.items()
        ],
    }


class Autoregressive(Explorer):
    picture = "autoregressive"

    def __init__(self, config: ModelConfig, prompt_tokens: int, new_tokens: int, step: int):
        longest = min(LONGEST, config.max_position_embeddings // 2)
        self._config = config
        defaults = {
            "prompt": max(1, min(prompt_tokens, longest)),
            "newTokens": max(1, min(new_tokens, longest)),
            "step": max(1, min(step, new_tokens, longest)),
            "count": "tokens",
            "axis": "linear",
        }
        limits = {"prompt": longest, "newTokens": longest}
        super().__init__(data={"costs": coefficients(config), "limits": limits, "defaults": defaults})

    def _runs(self) -> tuple[costs.Work, costs.Work]:
        at = self.data["defaults"]
        args = (self._config, at["prompt"], at["newTokens"])
        return costs.predict(*args, use_cache=False), costs.predict(*args, use_cache=True)

    def _title(self) -> str:
        step = self.data["defaults"]["step"]
        without, cached = (work.steps[step - 1].tokens for work in self._runs())
        some = f"{without:,} token{' is' if without == 1 else 's are'}"
        return f"Step {step}: without a cache {some} processed, with a cache {cached:,}."

    def summary(self) -> str:
        at = self.data["defaults"]
        without, cached = self._runs()
        return (
            f"{self._title()} For a prompt of {at['prompt']:,} and {at['newTokens']:,} new tokens, the whole "
            f"run processes {without.tokens:,} tokens without a cache and {cached.tokens:,} with one; "
            f"that is {without.flops / cached.flops:.1f} times the FLOPs."
        )

    def figure(self) -> Figure:
        from ..figure import fills_legend, new_figure

        at = self.data["defaults"]
        without, cached = self._runs()
        figure = new_figure(9.4, 4.3, self._title())
        lanes = figure.add_axes((0.012, 0.53, 0.976, 0.32))
        _draw_lanes(lanes, at["prompt"], at["newTokens"], at["step"])
        entries = [
            ("fresh", "computed for the first time"),
            ("again", "computed again"),
            ("reused", "reused from the cache"),
            ("none", "not generated yet (the last token is never run: no box)"),
        ]
        fills_legend(figure, entries, loc="upper left", bbox_to_anchor=(0.0, 0.92))
        tokens = [[step.tokens for step in work.steps] for work in (without, cached)]
        totals = [list(accumulate(values)) for values in tokens]
        for left, pair, title in ((0.055, tokens, "at each step"), (0.555, totals, "in total so far")):
            ax = figure.add_axes((left, 0.11, 0.425, 0.31))
            _draw_chart(ax, pair[0], pair[1], at["step"], f"Tokens processed {title}")
        return figure


def _draw_lanes(ax: Axes, prompt: int, new: int, step: int) -> None:
    from matplotlib.patches import Rectangle

    from ..figure import FILLS, INK, MUTED

    total, slots = prompt + step - 1, prompt + new - 1
    fresh = total if step == 1 else 1
    ax.set(xlim=(0, slots), ylim=(3.25, 0))
    ax.axis("off")
    for y, name, known in ((0.35, "Without a cache", "again"), (1.85, "With a cache", "reused")):
        ax.text(0, y - 0.08, name, fontweight="bold", va="bottom")
        runs = [(0, total - fresh, known), (total - fresh, total, "fresh"), (total, slots, "none")]
        for first, last, fill in runs:
            for i in range(first, last):
                ax.add_patch(Rectangle((i + 0.07, y), 0.86, 0.75, linewidth=0.7, **FILLS[fill]))
        processed = total if known == "again" else fresh
        ax.text(
            slots, y - 0.08, f"{processed:,} processed", fontweight="bold", ha="right", va="bottom", color=INK
        )
    for left, right, words in (
        (0, prompt, f"prompt: {prompt}"),
        (prompt, slots, f"generated so far: {step - 1} of {new}"),
    ):
        ax.plot(
            [left + 0.1, left + 0.1, right - 0.1, right - 0.1],
            [2.68, 2.78, 2.78, 2.68],
            color=MUTED,
            linewidth=0.7,
        )
        ax.text((left + right) / 2, 2.86, words, ha="center", va="top", color=MUTED, fontsize=8)


def _draw_chart(ax: Axes, without: list[int], cached: list[int], step: int, title: str) -> None:
    from matplotlib.patheffects import withStroke

    from ..figure import BLUE, FILLS, LINE, MUTED, VERMILLION

    edges = [i + 0.5 for i in range(len(without) + 1)]
    ax.set_title(title)
    ax.grid(axis="y", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    for done, alpha in ((len(without), 0.25), (step, 1.0)):
        tops = without[:done], cached[:done], edges[: done + 1]
        ax.stairs(tops[0], tops[2], baseline=tops[1], fill=True, alpha=alpha, linewidth=0, **FILLS["again"])
        ax.stairs(tops[1], tops[2], fill=True, alpha=alpha, linewidth=0, color=BLUE)
    ax.stairs(without, edges, baseline=None, color=VERMILLION, linewidth=1.5)
    ax.stairs(cached, edges, baseline=None, color=BLUE, linewidth=1.5, linestyle=(0, (4, 2)))
    ax.axvline(step, color=MUTED, linewidth=0.8, linestyle=":")
    ax.set(xlim=(0.5, len(without) + 0.5), ylim=(0, None), xlabel="step")
    # The labels stand at the dotted line: at the end of a line they would read as its last value.
    left = step > len(without) / 5
    halo = withStroke(linewidth=2.5, foreground="white")
    for values, name, color, up in ((without, "without", VERMILLION, 6), (cached, "with", BLUE, 4)):
        value = values[step - 1]
        ax.plot([step], [value], "o", color=color, markersize=4, markeredgecolor="white", clip_on=False)
        ax.annotate(
            f"{name} {value:,}",
            (step, value),
            (-6 if left else 6, up),
            textcoords="offset points",
            color=color,
            ha="right" if left else "left",
            va="bottom",
            fontsize=8.5,
            path_effects=[halo],
        )


def autoregressive(
    model_or_config: str | Path | Transformer | ModelConfig = "pico",
    prompt_tokens: int = 12,
    new_tokens: int = 32,
    step: int = 12,
) -> Autoregressive:
    """Explorer of the autoregressive loop: tokens and FLOPs of every step, with and without a KV cache.

    The counts are those of ``costs.predict`` for this model (a name, a folder, a model or a ModelConfig).
    ``prompt_tokens``, ``new_tokens`` and ``step`` say where the sliders start.
    """
    return Autoregressive(as_config(model_or_config), prompt_tokens, new_tokens, step)
