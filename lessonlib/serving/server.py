"""uvicorn around the application: connections that must get on with it, and a shutdown that lets work finish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lessonlib.course import CourseError

REQUEST_SECONDS = 40.0  # for a request to arrive whole, from its connection or its first byte on
HEADER_BYTES = 16 * 1024
CONNECTIONS = 1000
DRAIN_SECONDS = 30


class Server(uvicorn.Server):
    """uvicorn, which calls ``ready`` with its base URL once it listens.

    On SIGTERM or Ctrl-C it takes no new connections, lets the requests it has finish (``drain_seconds`` at most), ends
    the rest, and returns; a second Ctrl-C does not wait.
    """

    def __init__(
        self,
        app: Any,
        bound: socket.socket,
        *,
        drain_seconds: int = DRAIN_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
        ready: Callable[[str], None] = lambda _: None,
    ):
        super().__init__(
            uvicorn.Config(
                app,
                http=_impatient(request_seconds),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                h11_max_incomplete_event_size=HEADER_BYTES,
                backlog=512,
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self.ready = ready
        self.socket = bound
        host, port = bound.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self.socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # they are dealt with: uvicorn would raise them again at the end


def bind(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that nobody can connect to yet; 0 is any free port. Raises CourseError where there is none to be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise CourseError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}); choose another with --port, or 0."
        ) from None
    return found


def _impatient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, except that it hangs up on who takes too long to send a request.

    That ends connections that send nothing, headers byte by byte, or a body that was refused and never ends.
    """

    class Impatient(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._expect()

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
                self._deadline = self.loop.call_later(seconds, self.transport.close)

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

    return Impatient
