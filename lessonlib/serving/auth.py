"""Who is asking: the API key says it, and nothing in the body does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from lessonlib.course import CourseError
from lessonlib.security.admission import MAX_NAME

from .errors import ApiError

ANYBODY = "anybody"
_KEY = re.compile(r"[!-~]+")  # what a header holds and keeps


class Keys:
    """The keys that open this server; with none, it is open to anybody.

    A key is given as "key" or as "name:key". The name is the caller's identity; without one, it is the beginning of the
    key's hash, so that logs never hold a key. Clients send the key, or both as they were given. Only hashes are kept,
    and looked up: comparing takes no time that depends on how much of a guess was right. Raises CourseError for a key
    that nobody could send, or anybody, and for one that would have two names.
    """

    def __init__(self, keys: Iterable[str] = ()):
        self._names: dict[bytes, str] = {}
        for given in keys:
            name, colon, key = given.partition(":")
            if not colon:
                name, key = "", given
            if not _KEY.fullmatch(key):
                raise CourseError(
                    "An API key is empty, or has characters that no header can carry; give letters, digits and "
                    "punctuation without spaces, as key or as name:key."
                )
            if len(name) > MAX_NAME or not name.isprintable():
                raise CourseError(
                    f"The name of an API key must be printable and {MAX_NAME} characters at most."
                )
            digest = hashlib.sha256(key.encode())
            name = name or f"key-{digest.hexdigest()[:8]}"
            for sent in (digest, hashlib.sha256(given.encode())):
                if self._names.setdefault(sent.digest(), name) != name:
                    raise CourseError("The same API key was given with two names; give each name its own.")

    def __bool__(self) -> bool:
        return bool(self._names)

    def identify(self, headers: Headers) -> str:
        """The caller's name. Raises ApiError without a key, with a wrong one, and with two that disagree."""
        if not self._names:
            return ANYBODY
        given = headers.getlist("x-api-key")
        for value in headers.getlist("authorization"):
            scheme, _, key = value.partition(" ")
            given.append(key.strip() if scheme.lower() == "bearer" else "")  # "" is nobody's key
        names = {self._names.get(hashlib.sha256(key.encode()).digest()) for key in given}
        if len(names) == 1 and (name := names.pop()) is not None:
            return name
        raise ApiError(
            "authentication",
            "This API key is not known here; send a right one as Authorization: Bearer or x-api-key."
            if given
            else "An API key is needed; send it as Authorization: Bearer or x-api-key.",
        )
