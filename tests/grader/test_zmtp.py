"""What is read from a kernel that may be hostile; without a kernel."""

import hashlib
import hmac
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.collect import CUT, OUTPUT, PIECES, Collected
from grader.zmtp import Lost, Message, Parts, Session

messages = st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=5), max_size=5)


def frames(parts: list[bytes], long: bool = False) -> bytes:
    sent = b""
    for number, part in enumerate(parts):
        more = number < len(parts) - 1
        short = len(part) < 256 and not long
        sent += bytes([more | (0 if short else 2)]) + struct.pack(">B" if short else ">Q", len(part)) + part
    return sent


@given(messages, st.booleans(), st.integers(1, 300))
def test_messages_come_out_as_they_went_in_however_they_were_cut(sent, long, step):
    stream = b"".join(frames(parts, long) for parts in sent)
    reader = Parts()
    got = [message for at in range(0, len(stream), step) for message in reader.feed(stream[at : at + step])]
    assert got == sent


@given(st.binary(max_size=3000), st.integers(1, 300))
def test_any_bytes_are_read_or_refused_and_never_kept_beyond_the_limit(stream, step):
    reader = Parts(limit=500)
    try:
        for at in range(0, len(stream), step):
            for message in reader.feed(stream[at : at + step]):
                assert message is None or sum(map(len, message)) <= 500
            assert sum(map(len, reader._open or [])) <= 500
    except Lost:
        pass


@given(st.integers(501, 5000), st.integers(1, 700))
def test_what_is_too_large_is_passed_over_and_the_next_message_is_read(size, step):
    stream = frames([b"small", bytes(size), b"end"]) + frames([b"next"])
    reader = Parts(limit=500)
    got = [message for at in range(0, len(stream), step) for message in reader.feed(stream[at : at + step])]
    assert got == [None, [b"next"]]
    assert len(reader._rest) == 0


@pytest.mark.parametrize("part", [b"\x01\x01x", b"\x01\x00"])
def test_parts_without_end_take_no_memory(part):
    reader = Parts(limit=500)
    for _ in range(1000):
        assert reader.feed(part * 1000) == []
    assert reader._open is None and len(reader._rest) < 4
    assert reader.feed(b"\x00\x01x" + frames([b"next"])) == [None, [b"next"]]


def test_a_frame_that_promises_the_earth_takes_no_memory():
    reader = Parts(limit=500)
    for _ in range(100):
        reader.feed(b"\x02" + b"\xff" * 8 + bytes(65536))
    assert len(reader._rest) == 0


def signed(key: bytes, header: bytes, parent: bytes = b"{}", content: bytes = b"{}") -> list[bytes]:
    parts = [header, parent, b"{}", content]
    return [
        b"topic",
        b"<IDS|MSG>",
        hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode(),
        *parts,
    ]


def test_a_session_reads_what_it_signed_and_nothing_unsigned():
    session = Session(b"key")
    asked, parts = session.pack("execute_request", {"code": "1"})
    read = session.unpack(parts)
    assert read is not None and (read.kind, read.content()) == ("execute_request", {"code": "1"})
    assert json.loads(parts[2])["msg_id"] == asked
    assert Session(b"another").unpack(parts) is None
    parts[5] = b'{"code": "2"}'
    assert session.unpack(parts) is None


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_nothing_signed_can_raise(header, parent, content):
    read = Session(b"key").unpack(signed(b"key", header, parent, content))
    assert read is None or isinstance(read.content(), dict)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"1" * 10_000, b"NaN", b'"x"', b"null", b""]
)
def test_content_that_is_no_object_is_empty(content):
    read = Session(b"key").unpack(signed(b"key", b'{"msg_type": "stream"}', b"[]", content))
    assert read == Message("stream", "", content) and read.content() == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
fields = ["name", "text", "data", "metadata", "ename", "evalue", "traceback", "execution_count", "status"]
kinds = ["stream", "display_data", "execute_result", "error", "status", "execute_reply", "clear_output"]


@given(st.sampled_from(kinds), st.dictionaries(st.sampled_from(fields), json_values))
def test_whatever_a_message_holds_the_outputs_are_those_of_a_notebook(kind, content):
    import nbformat

    collected = Collected()
    collected.add(Message(kind, "", json.dumps(content).encode()))
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "execution_count": None}
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [cell | {"outputs": collected.outputs}],
    }
    nbformat.validate(nbformat.from_dict(notebook))


def test_half_a_character_and_a_deep_nest_can_be_written_to_a_file():
    collected = Collected()
    collected.add(Message("stream", "", b'{"name": "stdout", "text": "a\\ud800b"}'))
    deep = '{"data": {"application/json": ' + "[" * 500 + "]" * 500 + "}}"
    collected.add(Message("display_data", "", deep.encode()))
    assert collected.outputs == [{"output_type": "stream", "name": "stdout", "text": "a?b"}]


def test_outputs_beyond_the_limits_are_left_out_and_said_to_be():
    text = json.dumps({"name": "stdout", "text": "x" * 100_000}).encode()
    collected = Collected()
    for _ in range(100):
        collected.add(Message("stream", "", text))
    assert collected.cut and collected.outputs[-1]["text"].endswith(CUT)
    assert OUTPUT // 2 < sum(len(output["text"]) for output in collected.outputs) < OUTPUT + 100

    seen: list = []
    many = Collected(seen.append)
    for number in range(PIECES + 50):
        many.add(Message("display_data", "", json.dumps({"data": {"text/plain": str(number)}}).encode()))
    assert many.cut and len(many.outputs) == PIECES + 1 == len(seen)
    assert many.outputs[-1]["text"] == CUT

    late = json.dumps({"ename": "ValueError", "evalue": "late", "traceback": []}).encode()
    many.add(Message("error", "", late))
    assert many.problem == "ValueError: late"
