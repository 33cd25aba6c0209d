"""paged_blocks: block tables over one pool of KV memory: shared beginnings, copy-on-write, eviction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base import Explorer
from ..paging import BLOCK_SIZE, LONGEST, record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class PagedBlocks(Explorer):
    picture = "paged_blocks"

    def __init__(self, event: int):
        events = record()
        super().__init__(
            data={
                "events": events,
                "blockSize": BLOCK_SIZE,
                "longest": LONGEST,
                "defaults": {"event": max(1, min(event, len(events)))},
            }
        )

    def _now(self) -> dict[str, Any]:
        return self.data["events"][self.data["defaults"]["event"] - 1]

    def summary(self) -> str:
        at, now, events = self.data["defaults"]["event"], self._now(), self.data["events"]
        states = [block["state"] for block in now["blocks"]]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("held", "shared", "kept", "free"))
        return f"Event {at} of {len(events)}: {now['sentence']} Blocks: {counts}. {waste(now)}"

    def figure(self) -> Figure:
        from ..figure import fills_legend, new_figure

        now = self._now()
        figure = new_figure(9.4, 4.6, now["sentence"])
        entries = [
            ("fresh", "held by one"),
            ("reused", "shared"),
            ("cut", "kept for later, held by nobody"),
            ("none", "free"),
            ("again", "reserved, but empty"),
        ]
        fills_legend(figure, entries, loc="upper left", bbox_to_anchor=(0.0, 0.935))
        _draw_tables(figure.add_axes((0.012, 0.52, 0.976, 0.33)), now)
        _draw_pool(figure.add_axes((0.012, 0.235, 0.976, 0.26)), now)
        _draw_waste(figure.add_axes((0.012, 0.0, 0.976, 0.2)), now)
        return figure


FILL = {"held": "fresh", "shared": "reused", "kept": "cut", "free": "none"}


def waste(now: dict[str, Any]) -> str:
    """What is reserved and empty, in blocks and in slabs."""
    paged, slabs = (now[way]["held"] - now[way]["filled"] for way in ("paged", "slabs"))
    return (
        f"Of {now['paged']['held']} places in blocks {paged} are empty; of {now['slabs']['held']} in slabs for "
        f"{LONGEST} tokens each, {slabs} would be."
    )


def _draw_tables(ax: Axes, now: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    from ..figure import FILLS, INK, MUTED

    ax.set(xlim=(0, 100), ylim=(4, 0))
    ax.axis("off")
    ax.text(3, 0.62, "Block table", fontweight="bold")
    ax.text(24, 0.62, "Text so far", fontweight="bold")
    for i, one in enumerate(now["sequences"]):
        y = i + 0.95
        ax.text(0.4, y + 0.45, one["name"], fontweight="bold", va="center", color=INK)
        for j, block in enumerate(one["table"]):
            x = 3 + j * 4.6
            ax.add_patch(Rectangle((x, y), 4, 0.66, facecolor="white", edgecolor=MUTED, linewidth=0.7))
            ax.add_patch(
                Rectangle((x, y + 0.66), 4, 0.18, linewidth=0.5, **FILLS[FILL[now["blocks"][block]["state"]]])
            )
            ax.text(x + 2, y + 0.34, str(block), ha="center", va="center", color=INK)
        ax.text(24, y + 0.45, f"{one['text']}   ({one['tokens']} tokens)", va="center", color=INK)


def _draw_pool(ax: Axes, now: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    from ..figure import FILLS, INK, LINE, MUTED

    each = 100 / len(now["blocks"])
    ax.set(xlim=(0, 100), ylim=(4.3, 0))
    ax.axis("off")
    for i, block in enumerate(now["blocks"]):
        x, width = i * each, each - 1
        changed = i in now["changed"]
        ax.add_patch(
            Rectangle(
                (x, 0.05),
                width,
                4.1,
                facecolor="none",
                edgecolor=INK if changed else LINE,
                linewidth=1.8 if changed else 0.8,
                zorder=3,
            )
        )
        ax.add_patch(Rectangle((x, 0.05), 0.9, 4.1, linewidth=0, **FILLS[FILL[block["state"]]]))
        ax.text(x + 1.4, 0.55, f"block {i}", fontweight="bold", va="center", color=INK, fontsize=8)
        ax.text(x + width - 0.4, 0.55, block["state"], ha="right", va="center", color=MUTED, fontsize=7)
        for j, word in enumerate(block["words"]):
            left, top = x + 1.4 + (j % 2) * (width - 1.8) / 2, 1.0 + (j // 2) * 1.15
            ax.add_patch(
                Rectangle(
                    (left, top), (width - 2.4) / 2, 1.0, facecolor="white", edgecolor=LINE, linewidth=0.7
                )
            )
            ax.text(
                left + (width - 2.4) / 4, top + 0.5, word, ha="center", va="center", fontsize=7, color=INK
            )
        foot = f"count {len(block['holders'])}: {', '.join(block['holders'])}"
        if block["turn"]:
            foot = f"no. {block['turn']} to be taken"
        ax.text(x + 1.4, 3.72, foot, va="center", color=MUTED, fontsize=7)


def _draw_waste(ax: Axes, now: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    from ..figure import FILLS, VERMILLION

    ax.set(xlim=(0, 3 * LONGEST), ylim=(4, 0))
    ax.axis("off")
    names = (
        ("paged", f"In blocks of {BLOCK_SIZE}"),
        ("slabs", f"In one slab of {LONGEST} places for each sequence"),
    )
    for i, (way, name) in enumerate(names):
        held, filled = now[way]["held"], now[way]["filled"]
        y = 2 * i
        said = ax.text(0, y + 0.75, f"{name}: ", fontweight="bold")
        ax.annotate(
            f"{held - filled} of {held} reserved places are empty",
            (1, 0),
            xycoords=said,
            va="bottom",
            color=VERMILLION,
            fontweight="bold",
        )
        ax.add_patch(Rectangle((0, y + 1.0), filled, 0.65, linewidth=0.7, **FILLS["fresh"]))
        ax.add_patch(Rectangle((filled, y + 1.0), held - filled, 0.65, linewidth=0.7, **FILLS["again"]))


def paged_blocks(event: int = 15) -> PagedBlocks:
    """Explorer of paged KV memory: block tables, shared beginnings, copy-on-write, eviction, and what is wasted.

    A scripted scenario of six short sequences runs through the engine's BlockPool and PagedCache when this is called;
    every event is what they did. ``event`` says which one is shown first (1: the first).
    """
    return PagedBlocks(event)
