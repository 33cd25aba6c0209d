"""What a server has to refuse, by name and HTTP status; how it is worded on the wire is for each format to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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


# pydantic's name of what is wrong: how to say it, with what it knows in braces. Of a wrong type: what is right.
_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_WRONG = {
    "missing": "is missing",
    "extra_forbidden": "is not known here; leave it out",
    "none_required": "is not known here; leave it out",  # a field that only may be null
    "too_short": "needs {min_length} or more entries",
    "too_long": "has more than {max_length} entries",
    "string_too_short": "needs {min_length} or more characters",
    "string_too_long": "has more than {max_length} characters",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "is no token id in digits",  # the only pattern there is
}


def from_validation(errors: Sequence[Any], body: Any, skip: int = 1) -> ApiError:
    """A body of the wrong shape, as an answer: it names one field at fault, and repeats no value of the body.

    errors: pydantic's. skip: names before the place in the body (FastAPI's "body").

    pydantic tells, for a field that may be this or that, what speaks against each: what came closest is found deepest
    in the body, and there whatever is not merely of another type.
    """
    found = [(_path(error["loc"][skip:], body, error["type"] == "missing"), error) for error in errors]
    first = found[0][0]
    near = [each for each in found if each[0][: len(first)] == first]
    deepest = max(near, key=lambda each: len(each[0]))[0]  # the first of them
    here = [error for path, error in near if path == deepest]
    other = [error for error in here if error["type"] not in _TYPES]
    if other:
        wrong = other[0]
        text = _WRONG.get(wrong["type"])
        said = (
            text.format_map(wrong.get("ctx", {}))
            if text
            else f"is not valid ({wrong['msg'][:200].rstrip('.')})"
        )
        if wrong["type"] == "literal_error" and wrong["ctx"]["expected"] == "'text'":
            said += ", since nothing but text is read here"
    else:
        said = f"must be {' or '.join(dict.fromkeys(_TYPES[error['type']] for error in here))}"
    where = ".".join(map(str, deepest))[:100]
    return ApiError("invalid", f"{where or 'The request body'} {said}.", where or None)


def _path(loc: Sequence[int | str], body: Any, missing: bool) -> tuple[int | str, ...]:
    """The place in the body: without the names of Python's types, which pydantic puts in between."""
    path: list[int | str] = []
    for part in loc:
        if isinstance(body, dict):
            if part in body:
                path.append(part)
                body = body[part]
            elif missing:
                path.append(part)
        elif isinstance(body, list) and isinstance(part, int):
            path.append(part)
            body = body[part]
    return tuple(path)
