"""``python -m benchmarks``: measure, and write the results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .measure import THREADS, Bench
from .report import HERE, load, record, save, table, write_readme
from .shapes import BUILD, MODELS, prepare
from .suite import BENCHMARKS


def main(
    names: Annotated[list[str], typer.Argument(help=f"all, report, or some of {', '.join(BENCHMARKS)}.")],
    model: Annotated[
        list[str] | None, typer.Option(help=f"Only this model ({', '.join(MODELS)}); may be repeated.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="A few tokens, one round: does it run? Not a result.")] = False,
    missing: Annotated[
        bool, typer.Option(help="Skip tables that are there: go on after an interruption.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="Where JSON and PNG files go (otherwise beside this program).")
    ] = None,
    readme: Annotated[
        Path | None, typer.Option(help="The page that shows the tables (otherwise this program's).")
    ] = None,
) -> None:
    """Measure our engine beside transformers and llama.cpp, on the same weights, in one run.

    Example: python -m benchmarks decode prefill --model smollm2-135m
    """
    chosen = list(BENCHMARKS) if "all" in names else [name for name in names if name != "report"]
    if unknown := [name for name in chosen if name not in BENCHMARKS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(BENCHMARKS)}.")
    if unknown := [name for name in model or [] if name not in MODELS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(MODELS)}.")
    home = BUILD / "quick" if quick else HERE  # a quick run never stands where results stand
    results, readme = results or home / "results", readme or home / "README.md"
    start = time.perf_counter()
    threads = 1 if quick else THREADS  # a quick run need not be fast, and disturbs nobody
    with Bench(typer.echo, threads) as bench:
        for name in MODELS:  # model by model, so that each is loaded once
            wanted = [
                BENCHMARKS[b]
                for b in chosen
                if (name in model if model else name in BENCHMARKS[b].models)
                and not (missing and name in load(BENCHMARKS[b], results))
            ]
            if not wanted:
                continue
            prepared = prepare(name)
            for benchmark in wanted:
                began = time.perf_counter()
                bandwidth = bench.bandwidth(quick)
                rows, rounds = bench.measure(benchmark, prepared, quick)
                again = bench.bandwidth(quick)  # the better of before and after: noise only slows
                bandwidth = {key: max(value, again[key]) for key, value in bandwidth.items()}
                found = record(benchmark, name, rows, rounds, bandwidth, bench.about(), threads, quick)
                save(benchmark, name, found, results)
                write_readme(readme, results)
                took = time.perf_counter() - began
                typer.echo(f"\n{benchmark.name}, {name} ({took:.0f} s)\n{table(benchmark, found)}")
            bench.forget(prepared)
    write_readme(readme, results)  # "report" alone comes here at once
    typer.echo(f"\n{time.perf_counter() - start:.0f} s in all; tables in {readme}")


if __name__ == "__main__":
    typer.run(main)
