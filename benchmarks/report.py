"""What a run leaves behind: one JSON and one picture a benchmark, and their tables in README.md.

The JSON files are the record; tables and pictures are made from them, so nothing is ever typed by hand.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from . import report_cuda
from .measure import WARM_UP, Row
from .pictures import Bar, Point, draw_bars, draw_points
from .shapes import MODELS
from .suite import BASELINE, BENCHMARKS, Benchmark

HERE = Path(__file__).resolve().parent


def machine(threads: int) -> dict[str, Any]:
    """What ran this."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        name = next((v.strip() for k, v in lines.items() if k.strip() == "model name"), name)
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def record(
    benchmark: Benchmark,
    model: str,
    rows: Sequence[Row],
    rounds: int,
    bandwidth: dict[str, float],
    versions: dict[str, str],
    threads: int,
    quick: bool,
) -> dict[str, Any]:
    """One table as data."""
    base = next((row.speed for row in rows if row.name == BASELINE and row.samples), None)
    return {
        "command": f"python -m benchmarks {benchmark.name} --model {model}" + " --quick" * quick,
        "when": time.strftime("%Y-%m-%d"),
        "machine": machine(threads),
        "versions": versions,
        "memory_gb_per_s": bandwidth,
        "rounds": rounds,
        "warm_up": f"one run of the workload, cut to {WARM_UP} tokens a request",
        "rows": [
            {
                "engine": row.engine,
                "variant": row.variant,
                "tokens_per_s": row.speed,
                "ratio": row.speed / base if base else None,
                "samples": row.samples,
                **row.facts,
            }
            for row in rows
            if row.failed is None
        ],
        "failed": {row.name: row.failed for row in rows if row.failed is not None},
    }


def save(benchmark: Benchmark, model: str, found: dict[str, Any], folder: Path) -> None:
    """Put a table into the benchmark's JSON, beside those of other models, and draw them all again."""
    path = folder / f"{benchmark.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    content = load(benchmark, folder) | {model: found}
    content = {name: content[name] for name in MODELS if name in content}
    path.write_text(json.dumps(content, indent=1) + "\n")
    draw(benchmark, content, folder / f"{benchmark.name}.png")


def draw(benchmark: Benchmark, content: dict[str, Any], path: Path) -> None:
    """One panel a model: speed-ups as bars, or what bits buy as points."""
    panels: dict[str, Any] = {}
    for model, found in content.items():
        rows = [row for row in found["rows"] if row["ratio"] is not None]
        if benchmark.quality:
            panels[model] = [
                Point(row["engine"], row["variant"], float(_bits(row, found)), float(_quality(row, found)))
                for row in rows
            ]
        else:
            panels[model] = [
                Bar(row["engine"], f"{row['engine']} {row['variant']}", row["ratio"]) for row in rows
            ]
    if benchmark.quality:
        draw_points(panels, benchmark.title, path)
    else:
        draw_bars(panels, f"{benchmark.title} (speed-up over {BASELINE})", path)


