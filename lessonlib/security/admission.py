"""What is turned away before it costs anything: size, shape and cost of a request, and how busy the server is.

Every check is a pure function of a frozen set of limits and of what it is told, returns nothing when all is well, and
raises Refused otherwise: with a reason for the metrics, an HTTP status and one sentence for the user. In the order in
which a server can afford them: headers, the tenant's slots, the body as it arrives, nesting and number of values in its
raw bytes, lists once parsed, sequences, tokens and KV blocks once tokenized, then the queue and the deadline. Only
``TenantSlots`` remembers anything.

Sources of the statuses: RFC 9110 §15.5 (400, 408, 413, 415), RFC 6585 §4 and §5 (429, 431). None is 5xx: a server that
says no is not a server that is broken, and load balancers take those that answer 503 or 504 out of service. So a
deadline that passes is 408, too: what did not come to its end in time is the request.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np

# What lists and texts of a request may hold. Fixed, since these numbers stand in the description of the wire formats.
MAX_NAME = 256
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_BIASES = 300
MAX_BIAS = 100
MAX_LOGPROBS = 20
MAX_MESSAGES = 512
MAX_PARTS = 64  # of a message
MAX_PROMPTS = 64
MAX_N = 64
MAX_IDS = 2**15  # token ids in a row
WHOLE = 2**63 - 1  # whole numbers beyond 64 bits have no meaning anywhere here


class AdmissionReason(StrEnum):
    """Why a request was turned away; the values are fit for a metric's label."""

    HTTP = "bad_http"
    CONNECTIONS = "too_many_connections"
    HEADERS = "headers_too_large"
    TENANT = "tenant_busy"
    ENCODING = "body_compressed"
    BODY = "body_too_large"
    SLOW = "body_too_slow"
    DEPTH = "json_too_deep"
    VALUES = "too_many_values"
    SEQUENCES = "too_many_sequences"
    TOKENS = "too_many_tokens"
    LOGPROBS = "too_many_logprobs"
    KV_BLOCKS = "too_many_kv_blocks"
    QUEUE = "queue_full"
    DEADLINE = "deadline"


STATUS = {
    AdmissionReason.HTTP: 400,
    AdmissionReason.CONNECTIONS: 429,
    AdmissionReason.HEADERS: 431,
    AdmissionReason.TENANT: 429,
    AdmissionReason.ENCODING: 415,
    AdmissionReason.BODY: 413,
    AdmissionReason.SLOW: 408,
    AdmissionReason.DEPTH: 400,
    AdmissionReason.VALUES: 400,
    AdmissionReason.SEQUENCES: 400,
    AdmissionReason.TOKENS: 400,
    AdmissionReason.LOGPROBS: 400,
    AdmissionReason.KV_BLOCKS: 400,
    AdmissionReason.QUEUE: 429,
    AdmissionReason.DEADLINE: 408,
}


class Refused(Exception):
    """A request that is not let in.

    retry_after: seconds, or None when asking again would not help. param: the field of the request at fault.
    """

    def __init__(
        self,
        reason: AdmissionReason,
        message: str,
        retry_after: float | None = None,
        param: str | None = None,
    ):
        super().__init__(message)
        self.reason, self.status, self.message = reason, STATUS[reason], message
        self.retry_after, self.param = retry_after, param


