"""The first to see a request, and the last: who is it, what came of it, how long did it take?"""

from __future__ import annotations

import secrets
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs
from .shared import Shared

LEFT = 499  # nginx's number for a client that left without an answer


class Gate:
    """The first to see a request: gives it an id, asks who it is, counts and logs it when it is answered."""

    def __init__(self, app: ASGIApp, shared: Shared):
        self.app, self.shared = app, shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), LEFT
        state = scope.setdefault("state", {})
        state["id"], state["fields"] = secrets.token_hex(12), {}

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = state["id"]
            await send(message)

        try:
            if scope["path"] != "/health":
                state["caller"] = self.shared.keys.identify(Headers(scope=scope))
            await self.app(scope, receive, sending)
        except Exception as error:
            if status != LEFT:  # it has begun to answer: all that is left is to break off
                raise
            answer = await self.shared.refuse(Request(scope), error)
            await answer(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self.shared.metrics.http.labels(route, str(status)).inc()
            logs.requests.info(
                "request",
                extra={
                    "fields": {
                        "id": state["id"],
                        "caller": state.get("caller"),
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "seconds": round(time.perf_counter() - start, 4),
                        **state["fields"],
                    }
                },
            )
