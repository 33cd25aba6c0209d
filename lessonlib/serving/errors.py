"""What a server has to refuse, by name and HTTP status; how it is worded on the wire is for each format to say."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException

from lessonlib.engine import EngineError
from lessonlib.security.admission import Refused

# kind: its HTTP status.
STATUS = {
    "invalid": 400,
    "authentication": 401,
    "not_found": 404,
    "not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "encoding": 415,
    "rate_limit": 429,
    "headers": 431,
    "internal": 500,
    "unavailable": 503,
}


class ApiError(HTTPException):
    """A request that gets an error for an answer.

    kind: a key of STATUS. message: one sentence for the client. param: the field at fault. retry_after: in seconds.
    reason: more exactly than the kind, for metrics, logs and programs.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        param: str | None = None,
        retry_after: float | None = None,
        reason: str | None = None,
    ):
        headers = None if retry_after is None else {"retry-after": str(math.ceil(retry_after))}
        super().__init__(STATUS[kind], message, headers)
        self.kind, self.message, self.param, self.reason = kind, message, param, reason or kind


class EngineStopped(EngineError):
    """The server is going down and takes no new requests."""


class EngineFailed(EngineError):
    """Steps keep failing, and the requests in them were given up."""


class ClientGone(Exception):
    """Nobody is there any more to be answered."""


def from_engine(error: EngineError) -> ApiError:
    """What the engine refused, as an answer."""
    if isinstance(error, EngineStopped):
        return ApiError("unavailable", str(error))
    return ApiError("internal" if isinstance(error, EngineFailed) else "invalid", str(error))


def from_http(error: HTTPException) -> ApiError:
    """What the framework refused (no such page, no such method), as an answer of ours."""
    if isinstance(error, ApiError):
        return error
    return ApiError(_kind(error.status_code), f"{error.detail}; /openapi.json says what this server answers.")


def from_admission(refused: Refused) -> ApiError:
    """What is not let in, as an answer."""
    kind = _kind(refused.status)
    return ApiError(kind, refused.message, refused.param, refused.retry_after, refused.reason.value)


def _kind(status: int) -> str:
    return next((kind for kind, its in STATUS.items() if its == status), "invalid")


def from_validation(errors: list[dict]) -> ApiError:
    """A body of the wrong shape, as an answer: it names the first field at fault, and repeats nothing of the body."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:100]
    said = str(first["msg"])[:200].rstrip(".")
    return ApiError("invalid", f"{where or 'The request body'}: {said}.", where or None)
