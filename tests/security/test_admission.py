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
    AdmissionReason,
    Demand,
    Refused,
    TenantSlots,
    json_shape,
)

from ..engine.conftest import QUIET, is_one_sentence
from .limiting import in_threads

THOROUGH = settings(QUIET, max_examples=300)
LIMITS = AdmissionLimits()
HUGE = 10**5000


def refusal(call: Callable[[], Any]) -> AdmissionReason | None:
    """Why it was refused, in one good sentence; None if it was not."""
    try:
        call()
    except Refused as refused:
        assert is_one_sentence(str(refused)), str(refused)
        assert str(refused) == refused.message and refused.status == STATUS[refused.reason]
        return refused.reason
    return None


def test_every_reason_has_a_status_and_a_label():
    assert set(STATUS) == set(AdmissionReason)
    assert all(reason.value.isidentifier() for reason in AdmissionReason)
    assert all(400 <= status < 500 for status in STATUS.values()), "a server that says no is not broken"


# ---------------------------------------------------------------- headers, body


@QUIET
@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=9))
def test_headers_are_counted_and_weighed(headers):
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    expected = AdmissionReason.HEADERS if len(headers) > 4 or size > 50 else None
    limits = AdmissionLimits(headers=4, header_bytes=50)
    assert refusal(lambda: limits.check_headers(headers)) is expected
    assert refusal(lambda: limits.check_headers(iter(headers))) is expected


def test_endless_headers_are_not_read_to_their_end():
    def endless():
        while True:
            yield b"x", b"y"

    assert refusal(lambda: LIMITS.check_headers(endless())) is AdmissionReason.HEADERS


def test_the_largest_body_is_let_in_and_a_byte_more_is_not():
    assert refusal(lambda: LIMITS.check_body(LIMITS.body_bytes)) is None
    for size in (LIMITS.body_bytes + 1, HUGE):
        assert refusal(lambda size=size: LIMITS.check_body(size)) is AdmissionReason.BODY


@pytest.mark.parametrize(
    ("encoding", "plain"), [("identity", True), (" Identity", True), ("gzip", False), ("", False)]
)
def test_what_is_compressed_is_not_read(encoding, plain):
    assert refusal(lambda: LIMITS.check_encoding(encoding)) is (None if plain else AdmissionReason.ENCODING)


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


def entries_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return max(1, len(value)) + sum(map(entries_of, value)) if isinstance(value, list) else 0


def depth_met(body: bytes) -> int:
    """Byte by byte, as a parser goes, until a byte that no parser gets past."""
    deepest = depth = in_string = escaped = 0
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
        assert json_shape(body) == (depth_of(document), entries_of(document))
        assert depth_of(document) == depth_met(body)

    holds()


def test_no_bytes_take_a_parser_deeper_than_reported(chunk):
    @THOROUGH
    @given(st.text(alphabet='[]{}"\\,:1 ', max_size=60).map(str.encode) | st.binary(max_size=60))
    def holds(body):
        assert json_shape(body)[0] >= depth_met(body)
        for most in (1, 3):
            assert json_shape(body, most)[0] >= min(most + 1, depth_met(body))
            assert json_shape(body, values=most)[1] >= min(most + 1, json_shape(body)[1])

    holds()


@QUIET
@given(st.integers(0, 80), st.sampled_from([b"[", b'{"a":', b'[{"]":']))
def test_deeper_than_allowed_is_refused(levels, opening):
    depth = levels * (2 if opening.startswith(b"[{") else 1)
    expected = AdmissionReason.DEPTH if depth > LIMITS.json_depth else None
    assert refusal(lambda: LIMITS.check_json(opening * levels)) is expected
    assert refusal(lambda: LIMITS.check_json(json.dumps(opening.decode() * levels).encode())) is None


def test_what_comes_late_counts_as_well():
    body = b"[" * LIMITS.json_depth + b" " * 2**17 + b"["
    assert refusal(lambda: LIMITS.check_json(body)) is AdmissionReason.DEPTH


def test_a_parser_would_have_died_of_what_is_refused():
    body = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecursionError):
        json.loads(body)
    assert refusal(lambda: LIMITS.check_json(body)) is AdmissionReason.DEPTH
    assert json_shape(body)[0] == 100_000


@pytest.mark.parametrize(
    "body",
    [b"[" * 2**22, b"[]" * 2**21, b'"' * 2**22, b'"' + b"\\" * 2**22, b'"' + b'\\"' * 2**21],
    ids=range(5),
)
def test_nesting_is_measured_in_memory_that_does_not_grow(body):
    tracemalloc.start()
    try:
        json_shape(body)
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
            json_shape(body)
        finally:
            sys.settrace(None)
        return count

    for unit in (b"[]", b'"', b'\\"', b"\\\\", b'"["'):
        once, eight = lines(unit * 2**18), lines(unit * 2**21)
        assert eight <= 8.5 * once, unit


@QUIET
@given(st.integers(1, 60), st.sampled_from([b"[%s]", b'{"a":[%s]}', b'[{"]":"[,"},%s]']))
def test_more_values_than_allowed_are_refused(count, around):
    limits = AdmissionLimits(json_values=20)
    body = around % b",".join([b'"a,[{"'] * count)
    marks = count - 1 + {b"[": 1, b"{": 2}[around[:1]] + 2 * around.startswith(b"[{")
    expected = AdmissionReason.VALUES if marks > 20 else None
    assert refusal(lambda: limits.check_json(body)) is expected


