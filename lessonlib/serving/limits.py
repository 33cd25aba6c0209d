"""How a request comes in and its answer goes out, within ``security.admission``; and JSON that means one thing only.

Python's ``json`` takes NaN, twice the same key, half a surrogate pair and 100,000 levels (to its own undoing). A server
that decides about money and memory should not.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import math
import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lessonlib.security.admission import WHOLE, AdmissionLimits

from .errors import ApiError

_DIGITS = len(str(WHOLE))
_CHUNK = 2**16


async def read_body(request: Request, limits: AdmissionLimits) -> bytes:
    """The body, no byte more than allowed of it in memory. Raises Refused: too large, too slow, or compressed."""
    limits.check_encoding(request.headers.get("content-encoding", "identity"))
    length = request.headers.get("content-length", "0")
    if length.isdecimal():
        limits.check_body(int(length[:20]))
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                limits.check_body(len(body) + len(piece))
                body += piece
    except TimeoutError:
        raise limits.slow_body() from None
    return bytes(body)


class Patience:
    """Hangs up on a client that does not take its answer; all that follows is as if it had gone by itself.

    What is sent in one goes out in pieces, so that only a little of it waits in the connection's own buffer.
    """

    def __init__(self, app: ASGIApp, limits: AdmissionLimits):
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport | None = getattr(getattr(receive, "__self__", None), "transport", None)
        if scope["type"] != "http" or transport is None:  # only uvicorn's connections have one to hang up
            return await self.app(scope, receive, send)
        start = time.monotonic()

        async def taken(message: Message) -> None:
            left = self.limits.write_seconds
            if self.limits.deadline is not None:
                left = min(left, start + self.limits.deadline - time.monotonic())
            try:
                async with asyncio.timeout(max(left, 0)):
                    await send(message)
            except TimeoutError:
                transport.abort()
                await asyncio.sleep(0)  # in which uvicorn hears of it: from now on, it sends nothing

        async def sending(message: Message) -> None:
            body = message.get("body", b"")
            last = max(0, len(body) - 1) // _CHUNK * _CHUNK
            for i in range(0, last, _CHUNK):
                await taken({**message, "body": body[i : i + _CHUNK], "more_body": True})
            await taken({**message, "body": body[last:]} if last else message)

        await self.app(scope, receive, sending)
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self.limits.write_seconds, _end, transport)


def _end(transport: asyncio.Transport) -> None:
    """A connection that was closed (keep-alive is over) stays open for as long as nobody reads the rest."""
    if transport.is_closing():
        transport.abort()


def parse_json(body: bytes, limits: AdmissionLimits) -> Any:
    """The value that a JSON text (RFC 8259, in UTF-8) stands for.

    Raises Refused for more levels or values than allowed, and ApiError for whatever is not quite JSON: that includes
    NaN and infinities, numbers beyond 64 bits or beyond float64, an object with the same key twice, lone surrogates.
    """
    limits.check_json(body)
    try:
        # In pieces: with one character beyond U+FFFF, Python makes room for all of it in four times its bytes.
        pieces = (body[i : i + _CHUNK] for i in range(0, len(body), _CHUNK))
        text = "".join(codecs.iterdecode(pieces, "utf-8"))
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
            "invalid",
            f"The body is not valid JSON ({error.msg.removesuffix(' at')}, at character {error.pos}); send an object.",
        ) from None
    return value


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
