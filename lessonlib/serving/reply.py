"""From a checked request to its answer: the only place that talks to the engine, and that cleans up behind a client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lessonlib.engine import EngineError, SamplingParams

from .engine import Generation
from .errors import ApiError, ClientGone
from .shared import Shared
from .wire import Exchange


class Reply(Response):
    """The answer to one exchange, whole or in pieces. Whatever happens, its generation holds nothing afterwards."""

    def __init__(self, shared: Shared, exchange: Exchange):
        super().__init__()
        self.shared, self.exchange = shared, exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shared, exchange = self.shared, self.exchange
        prompts, params = await asyncio.to_thread(exchange.prepare)
        if (count := len(prompts) * params.n) > shared.limits.sequences:
            raise ApiError(
                "invalid",
                f"prompts × n is {count}, and {shared.limits.sequences} is the limit; ask for fewer.",
                "n",
            )
        caller = scope["state"]["caller"]
        settle = await asyncio.to_thread(self._reserve, caller, prompts, params)
        try:
            generation = shared.engine.open(prompts, params, shared.salt(caller))
        except EngineError:
            settle(0)
            raise
        leaving = asyncio.create_task(_abort_when_gone(receive, generation))
        try:
            await generation.admitted()
            if exchange.stream:
                await self._stream(generation, scope, receive, send)
            else:
                async for delta in generation.deltas():
                    exchange.take(delta)
                await JSONResponse(exchange.whole(generation.usage))(scope, receive, send)
        except ClientGone:
            pass
        finally:
            leaving.cancel()
            generation.abort()
            usage = generation.usage
            settle(usage.prompt_tokens + usage.completion_tokens)
            _note(scope["state"]["fields"], generation)

    def _reserve(
        self, caller: str, prompts: Sequence[Sequence[int]], params: SamplingParams
    ) -> Callable[[int], None]:
        """Count the most this can use against the caller's limit; returns what to call with what it did use."""
        limiter, context = self.shared.limiter, self.shared.model.context
        if limiter is None:
            return lambda used: None
        most = sum(
            len(prompt) + params.n * min(params.max_tokens, max(0, context - len(prompt)))
            for prompt in prompts
        )
        if not (reservation := limiter.reserve(caller, most)):
            after = reservation.retry_after
            raise ApiError(
                "rate_limit", reservation.message, retry_after=None if after is None else math.ceil(after)
            )
        return partial(limiter.settle, reservation)

    async def _stream(self, generation: Generation, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.exchange

        async def write(text: str, more: bool = True) -> None:
            if text or not more:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        head = Response(media_type=exchange.media_type, headers={"cache-control": "no-store"})
        del head.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": head.raw_headers})
        try:
            await write(exchange.begin())
            async for delta in generation.deltas():
                await write(exchange.piece(delta))
            last = exchange.end(generation.usage)
        except ClientGone:
            raise
        except Exception as error:  # too late for a status: the stream itself has to say it
            last = exchange.broken(self.shared.explain(error))
        await write(last, more=False)


async def _abort_when_gone(receive: Receive, generation: Generation) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.abort()


def _note(fields: dict[str, Any], generation: Generation) -> None:
    """For the log line of a request."""
    usage = generation.usage
    first = min((request.times[0] for request in generation.requests if request.times), default=None)
    fields |= {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "first_token_seconds": first and round(first - generation.opened, 4),
        "finish": sorted({request.finish_reason or "abort" for request in generation.requests}),
    }
