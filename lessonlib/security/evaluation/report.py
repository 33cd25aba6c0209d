"""The figures that were measured last, and the table of README.md that is made from them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..validator import shipped

FIGURES = Path(__file__).with_name("figures.json")
PAGE = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- made by evaluate --save -->", "<!-- end -->"

Rows = Sequence[Mapping[str, Any]]


class Line(NamedTuple):
    """One line of the table: a cell of a row of a part. where: what the row's columns hold."""

    label: str
    part: str
    where: dict[str, Any]
    column: str = "value"
    aim: str = ""


def _what(label: str, part: str, what: str, aim: str = "") -> Line:
    return Line(label, part, {"what": what}, aim=aim)


UNSEEN = "attack sources held out"
LINES = (
    _what("attacks found, 1 % false positives", "validator", f"recall at 1.0%, {UNSEEN}", ">= 0.45"),
    _what("attacks found, 0.1 % false positives", "validator", f"recall at 0.1%, {UNSEEN}", ">= 0.30"),
    _what("benign look-alikes let through", "validator", f"look-alikes let through, {UNSEEN}", ">= 0.94"),
    _what("attacks found, split at random (flatters)", "validator", "recall at 1.0%, random split"),
    _what("attacks found, benign kinds unseen as well", "validator", "recall at 1.0%, all sources held out"),
    _what("attacks found by a list of regexes", "validator", "keyword list: recall on voices"),
    _what("look-alikes that the regexes let through", "validator", "keyword list: look-alikes let through"),
    _what("package descriptions flagged", "validator", "package descriptions taken for attacks, at 0.5"),
    _what("ms for 400 characters of prose", "validator", "time for 400 characters: prose", "<= 3"),
    _what("ms for 100,000 characters of prose", "validator", "time for 100,000 characters: prose"),
    _what("secrets removed", "output", "secrets removed", ">= 0.95"),
    _what("look-alikes of secrets flagged", "output", "look-alikes flagged", "<= 0.005"),
    _what("ordinary code flagged", "output", "ordinary code flagged, library", "<= 0.005"),
    _what("system prompt noticed in base64", "output", "system prompt noticed, base64"),
    _what("characters held back on a stream", "output", "held back on average"),
    _what(
        "µs a character of `password=password=…`",
        "output",
        "hostile text, whole: 'password=' over and over",
        "<= 2",
    ),
    Line("template sweep found", "detector", {"workload": "template_sweep"}, "flagged"),
    Line("the same from twenty accounts", "detector", {"workload": "twenty_accounts"}, "flagged"),
    Line("people at work flagged", "detector", {"workload": "iterating"}, "flagged"),
    Line("honest programs flagged", "detector", {"workload": "labelling"}, "flagged"),
    Line("hidden size found, policy off", "surface", {"policy": "off"}, "recovered"),
    Line("hidden size found, default policy", "surface", {"policy": "default"}, "recovered"),
    Line(
        "AUC of one probe, 15 blocks, salts off",
        "timing",
        {"salts": "off", "blocks": 15, "observed": "seconds"},
        "auc",
        ">= 0.85",
    ),
    Line(
        "AUC of one probe, 15 blocks, salts on",
        "timing",
        {"salts": "on", "blocks": 15, "observed": "seconds"},
        "auc",
        "0.45 to 0.55",
    ),
)


def save(parts: Mapping[str, Rows], path: Path = FIGURES, page: Path = PAGE) -> None:
    """Replace what was measured anew, keep the rest, and put the table into the page."""
    kept = json.loads(path.read_text())["parts"] if path.exists() else {}
    for name, rows in parts.items():
        kept[name] = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "model": shipped().meta["data"],
            "rows": [{column: _short(value) for column, value in row.items()} for row in rows],
        }
    path.write_text(json.dumps({"parts": kept}, indent=1, sort_keys=True) + "\n")
    page.write_text(filled(page.read_text("utf-8"), table(kept)), "utf-8")


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown; a line whose part was not measured is left out."""
    lines = ["| | measured | aim | part |", "|---|---:|---:|---|"]
    for line in LINES:
        if line.part in parts:
            value = cell(line, parts[line.part]["rows"])
            shown = "nothing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(
                f"| {line.label} | {shown} | {line.aim.replace('>=', '≥').replace('<=', '≤')} | {line.part} |"
            )
    return "\n".join(lines)


def cell(line: Line, rows: Rows) -> Any:
    """Raises LookupError unless exactly one row is meant."""
    found = [row for row in rows if all(row.get(name) == value for name, value in line.where.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows of {line.part!r} are {line.where}; one was expected.")
    return found[0][line.column]


def filled(page: str, made: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"
