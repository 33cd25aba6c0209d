"""uvicorn around the application: connections that must get on with it, and a shutdown that lets work finish."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from lessonlib.course import CourseError

from .shared import Shared

DRAIN_SECONDS = 30
TELL_SECONDS = 2  # for those who are told that their time is up


class Server(uvicorn.Server):
    """uvicorn around what ``create_app`` made; it calls ``ready`` with its base URL once it listens.

    On SIGTERM or Ctrl-C it takes no new connections, lets the requests it has finish (``drain_seconds`` at most), tells
    the rest that they will not, and returns; a second Ctrl-C does not wait.
    """

    def __init__(
        self,
        app: FastAPI,
        bound: socket.socket,
        *,
        drain_seconds: int = DRAIN_SECONDS,
        ready: Callable[[str], None] = lambda _: None,
    ):
        shared: Shared = app.state.shared
        super().__init__(
            uvicorn.Config(
                app,
                http=_guarded(shared),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=shared.guards.limits.header_bytes,
                backlog=512,
                timeout_graceful_shutdown=drain_seconds + TELL_SECONDS,
            )
        )
        self.ready, self.drain_seconds, self.engine = ready, drain_seconds, shared.engine
        self.socket = bound
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self.socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        async def end_the_rest() -> None:
            await asyncio.sleep(self.drain_seconds)
            await self.engine.stop()

        ending = asyncio.create_task(end_the_rest())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
        if self.force_exit:  # uvicorn would leave the engine running
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # they are dealt with: uvicorn would raise them again at the end


def bind(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that nobody can connect to yet; 0 is any free port. Raises CourseError where there is none to be had."""
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, small answers wait 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise CourseError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}); choose another with --port, or 0."
        ) from None
    return found


def _guarded(shared: Shared) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, except that it hangs up on who takes too long to send a request, and speaks in JSON.

    The former ends connections that send nothing, headers byte by byte, or a body that was refused and never ends.
    What is no HTTP names no path, so the answer is in the shape that two of three vendors' clients read. Connections
    beyond the limit are answered all the same, by ``Gate``; beyond twice the limit they are cut off.
    """
    limits = shared.guards.limits

    class Guarded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            count = len(self.connections)
            self.app_state = {**self.app_state, "connection": count}
            if count > 2 * limits.connections:
                transport.abort()
            self._expect()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._expect()

        def send_400_response(self, msg: str) -> None:
            """Called while h11's exception is being handled: only that says whether there was too much of it."""
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
                self.transport.close()
                return
            status, said = shared.bad_http(getattr(sys.exc_info()[1], "error_status_hint", 400) == 431)
            body = json.dumps(said).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()

        def _expect(self) -> None:
            """Run the clock exactly while a request has begun, or has to begin, and is not whole."""
            if self.transport.is_closing() or not self._waits():
                self._forget()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(limits.request_seconds, self.transport.close)

        def _waits(self) -> bool:
            state = self.conn.their_state.__name__
            begun = (
                self.cycle is None or self.conn.trailing_data[0]
            )  # between two requests, keep-alive's clock runs
            return state == "SEND_BODY" or (state == "IDLE" and bool(begun))

        def _forget(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Guarded
