"""How much a request may bring, checked before anything is parsed; and JSON that means one thing only.

Python's ``json`` takes NaN, twice the same key, half a surrogate pair and 100,000 levels (to its own undoing). A server
that decides about money and memory should not.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request

from .errors import ApiError

# What lists and texts of a request may hold; the models of the wire formats refer to these.
MAX_NAME = 256
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_BIASES = 300
MAX_BIAS = 100
MAX_LOGPROBS = 20
MAX_MESSAGES = 512
MAX_PARTS = 64  # of a message
MAX_PROMPTS = 64
MAX_N = 64
WHOLE = 2**63 - 1  # whole numbers beyond 64 bits have no meaning anywhere here

_DIGITS = len(str(WHOLE))
_CHUNK = 2**16
_ALIKE = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(b"[]{},"))


@dataclass(frozen=True)
class Limits:
    """body_bytes: of a body. body_seconds: until it has arrived. json_depth: lists and objects inside each other.

    json_values: numbers, texts and lists in a body. sequences: prompts × n of one request.
    """

    body_bytes: int = 2**20
    body_seconds: float = 30.0
    json_depth: int = 32
    json_values: int = 2**16
    sequences: int = 64


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, no byte more than allowed of it in memory. Raises ApiError: too large, too slow, or compressed."""
    too_large = ApiError(
        "too_large", f"The body has more than {limits.body_bytes} bytes; send less at a time."
    )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError("encoding", "Compressed bodies are not accepted; send it without Content-Encoding.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise ApiError(
            "timeout", f"The body did not arrive within {limits.body_seconds:g} seconds; send it again."
        ) from None
    return bytes(body)


def parse_json(body: bytes, limits: Limits) -> Any:
    """The value that a JSON text (RFC 8259, in UTF-8) stands for. Raises ApiError for whatever is not quite one.

    Refused are also: NaN and infinities, numbers beyond 64 bits or beyond float64, an object with the same key twice,
    lone surrogates, and more levels or values than allowed.
    """
    _check_structure(body, limits)
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_constant,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise ApiError("invalid", "The body is not UTF-8; JSON is sent in UTF-8.") from None
    except UnicodeEncodeError:
        raise ApiError(
            "invalid", "The body has half a surrogate pair, which is no character; escape both halves."
        ) from None
    except json.JSONDecodeError as error:
        raise ApiError(
            "invalid", f"The body is not valid JSON ({error.msg} at character {error.pos}); send an object."
        ) from None
    return value


def _check_structure(body: bytes, limits: Limits) -> None:
    """Bound depth and number of values on the bytes alone: as Python objects they may take 20 times as much."""
    marks = _marks(body, limits)
    brackets = marks.replace(b",", b"")
    for _ in range(limits.json_depth):  # each round takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ApiError(
            "invalid",
            f"The body is nested deeper than {limits.json_depth} levels, or not valid JSON; flatten it.",
        )


def _marks(body: bytes, limits: Limits) -> bytes:
    """Brackets (all of them square) and commas outside of texts, as long as there are not too many."""
    found = bytearray()
    start, in_text = 0, False
    while start < len(body):
        chunk = body[start : start + _CHUNK]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:  # it ends in the middle of an escape
            chunk = body[start : start + _CHUNK + 1]
        start += len(chunk)
        letters = np.frombuffer(chunk.replace(b"\\\\", b"").replace(b'\\"', b""), dtype=np.uint8)
        # How many quotes there are up to here, by twos, says whether this is inside a text.
        inside = np.bitwise_xor.accumulate((letters == ord('"')).view(np.uint8)) ^ in_text
        found += letters[inside == 0].tobytes().translate(_ALIKE, delete=_NO_MARKS)
        in_text = bool(inside[-1]) if len(inside) else in_text
        if found.count(b",") + found.count(b"[") > limits.json_values:
            raise ApiError(
                "invalid", f"The body has more than {limits.json_values} values; send fewer at a time."
            )
    return bytes(found)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ApiError("invalid", "An object of the body has the same key twice; say it once.")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS + 1 or abs(value := int(digits)) > WHOLE:
        raise ApiError("invalid", "A whole number of the body is beyond 64 bits; send a smaller one.")
    return value


def _real(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ApiError("invalid", "A number of the body is beyond float64; send a smaller one.")
    return value


def _constant(name: str) -> Any:
    raise ApiError("invalid", f"{name} is not a JSON number; send a finite one.")