@dataclass(frozen=True)
class Demand:
    """The most that a request can cost, once it is tokens.

    prompts: their lengths. Each gets ``n`` answers of up to ``max_tokens``, and no sequence outgrows the ``context``.
    logprobs: how many of the likeliest tokens are told beside each chosen one; None: not even its own.
    """

    prompts: tuple[int, ...]
    n: int
    max_tokens: int
    context: int
    logprobs: int | None = None

    @property
    def sequences(self) -> int:
        return len(self.prompts) * self.n

    @property
    def new_tokens(self) -> int:
        return sum(self.n * self._new(prompt) for prompt in self.prompts)

    @property
    def tokens(self) -> int:
        """Of prompts, each counted once, and answers."""
        return sum(self.prompts) + self.new_tokens

    def blocks(self, block_size: int) -> int:
        """KV blocks when all answers are as long as they may be; those to one prompt share the blocks that it fills.

        As in ``engine.scheduler``: the last token chosen is never run, so it needs no place.
        """
        needed = 0
        for prompt in self.prompts:
            longest = max(prompt, prompt + self._new(prompt) - 1)
            shared = prompt // block_size
            needed += shared + self.n * (-(-longest // block_size) - shared)
        return needed

    def _new(self, prompt: int) -> int:
        return min(self.max_tokens, max(0, self.context - prompt))


@dataclass(frozen=True)
class AdmissionLimits:
    """The limits, each the most that is let in. Those that may be None are then switched off.

    connections: open at a time. header_bytes, headers: of all headers together. request_seconds: until headers and body
    have arrived. body_bytes, body_seconds: of a body, and until it has arrived. json_depth: lists and objects inside
    each other. json_values: entries of all of these. sequences: prompts × n of one request. new_tokens, logprobs: of
    all their answers. kv_percent: of the KV blocks, for one request; more than 100 counts on preemption. queue:
    sequences that wait. tenant_requests: of one tenant at a time. write_seconds: until a piece of an answer is taken.
    deadline: seconds from request to last token.
    """

    connections: int = 1000
    header_bytes: int = 16 * 2**10
    headers: int = 64
    request_seconds: float = 40.0
    body_bytes: int = 2**20
    body_seconds: float = 30.0
    json_depth: int = 32
    json_values: int = 2**16
    sequences: int = 64
    new_tokens: int = 2**16
    logprobs: int = 2**16
    kv_percent: int | None = 100
    queue: int = 256
    tenant_requests: int | None = None
    write_seconds: float = 10.0
    deadline: float | None = 300.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, kind = getattr(self, each.name), str(each.type)
            if value is None and "None" in kind:
                continue
            if "float" in kind:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
                    raise ValueError(f"The limit {each.name} must be a number of seconds above 0.")
            elif not _is_whole(value, least=0 if each.name == "queue" else 1):
                raise ValueError(f"The limit {each.name} must be a whole number, 1 or more.")

    def check_connections(self, count: int) -> None:
        """Connections, this one among them."""
        if count > self.connections:
            raise Refused(
                AdmissionReason.CONNECTIONS,
                f"The server has its {self.connections} connections open; try again in 1 s.",
                1.0,
            )

    def check_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Names and values, as ASGI hands them over; each is sent with 4 bytes more."""
        size = 0
        for count, (name, value) in enumerate(headers, start=1):
            size += len(name) + len(value) + 4
            if count > self.headers or size > self.header_bytes:
                raise self.bad_http()

    def bad_http(self, large: bool = True) -> Refused:
        """Headers beyond the limits, or no HTTP at all."""
        if not large:
            return Refused(AdmissionReason.HTTP, "This is not valid HTTP/1.1; send a request that is.")
        return Refused(
            AdmissionReason.HEADERS,
            f"The headers are larger than this server reads ({self.headers} headers, {self.header_bytes} bytes); "
            "send fewer.",
        )

    def check_encoding(self, encoding: str) -> None:
        """The header Content-Encoding: what a compressed body unpacks to is known too late."""
        if encoding.strip().lower() != "identity":
            raise Refused(
                AdmissionReason.ENCODING,
                "Compressed bodies are not accepted; send it without Content-Encoding.",
            )

    def check_body(self, size: int) -> None:
        """Bytes announced, or received so far: ask before each piece is kept."""
        if size > self.body_bytes:
            raise Refused(
                AdmissionReason.BODY,
                f"The body has more than {self.body_bytes} bytes; send less at a time.",
            )

    def slow_body(self) -> Refused:
        return Refused(
            AdmissionReason.SLOW,
            f"The body did not arrive within {self.body_seconds:g} seconds; send it again.",
        )

    def check_json(self, body: bytes) -> None:
        """JSON in UTF-8, before it is parsed: parsers recurse, and as Python objects it may take 20 times as much."""
        depth, values = json_shape(body, self.json_depth, self.json_values)
        if values > self.json_values:
            raise Refused(
                AdmissionReason.VALUES,
                f"The body has more than {self.json_values} values; send fewer at a time.",
            )
        if depth > self.json_depth:
            raise Refused(
                AdmissionReason.DEPTH,
                f"The body is nested deeper than {self.json_depth} levels; flatten it.",
            )

    def check_demand(self, demand: Demand, block_size: int, num_blocks: int) -> None:
        """Against the limits, and against a pool of so many KV blocks."""
        if demand.sequences > self.sequences:
            raise Refused(
                AdmissionReason.SEQUENCES,
                f"prompts × n is {demand.sequences}, and {self.sequences} is the limit; ask for fewer.",
                param="n",
            )
        if demand.new_tokens > self.new_tokens:
            raise Refused(
                AdmissionReason.TOKENS,
                f"The answers may come to {demand.new_tokens} tokens, and {self.new_tokens} is the limit for one "
                "request; lower max_tokens or n.",
                param="max_tokens",
            )
        told = 0 if demand.logprobs is None else demand.new_tokens * (1 + demand.logprobs)
        if told > self.logprobs:
            raise Refused(
                AdmissionReason.LOGPROBS,
                f"The answers may come to {told} log-probabilities, and {self.logprobs} is the limit; lower "
                "max_tokens, n or the number of top log-probabilities.",
                param="logprobs",
            )
        most = None if self.kv_percent is None else num_blocks * self.kv_percent // 100
        if most is not None and demand.blocks(block_size) > most:
            raise Refused(
                AdmissionReason.KV_BLOCKS,
                f"This request may need more of the KV cache than the {most * block_size} tokens that one request may "
                "have; send a shorter prompt, or lower max_tokens or n.",
                param="max_tokens",
            )

    def check_queue(self, sequences: int, busy: int, running: int) -> None:
        """So many sequences want in, so many are there, and so many of all can run at a time."""
        if sequences + busy > running + self.queue:
            raise Refused(
                AdmissionReason.QUEUE,
                f"The queue is full ({busy} sequences run and wait); try again in 1 s.",
                1.0,
            )

    def seconds_left(self, passed: float) -> float:
        """Until the deadline (10^9 when there is none), of which so many have passed. Raises Refused when all have."""
        if self.deadline is None:
            return 1e9
        if passed >= self.deadline:
            raise self.late()
        return self.deadline - passed

    def late(self) -> Refused:
        return Refused(
            AdmissionReason.DEADLINE,
            f"The answer was not complete after {self.deadline or 0:g} seconds, the most that this server gives a "
            "request; ask for fewer tokens, or when it is less busy.",
        )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


STEP = np.zeros(256, dtype=np.int8)
STEP[list(b"[{")], STEP[list(b"]}")] = 1, -1
VALUE = np.zeros(256, dtype=bool)
VALUE[list(b"[{,")] = True
QUOTE = ord('"')
CHUNK = 2**16


def json_shape(body: bytes, depth: int | None = None, values: int | None = None) -> tuple[int, int]:
    """How deep lists and objects are nested, and how many entries they have in all (an empty one counts as having one).

    In linear time and constant memory; may stop once there are more than ``depth`` or ``values``. For JSON in UTF-8.
    When the bytes are no JSON: at least as deep as any parser gets before it notices.
    """
    deepest = now = count = 0
    in_string = 0
    escape = b""
    for start in range(0, len(body), CHUNK):
        # Escaped backslashes out first, then escaped quotes: every quote left begins or ends a string.
        piece = (escape + body[start : start + CHUNK]).replace(rb"\\", b"")
        escape = b"\\" if piece.endswith(b"\\") else b""  # of a character in the next chunk
        codes = np.frombuffer(piece.removesuffix(b"\\").replace(rb"\"", b""), dtype=np.uint8)
        quotes = np.cumsum(codes == QUOTE, dtype=np.uint8) + np.uint8(
            in_string
        )  # wraps, parity does not mind
        outside = quotes & 1 == 0
        steps = STEP[codes]
        steps = steps[(steps != 0) & outside]
        count += int(np.count_nonzero(VALUE[codes] & outside))
        if len(codes):
            in_string = int(quotes[-1]) & 1
        if len(steps):
            depths = now + np.cumsum(steps, dtype=np.int64)
            now = int(depths[-1])
            deepest = max(deepest, int(depths.max()))
        if (depth is not None and deepest > depth) or (values is not None and count > values):
            break
    return deepest, count


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
                    AdmissionReason.TENANT,
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
