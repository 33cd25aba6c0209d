from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lessonlib.classroom.shrinking import shrink, simpler


def test_finds_the_smallest_list_that_fails():
    found = shrink(
        {"rows": [[3, 9], [120, 4, 7], [5]]}, (), lambda i: any(sum(row) >= 100 for row in i["rows"])
    )
    assert found == {"rows": [[100]]}


def test_drops_optional_arguments_and_keeps_the_tests_own():
    inputs = {"x": 7, "k": 3, "_seed": 12}
    assert shrink(inputs, ("k",), lambda i: i["x"] > 2) == {"x": 3, "_seed": 12}
    assert shrink(inputs, (), lambda i: i["x"] > 2 and i["k"] > 0) == {"x": 3, "k": 1, "_seed": 12}


def test_keeps_the_input_when_nothing_smaller_fails():
    inputs = {"x": 7, "y": [2.5]}
    assert shrink(inputs, ("y",), lambda i: i == inputs) == inputs


def test_gives_up_after_so_many_tries():
    asked = []
    shrink({"rows": list(range(50))}, (), lambda i: bool(asked.append(i)) or len(i["rows"]) > 3, tries=20)
    assert len(asked) == 20


@given(st.recursive(st.integers(-99, 99) | st.booleans() | st.text(max_size=5), st.lists, max_leaves=5))
def test_simplifying_ends(value: object):
    for _ in range(2000):
        smaller = list(simpler(value))
        if not smaller:
            return
        value = smaller[-1]
    raise AssertionError("still not the simplest")


@given(st.floats(-1e6, 1e6))
def test_simplifying_a_number_ends(value: float):
    for _ in range(100):
        smaller = list(simpler(value))
        if not smaller:
            return
        value = smaller[-1]
    raise AssertionError("still not the simplest")
