"""Values survive the way between two processes; what is not of the grammar never becomes one."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import threading
import time
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader.inside import wire
from grader.inside.wire import Away, Closed, Decoder, Encoder, Late, Line, WireError

from ..engine.conftest import QUIET

KEPT: list = []


def there_and_back(value):
    encoder = Encoder(lambda kept: KEPT.append(kept) or len(KEPT) - 1)
    text = json.dumps(encoder(value))
    return Decoder(encoder.buffers, KEPT.__getitem__, lambda number, kind: (number, kind))(json.loads(text))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.booleans()), inner, max_size=4)
        | st.frozensets(st.integers(), max_size=4)
        | st.sets(st.text(), max_size=4)
    ),
    max_leaves=20,
)


def alike(a, b):
    """Equal, and of the same types all the way down: 1, 1.0 and True are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return [*a] == [*b] and all(alike(a[k], b[k]) for k in a)
    return a == b


@QUIET
@given(PLAIN)
def test_plain_values_come_back_as_they_were(value):
    assert alike(there_and_back(value), value)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, -0.0, 10**400])
def test_odd_numbers(number):
    back = there_and_back(number)
    assert type(back) is type(number) and repr(back) == repr(number)


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_tensors(dtype, shape):
    tensor = torch.arange(math.prod(shape)).reshape(shape).to(getattr(torch, dtype))
    back = there_and_back(tensor)
    assert back.dtype == tensor.dtype and back.shape == tensor.shape and torch.equal(back, tensor)
    assert back.memory == tensor.untyped_storage().data_ptr()


def test_views_and_parameters_are_tensors():
    tensor = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(there_and_back(tensor.T), tensor.T)
    assert torch.equal(there_and_back(tensor[:, ::2]), tensor[:, ::2])
    assert torch.equal(there_and_back(torch.nn.Parameter(tensor)), tensor)


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.float32(1.5), np.int64(-3), np.bool_(True)])
def test_arrays_and_their_scalars(array):
    back = there_and_back(array)
    assert type(back) is type(array) and back.dtype == array.dtype and np.array_equal(back, array)


def test_a_generator_draws_the_same():
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    back = there_and_back(generator)
    assert torch.equal(torch.rand(4, generator=back), torch.rand(4, generator=generator))


class Colour(IntEnum):
    RED = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (Colour.RED, 1),
        (Pair(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (type("Text", (str,), {})("x"), "x"),
        (SimpleNamespace(logits=1), SimpleNamespace(logits=1)),
        (Fraction(1, 3), Fraction(1, 3)),
        (Decimal("0.1"), Decimal("0.1")),
    ],
)
def test_subclasses_come_as_what_they_are_made_of(value, back):
    found = there_and_back(value)
    assert found == back and type(found) is type(back)


def test_what_has_no_value_stays_and_comes_home():
    made = object()
    number, kind = there_and_back(made)
    assert KEPT[number] is made and kind == "object"
    assert there_and_back(Away(number)) is made
    assert there_and_back(x for x in "ab")[1] == "generator"
    assert there_and_back(torch.sparse_coo_tensor([[0]], [1.0], (2,)))[1] == "Tensor"


BAD = [
    {"a": 1},
    [],
    ["?"],
    ["l"],
    ["l", 3],
    ["l", [1], 2],
    ["d", [[1]]],
    ["d", [[["l", []], 1]]],
    ["N", [[1, 2]]],
    ["b", 7],
    ["b", -1],
    ["b", True],
    ["F", 1, 0],
    ["F", 1.5, 2],
    ["D", "x"],
    ["D", 3],
    ["A", "object", [1], 0],
    ["A", "int64", [10**30], 0],
    ["A", "int64", [-1], 0],
    ["A", "int64", [3], 0],
    ["T", "float32", [2, 2], 0, 0],
    ["T", "__class__", [2], 0, 0],
    ["T", "float32", ["2"], 0, 0],
    ["T", "float32", [2] * 40, 0, 0],
    ["G", 0],
    ["o", 10**9],
    ["o", "x"],
    ["O", None, "x"],
    ["c", "x", "y"],
    [["l"], []],
]


@pytest.mark.parametrize("node", BAD, ids=json.dumps)
def test_what_is_not_of_the_grammar_is_refused(node):
    def find(number):
        raise WireError("an object that was never handed out")

    with pytest.raises(WireError):
        Decoder([b"12345678"], find, lambda number, kind: None)(node)


@QUIET
@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda s: st.lists(s, max_size=4)))
def test_nothing_but_a_value_or_a_wire_error_comes_out(node):
    with contextlib.suppress(WireError):
        Decoder([b"1", b"12345678"], KEPT.__getitem__, lambda number, kind: None)(node)


