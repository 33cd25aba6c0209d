"""The first to see a request, and the last: who is it, what came of it, how long did it take?"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import nullcontext

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs
from .errors import EngineStopped
from .shared import Shared

LEFT = 499  # nginx's number for a client that left without an answer


class Gate:
    """Gives a request an id, asks who it is and whether there is a place for it; in the end, counts and logs it.

    ``scope["state"]["connection"]``: how many connections there were when this one came, with it (from ``server``).
    """

    def __init__(self, app: ASGIApp, shared: Shared):
        self.app, self.shared = app, shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status, guards = time.perf_counter(), LEFT, self.shared.guards
        state = scope.setdefault("state", {})
        state["id"], state["fields"] = secrets.token_hex(12), {}

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = state["id"]
                if state.get("connection", 0) > guards.limits.connections:
                    headers["connection"] = "close"
            await send(message)

        try:
            if scope["path"] != "/health":  # idle connections must not make a server look ill
                guards.limits.check_connections(state.get("connection", 0))
            guards.limits.check_headers(scope["headers"])
            if scope["path"] == "/health":
                return await self.app(scope, receive, sending)
            caller = state["caller"] = self.shared.keys.identify(Headers(scope=scope))
            # Only what is posted is work, and who waits for it must still be able to look around.
            with guards.slot(caller) if scope["method"] == "POST" else nullcontext():
                await self.app(scope, receive, sending)
        except Exception as error:
            if status != LEFT:  # it has begun to answer: all that is left is to break off
                raise
            answer = await self.shared.refuse(Request(scope), error)
            await answer(scope, receive, sending)
        except (
            asyncio.CancelledError
        ):  # only uvicorn cancels, at the end of the time that the server had to go down
            if status == LEFT:
                stopped = EngineStopped("The server went down before it got to this; ask again.")
                answer = await self.shared.refuse(Request(scope), stopped)
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
