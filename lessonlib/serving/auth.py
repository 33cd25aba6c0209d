"""Who is asking: the API key says it, and nothing in the body does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from starlette.datastructures import Headers

from .errors import ApiError

ANYBODY = "anybody"


class Keys:
    """The keys that open this server; with none, it is open to anybody.

    A key is given as "key" or as "name:key". The name is the caller's identity; without one, it is the beginning of the
    key's hash, so that logs never hold a key. Only hashes are kept, and looked up: comparing takes no time that depends
    on how much of a guess was right.
    """

    def __init__(self, keys: Iterable[str] = ()):
        self._names: dict[bytes, str] = {}
        for given in keys:
            name, _, key = given.rpartition(":")
            digest = hashlib.sha256(key.encode())
            self._names[digest.digest()] = name or f"key-{digest.hexdigest()[:8]}"

    def __bool__(self) -> bool:
        return bool(self._names)

    def identify(self, headers: Headers) -> str:
        """The caller's name. Raises ApiError without a key, with a wrong one, and with two that disagree."""
        if not self._names:
            return ANYBODY
        given = headers.getlist("x-api-key")
        for value in headers.getlist("authorization"):
            scheme, _, key = value.partition(" ")
            given.append(key.strip() if scheme.lower() == "bearer" else "")
        names = {self._names.get(hashlib.sha256(key.encode()).digest()) for key in given}
        if len(names) == 1 and (name := names.pop()) is not None:
            return name
        raise ApiError(
            "authentication",
            "This API key is not known here; send a right one as Authorization: Bearer or x-api-key."
            if given
            else "An API key is needed; send it as Authorization: Bearer or x-api-key.",
        )
