"""What a cell showed, collected within limits from a kernel that need not keep to any form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from grader.zmtp import Message

OUTPUT = 4 * 2**20  # bytes of outputs that are kept of one run
PIECES = 1000  # outputs that are kept of one run
CUT = "… (cut)"
OUT_OF_MEMORY = "out of memory"
_DEPTH = 20  # of JSON in an output; what copies and writes it afterwards is recursive
_KINDS = ("stream", "display_data", "execute_result", "error")
_NO_MEMORY = re.compile(r"MemoryError\b|DefaultCPUAllocator: |.*Cannot allocate memory")


class Collected:
    """The outputs of one run, in the form of nbformat 4, and its ``problem`` (an error, in one line)."""

    def __init__(self, on_output: Callable[[dict[str, Any]], None] | None = None):
        self.outputs: list[dict[str, Any]] = []
        self.problem: str | None = None
        self.cut = False
        self._tell = on_output
        self._bytes, self._pieces = OUTPUT, PIECES

    def add(self, message: Message) -> bool:
        """Take one message of this run; True if it says that the run is over."""
        if message.kind == "status":
            return message.content().get("execution_state") == "idle"
        if message.kind == "execute_reply":
            if message.content().get("status") == "error" and self.problem is None:
                self.problem = in_one_line(message.content())  # exit() shows no error
            return True
        if message.kind not in _KINDS:
            return False
        if message.kind == "error" and self.problem is None:
            self.problem = in_one_line(message.content())
        fits = self._pieces > 0 and len(message.raw) <= self._bytes
        if message.kind == "stream" and self._pieces and self._bytes:
            self._stream(message.content())
        elif fits and (output := as_output(message.kind, message.content())):
            self._append(output)
        if fits:
            self._bytes -= len(message.raw)
        else:
            self.too_much()
        return False

    def too_much(self) -> None:
        """Something had to be left out: nothing more is kept, and the outputs say so."""
        self._bytes = self._pieces = 0
        if not self.cut:
            self.cut = True
            self._stream({"name": "stderr", "text": CUT})

    def _stream(self, content: dict[str, Any]) -> None:
        name, text = content.get("name"), content.get("text")
        if name not in ("stdout", "stderr") or not isinstance(text, str):
            return
        text = _writable(text if self.cut else text[: self._bytes])
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self._append({"output_type": "stream", "name": name, "text": text})

    def _append(self, output: dict[str, Any]) -> None:
        self.outputs.append(output)
        self._pieces -= 1
        if self._tell:
            self._tell(output)


def as_output(kind: str, content: dict[str, Any]) -> dict[str, Any] | None:
    """A display_data, execute_result or error as nbformat has it; None if the content is not of that form."""
    try:
        if kind == "error":
            trace = content.get("traceback")
            lines = (
                [_writable(line) for line in trace if isinstance(line, str)]
                if isinstance(trace, list)
                else []
            )
            return {
                "output_type": "error",
                "ename": _text(content.get("ename")),
                "evalue": _text(content.get("evalue")),
                "traceback": lines,
            }
        data, metadata = _plain(content.get("data")), _plain(content.get("metadata", {}))
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        return None
    data = {kind: value for kind, value in data.items() if isinstance(value, str) or "json" in kind}
    if not data:
        return None
    output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": metadata}
    if kind == "execute_result":
        count = content.get("execution_count")
        output["execution_count"] = count if type(count) is int and 0 <= count < 10**6 else None
    return output


def in_one_line(content: dict[str, Any]) -> str:
    """``NameError: name 'x' is not defined (line 2)``; ``out of memory`` for all that means that."""
    name, value = _text(content.get("ename")), _text(content.get("evalue"))
    told = (f"{name}: {value}".strip(": ").splitlines() or ["error"])[0][:300]
    if _NO_MEMORY.match(told):
        return OUT_OF_MEMORY
    told = re.sub(r"\(\w+\.py, line (\d+)\)", r"(line \1)", told)
    trace = content.get("traceback")
    lines = [line[-2000:] for line in trace[-50:] if isinstance(line, str)] if isinstance(trace, list) else []
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
    places = re.findall(r"^Cell In\s*\[\d*\s*\], line (\d+)", plain, re.MULTILINE)
    return f"{told} (line {places[-1]})" if places and "(line" not in told else told


def _plain(value: Any, depth: int = _DEPTH) -> Any:
    """JSON that can be copied and written by anyone. Raises: ValueError if it is nested too deeply."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return _writable(value)
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_writable(key): _plain(item, depth - 1) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    return _writable(value) if isinstance(value, str) else ""


def _writable(text: str) -> str:
    """Half a surrogate pair is JSON, but no file can hold it."""
    return text.encode("utf-8", "replace").decode()
