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
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lessonlib import LLM, SamplingParams
from lessonlib.course import CourseError
from lessonlib.engine import EngineError

# Original: these four were used without an import.
from lessonlib.security import ExtractionDetector, InputValidator, OutputFilter, RateLimiter
from lessonlib.security.admission import AdmissionLimits, Refused, TenantSlots
from lessonlib.serving.auth import Keys
from lessonlib.serving.engine import AsyncEngine
from lessonlib.serving.errors import from_admission, from_validation
from lessonlib.serving.limits import parse_json, read_body

log = logging.getLogger("secured_api")
LIMITS = AdmissionLimits(body_bytes=200_000, queue=32)
AT_A_TIME = 8  # requests of one user


class Query(BaseModel):
    model_config = ConfigDict(strict=True)
    # Original: a user_id stood here, so that anybody could spend anybody's budget; what a body says of it is ignored.
    prompt: str = Field(min_length=1, max_length=20_000)
    max_tokens: int = Field(64, ge=1, le=512)


async def read(request: Request) -> Query:
    """The body. Raises Refused and ApiError, which repeat nothing of it: an answer that did could be no JSON itself."""
    value = parse_json(await read_body(request, LIMITS), LIMITS)
    try:
        return Query.model_validate(value)
    except ValidationError as error:
        raise from_validation(error.errors(), value, skip=0) from None


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
    slots = TenantSlots(AT_A_TIME)

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
    async def generate(request: Request) -> dict[str, Any]:
        # Original: request.user_id, and that only after a body of any length had been read and parsed.
        user = keys.identify(request.headers)
        try:
            with slots.acquire(user):
                return await answer(user, await read(request))
        except Refused as refused:
            raise from_admission(refused) from None

    async def answer(user: str, query: Query) -> dict[str, Any]:
        verdict = await asyncio.to_thread(validator.analyze, query.prompt)
        if verdict.is_malicious:
            log.warning("%s sent something that looks like an attack: %s", user, verdict.reason)
            raise HTTPException(400, "This looks like an attempt to take over the model; say it differently.")

        ids = await asyncio.to_thread(llm.tokenizer.encode, query.prompt)
        held = limiter.reserve(user, len(ids) + query.max_tokens)
        if not held:
            if held.retry_after is None:  # never
                raise HTTPException(400, held.message)
            raise HTTPException(429, held.message, {"Retry-After": str(int(held.retry_after) + 1)})
        used, generation, text = 0, None, ""
        try:
            LIMITS.check_queue(1, engine.sequences, engine.scheduler.max_num_seqs)
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
    given = os.environ.get("LESSON_API_KEYS", "")
    keys, port = given.split(",") if given else [], os.environ.get("PORT", "8000")
    # An empty key would open to whoever sends none.
    if not all(key.rpartition(":")[2].strip() for key in keys):
        sys.exit("LESSON_API_KEYS has an entry without a key; write name:key, with commas between them.")
    if not (port.isascii() and port.isdecimal() and int(port[:6]) < 2**16):
        sys.exit("PORT is no port; give a number from 0 to 65535.")
    try:
        callers = Keys(keys)
    except CourseError as error:
        sys.exit(f"LESSON_API_KEYS: {error}")
    try:
        app = create_app(os.environ.get("LESSON_MODEL", "pico"), callers)
    except EngineError as error:
        sys.exit(f"LESSON_MODEL: {error}")
    uvicorn.run(app, host="127.0.0.1", port=int(port), limit_concurrency=128)


if __name__ == "__main__":
    main()
