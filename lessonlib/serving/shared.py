"""What the parts of one application have in common, and how any of them says no."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from lessonlib.engine import EngineError

from . import anthropic, ollama, openai
from .auth import Keys
from .engine import AsyncEngine
from .errors import ApiError, from_engine, from_http, from_validation
from .limits import Limits
from .metrics import Metrics
from .wire import Model

if TYPE_CHECKING:
    from lessonlib.security.rate_limiter import Limiter

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """salt: from a caller's name to the salt of its prefix cache. limiter: of requests and tokens a minute."""

    engine: AsyncEngine
    model: Model
    metrics: Metrics
    keys: Keys
    limits: Limits
    salt: Callable[[str], str]
    limiter: Limiter | None

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Any exception as an answer, in the words of the format that was asked in."""
        refused = self.explain(error)
        body = _format(request.scope["path"]).error_body(refused)
        return JSONResponse(body, refused.status_code, refused.headers)

    def explain(self, error: Exception) -> ApiError:
        """Any exception as an ApiError, counted."""
        if isinstance(error, RequestValidationError):
            refused = from_validation(list(error.errors()))
        elif isinstance(error, HTTPException):
            refused = from_http(error)
        elif isinstance(error, EngineError):
            refused = from_engine(error)
        else:
            log.error("an unexpected error", exc_info=error)
            refused = ApiError("internal", "Something went wrong in the server; its log says what.")
        self.metrics.rejections.labels(refused.kind).inc()
        return refused


def _format(path: str) -> Any:
    if path.startswith("/v1/messages"):
        return anthropic
    return ollama if path.startswith("/api/") else openai
