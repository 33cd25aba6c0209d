"""The secured API of the lesson, repaired: a validator, a rate limiter, an output filter and an extraction detector.

    LESSON_API_KEYS=alice:sesame python examples/secured_api.py
    curl http://127.0.0.1:8000/generate -H 'x-api-key: sesame' -H 'content-type: application/json' \
        -d '{"prompt": "def fib(n):", "max_tokens": 32}'

Comments that begin with "Original:" say what the listing did before. `lesson serve` does all of this and much more.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from lessonlib import LLM, SamplingParams
from lessonlib.engine import EngineError

# Original: these four were used without an import.
from lessonlib.security import ExtractionDetector, InputValidator, OutputFilter, RateLimiter
from lessonlib.serving.auth import Keys
from lessonlib.serving.engine import AsyncEngine
from lessonlib.serving.errors import ApiError

log = logging.getLogger("secured_api")


class Query(BaseModel):
    # Original: a user_id stood here, so that anybody could spend anybody's budget; what a body says of it is ignored.
    prompt: str = Field(min_length=1, max_length=20_000)
    max_tokens: int = Field(64, ge=1, le=512)


def create_app(
    model: str, keys: Keys, limiter: RateLimiter | None = None, output_filter: OutputFilter | None = None
) -> FastAPI:
    """model: its name or folder. keys: of those who may come in; without any, everybody is one and the same caller."""
    llm = LLM(model)
    # Original: llm.generate() inside an async function, which stops every other request until it is done.
    engine = AsyncEngine(llm)
    # Original: requests a minute only; one request for a million tokens was one request.
    limiter = RateLimiter(60, tokens_per_minute=20_000) if limiter is None else limiter
    output_filter = OutputFilter() if output_filter is None else output_filter
    # Original: a match meant "stopped"; it is a warning, and what the model may do must not depend on it.
    validator = InputValidator()
    detector = ExtractionDetector()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    app = FastAPI(lifespan=lifespan)
    app.state.engine = engine

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"alive": engine.alive}

    @app.post("/generate")
    async def generate(query: Query, request: Request) -> dict[str, Any]:
        try:
            user = keys.identify(request.headers)  # Original: request.user_id.
        except ApiError as refused:
            raise HTTPException(401, refused.detail) from None

        verdict = await asyncio.to_thread(validator.analyze, query.prompt)
        if verdict.is_malicious:
            log.warning("%s sent something that looks like an attack: %s", user, verdict.reason)
            raise HTTPException(400, "This looks like an attempt to take over the model; say it differently.")

        ids = await asyncio.to_thread(llm.tokenizer.encode, query.prompt)
        held = limiter.reserve(user, len(ids) + query.max_tokens)
        if not held:
            wait = {} if held.retry_after is None else {"Retry-After": str(int(held.retry_after) + 1)}
            raise HTTPException(429, held.message, wait)
        used, generation, text = 0, None, ""
        try:
            generation = engine.open([ids], SamplingParams(temperature=0, max_tokens=query.max_tokens))
            await generation.admitted()
            used = len(ids)
            async for delta in generation.deltas():
                text += delta.text
                used += len(delta.tokens)
        except EngineError as error:
            raise HTTPException(400, str(error)) from None
        finally:
            if generation is not None:
                generation.abort()  # changes nothing once it is over
            limiter.settle(held, used)

        watched = detector.check(user, query.prompt, text)
        if watched["suspicious"]:  # honest programs fill templates, too: a matter for a person
            log.warning("%s asks as if to copy the model: %s", user, watched["reason"])
        shown = output_filter.filter(text)
        return {
            "model": model,  # Original: a name of somebody else's model stood in the source.
            "text": str(shown),
            "removed": sorted({finding.kind for finding in shown.findings}),
            "tokens": used,
        }

    return app


def main() -> None:
    keys = Keys(filter(None, os.environ.get("LESSON_API_KEYS", "").split(",")))
    app = create_app(os.environ.get("LESSON_MODEL", "pico"), keys)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
