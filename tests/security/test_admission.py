"""Admission: what is turned away, by what rule, and that nothing slips past or is turned away without need."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.engine import BlockPool
from lessonlib.security import admission
from lessonlib.security.admission import (
    STATUS,
    AdmissionLimits,
    Deadline,
    Reason,
    Refused,
    TenantSlots,
    blocks_needed,
    json_depth,
)

from ..engine.conftest import QUIET, is_one_sentence
from .limiting import in_threads

THOROUGH = settings(QUIET, max_examples=300)
LIMITS = AdmissionLimits()
HUGE = 10**5000


def refusal(call: Callable[[], Any]) -> Reason | None:
    """Why it was refused, in one good sentence; None if it was not."""
    try:
        call()
    except Refused as refused:
        assert is_one_sentence(str(refused)), str(refused)
        assert str(refused) == refused.message and refused.status == STATUS[refused.reason]
        return refused.reason
    return None


def test_every_reason_has_a_status_and_a_label():
    assert set(STATUS) == set(Reason)
    assert all(reason.value.isidentifier() for reason in Reason)
    assert {s for s in STATUS.values() if s >= 500} == {
        503,
        504,
    }  # for these it is the server's turn


# ---------------------------------------------------------------- headers, body


@QUIET
@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=9))
def test_headers_are_counted_and_weighed(headers):
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    expected = Reason.HEADERS if len(headers) > 4 or size > 50 else None
    limits = AdmissionLimits(headers=4, header_bytes=50)
    assert refusal(lambda: limits.check_headers(headers)) is expected
    assert refusal(lambda: limits.check_headers(iter(headers))) is expected


def test_headers_of_just_the_size_are_let_in():
    for spare in (0, 1):
        limits = AdmissionLimits(header_bytes=20 + spare)
        assert refusal(lambda limits=limits: limits.check_headers([(b"host", b"x" * 13)])) is (
            None if spare else Reason.HEADERS
        )


def test_endless_headers_are_not_read_to_their_end():
    def endless():
        while True:
            yield b"x", b"y"

    assert refusal(lambda: LIMITS.check_headers(endless())) is Reason.HEADERS


def test_the_largest_body_is_let_in_and_a_byte_more_is_not():
    assert refusal(lambda: LIMITS.check_body(LIMITS.body_bytes)) is None
    assert refusal(lambda: LIMITS.check_body(LIMITS.body_bytes + 1)) is Reason.BODY
    assert refusal(lambda: LIMITS.check_body(HUGE)) is Reason.BODY


# ---------------------------------------------------------------- nesting

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\aé\n'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\b', max_size=4), inner, max_size=3)
    ),
    max_leaves=25,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def depth_met(body: bytes) -> int:
    """Byte by byte, as a parser goes, until a byte that no parser gets past."""
    deepest = depth = 0
    in_string = escaped = False
    for byte in body.decode("latin-1"):
        if escaped:
            escaped = False
        elif in_string:
            escaped, in_string = byte == "\\", byte != '"'
        elif byte == "\\":
            break
        elif byte == '"':
            in_string = True
        elif byte in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in "]}":
            depth -= 1
            if depth < 0:
                break
    return deepest


@pytest.fixture(params=[1, 2, 3, 2**16], ids=lambda chunk: f"chunks of {chunk}")
def chunk(request, monkeypatch) -> int:
    """Cut wherever it hurts."""
    monkeypatch.setattr(admission, "CHUNK", request.param)
    return request.param


def test_the_depth_of_json_is_its_depth(chunk):
    @THOROUGH
    @given(JSON, st.booleans())
    def holds(document, ascii):
        body = json.dumps(document, ensure_ascii=ascii).encode()
        assert json_depth(body) == depth_of(document) == depth_met(body)

    holds()


def test_no_bytes_take_a_parser_deeper_than_reported(chunk):
    @THOROUGH
    @given(st.text(alphabet='[]{}"\\,:1 ', max_size=60).map(str.encode) | st.binary(max_size=60))
    def holds(body):
        assert json_depth(body) >= depth_met(body)
        for enough in (1, 3):
            assert json_depth(body, enough) >= min(enough, depth_met(body))

    holds()


@QUIET
@given(st.integers(0, 80), st.sampled_from([b"[", b'{"a":', b'[{"]":']))
def test_deeper_than_allowed_is_refused(levels, opening):
    depth = levels * (2 if opening.startswith(b"[{") else 1)
    expected = Reason.DEPTH if depth > LIMITS.json_depth else None
    assert refusal(lambda: LIMITS.check_depth(opening * levels)) is expected
    assert refusal(lambda: LIMITS.check_depth(json.dumps(opening.decode() * levels).encode())) is None


def test_what_comes_late_counts_as_well():
    body = b"[" * LIMITS.json_depth + b" " * 2**17 + b"["
    assert refusal(lambda: LIMITS.check_depth(body)) is Reason.DEPTH


def test_a_parser_would_have_died_of_what_is_refused():
    body = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecursionError):
        json.loads(body)
    assert refusal(lambda: LIMITS.check_depth(body)) is Reason.DEPTH
    assert json_depth(body) == 100_000


@pytest.mark.parametrize(
    "body",
    [b"[" * 2**22, b"[]" * 2**21, b'"' * 2**22, b'"' + b"\\" * 2**22, b'"' + b'\\"' * 2**21],
    ids=range(5),
)
def test_nesting_is_measured_in_memory_that_does_not_grow(body):
    tracemalloc.start()
    try:
        json_depth(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{peak / 2**20:.2f} MiB for {len(body) / 2**20:.0f} MiB")
    assert peak < 2 * 2**20


def test_nesting_is_measured_in_linear_time():
    """Counted, not timed: lines run."""

    def lines(body: bytes) -> int:
        count = 0

        def trace(*_):
            nonlocal count
            count += 1
            return trace

        sys.settrace(trace)
        try:
            json_depth(body)
        finally:
            sys.settrace(None)
        return count

    for unit in (b"[]", b'"', b'\\"', b"\\\\", b'"["'):
        once, eight = lines(unit * 2**18), lines(unit * 2**21)
        assert eight <= 8.5 * once, unit


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        ({"prompt": ["a"] * 64}, False),
        ({"prompt": ["a"] * 65}, True),
        ({"prompt": [7] * 2**15}, False),  # token ids of one prompt
        ({"prompt": [7] * (2**15 + 1)}, True),
        ({"prompt": [[7] * 2**15] * 64}, False),
        ({"prompt": [[7]] * 65}, True),
        ({"prompt": ["a"] * 10**6}, True),
        ({"stop": ["a"] * 17}, True),
        ({"stop_sequences": ["a"] * 17}, True),
        ({"stop": "a" * 10**5}, False),
        ({"logit_bias": {str(i): 1 for i in range(1024)}}, False),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, True),
        ({"messages": [{"content": [{"stop": ["a"] * 17}]}]}, True),
        ({"messages": [{}] * 513}, True),
        ({"extra": [[["a"] * (2**15 + 1)]]}, True),
        ([1] * (2**15 + 1), True),
        ("x" * 10**6, False),
        (None, False),
    ],
    ids=range(18),
)
def test_lists_are_as_long_as_they_may_be(document, refused):
    assert refusal(lambda: LIMITS.check_lists(document)) is (Reason.LIST if refused else None)


@THOROUGH
@given(JSON, st.integers(1, 3))
def test_no_list_is_overlooked(document, most):
    def longest(value: Any) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value
        return max([len(value), *map(longest, inner)]) if isinstance(value, list | dict) else 0

    expected = Reason.LIST if longest(document) > most else None
    assert refusal(lambda: AdmissionLimits(list_length=most).check_lists(document)) is expected


# ---------------------------------------------------------------- tokens, KV blocks

NONSENSE = [-1, -HUGE, True, False, None, "5", 5.0, float("nan"), float("inf"), 1e18, [5], {}]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
def test_senseless_numbers_are_refused(value):
    assert refusal(lambda: LIMITS.check_tokens(value, 1)) is Reason.NUMBER
    assert refusal(lambda: LIMITS.check_tokens(1, value)) is Reason.NUMBER


@QUIET
@given(st.integers(0, 40) | st.just(HUGE), st.integers(1, 9) | st.just(HUGE))
def test_the_tokens_of_all_continuations_count(max_tokens, n):
    limits = AdmissionLimits(n=4, new_tokens=60)
    expected = Reason.TOKENS if n > 4 or n * max_tokens > 60 else None
    assert refusal(lambda: limits.check_tokens(max_tokens, n)) is expected


@QUIET
@given(st.integers(1, 40), st.integers(0, 20), st.integers(1, 4), st.integers(1, 8))
def test_a_real_pool_of_so_many_blocks_is_enough_and_one_fewer_is_not(prompt, max_tokens, n, size):
    def fits(blocks: int) -> bool:
        pool = BlockPool(blocks, size) if blocks else None
        first: list[int] = []
        tokens = max(prompt, prompt + max_tokens - 1)
        if pool is None or not pool.grow(first, tokens):
            return False
        for _ in range(n - 1):
            table = pool.share(first[: prompt // size])
            if not pool.grow(table, tokens):
                return False
        return True

    needed = blocks_needed(prompt, max_tokens, n, size)
    assert fits(needed) and not fits(needed - 1)
    half = AdmissionLimits(kv_percent=50)
    for blocks in (needed, needed - 1):
        expected = None if blocks == needed else Reason.KV_BLOCKS
        assert refusal(lambda b=blocks: LIMITS.check_blocks(prompt, max_tokens, n, size, b)) is expected
        assert refusal(lambda b=blocks: half.check_blocks(prompt, max_tokens, n, size, 2 * b)) is expected


# ---------------------------------------------------------------- queue, deadlines


def test_a_full_queue_takes_nobody():
    assert refusal(lambda: LIMITS.check_queue(LIMITS.queue - 1)) is None
    with pytest.raises(Refused) as told:
        LIMITS.check_queue(LIMITS.queue)
    assert (told.value.status, told.value.retry_after) == (503, 1.0)


@pytest.mark.parametrize(
    "asked", [0, -1, -HUGE, 0.0, float("nan"), float("inf"), True, "5", [5]], ids=range(9)
)
def test_senseless_deadlines_are_refused(asked):
    assert refusal(lambda: LIMITS.deadline_after(asked, now=0.0)) is Reason.NUMBER


@QUIET
@given(
    st.none() | st.floats(1e-6, 1e6) | st.integers(1, 10**9) | st.just(HUGE),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_a_deadline_is_what_was_asked_for_and_never_later_than_allowed(asked, now, later):
    deadline = LIMITS.deadline_after(asked, now)
    assert deadline == Deadline(now + min(LIMITS.deadline if asked is None else asked, LIMITS.deadline))
    moment = now + later
    late = Reason.DEADLINE if moment >= deadline.at else None
    assert refusal(lambda: deadline.check(moment)) is late
    assert (deadline.left(moment) == 0) == (late is not None)
    assert refusal(lambda: deadline.check(now, expected=later)) is late


# ---------------------------------------------------------------- tenants


def test_a_tenant_has_so_many_places_and_gets_them_back():
    slots = TenantSlots(2)
    first, second = slots.acquire("a"), slots.acquire("a")
    with pytest.raises(Refused) as told:
        slots.acquire("a")
    assert told.value.reason is Reason.TENANT and told.value.status == 429 and told.value.retry_after == 1.0
    other = slots.acquire("b")  # nobody stands in another's way
    first.release()
    first.release()  # twice is once
    third = slots.acquire("a")
    assert refusal(lambda: slots.acquire("a")) is Reason.TENANT
    for slot in (second, third, other):
        slot.release()
    assert len(slots) == 0 == slots.in_use("a")


def test_a_place_survives_no_exception():
    slots = TenantSlots(1)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), slots.acquire("a"):
            assert slots.in_use("a") == 1
            assert refusal(lambda: slots.acquire("a")) is Reason.TENANT
            raise error
        assert len(slots) == 0


@pytest.mark.usefixtures("hasty")
def test_sixteen_threads_never_hold_more_places_than_there_are():
    slots = TenantSlots(5)
    held = {"a": 0, "b": 0}
    worst, taken = [0], [0]

    def work(_: int) -> None:
        for _ in range(20):
            for tenant in held:
                try:
                    slot = slots.acquire(tenant)
                except Refused:
                    continue
                worst[0] = max(worst[0], slots.in_use(tenant))
                taken[0] += 1
                in_threads(lambda _, slot=slot: slot.release(), threads=2)

    in_threads(work, threads=16)
    assert taken[0] > 100 and worst[0] <= 5
    assert len(slots) == 0  # each place came back, and once


# ---------------------------------------------------------------- the limits themselves


@pytest.mark.parametrize("name", [each.name for each in fields(AdmissionLimits)])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), True, None, "7"])
def test_senseless_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=name) as told:
        AdmissionLimits(**{name: value})
    assert is_one_sentence(str(told.value))


def test_limits_stay_as_they_are():
    with pytest.raises(FrozenInstanceError):
        LIMITS.queue = 10**9  # type: ignore[misc]
    with pytest.raises(ValueError, match="whole number"):
        TenantSlots(0)
