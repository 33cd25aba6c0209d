"""Table and picture of the GPU benchmark, from its JSON: no GPU needed."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .pictures import Bar, draw_bars


def section(found: dict[str, Any], folder: Path) -> str:
    """What the page shows."""
    title = "The engine on an NVIDIA GPU: a batch-1 decode, and many requests of mixed lengths at once"
    return f"## cuda\n\n{title}.\n\n![{title}]({folder.name}/cuda.png)\n\n{table(found)}\n"


def table(found: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines = [
        f"`{found['command']}` on {found['machine']}; {found['when']}. A copy within the GPU's memory moves "
        f"{found['copy_bandwidth'] / 1e12:.2f} TB/s (bytes read and written). Medians; warm-up: every workload once.",
        "",
    ]
    if rows := found.get("decode"):
        base = statistics.median(rows["bf16"]["seconds"])
        lines += [
            f"Batch-1 decode, shapes of Llama-3-8B, {found['prompt']} tokens of prompt, {found['new']} new. *Step*: "
            "wall clock through the whole engine; *bandwidth*: bytes that the step must fetch, over the step's time, "
            "against the copy.",
            "",
            "| | step, ms | tokens/s | GB a step | bandwidth | × bf16 | GPU alone, ms | step of 32 rows, ms |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            step = statistics.median(row["seconds"])
            share = row["bytes"] / step / found["copy_bandwidth"]
            alone, many = row.get("gpu_seconds"), row.get("seconds_batch_32")
            lines.append(
                f"| {name} | {1000 * step:.2f} | {1 / step:.0f} | {row['bytes'] / 1e9:.2f} | {share:.0%} "
                f"| {base / step:.2f} | {f'{1000 * alone:.2f}' if alone else ''} "
                f"| {f'{1000 * statistics.median(many):.2f}' if many else ''} |"
            )
        lines.append("")
    if rows := found.get("mixed"):
        prompt, new = found["mixed_tokens"]
        best = min(statistics.median(row["seconds"]) for name, row in rows.items() if name != "ours")
        lines += [
            f"{found['requests']} requests at once, shapes of Llama-3.2-1B in bf16: prompts of "
            f"{' to '.join(map(str, found['prompts']))} tokens ({prompt} in all), "
            f"{' to '.join(map(str, found['outputs']))} new ones ({new}).",
            "",
            "| | seconds | new tokens/s | × the best of transformers |",
            "|---|---|---|---|",
        ]
        for name, row in rows.items():
            seconds = statistics.median(row["seconds"])
            lines.append(f"| {name} | {seconds:.2f} | {new / seconds:.0f} | {best / seconds:.2f} |")
        lines.append("")
    lines += [f"{name} failed: {error}" for name, error in found.get("failed", {}).items()]
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Both tables as bars."""
    panels = {}
    if rows := found.get("decode"):
        panels["batch-1 decode, 8B shapes"] = [
            _bar(name, 1 / statistics.median(row["seconds"])) for name, row in rows.items()
        ]
    if rows := found.get("mixed"):
        new = found["mixed_tokens"][1]
        panels[f"{found['requests']} mixed requests, 1B shapes"] = [
            _bar(name, new / statistics.median(row["seconds"])) for name, row in rows.items()
        ]
    draw_bars(panels, "New tokens a second on an NVIDIA GPU", path)


def _bar(name: str, speed: float) -> Bar:
    theirs = name.startswith("transformers")
    return Bar(
        "transformers" if theirs else "ours", name if theirs or name == "ours" else f"ours {name}", speed
    )
