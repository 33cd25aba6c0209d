"""From a checked request to its answer: the only place that talks to the engine, and that cleans up behind a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lessonlib.engine import EngineError
from lessonlib.security.admission import Demand, Refused

from .engine import Delta, Generation
from .errors import ClientGone
from .screen import Screen, surface
from .shared import Shared
from .wire import Exchange

FLAG = (
    "x-input-flagged"  # header of an answer to an input that the validator only flags; its value is the score
)


class Reply(Response):
    """The answer to one exchange, whole or in pieces. Whatever happens, its generation holds nothing afterwards."""

    def __init__(self, shared: Shared, exchange: Exchange):
        super().__init__()
        self.shared, self.exchange, self.guards = shared, exchange, shared.guards
        self.start = time.monotonic()
        self.flags: dict[str, str] = {}  # headers
        self.accounted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.exchange
        self.caller: str = scope["state"]["caller"]
        self.fields: dict[str, Any] = scope["state"]["fields"]
        generation = await self._open()
        leaving = asyncio.create_task(_abort_when_gone(receive, generation))
        deadline = asyncio.get_running_loop().call_later(
            self.left, generation.abort, self.guards.limits.late()
        )
        try:
            await generation.admitted()
            if exchange.stream:
                await self._stream(generation, scope, receive, send)
            else:

                async def keep(delta: Delta) -> None:
                    exchange.take(delta)

                await self._read(generation, keep)
                await self._account(generation)
                answer = await asyncio.to_thread(self._whole, generation)
                await answer(scope, receive, send)
        except ClientGone:
            pass
        finally:
            deadline.cancel()
            leaving.cancel()
            generation.abort()
            await self._account(generation)
            self._note(generation)

    async def _open(self) -> Generation:
        """Past every guard that stands before the engine. A refusal gives back the tokens that were reserved."""
        exchange, guards, engine = self.exchange, self.guards, self.shared.engine
        limits, pool = guards.limits, engine.scheduler.pool
        try:
            prompts, params = await asyncio.to_thread(exchange.prepare)
            context = self.shared.model.context
            demand = Demand(tuple(map(len, prompts)), params.n, params.max_tokens, context, params.logprobs)
            limits.check_demand(demand, pool.block_size, pool.num_blocks)
        except (EngineError, Refused):  # to find out was work: it counts as a request
            await asyncio.to_thread(guards.reserve, self.caller, 0)
            raise
        guards.check_suspect(self.caller)
        self.settle: Callable[[int], None] = await asyncio.to_thread(
            guards.reserve, self.caller, demand.tokens
        )
        try:
            await self._judge()
            self.left = limits.seconds_left(time.monotonic() - self.start)
            limits.check_queue(demand.sequences, engine.sequences, engine.scheduler.max_num_seqs)
            guards.admit_logprobs(self.caller, params)
            params, shown = surface(guards.surface, params)
            self.screen = Screen(guards.output, shown)
            return engine.open(prompts, params, guards.salt(self.caller, exchange))
        except BaseException:
            await asyncio.to_thread(self.settle, 0)
            raise

    async def _judge(self) -> None:
        verdict = await asyncio.to_thread(self.guards.judge, self.exchange.texts)
        if verdict is None:
            return
        self.fields["input"] = {"action": verdict.action, "score": round(verdict.score, 3)}
        if verdict.is_malicious:
            self.shared.metrics.suspicions.labels("validator").inc()
            if verdict.action == "flag":
                self.flags[FLAG] = f"{verdict.score:.3f}"

    async def _read(self, generation: Generation, take: Callable[[Delta], Awaitable[None]]) -> None:
        """Hand on what may be seen, until all sequences have ended, by themselves or because they were cut off."""
        left = len(generation.requests)
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                if (shown := self.screen(delta)) is not None:
                    left -= shown.finish_reason is not None
                    await take(shown)
                if not left:
                    return

    def _whole(self, generation: Generation) -> Response:
        """In a thread: with log-probabilities, it may take a while to spell and to write down."""
        return JSONResponse(self.exchange.whole(generation.usage), headers=self.flags)

    async def _stream(self, generation: Generation, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.exchange

        async def write(text: str, more: bool = True) -> None:
            if text or not more:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        headers = {"cache-control": "no-store", **self.flags}
        head = Response(media_type=exchange.media_type, headers=headers)
        del head.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": head.raw_headers})
        try:
            await write(exchange.begin())
            await self._read(generation, lambda delta: write(exchange.piece(delta)))
            await self._account(generation)
            last = exchange.end(generation.usage)
        except ClientGone:
            raise
        except Exception as error:  # too late for a status: the stream itself has to say it
            last = exchange.broken(self.shared.explain(error, self.fields))
        await write(last, more=False)

    async def _account(self, generation: Generation) -> None:
        """Settle what was used and note what the guards found: once, and before the client knows that this was all."""
        if not self.accounted:
            self.accounted = True
            if found := self.screen.findings:
                self.fields["findings"] = dict(found)
                for kind, count in found.items():
                    self.shared.metrics.findings.labels(kind).inc(count)
            await asyncio.to_thread(self._look_back, generation)

    def _look_back(self, generation: Generation) -> None:
        ran = [request for request in generation.requests if request.times]
        began = any(
            request.reached or request.table for request in generation.requests
        )  # with its prompt, at least
        usage = generation.usage
        self.settle(usage.prompt_tokens + usage.completion_tokens if began else 0)
        each = len(generation.requests) // len(self.exchange.texts)
        for i, texts in enumerate(self.exchange.texts):
            answers = [request.text for request in ran if request.index // each == i]
            if answers and (why := self.guards.watch(self.caller, "\n".join(texts), *answers)):
                self.fields["extraction"] = why
                self.shared.metrics.suspicions.labels("extraction").inc()

    def _note(self, generation: Generation) -> None:
        """For the log line."""
        usage = generation.usage
        first = min((request.times[0] for request in generation.requests if request.times), default=None)
        self.fields |= {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "first_token_seconds": first and round(first - generation.opened, 4),
            "finish": sorted({request.finish_reason or "abort" for request in generation.requests}),
        }


async def _abort_when_gone(receive: Receive, generation: Generation) -> None:
    """uvicorn stops reading when another request comes in behind this one, and would not see its client go; a new call
    of ``receive`` makes it read on. Less and less often, since what it reads it keeps."""
    wait, gone = 1.0, False
    while not gone:
        try:
            async with asyncio.timeout(wait):
                gone = (await receive())["type"] == "http.disconnect"
        except TimeoutError:
            wait *= 2
    generation.abort()
