"""What a server has to refuse, by name and HTTP status; how it is worded on the wire is for each format to say."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from lessonlib.engine import EngineError

# kind: its HTTP status. The kinds are also the reasons in the metric of rejections.
STATUS = {
    "invalid": 400,
    "authentication": 401,
    "not_found": 404,
    "not_allowed": 405,
    "timeout": 408,
    "too_large": 413,
    "encoding": 415,
    "rate_limit": 429,
    "internal": 500,
    "unavailable": 503,
}


class ApiError(HTTPException):
    """A request that gets an error for an answer.

    kind: a key of STATUS. message: one sentence for the client. param: the field at fault. retry_after: in seconds.
    """

    def __init__(self, kind: str, message: str, param: str | None = None, retry_after: int | None = None):
        headers = None if retry_after is None else {"retry-after": str(retry_after)}
        super().__init__(STATUS[kind], message, headers)
        self.kind, self.message, self.param = kind, message, param


class QueueFull(EngineError):
    """As many requests wait as may wait."""


class EngineStopped(EngineError):
    """The server is going down and takes no new requests."""


class EngineFailed(EngineError):
    """Steps keep failing, and the requests in them were given up."""


class ClientGone(Exception):
    """Nobody is there any more to be answered."""


def from_engine(error: EngineError) -> ApiError:
    """What the engine refused, as an answer."""
    if isinstance(error, QueueFull):
        return ApiError("rate_limit", str(error), retry_after=1)
    if isinstance(error, EngineStopped):
        return ApiError("unavailable", str(error))
    return ApiError("internal" if isinstance(error, EngineFailed) else "invalid", str(error))


def from_http(error: HTTPException) -> ApiError:
    """What the framework refused (no such page, no such method), as an answer of ours."""
    if isinstance(error, ApiError):
        return error
    kind = next((kind for kind, status in STATUS.items() if status == error.status_code), "invalid")
    return ApiError(kind, f"{error.detail}; /openapi.json says what this server answers.")


def from_validation(errors: list[dict]) -> ApiError:
    """A body of the wrong shape, as an answer: it names the first field at fault, and repeats nothing of the body."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:100]
    said = str(first["msg"])[:200].rstrip(".")
    return ApiError("invalid", f"{where or 'The request body'}: {said}.", where or None)
