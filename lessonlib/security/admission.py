"""What is turned away before it costs anything: size, shape and cost of a request, and how busy the server is.

Every check is a pure function of a frozen set of limits and of what it is told, returns nothing when all is well, and
raises Refused otherwise: with a reason for the metrics, an HTTP status and one sentence for the user. In the order in
which a server can afford them: headers, body as it arrives, nesting of the raw bytes, lists once parsed, tokens and KV
blocks once tokenized, then the tenant's slots, the queue and the deadline. Only ``TenantSlots`` remembers anything.

Sources of the statuses: RFC 9110 §15.5 and §15.6 (400, 413, 503, 504), RFC 6585 §4 and §5 (429, 431).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np


class Reason(StrEnum):
    """Why a request was turned away; the values are fit for a metric's label."""

    BODY = "body_too_large"
    HEADERS = "headers_too_large"
    DEPTH = "json_too_deep"
    LIST = "list_too_long"
    NUMBER = "bad_number"
    TOKENS = "too_many_tokens"
    KV_BLOCKS = "too_many_kv_blocks"
    TENANT = "tenant_busy"
    QUEUE = "queue_full"
    DEADLINE = "deadline"


STATUS = {
    Reason.BODY: 413,
    Reason.HEADERS: 431,
    Reason.DEPTH: 400,
    Reason.LIST: 400,
    Reason.NUMBER: 400,
    Reason.TOKENS: 400,
    Reason.KV_BLOCKS: 400,
    Reason.TENANT: 429,
    Reason.QUEUE: 503,
    Reason.DEADLINE: 504,
}


