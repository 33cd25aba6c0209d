"""What the parts of one application have in common, and how any of them says no."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from lessonlib.engine import EngineError
from lessonlib.security.admission import Refused

from . import anthropic, ollama, openai
from .auth import Keys
from .engine import AsyncEngine
from .errors import ApiError, from_admission, from_engine, from_http, from_validation
from .guards import Guards
from .metrics import Metrics
from .wire import Model

log = logging.getLogger(__name__)


@dataclass
class Shared:
    engine: AsyncEngine
    model: Model
    metrics: Metrics
    keys: Keys
    guards: Guards

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Any exception as an answer, in the words of the format that was asked in."""
        refused = self.explain(error, request.scope["state"]["fields"])
        body = _format(request.scope["path"]).error_body(refused)
        return JSONResponse(body, refused.status_code, refused.headers)

    def explain(self, error: Exception, fields: dict[str, Any]) -> ApiError:
        """Any exception as an ApiError, counted, and noted among the fields of a log line."""
        if isinstance(error, Refused):
            refused = from_admission(error)
        elif isinstance(error, RequestValidationError):
            refused = from_validation(error.errors(), error.body)
        elif isinstance(error, HTTPException):
            refused = from_http(error)
        elif isinstance(error, EngineError):
            refused = from_engine(error)
        else:
            log.error("an unexpected error", exc_info=error)
            refused = ApiError("internal", "Something went wrong in the server; its log says what.")
        self.metrics.rejections.labels(refused.reason).inc()
        fields["refused"] = refused.reason
        return refused

    def bad_http(self, large: bool) -> tuple[int, dict[str, Any]]:
        """Status and body for what is no HTTP at all, in words that OpenAI's and Anthropic's clients both understand.

        large: it is only more than is read at a time.
        """
        refused = self.explain(self.guards.limits.bad_http(large), {})
        return refused.status_code, {**anthropic.error_body(refused), **openai.error_body(refused)}


def _format(path: str) -> Any:
    if path.startswith("/v1/messages"):
        return anthropic
    return ollama if path.startswith("/api/") else openai
