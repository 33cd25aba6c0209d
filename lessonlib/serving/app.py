"""The application: routes of three vendors around one engine, and what every request passes on its way.

A request meets, in this order: ``Patience`` (does its client take the answer?), ``Gate`` (who is it?), the bounded
reading of its body, the strict model of its wire format, and ``Reply``, which asks the guards, alone talks to the
engine, and sees to it that nothing is left there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from lessonlib.engine import EngineError
from lessonlib.engine.prompts import check_prompt
from lessonlib.security.admission import AdmissionLimits, Refused

from . import anthropic, ollama, openai
from .auth import Keys
from .engine import AsyncEngine
from .errors import from_admission
from .gate import Gate
from .guards import Guards
from .limits import Patience, parse_json, read_body
from .metrics import Metrics
from .reply import Reply
from .shared import Shared
from .wire import VERSION, Model


def create_app(
    engine: AsyncEngine,
    name: str,
    *,
    keys: Keys | None = None,
    guards: Guards | None = None,
    weights: str = "F32",
    system_prompt: str = "",
) -> FastAPI:
    """The server as an ASGI application; it starts the engine's thread when it starts, and stops it when it stops.

    name: of the model, as clients ask for it. keys: of those who may come in. guards: what else is switched on.
    weights: their format, shown to Ollama's clients. system_prompt: put before every conversation; to keep it from
    leaking, give it to the guards' ``OutputFilter``, too. Raises PromptTooLong if it leaves no room for one.
    """
    model = Model(name, engine.llm, weights, system_prompt)
    if system_prompt:
        check_prompt(engine.llm.model, model.encode_chat([]))
    metrics = Metrics()
    metrics.watch(engine)
    engine.on_end = metrics.ended

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    app = FastAPI(
        title="lesson serve",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,  # these pages would fetch scripts from elsewhere
        redoc_url=None,
    )
    shared = Shared(engine, model, metrics, keys or Keys(), guards or Guards())
    app.state.shared = shared
    app.router.route_class = _strict(shared.guards.limits)
    app.add_middleware(Gate, shared=shared)
    app.add_middleware(Patience, limits=shared.guards.limits)
    for kind in (HTTPException, RequestValidationError, EngineError, Refused):
        app.add_exception_handler(kind, shared.refuse)
    _add_routes(app, shared)
    return app


def _add_routes(app: FastAPI, shared: Shared) -> None:
    model = shared.model

    @app.get("/health")
    async def health() -> Response:
        alive = shared.engine.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(shared.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    @app.get("/v1/models/", include_in_schema=False)  # a path takes everything, and would look for a model ""
    async def models() -> Any:
        return openai.models(model)

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Any:
        model.check_name(name.removesuffix("/"))
        return openai.one_model(model)

    @app.post("/v1/completions")
    async def completions(body: openai.CompletionRequest, request: Request) -> Response:
        return Reply(shared, openai.Completion(model, _id(request), body))

    @app.post("/v1/chat/completions")
    async def chat_completions(body: openai.ChatRequest, request: Request) -> Response:
        return Reply(shared, openai.Chat(model, _id(request), body))

    @app.post("/v1/messages")
    async def messages(body: anthropic.MessagesRequest, request: Request) -> Response:
        return Reply(shared, anthropic.Messages(model, _id(request), body))

    @app.post("/v1/messages/count_tokens")
    async def count_tokens(body: anthropic.Conversation, request: Request) -> Any:
        await asyncio.to_thread(shared.guards.reserve, request.scope["state"]["caller"], 0)
        return await asyncio.to_thread(anthropic.count_tokens, model, body)

    @app.post("/api/generate")
    async def generate(body: ollama.GenerateRequest, request: Request) -> Response:
        if answer := ollama.loaded(body, model):
            return JSONResponse(answer)
        return Reply(shared, ollama.Generate(model, _id(request), body))

    @app.post("/api/chat")
    async def chat(body: ollama.ChatRequest, request: Request) -> Response:
        if answer := ollama.loaded(body, model):
            return JSONResponse(answer)
        return Reply(shared, ollama.Chat(model, _id(request), body))

    @app.get("/api/tags")
    async def tags() -> Any:
        return ollama.tags(model)

    @app.post("/api/show")
    async def show(body: ollama.ShowRequest) -> Any:
        return ollama.show(model, body)

    @app.get("/api/version")
    async def version() -> Any:
        return ollama.version()


def _id(request: Request) -> str:
    return request.scope["state"]["id"]


async def _answered(reading: Awaitable[Any]) -> Any:
    """FastAPI lets no exception pass from here but its own."""
    try:
        return await reading
    except Refused as refused:
        raise from_admission(refused) from None


def _strict(limits: AdmissionLimits) -> type[APIRoute]:
    """Routes that read a body within the limits, and as strictly as its format is checked afterwards."""

    class Strict(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_body"):
                self._body = await _answered(read_body(self, limits))
            return self._body

        async def json(self) -> Any:
            return await _answered(asyncio.to_thread(parse_json, await self.body(), limits))

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                # Ollama's own examples (curl -d) say nothing of JSON; it cannot be anything else.
                scope = dict(request.scope)
                headers = MutableHeaders(scope=scope)
                headers["content-type"] = "application/json"
                return await handle(Strict(scope, request.receive))

            return handler

    return Route