class Refused(Exception):
    """A request that is not let in. ``retry_after``: seconds, or None when asking again would not help."""

    def __init__(self, reason: Reason, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.reason, self.status, self.message = reason, STATUS[reason], message
        self.retry_after = retry_after


@dataclass(frozen=True)
class Deadline:
    """A moment on the caller's clock (seconds) after which nobody waits for the answer any more."""

    at: float

    def left(self, now: float) -> float:
        """Seconds until then, 0 or more."""
        return max(0.0, self.at - now)

    def check(self, now: float, expected: float = 0.0) -> None:
        """Refuse what is late, or will be: it is not expected to begin for another so many seconds."""
        if now >= self.at:
            raise Refused(Reason.DEADLINE, "The deadline of this request has passed; allow it more time.")
        if now + expected >= self.at:
            raise Refused(
                Reason.DEADLINE,
                "The deadline of this request would pass while it waits; allow it more time, or try again later.",
                retry_after=expected,
            )


# Where a list's length is limited by name: key in the JSON -> field of AdmissionLimits.
NAMED = {
    "prompt": "prompts",
    "messages": "messages",
    "stop": "stops",
    "stop_sequences": "stops",
    "logit_bias": "logit_biases",
}


@dataclass(frozen=True)
class AdmissionLimits:
    """The limits, each the most that is let in.

    body_bytes: of the body, and once more of what it decompresses to. header_bytes, headers: of all headers together.
    json_depth: lists and objects inside each other. prompts, messages, stops, logit_biases: entries of these lists;
    list_length: of any other list or object, and of a prompt given as token ids. new_tokens: n × max_tokens.
    kv_percent: of the KV blocks, for one request. queue: requests that wait. tenant_requests: of one tenant, waiting
    or running. deadline: seconds for one request.
    """

    body_bytes: int = 2**20
    header_bytes: int = 16 * 2**10
    headers: int = 64
    json_depth: int = 32
    prompts: int = 64
    messages: int = 512
    stops: int = 16
    logit_biases: int = 1024
    list_length: int = 2**15
    n: int = 16
    new_tokens: int = 2**13
    kv_percent: int = 100
    queue: int = 256
    tenant_requests: int = 16
    deadline: int = 300

    def __post_init__(self) -> None:
        for each in fields(self):
            if not _is_whole(getattr(self, each.name), least=1):
                raise ValueError(f"The limit {each.name} must be a whole number, 1 or more.")

    def check_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Names and values, as ASGI hands them over; each is sent with 4 bytes more."""
        size = 0
        for count, (name, value) in enumerate(headers, start=1):
            size += len(name) + len(value) + 4
            if count > self.headers or size > self.header_bytes:
                raise Refused(
                    Reason.HEADERS,
                    f"The headers are larger than this server reads ({self.headers} headers, {self.header_bytes} "
                    "bytes); send fewer.",
                )

    def check_body(self, size: int) -> None:
        """Bytes announced, received or decompressed so far: ask before each piece is kept."""
        if size > self.body_bytes:
            raise Refused(
                Reason.BODY,
                f"The body is larger than this server reads ({self.body_bytes} bytes); send less.",
            )

    def check_depth(self, body: bytes) -> None:
        """JSON in UTF-8, before it is parsed: a parser that recurses would be led to its end."""
        if json_depth(body, enough=self.json_depth + 1) > self.json_depth:
            raise Refused(
                Reason.DEPTH, f"The JSON is nested deeper than {self.json_depth} levels; send it flatter."
            )

    def check_lists(self, document: Any) -> None:
        """Every list and object of parsed JSON, wherever it stands."""
        todo: list[tuple[str, Any]] = [("", document)]
        while todo:
            key, value = todo.pop()
            if not isinstance(value, list | dict):
                continue
            ids = isinstance(value, list) and value and isinstance(value[0], int)
            field = "list_length" if ids else NAMED.get(key, "list_length")
            if len(value) > getattr(self, field):
                shown = f"{key} has" if key in NAMED else "A list or object has"
                raise Refused(
                    Reason.LIST,
                    f"{shown} {len(value)} entries and may have {getattr(self, field)}; send fewer.",
                )
            if isinstance(value, dict):
                todo.extend(value.items())
            else:
                todo.extend(("", each) for each in value if isinstance(each, list | dict))

    def check_tokens(self, max_tokens: Any, n: Any = 1) -> None:
        """As they stand in the request: anything may stand there."""
        for name, value, least in (("max_tokens", max_tokens, 0), ("n", n, 1)):
            if not _is_whole(value, least):
                raise Refused(Reason.NUMBER, f"{name} must be a whole number, {least} or more.")
        if n > self.n:
            raise Refused(Reason.TOKENS, f"n is larger than {self.n}; ask for fewer answers at a time.")
        if n * max_tokens > self.new_tokens:
            raise Refused(
                Reason.TOKENS,
                f"n × max_tokens is more than {self.new_tokens}, the most that one request may ask for; "
                "ask for less.",
            )

    def check_blocks(self, prompt: int, max_tokens: int, n: int, block_size: int, num_blocks: int) -> None:
        """Tokens of a prompt and of its n continuations, and the pool: see ``blocks_needed``."""
        most = num_blocks * self.kv_percent // 100
        if blocks_needed(prompt, max_tokens, n, block_size) > most:
            raise Refused(
                Reason.KV_BLOCKS,
                f"This request needs more of the KV cache than the {most * block_size} tokens that one request may "
                "have; send a shorter prompt, or ask for fewer tokens.",
            )

    def check_queue(self, waiting: int) -> None:
        """Requests that wait already."""
        if waiting >= self.queue:
            raise Refused(
                Reason.QUEUE, "The server has more requests than it can answer soon; try again in 1 s.", 1.0
            )

    def deadline_after(self, asked: Any, now: float) -> Deadline:
        """The moment for a request that asked for so many seconds (None: for nothing) at ``now``."""
        if asked is None:
            return Deadline(now + self.deadline)
        if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 < asked < float("inf"):
            raise Refused(Reason.NUMBER, "The deadline must be a number of seconds above 0.")
        return Deadline(now + min(asked, self.deadline))


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def blocks_needed(prompt: int, max_tokens: int, n: int, block_size: int) -> int:
    """KV blocks when all n continuations are as long as they may be; they share the blocks that the prompt fills.

    As in ``engine.scheduler``: the last token chosen is never run, so it needs no place.
    """
    longest = max(prompt, prompt + max_tokens - 1)
    shared = prompt // block_size
    return shared + n * (-(-longest // block_size) - shared)


STEP = np.zeros(256, dtype=np.int8)
STEP[list(b"[{")], STEP[list(b"]}")] = 1, -1
QUOTE = ord('"')
CHUNK = 2**16


def json_depth(body: bytes, enough: int | None = None) -> int:
    """How deep lists and objects are nested, in linear time and constant memory; may stop once it is ``enough``.

    For JSON in UTF-8 (with UTF-16, decode first). When the bytes are no JSON, at least as deep as any parser gets
    before it notices.
    """
    deepest = depth = 0
    in_string = 0
    escape = b""
    for start in range(0, len(body), CHUNK):
        # Escaped backslashes out first, then escaped quotes: every quote left begins or ends a string.
        piece = (escape + body[start : start + CHUNK]).replace(rb"\\", b"")
        escape = b"\\" if piece.endswith(b"\\") else b""  # of a character in the next chunk
        codes = np.frombuffer(piece.removesuffix(b"\\").replace(rb"\"", b""), dtype=np.uint8)
        inside = (
            np.cumsum(codes == QUOTE, dtype=np.uint8) + np.uint8(in_string)
        ) & 1  # wraps, parity does not mind
        steps = STEP[codes]
        steps = steps[(steps != 0) & (inside == 0)]
        if len(codes):
            in_string = int(inside[-1])
        if len(steps):
            depths = depth + np.cumsum(steps, dtype=np.int64)
            depth = int(depths[-1])
            deepest = max(deepest, int(depths.max()))
        if enough is not None and deepest >= enough:
            break
    return deepest


class Slot:
    """A tenant's place, until ``release`` (which may be called again) or the end of its ``with`` block."""

    def __init__(self, slots: TenantSlots, tenant: str):
        self._slots, self._tenant, self._held = slots, tenant, True

    def release(self) -> None:
        with self._slots._lock:
            if self._held:
                self._held = False
                self._slots._counts[self._tenant] -= 1
                if not self._slots._counts[self._tenant]:
                    del self._slots._counts[self._tenant]

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class TenantSlots:
    """How many requests each tenant has under way; any number of threads. Only busy tenants take memory.

    >>> slots = TenantSlots(most=16)
    >>> with slots.acquire("alice"):
    ...     answer()
    """

    def __init__(self, most: int):
        if not _is_whole(most, least=1):
            raise ValueError("The limit of requests at a time must be a whole number, 1 or more.")
        self.most = most
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def acquire(self, tenant: str) -> Slot:
        """A place, at once. Raises Refused when all of the tenant's are taken."""
        with self._lock:
            if self._counts[tenant] >= self.most:
                raise Refused(
                    Reason.TENANT,
                    f"You have {self.most} requests under way, the most at a time; wait until one is answered.",
                    retry_after=1.0,
                )
            self._counts[tenant] += 1
        return Slot(self, tenant)

    def in_use(self, tenant: str) -> int:
        """Requests the tenant has under way."""
        return self._counts[tenant]

    def __len__(self) -> int:
        """Tenants with a request under way."""
        return len(self._counts)