def load(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    path = folder / f"{benchmark.name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


# ---------------------------------------------------------------- tables


def table(benchmark: Benchmark, found: dict[str, Any]) -> str:
    """Markdown of one model's rows; the fastest of each engine is bold."""
    columns = COLUMNS.get(benchmark.name, ())
    heads = ["", "tokens/s", "×", *(head for head, _ in columns)]
    fastest: dict[str, float] = {}
    for row in found["rows"]:
        fastest[row["engine"]] = max(row["tokens_per_s"], fastest.get(row["engine"], 0.0))
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for row in found["rows"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        if row["tokens_per_s"] == fastest[row["engine"]]:
            ratio = f"**{ratio}**"
        cells = [f"{row['engine']} {row['variant']}", _number(row["tokens_per_s"]), ratio]
        lines.append("| " + " | ".join([*cells, *(tell(row, found) for _, tell in columns)]) + " |")
    lines += [f"\n{name} did not run: {reason}" for name, reason in found["failed"].items()]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _memory(row: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{row['read_bytes'] * row['tokens_per_s'] / 1e9 / found['memory_gb_per_s']['read']:.0%}"


def _percent(name: str, of: str | None = None):
    def tell(row: dict[str, Any], found: dict[str, Any]) -> str:
        if name not in row or (of and not row[of]):
            return ""
        return f"{row[name] / (row[of] if of else 1):.0%}"

    return tell


def _milliseconds(row: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{1000 / row['tokens_per_s']:.3g}"


def _first(row: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{1000 * row['first_token']:.0f}"


def _megabytes(row: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{row['weight_bytes'] / 1e6:.1f}"


def _bits(row: dict[str, Any], found: dict[str, Any]) -> str:
    widest = max(other["weight_bytes"] for other in found["rows"])  # float32: 32 bits a weight
    return f"{32 * row['weight_bytes'] / widest:.2f}"


def _quality(row: dict[str, Any], found: dict[str, Any]) -> str:
    return f"{row['nats'] / 0.6931471805599453 / row['text_bytes']:.4f}"


def _gain(row: dict[str, Any], found: dict[str, Any]) -> str:
    """The speed-up over the same engine and format without drafts."""
    words = [word for word in row["variant"].split() if word not in ("draft", "ngram") and not word.isdigit()]
    alone = [
        other
        for other in found["rows"]
        if (other["engine"], other["variant"]) == (row["engine"], " ".join(words))
    ]
    return f"{row['tokens_per_s'] / alone[0]['tokens_per_s']:.2f}" if alone and alone[0] is not row else ""


SAME = ("same tokens", _percent("same_tokens"))
COLUMNS: dict[str, tuple] = {
    "decode": (("ms a token", _milliseconds), ("of memory bandwidth", _memory), SAME),
    "prefill": (
        ("ms to first token", lambda row, _: f"{512_000 / row['tokens_per_s']:.0f}"),
    ),  # of 512 tokens
    "batch8": (SAME,),
    "batch32": (SAME,),
    "mixed": (("mean ms to first token", _first), SAME),
    "quantized": (("bits a weight", _bits), ("MB", _megabytes), ("bits a byte", _quality)),
    "speculative": (("× without drafts", _gain), ("drafts accepted", _percent("accepted", "drafted")), SAME),
}


def write_readme(path: Path, folder: Path) -> None:
    """Put every table between its markers; whatever stands outside of them is left alone."""
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    for name, benchmark in BENCHMARKS.items():
        text = _put(text, name, section(benchmark, load(benchmark, folder), folder))
    if (on_gpu := folder / "cuda.json").exists():
        text = _put(text, "cuda", report_cuda.section(json.loads(on_gpu.read_text()), folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _put(text: str, name: str, content: str) -> str:
    """The page with this content between the markers of that name; where there are none, at its end."""
    begin, end = f"<!-- {name}: made by the harness -->", f"<!-- end of {name} -->"
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    return before + "\n".join([begin, content, end]) + after


def section(benchmark: Benchmark, content: dict[str, Any], folder: Path) -> str:
    """Heading, picture, and a table a model with the command that made it."""
    lines = [f"## {benchmark.name}", "", f"{benchmark.title}. Counted: {benchmark.counts}.", ""]
    if content:
        lines += [f"![{benchmark.title}]({folder.name}/{benchmark.name}.png)", ""]
    for model, found in content.items():
        read, machine = found["memory_gb_per_s"]["read"], found["machine"]
        lines += [
            f"**{model}**: `{found['command']}` on {found['when']}, median of {found['rounds']} rounds, "
            f"{machine['threads']} threads of {machine['cpu']}, memory read at {read:.1f} GB/s; "
            + ", ".join(
                f"{name} {version}" for name, version in found["versions"].items() if name != "compiled for"
            )
            + ".",
            "",
            table(benchmark, found),
            "",
        ]
    return "\n".join(lines)