# ---------------------------------------------------------------- tokens, KV blocks

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@QUIET
@given(LENGTHS, st.integers(1, 4), st.integers(0, 30), st.integers(10, 50))
def test_all_that_a_request_can_cost_counts(prompts, n, max_tokens, context):
    demand = Demand(tuple(prompts), n, max_tokens, context)
    each = [n * min(max_tokens, max(0, context - prompt)) for prompt in prompts]
    assert demand.sequences == len(prompts) * n and demand.new_tokens == sum(each)
    assert demand.tokens == sum(prompts) + sum(each)
    for most in (demand.new_tokens - 1, demand.new_tokens):
        if most > 0:
            limits = AdmissionLimits(new_tokens=most)
            expected = AdmissionReason.TOKENS if most < demand.new_tokens else None
            assert refusal(lambda limits=limits: limits.check_demand(demand, 16, 1000)) is expected
    limits = AdmissionLimits(sequences=5)
    expected = AdmissionReason.SEQUENCES if demand.sequences > 5 else None
    assert refusal(lambda: limits.check_demand(demand, 16, 1000)) is expected


@QUIET
@given(LENGTHS, st.integers(0, 20), st.integers(1, 4), st.integers(1, 8))
def test_a_real_pool_of_so_many_blocks_is_enough_and_one_fewer_is_not(prompts, max_tokens, n, size):
    demand = Demand(tuple(prompts), n, max_tokens, context=50)

    def fits(blocks: int) -> bool:
        pool = BlockPool(blocks, size) if blocks else None
        for prompt in prompts:
            first: list[int] = []
            tokens = max(prompt, prompt + min(max_tokens, 50 - prompt) - 1)
            if pool is None or not pool.grow(first, tokens):
                return False
            for _ in range(n - 1):
                table = pool.share(first[: prompt // size])
                if not pool.grow(table, tokens):
                    return False
        return True

    needed = demand.blocks(size)
    assert fits(needed) and not fits(needed - 1)
    for percent, blocks in ((100, needed), (50, 2 * needed), (100, needed - 1), (50, 2 * needed - 1)):
        limits = AdmissionLimits(kv_percent=percent)
        expected = None if blocks * percent // 100 == needed else AdmissionReason.KV_BLOCKS
        assert refusal(lambda kept=limits, b=blocks: kept.check_demand(demand, size, b)) is expected
    assert refusal(lambda: AdmissionLimits(kv_percent=None).check_demand(demand, size, 1)) is None


# ---------------------------------------------------------------- queue, deadlines


@QUIET
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 4), st.integers(0, 4))
def test_a_full_queue_takes_nobody(sequences, busy, running, queue):
    limits = AdmissionLimits(queue=queue)
    expected = AdmissionReason.QUEUE if sequences + busy > running + queue else None
    assert refusal(lambda: limits.check_queue(sequences, busy, running)) is expected


def test_whoever_is_one_too_many_is_told_when_to_come_back():
    for call in (
        lambda: LIMITS.check_queue(1, LIMITS.queue + 1, 1),
        lambda: LIMITS.check_connections(LIMITS.connections + 1),
    ):
        with pytest.raises(Refused) as told:
            call()
        assert (told.value.status, told.value.retry_after) == (429, 1.0)
    assert refusal(lambda: LIMITS.check_connections(LIMITS.connections)) is None


@QUIET
@given(st.floats(0.001, 1000), st.floats(0, 2000))
def test_a_deadline_passes_at_its_second(deadline, passed):
    limits = AdmissionLimits(deadline=deadline)
    late = AdmissionReason.DEADLINE if passed >= deadline else None
    assert refusal(lambda: limits.seconds_left(passed)) is late
    if not late:
        assert limits.seconds_left(passed) == deadline - passed
    assert AdmissionLimits(deadline=None).seconds_left(passed) >= 10**8


# ---------------------------------------------------------------- tenants


def test_a_tenant_has_so_many_places_and_gets_them_back():
    slots = TenantSlots(2)
    first, second = slots.acquire("a"), slots.acquire("a")
    with pytest.raises(Refused) as told:
        slots.acquire("a")
    assert (
        told.value.reason is AdmissionReason.TENANT
        and told.value.status == 429
        and told.value.retry_after == 1.0
    )
    other = slots.acquire("b")  # nobody stands in another's way
    first.release()
    first.release()  # twice is once
    third = slots.acquire("a")
    assert refusal(lambda: slots.acquire("a")) is AdmissionReason.TENANT
    for slot in (second, third, other):
        slot.release()
    assert len(slots) == 0 == slots.in_use("a")


def test_a_place_survives_no_exception():
    slots = TenantSlots(1)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), slots.acquire("a"):
            assert slots.in_use("a") == 1
            assert refusal(lambda: slots.acquire("a")) is AdmissionReason.TENANT
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


NONE_ALLOWED = {"kv_percent", "tenant_requests", "deadline"}


@pytest.mark.parametrize("name", [each.name for each in fields(AdmissionLimits)])
def test_senseless_limits_are_refused(name):
    for value in (
        *[0] * (name != "queue"),
        -1,
        float("nan"),
        float("inf"),
        True,
        None,
        "7",
        HUGE if "seconds" in name else -HUGE,
    ):
        if value is None and name in NONE_ALLOWED:
            continue
        with pytest.raises(ValueError, match=name) as told:
            AdmissionLimits(**{name: value})
        assert is_one_sentence(str(told.value))


def test_limits_stay_as_they_are():
    with pytest.raises(FrozenInstanceError):
        LIMITS.queue = 10**9  # type: ignore[misc]
    with pytest.raises(ValueError, match="whole number"):
        TenantSlots(0)
