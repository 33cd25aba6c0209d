"""``python -m lessonlib.security.evaluate [output] … [--save]``: figures, with the data that they were measured on.

``--save`` keeps them in ``evaluation/figures.json`` and puts the table that is made from them into README.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from .evaluation import report
from .evaluation.extraction import detector_figures, surface_figures
from .evaluation.output import output_figures
from .evaluation.timing import timing_figures
from .evaluation.validator import validator_figures

FIGURES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "output": output_figures,
    "detector": detector_figures,
    "surface": surface_figures,
    "timing": timing_figures,
    "validator": validator_figures,
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same kind, one below the other; what they have in common, such as the data, stands at the end."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    common = [name for name in names if len(rows) > 1 and len({str(row.get(name)) for row in rows}) == 1]
    columns = [name for name in names if name not in common]
    cells = [columns, *([_shown(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, *(f"{name}: {_shown(rows[0][name])}" for name in common)])


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str]) -> None:
    names = [name for name in arguments if name != "--save"]
    if unknown := [name for name in names if name not in FIGURES]:
        raise SystemExit(f"{unknown[0]!r} is not evaluated here; choose from {', '.join(FIGURES)}.")
    for name in names or FIGURES:
        start = time.perf_counter()
        rows = FIGURES[name]()
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)\n{table(rows)}", flush=True)
        if "--save" in arguments:
            report.save({name: rows})


if __name__ == "__main__":
    main(sys.argv[1:])
