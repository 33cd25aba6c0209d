"""What is stored of a cell's outputs: nothing that belongs to one machine or one run only."""

from __future__ import annotations

import base64
import html
import io
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.authoring import IGNORE_OUTPUT, tagged
from lessonlib.course import checkout

if TYPE_CHECKING:
    from nbformat import NotebookNode

LIVE_VIEW = "application/vnd.jupyter.widget-view+json"  # names a model of a kernel that is long gone
_PNG = "image/png"
_PNG_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"IDAT", b"IEND"}
_PIXEL_SLACK = 32  # of 255: antialiasing differs between processors by this much at most

_TRACES = (
    (
        re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|var/folders)/[^\s'\"<]*|[A-Za-z]:\\Users\\[^\s'\"<]*"),
        "a path of this machine",
    ),
    (re.compile(r"\S*(?:site-packages|ipykernel_\d|/python3\.\d+/)\S*"), "a path of this machine"),
    (re.compile(r"\bat 0x[0-9a-fA-F]{6,}"), "a memory address"),
)


def tidy(notebook: NotebookNode) -> None:
    """Strip `notebook` in place: live views, picture metadata, timestamps, library frames of tracebacks."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(LIVE_VIEW, None)
            if _PNG in data:
                data[_PNG] = _plain_png(data[_PNG])
            if (
                output.output_type == "error"
                and len(output.traceback) > 1
                and _trace("\n".join(output.traceback))
            ):
                output.traceback = [output.traceback[-1]]
        cell.outputs = [out for out in cell.outputs if out.get("data", True)]


def keep_previous(
    notebook: NotebookNode, previous: NotebookNode, forgive: list[tuple[str, str]], fresh: bool = False
) -> None:
    """Give cells whose text is unchanged their earlier outputs back, where the new ones say nothing new.

    That is: in cells tagged as varying (unless `fresh`), and where old and new are equal once the patterns of
    `forgive` (regex, replacement: timings and the like) are applied and pictures differ by a shade at most.
    """
    earlier = {cell.id: cell for cell in previous.cells}
    for cell in notebook.cells:
        old = earlier.get(cell.id)
        if old is None or cell.cell_type != "code" or old.cell_type != "code" or old.source != cell.source:
            continue
        if cell.execution_count is None:  # not run this time: take everything
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
        elif fresh or old.execution_count is None:
            continue
        elif tagged(cell, IGNORE_OUTPUT) or _same(old.outputs, cell.outputs, forgive):
            cell.outputs = old.outputs
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count


def machine_traces(cell: NotebookNode) -> str | None:
    """The first thing in the outputs that belongs to this machine only, as half a sentence; None if clean."""
    for text in strings(cell.get("outputs", [])):
        found = _trace(text)
        if found:
            return found
    return None


def strings(node: Any) -> Iterator[str]:
    """Every text in a notebook node, at any depth; pictures excluded."""
    if isinstance(node, str):
        yield node
        if "&" in node:
            yield html.unescape(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("image/p"):
                yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


def sanitize_patterns(path: Path) -> list[tuple[str, str]]:
    """The (regex, replacement) pairs of an nbval sanitize file; none if there is no file."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, flags=re.MULTILINE)


def _trace(text: str) -> str | None:
    for place in _here():
        if place in text:
            return f"a path of this machine ({place})"
    for pattern, what in _TRACES:
        found = pattern.search(text)
        if found:
            return f"{what} ({found[0][:60]})"
    return None


def _here() -> list[str]:
    places = [Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()), checkout() or Path()]
    return [str(place) for place in places if len(place.parts) > 1 and str(place) != sys.base_prefix]


def _same(old: list, new: list, forgive: list[tuple[str, str]]) -> bool:
    if len(old) != len(new):
        return False
    return all(
        _forgiven(a, forgive) == _forgiven(b, forgive) and _same_picture(a, b)
        for a, b in zip(old, new, strict=True)
    )


def _forgiven(node: Any, forgive: list[tuple[str, str]]) -> Any:
    """`node` without pictures and execution counts, its texts sanitized."""
    if isinstance(node, str):
        for pattern, replacement in forgive:
            node = re.sub(pattern, replacement, node)
        return node
    if isinstance(node, dict):
        return {k: _forgiven(v, forgive) for k, v in node.items() if k not in (_PNG, "execution_count")}
    if isinstance(node, list):
        return [_forgiven(value, forgive) for value in node]
    return node


def _same_picture(old: NotebookNode, new: NotebookNode) -> bool:
    pictures = [output.get("data", {}).get(_PNG) for output in (old, new)]
    if None in pictures or pictures[0] == pictures[1]:
        return pictures[0] == pictures[1]
    import numpy as np
    from PIL import Image

    a, b = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("RGBA"), dtype=np.int16)
        for p in pictures
    )
    return a.shape == b.shape and int(np.abs(a - b).max()) <= _PIXEL_SLACK


def _plain_png(encoded: str) -> str:
    """A base64 PNG reduced to the chunks that make the picture: no software names, dates or profiles."""
    raw = base64.b64decode(encoded)
    kept, position = raw[:8], 8
    while position + 8 <= len(raw):
        length, kind = struct.unpack(">I4s", raw[position : position + 8])
        end = position + 12 + length
        if kind in _PNG_PICTURE:
            kept += raw[position:end]
        position = end
    return base64.b64encode(kept).decode("ascii")