def test_a_type_that_is_no_name_is_called_an_object():
    stands = Decoder([], KEPT.__getitem__, lambda number, kind: kind)
    assert stands(["O", 1, "<script>"]) == stands(["O", 1, "x" * 100]) == stands(["O", 1, 3]) == "object"


def test_deep_and_wide_values_are_refused():
    deep = 1
    for _ in range(wire.DEPTH + 2):
        deep = ["l", [deep]]
    for node in (deep, ["l", [0] * (wire.NODES + 1)]):
        with pytest.raises(WireError, match="nested more than"):
            Decoder([], KEPT.__getitem__, lambda number, kind: None)(node)
    endless: list = []
    endless.append(endless)
    with pytest.raises(WireError, match="deep"):
        Encoder(lambda made: 0)(endless)


# ---------------------------------------------------------------- messages


BOMBS = {
    "one set of equal hashes": ["s", [n * (2**61 - 1) for n in range(wire.HASHED_AT_ONCE + 1)]],
    "one dict of equal hashes": ["d", [[n * (2**61 - 1), 0] for n in range(wire.HASHED_AT_ONCE + 1)]],
    "many dicts": ["l", [["d", [[n, 0] for n in range(100)]]] * (wire.HASHED // 100 + 1)],
    "many tensors": ["l", [["T", "bool", [0], 0, 0]] * (wire.MADE + 1)],
    "a Decimal whose int never ends": ["D", "1E+300000000"],
    "a small one": ["D", "1E-300000000"],
    "empty, of many rows": ["T", "bool", [2**40, 0], 0, 0],
    "empty, of many rows of rows": ["A", "bool", [1, 700, 700, 0], 0],
    "many dimensions": ["T", "bool", [100_000, 1, 1, 1, 1, 1], 1, 0],
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_cost_far_more_than_its_bytes_is_refused(name):
    began = time.process_time()
    with pytest.raises(WireError):
        Decoder([b"", bytes(100_000)], {}.__getitem__, lambda *_: None)(BOMBS[name])
    assert time.process_time() - began < 5


def test_what_an_exercise_may_well_return_is_not():
    values = ["D", "1E+300"], ["T", "bool", [0, 2**30], 0, 0], ["T", "bool", [100_000, 1], 1, 0]
    for node in values:
        Decoder([b"", bytes(100_000)], {}.__getitem__, lambda *_: None)(node)


@pytest.fixture
def lines():
    one, other = socket.socketpair()
    yield Line(one), Line(other)
    one.close()
    other.close()


def test_messages_keep_their_bounds(lines):
    one, other = lines
    sent = [({"n": n}, [bytes([n]) * n] * (n % 3)) for n in range(9)]
    thread = threading.Thread(target=lambda: [one.send(*message) for message in sent])
    thread.start()
    assert [other.receive(time.monotonic() + 30) for _ in sent] == sent
    thread.join()


def test_half_a_message_waits_for_its_other_half(lines):
    one, other = lines
    whole = wire._HEAD.pack(8, 1) + b'{"a": 1}' + struct.pack(">Q", 3) + b"xyz"
    for cut in range(1, len(whole), 4):
        one.connection.sendall(whole[:cut])
        with pytest.raises(Late):
            other.receive(time.monotonic() + 0.01)
        one.connection.sendall(whole[cut:])
        assert other.receive(time.monotonic() + 30) == ({"a": 1}, [b"xyz"])


@pytest.mark.parametrize(
    "data",
    [
        wire._HEAD.pack(2**32 - 1, 0),
        wire._HEAD.pack(2, 2**32 - 1),
        wire._HEAD.pack(2, 1) + b"{}" + struct.pack(">Q", 2**63),
        wire._HEAD.pack(2, 0) + b"[]",
        wire._HEAD.pack(2, 0) + b"{x",
        wire._HEAD.pack(2, 0) + b"\xff\xff",
        wire._HEAD.pack(200_000, 0) + b"[" * 200_000,
    ],
)
def test_what_is_no_message_is_refused_without_being_read_on(lines, data):
    one, other = lines
    threading.Thread(target=one.connection.sendall, args=(data,), daemon=True).start()
    with pytest.raises(WireError):
        other.receive(time.monotonic() + 30)


def test_a_message_that_is_too_large_is_not_sent(lines):
    with pytest.raises(WireError, match="more than"):
        lines[0].send({}, [bytes(wire.LIMIT)])


def test_nobody_there_and_nobody_reading(lines):
    one, other = lines
    with pytest.raises(Late):
        one.send({}, [bytes(8_000_000)], time.monotonic() + 0.05)
    other.close()
    with pytest.raises(Closed):
        one.receive(time.monotonic() + 30)
    with pytest.raises(Closed):
        one.send({}, [bytes(8_000_000)], time.monotonic() + 30)
