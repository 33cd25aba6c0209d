"""JSON that means one thing only, and bounds that hold before anything is parsed."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.security.admission import AdmissionLimits, Refused
from lessonlib.serving.errors import ApiError
from lessonlib.serving.limits import parse_json
from tests.engine.conftest import QUIET, is_one_sentence

LIMITS = AdmissionLimits(json_depth=6, json_values=200)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def depth(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@QUIET
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_every_json_text_within_the_limits_is_read_as_what_it_says(value, ascii, indent):
    try:
        body = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    except UnicodeEncodeError:
        return
    if depth(value) <= LIMITS.json_depth:
        assert parse_json(body, LIMITS) == value
    else:
        refuse(body, "nested deeper")


def refuse(body: bytes, match: str, limits: AdmissionLimits = LIMITS) -> None:
    with pytest.raises((ApiError, Refused), match=match) as told:
        parse_json(body, limits)
    assert (told.value.status if isinstance(told.value, Refused) else told.value.status_code) == 400
    assert is_one_sentence(told.value.message)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b'{"a": 1, "a": 1}', "same key twice"),
        (b'[{"a": 1, "\\u0061": 2}]', "same key twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e400]", "float64"),
        (b"[9223372036854775808]", "64 bits"),
        (b"[-" + b"9" * 10_000 + b"]", "64 bits"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udfff\\ud800": 1}', "surrogate"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not valid JSON"),
        (b'["\xff"]', "not UTF-8"),
        (b'["\xed\xa0\x80"]', "not UTF-8"),
        (b'["\x00"]', "not valid JSON"),
        (b"[1,]", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'["' + b'\\"' * 50_000, "not valid JSON"),
        (b"[" * 7 + b"]" * 7, "nested deeper"),
        (b"[" * 100_000, "values"),
        (b"]" * 1000, "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "values"),
        (b"[" + b"1," * 200 + b"1]", "values"),
        (b"[" + b"[]," * 100 + b"1]", "values"),
        (b"[}", "not valid JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_quite_json_is_refused_in_one_sentence(body, match):
    refuse(body, match)


def test_brackets_and_commas_in_texts_are_only_text():
    value = {'[[[[[[[[{"\\': ",,,,,,,,[" * 100, "a": '"]' * 50}
    assert parse_json(json.dumps(value).encode(), LIMITS) == value
    assert parse_json(b'["\\ud83d\\ude00", 1e-320]', LIMITS) == ["😀", 1e-320]


def test_escapes_are_understood_wherever_a_chunk_ends():
    for length in range(2**16 - 6, 2**16 + 3):
        for tail in ('\\\\"', "\\\\", '"', "[[[[[[[[", '\\"[[[[[[['):
            value = ["a" * length + tail, [1]]
            assert parse_json(json.dumps(value).encode(), LIMITS) == value
    refuse(json.dumps(["\\" * 2**16, [[[[[[1]]]]]]]).encode(), "nested deeper")


@pytest.mark.parametrize(
    "piece",
    [b"[],", b'"",', b'"a":1,', b"1,", b'"\\"', b'{"a":[', b"\\", b"\\\\", b"]", "\U0001f600".encode()],
)
@pytest.mark.parametrize("start", [b"[", b"{", b'["'])
def test_memory_stays_in_proportion_whatever_comes(piece, start):
    """In Python objects, a list of empty lists is 20 times its text, if one lets it."""
    limits = AdmissionLimits()
    body = start + piece * (limits.body_bytes // len(piece) - 1)
    tracemalloc.start()
    try:
        with pytest.raises((ApiError, Refused)):
            parse_json(body, limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(body)
