"""Pictures of results: bars of speed, and points of what bits buy. No engine and no benchmark is known here."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

COLOURS = {"transformers": "#999999", "llama.cpp": "#0072B2", "ours": "#D55E00"}  # Okabe and Ito's
HATCHES = {"transformers": "", "llama.cpp": "//", "ours": ""}
MARKERS = {"transformers": "s", "llama.cpp": "^", "ours": "o"}
WIDTH, LINE = 5.2, 76  # of a panel: inches, and letters of a title above it


class Bar(NamedTuple):
    engine: str
    label: str
    value: float


class Point(NamedTuple):
    engine: str
    label: str
    bits: float  # a weight
    cost: float  # bits a byte of text


def draw_bars(panels: Mapping[str, Sequence[Bar]], title: str, path: Path) -> None:
    """One panel for each name, one bar below the other; a dotted line stands at 1."""
    tallest = max(map(len, panels.values()))
    figure, axes = _figure(panels, title, 1.0 + 0.28 * tallest)
    for axis, bars in zip(axes, panels.values(), strict=True):
        values = [bar.value for bar in bars]
        drawn = axis.barh(
            [bar.label for bar in bars],
            values,
            color=[COLOURS[bar.engine] for bar in bars],
            hatch=[HATCHES[bar.engine] for bar in bars],
            edgecolor="white",
        )
        axis.bar_label(
            drawn, [f"{v:,.0f}" if v >= 100 else f"{v:.2g}" for v in values], padding=3, fontsize=8
        )
        if min(values) <= 1:
            axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axis.set_xlim(0, 1.18 * max(values))
        axis.invert_yaxis()
    _save(figure, path)


def draw_points(panels: Mapping[str, Sequence[Point]], title: str, path: Path) -> None:
    """One panel for each name: fewer bits to the left, worse predictions further up."""
    figure, axes = _figure(panels, title, 4.6)
    for axis, points in zip(axes, panels.values(), strict=True):
        for point in points:
            axis.plot(
                point.bits, point.cost, MARKERS[point.engine], color=COLOURS[point.engine], label=point.engine
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks([4, 5, 6, 8, 16, 32], labels=["4", "5", "6", "8", "16", "32"])
        axis.set_xlim(3.9, 44)
        axis.set_xlabel("bits a weight, scales included", fontsize=8)
        axis.set_ylabel("bits a byte of held-out code (lower is better)", fontsize=8)
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(handles.values(), handles.keys(), fontsize=8)
    figure.tight_layout()
    for axis, points in zip(axes, panels.values(), strict=True):
        _label(axis, points)
    _save(figure, path)


def _label(axis: Any, points: Sequence[Point]) -> None:
    """Names beside the points, moved up where they would lie on each other."""
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.cost, point.bits)):
        x, y = axis.transData.transform((point.bits, point.cost))
        x, y = x + 8, y - 3
        while any(abs(x - other) < 75 and abs(y - height) < 13 for other, height in taken):
            y += 1
        taken.append((x, y))
        at = axis.transData.inverted().transform((x, y))
        axis.annotate(point.label, at, fontsize=7.5, color=COLOURS[point.engine], annotation_clip=False)


def _figure(panels: Mapping[str, Any], title: str, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(WIDTH * len(panels), height), squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(textwrap.fill(title, LINE * len(panels)), fontsize=9)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
