"""A stream of chat completions as it comes over the wire: plain inputs become timed pieces of bytes.

Inputs: ``pieces``: [[milliseconds, text], …]; ``tokens``: of the whole answer, as the server counts them;
``_role``: a first event without text; ``_cut``: "" (whole events), "line" or "letter" (an event's first bytes come
with the event before, cut inside a line, or inside a letter of several bytes); ``_ends``: of lines; ``_comments``:
lines to keep the connection alive; ``_space``: whether one follows "data:"; ``_empty_end``: the event that says why
the answer ended has an empty text instead of none, as some servers send it.
"""

from __future__ import annotations

import json
from typing import Any

Chunk = tuple[int, bytes]
GOODBYE = 4  # ms from the last text to the events that hold none


def role_time(inputs: dict[str, Any]) -> int:
    """When the event without text comes."""
    return int(inputs["pieces"][0][0] // 2) if inputs["pieces"] else 1


def end_time(inputs: dict[str, Any]) -> int:
    """When the first of the last three events comes, which hold no text; the others follow 1 ms apart."""
    return int(inputs["pieces"][-1][0] if inputs["pieces"] else 1) + GOODBYE


def events(inputs: dict[str, Any]) -> list[tuple[int, bytes]]:
    """(milliseconds, the bytes of one event) in order."""
    end, space = inputs.get("_ends", "\n"), " " if inputs.get("_space", True) else ""
    comment = f": still here{end}{end}" if inputs.get("_comments") else ""

    def event(data: Any) -> bytes:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        return f"{comment}data:{space}{text}{end}{end}".encode()

    def choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": None}

    found = []
    if inputs.get("_role", True):
        found.append((role_time(inputs), event(choice({"role": "assistant", "content": ""}))))
    found += [(time, event(choice({"content": text}))) for time, text in inputs["pieces"]]
    last = end_time(inputs)
    found.append((last, event(choice({"content": ""} if inputs.get("_empty_end") else {}, "stop"))))
    found.append((last + 1, event({"choices": [], "usage": {"completion_tokens": inputs["tokens"]}})))
    found.append((last + 2, event("[DONE]")))
    return found


def cut_at(event: bytes, where: str) -> int:
    """How many bytes of an event come with the one before it."""
    data = event.index(b"data:")
    wide = next((i for i, byte in enumerate(event) if byte > 127), None)
    if not where:
        return 0
    return wide + 1 if where == "letter" and wide is not None else data + 12


def chunks(inputs: dict[str, Any]) -> list[Chunk]:
    """What a client reads: (milliseconds, bytes), one for each moment at which something came."""
    moments: dict[int, bytes] = {}
    found = events(inputs)
    for i, (time, event) in enumerate(found):
        cut = cut_at(event, inputs.get("_cut", ""))
        before = found[i - 1][0] if i else time - 1
        for moment, part in ((before, event[:cut]), (time, event[cut:])):
            if part:
                moments[moment] = moments.get(moment, b"") + part
    return sorted(moments.items())
