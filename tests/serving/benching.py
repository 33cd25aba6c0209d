"""What the load generator's tests share: a server whose answers are scripted, on a clock that jumps, and a real one."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from hypothesis import settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lessonlib.serving.bench import Settings, generated_prompts, measure
from lessonlib.serving.bench_report import Load, Record, Run

QUIET = settings(max_examples=60, deadline=None, derandomize=True, database=None)
URL = "http://127.0.0.1:8000/v1"


def answered(ttft: float, tpot: float, tokens: int = 11, due: float = 0.0) -> Record:
    last = due + ttft + tpot * (tokens - 1)
    return Record(due, due, due + ttft, last, last, chunks=tokens, output_tokens=tokens)


class Jump(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("Everybody waits, and nobody for a time.")
        self.now += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jump = Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


Script = list[tuple[float, bytes]]  # seconds to wait, then what to send


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def text(said: str = "x", **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": said, **more}]})


END = text("", finish_reason="length")
DONE = event(b"[DONE]")


def usage(tokens: Any, prompt: int = 7) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": tokens, "prompt_tokens": prompt}})


def plain(first: float = 1.0, each: float = 0.5, tokens: int = 3) -> Script:
    return [(first, text()), *[(each, text())] * (tokens - 1), (0, END), (0, usage(tokens)), (0, DONE)]


@dataclass
class Scripted:
    """A server on the jumping clock. Its first answer goes to the request that is not measured."""

    script: Callable[[int], Script | httpx.Response]
    loop: JumpingLoop = field(default_factory=JumpingLoop)
    begun: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        self.begun.append(self.loop.time())
        number = len(self.begun) - 2
        answer = plain(0, 0) if number < 0 else self.script(number)
        return (
            answer if isinstance(answer, httpx.Response) else httpx.Response(200, content=self._send(answer))
        )

    async def _send(self, script: Script) -> AsyncIterator[bytes]:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            for wait, data in script:
                await asyncio.sleep(wait)
                yield data
        finally:
            self.at_once -= 1

    def measure(self, *loads: Load, stop_at: float | None = None, **changes: Any) -> Run:
        wanted = Settings(
            **{"base_url": URL, "model": "m", "requests": 5, "seconds": 1e6, "timeout": 1e6, **changes}
        )

        async def run() -> Run:
            prompts = generated_prompts("words", (3, 3))
            transport = httpx.MockTransport(self)
            task = asyncio.ensure_future(
                measure(wanted, loads, prompts, transport=transport, clock=self.loop.time)
            )
            if stop_at is not None:
                self.loop.call_later(stop_at, task.cancel)  # what asyncio.run does on Ctrl-C
            return await task

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(run())


@dataclass
class FakeServer:
    """Answers in the way that the prompt asks for, over HTTP, with the chunks of a real one."""

    asked: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    callers: list[Any] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        chat = "messages" in body
        way = body["messages"][0]["content"] if chat else body["prompt"]
        self.asked.append(way)
        self.headers.append(request.headers)
        self.callers.append(request.client)
        self.bodies.append(body)
        if way == "500":
            return Response("it [bold]broke", 500)
        if way == "429":
            error = {"error": {"message": "too many", "type": "rate_limit"}}
            return JSONResponse(error, 429, {"Retry-After": "1"})
        if way == "elsewhere":
            return RedirectResponse("/v1/forbidden", 307)
        return StreamingResponse(self.stream(way, chat), media_type="text/event-stream")

    async def stream(self, way: str, chat: bool) -> AsyncIterator[bytes]:
        def piece(said: str, reason: str | None = None) -> bytes:
            part = {"delta": {"content": said}} if chat else {"text": said}
            return event({"choices": [{"index": 0, **part, "finish_reason": reason}]})

        if way == "slow":
            await asyncio.sleep(0.5)
        if way == "hang":
            self.hanging.set()
            await asyncio.sleep(100)
        yield b": hello\n\n" + piece("one ")
        await asyncio.sleep(0.02)
        if way == "malformed":
            yield b"data: {oops\n\n"
        if way == "cut":
            raise ConnectionResetError
        yield piece("two") + piece("", "length")
        if way != "no usage":
            yield usage(12)
        yield DONE

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake"}]})

    async def forbidden(self, request: Request) -> Response:
        self.asked.append("followed a redirect")
        return Response()


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    fake = FakeServer()
    app = Starlette(
        routes=[
            Route("/v1/models", fake.models),
            Route("/v1/completions", fake.answer, methods=["POST"]),
            Route("/v1/chat/completions", fake.answer, methods=["POST"]),
            Route("/v1/forbidden", fake.forbidden, methods=["POST"]),
        ]
    )
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        fake.port = listener.getsockname()[1]
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield fake
        finally:
            running.should_exit = running.force_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()
