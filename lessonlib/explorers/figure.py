"""Pictures on paper: the course's colours, a calm matplotlib style, and PNG bytes that stay the same.

Colours: Okabe & Ito 2008, "Color Universal Design"; every colour comes with a hatch, so that none is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, YELLOW, PURPLE, BLACK = "#56B4E9", "#F0E442", "#CC79A7", "#000000"
INK, MUTED, LINE = "#1f2328", "#59636e", "#d1d9e0"

# The fills of the pictures, as in shared/drawing.js: keyword arguments of a matplotlib patch.
FILLS: dict[str, dict[str, Any]] = {
    "fresh": {"facecolor": BLUE, "edgecolor": BLUE},
    "answer": {"facecolor": "#cfe6f5", "edgecolor": BLUE},
    "again": {"facecolor": "#f9dcc8", "edgecolor": VERMILLION, "hatch": "////"},
    "reused": {"facecolor": "#d5efe5", "edgecolor": GREEN, "hatch": "...."},
    "cut": {"facecolor": "#eceff1", "edgecolor": "#8c959f", "hatch": "xxxx"},
    "none": {"facecolor": "#ffffff", "edgecolor": "#c4ccd4"},
}

PIXELS_PER_POINT = 2  # drawn for dense screens, shown at half size
DPI = 100 * PIXELS_PER_POINT
COLOURS = 96

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "hatch.linewidth": 0.9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": "white",
}


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure, ``width`` × ``height`` in hundreds of CSS pixels, with a sentence as its title.

    It belongs to no pyplot state: nothing is shown twice, nothing has to be closed.
    """
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.09 / height, title, fontsize=11.5, fontweight="bold", va="top", color=INK)
    return figure


def fills_legend(figure: Figure, entries: Sequence[tuple[str, str]], **where: Any) -> None:
    """One line of swatches and their meanings; ``entries`` are (fill, meaning)."""
    handles = [Patch(label=meaning, linewidth=0.8, **FILLS[name]) for name, meaning in entries]
    figure.legend(handles=handles, ncols=len(handles), handlelength=1.8, columnspacing=1.6, **where)


def draw_stages(ax: Axes, stages: Sequence[tuple[str, str, str]]) -> None:
    """Five boxes in a row, arrows between: each a name, a detail, and what is inside, in code type."""
    ax.set(xlim=(0, 100), ylim=(0, 1))
    ax.axis("off")
    inches = ax.get_position().height * ax.figure.get_size_inches()[1]  # type: ignore[union-attr]
    line = 0.18 / inches
    for i, (name, detail, inside) in enumerate(stages):
        x = i * 20.4
        box = FancyBboxPatch((x + 0.1, 0.03), 17.6, 0.94, "round,pad=0,rounding_size=0.7")
        box.set(facecolor="#f3f5f7", edgecolor=LINE, mutation_aspect=0.11 / inches)
        ax.add_patch(box)
        ax.text(x + 1, 0.97 - line, name, fontweight="bold", va="center", color=INK)
        ax.text(x + 1, 0.97 - 2.2 * line, detail, va="center", color=MUTED, fontsize=7)
        code = {"family": "DejaVu Sans Mono", "fontsize": 7.5, "linespacing": 1.5}
        ax.text(x + 1, 0.97 - 3.0 * line, inside, va="top", color=INK, **code)  # type: ignore[arg-type]
        if i:
            ax.text(x - 1.35, 0.5, "→", ha="center", va="center", color=MUTED)


def paper(draw: Callable[[], Figure]) -> tuple[bytes, dict[str, int]]:
    """PNG bytes of the figure that ``draw`` makes, and the width and height to show it at, in CSS pixels.

    No timestamp, no version, few colours: the same figure gives the same, small file.
    """
    raw = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        draw().savefig(raw, format="png", dpi=DPI)
    small = io.BytesIO()
    with Image.open(raw) as picture:
        width, height = picture.size
        flat = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        flat.save(small, format="png", optimize=True)
    return small.getvalue(), {"width": width // PIXELS_PER_POINT, "height": height // PIXELS_PER_POINT}
