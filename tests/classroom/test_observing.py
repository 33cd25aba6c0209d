"""The student's function behind glass: whatever it does, the check goes on and says what happened."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from lessonlib.classroom import observing
from lessonlib.classroom.cases import values
from lessonlib.classroom.exercises import Exercise, Observation
from lessonlib.classroom.observing import Student, TimeUp, fixed_luck, is_untouched, time_limit

CASE = values("adds up", expected=lambda i: sum(i["numbers"]), examples=[{"numbers": [1, 2]}])
ADD = Exercise(
    id="01.add",
    title="Add up",
    signature="add(numbers, scale=1)",
    prepare=lambda i: {k: list(v) if isinstance(v, list) else v for k, v in i.items()},
    cases=(CASE,),
    misconceptions=(),
    hints=("a", "b", "c"),
    analogue="d",
)


def see(function, seconds: float = 5) -> Observation:
    return Student(ADD, function, seconds).observe(CASE, {"numbers": [1, 2]})


def test_a_value_comes_through():
    assert see(lambda numbers: sum(numbers)) == Observation(3)


def test_printing_is_kept_and_cut(capsys):
    def chatty(numbers, scale=1):
        print("x" * 3000)
        return 3

    seen = see(chatty)
    assert seen.value == 3 and seen.printed.startswith("xxx") and seen.printed.endswith("(cut)")
    assert len(seen.printed) < 2100 and capsys.readouterr().out == ""


def test_an_error_is_told_with_the_students_own_line():
    def broken(numbers, scale=1):
        return helper(numbers)

    def helper(numbers):
        return torch.tensor(numbers) @ torch.ones(7)

    error = see(broken).error
    assert (
        error
        and error.type == "RuntimeError"
        and error.source == ("return torch.tensor(numbers) @ torch.ones(7)")
    )


def test_no_memory_address_is_told():
    error = see(lambda numbers: {}[object()]).error
    assert error and error.type == "KeyError" and "0x…" in error.message


def test_another_signature_is_told():
    error = see(lambda: 3).error
    assert error and "too many positional arguments" in error.message and ADD.signature in error.message


def test_leaving_python_is_an_error_like_any_other():
    error = see(lambda numbers: exit(1)).error
    assert error and error.type == "SystemExit"


def test_a_blank_is_not_started():
    def blank(numbers):
        raise NotImplementedError

    assert see(blank).error.kind == "not started"


@pytest.mark.parametrize("body", ["pass", "...", '"""Add up."""', '"""Add up."""\n    ...'])
def test_an_empty_body_is_untouched(body: str):
    names: dict = {}
    exec(f"def add(numbers):\n    {body}", names)
    assert is_untouched(names["add"])


@pytest.mark.parametrize("body", ["return 3", "print(numbers)", "numbers.sort()"])
def test_a_body_is_not_untouched(body: str):
    names: dict = {}
    exec(f"def add(numbers):\n    {body}", names)
    assert not is_untouched(names["add"])


def test_a_changed_argument_is_noticed():
    def changes(numbers):
        numbers.append(3)
        return 3

    changed = see(changes).changed
    assert changed and (changed.argument, changed.before, changed.after) == ("numbers", "[1, 2]", "[1, 2, 3]")


def test_not_a_number_is_not_a_change():
    nan = torch.tensor([1.0, float("nan")])
    assert observing.same(nan, nan.clone())
    assert not observing.same(nan, torch.tensor([1.0, 2.0]))
    assert not observing.same([nan], [nan.long()])


def endless(numbers):
    while True:
        pass


def deaf(numbers):
    """Swallows every exception it can."""
    n = 0
    while True:
        with contextlib.suppress(Exception):
            n += 1


def sleepy(numbers):
    time.sleep(60)


@pytest.mark.parametrize("function", [endless, deaf, sleepy])
def test_what_does_not_end_is_stopped(function):
    started = time.monotonic()
    assert see(function, seconds=0.2).error.kind == "too long"
    assert time.monotonic() - started < 30  # far below a sleep of 60


@pytest.mark.parametrize("function", [endless, deaf])
def test_other_threads_are_stopped_too(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(see(function, seconds=0.2)))
    thread.start()
    thread.join(30)
    assert found and found[0].error.kind == "too long"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no timer signals on this system")
def test_the_alarm_is_put_back():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(5):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_time_left_over_hurts_nobody():
    def in_thread():
        for _ in range(50):
            with time_limit(0.005):
                time.sleep(0.0049)
        result.append("fine")

    result: list[str] = []

    def guarded():
        try:
            in_thread()
        except TimeUp:
            result.append("fine")

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(30)
    assert result == ["fine"]


AFTER_A_LIMIT = """
import threading
from lessonlib.classroom.observing import time_limit

def limited():
    with time_limit(60):
        pass

def run(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(30)
    return not thread.is_alive()

assert run(limited)
threading.settrace(lambda *_: None)
print(run(lambda: None))
"""


def test_a_limit_in_another_thread_leaves_no_trace():
    """In a process of its own: CPython 3.11 lets threads under a debugger spin for ever otherwise."""
    done = subprocess.run([sys.executable, "-c", AFTER_A_LIMIT], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr


def test_luck_is_fixed_and_given_back():
    torch.manual_seed(1)
    random.seed(1)
    expected = (torch.rand(1).item(), random.random())
    torch.manual_seed(1)
    random.seed(1)
    with fixed_luck(7):
        first = (torch.rand(1).item(), random.random())
    with fixed_luck(7):
        assert (torch.rand(1).item(), random.random()) == first
    assert (torch.rand(1).item(), random.random()) == expected
