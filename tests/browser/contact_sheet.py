"""One sheet of all explorers, light beside dark, and a table of their latencies.

``python -m tests.browser.contact_sheet`` makes both from what ``pytest tests/browser/test_explorers.py`` leaves in
``screenshots/``; not committed.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCREENSHOTS = Path(__file__).parent / "screenshots"
SHEET, TABLE, TIMES = "contact-sheet.png", "latency.txt", "latency.json"
THEMES = ("light", "dark")
COLUMN, GAP, HEAD = 760, 24, 34  # pixels
ACROSS = 2
WIDTH = 1600  # of the window


def names(folder: Path) -> list[str]:
    """Explorers with a screenshot in every theme, in alphabetical order."""
    found = [
        {path.name.removesuffix(_tail(theme)) for path in folder.glob(f"*{_tail(theme)}")} for theme in THEMES
    ]
    return sorted(set.intersection(*found))


def sheet(folder: Path) -> Image.Image:
    """Explorers, ACROSS of them side by side: each its name, and under it the picture in each theme."""
    pictures = {
        name: [_fitted(folder / f"{name}{_tail(theme)}") for theme in THEMES] for name in names(folder)
    }
    rows = [list(pictures)[at : at + ACROSS] for at in range(0, len(pictures), ACROSS)]
    heights = [max(one.height for name in row for one in pictures[name]) + HEAD + GAP for row in rows]
    across = min(ACROSS, len(pictures)) * len(THEMES)
    whole = Image.new("RGB", (across * (COLUMN + GAP) + GAP, sum(heights) + GAP), "#d8dde2")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(20)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for name in row:
            pen.text((left, top), name, fill="#000000", font=font)
            for picture in pictures[name]:
                whole.paste(picture, (left, top + HEAD))
                left += COLUMN + GAP
        top += height
    return whole


def table(times: dict[str, list[float]]) -> str:
    """Milliseconds from a slider's step to the next frame, the slowest explorer first."""
    lines = [f"{'explorer':<18} {'median':>9} {'worst':>9} {'steps':>6}"]
    for name, each in sorted(times.items(), key=lambda item: -statistics.median(item[1])):
        lines.append(f"{name:<18} {statistics.median(each):>6.1f} ms {max(each):>6.1f} ms {len(each):>6}")
    return "\n".join(lines) + "\n"


def main(folder: Path = SCREENSHOTS) -> int:
    if not names(folder) or not (folder / TIMES).is_file():
        print(
            f"There is nothing in {folder}; run pytest tests/browser/test_explorers.py first.",
            file=sys.stderr,
        )
        return 1
    sheet(folder).save(folder / SHEET)
    written = table(json.loads((folder / TIMES).read_text(encoding="utf-8")))
    (folder / TABLE).write_text(written, encoding="utf-8")
    print(f"{written}{folder / SHEET}\n{folder / TABLE}")
    return 0


def _tail(theme: str) -> str:
    return f"-{theme}-{WIDTH}.png"


def _fitted(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        height = max(1, round(picture.height * COLUMN / picture.width))
        return picture.convert("RGB").resize((COLUMN, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(main())
