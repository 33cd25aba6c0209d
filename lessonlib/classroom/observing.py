"""Runs the student's function or class safely: fresh arguments, a time limit, its printing and its errors kept."""

from __future__ import annotations

import ctypes
import dis
import inspect
import io
import linecache
import math
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from .exercises import Case, Change, Exercise, Inputs, Observation, StudentError, WrongForm

SECONDS = 10.0  # for one check as a whole
LARGE = 100_000  # numbers in a tensor that is told by its shape only
KEPT_OUTPUT = 2000  # characters of the student's printing
_CELL = re.compile(r"^<ipython-input|[/\\]ipykernel_\d+[/\\]|^<student")


class TimeUp(BaseException):
    """The time limit was reached. Not an Exception: ``except Exception`` in a loop must not swallow it."""


class Stopped(Exception):
    """The student's function ended without returning."""

    def __init__(self, error: StudentError):
        super().__init__(error.kind)
        self.error = error


class Student:
    """The student's function behind glass, for one check."""

    def __init__(self, exercise: Exercise, function: Callable[..., Any], seconds: float | None = None):
        self.exercise, self.function = exercise, function
        self.deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
        self.arguments: dict[str, Any] = {}
        self.inputs: Inputs | None = None
        self.changed: Change | None = None
        self.printed = _Capped()

    def __call__(self, inputs: Inputs) -> Any:
        """Call the function with arguments made from ``inputs``. Raises Stopped where it does not return."""
        return self.repeat(inputs, 1)[0]

    def repeat(self, inputs: Inputs, times: int) -> list[Any]:
        """The values of many calls with the same arguments, made once: for functions that draw.

        Fewer values where a call changed the arguments and a later one broke on them: the change is what went wrong.
        """
        arguments, untouched = self.exercise.arguments(inputs), self.exercise.arguments(inputs)
        self.arguments, self.inputs = arguments, inputs
        positional = [arguments[name] for name in self.exercise.positional]
        named = {name: arguments[name] for name in self.exercise.optional if name in arguments}
        if misfit := self._misfit(positional, named):
            raise Stopped(misfit)
        values: list[Any] = []
        broke: Stopped | None = None

        def play() -> None:
            for _ in range(times):
                values.append(self.function(*positional, **named))

        try:
            self.then(play)
        except Stopped as stopped:
            broke = stopped
        changes = [name for name, before in untouched.items() if not same(before, arguments[name])]
        if broke and not (values and changes):
            raise broke
        for name in changes:
            before, after = as_text(untouched[name]), as_text(arguments[name])
            self.changed = self.changed or Change(name, before, after)
        return values

    def then(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call something else of the student's, such as a method of the object that their class made."""
        try:
            limit = time_limit(self.deadline - time.monotonic())
            with redirect_stdout(self.printed), redirect_stderr(self.printed), limit:
                return function(*arguments, **named)
        except TimeUp:
            raise Stopped(StudentError("too long")) from None
        except (Exception, SystemExit) as error:
            raise Stopped(self._explain(error)) from None

    def observe(self, case: Case, inputs: Inputs) -> Observation:
        """Play one case's trial and write down what happened."""
        self.changed, self.printed = None, _Capped()
        value, error, wrong_form = None, None, None
        try:
            value = case.trial(self, inputs)
        except Stopped as stopped:
            error = stopped.error
        except WrongForm as problem:
            wrong_form = problem
        return Observation(value, error, wrong_form, self.changed, self.printed.getvalue(), self.inputs)

    def _misfit(self, positional: list[Any], named: dict[str, Any]) -> StudentError | None:
        try:
            inspect.signature(self.function).bind(*positional, **named)
        except TypeError as error:
            return StudentError(
                "raised", "TypeError", f"{error}; the exercise asks for {self.exercise.signature}"
            )
        except ValueError:  # a builtin without a signature
            pass
        return None

    def _explain(self, error: BaseException) -> StudentError:
        """The error in the student's own terms: the last line of *their* code, no memory addresses."""
        homes = _files_of(self.function)
        frames = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename in homes or _CELL.search(frame.f_code.co_filename)
        ]
        file, line = frames[-1] if frames else (None, None)
        source = linecache.getline(file, line).strip() if file and line else ""
        kind = "not started" if isinstance(error, NotImplementedError) and line else "raised"
        message = re.sub(r"0x[0-9a-fA-F]+", "0x…", str(error)).strip()
        return StudentError(kind, type(error).__name__, message[:500], line, source)


def _files_of(function: Callable[..., Any]) -> set[str]:
    """Where a function, or the methods of a class, were written."""
    members = vars(function).values() if isinstance(function, type) else [function]
    codes = [getattr(inspect.unwrap(m), "__code__", None) for m in members if callable(m)]
    return {code.co_filename for code in codes if code}


def is_untouched(function: Callable[..., Any]) -> bool:
    """Whether a function's body does nothing at all: ``pass``, ``...`` or only a docstring."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = {step.opname for step in dis.get_instructions(code)}
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return steps <= idle and {*code.co_consts} <= {None, function.__doc__}


def same(before: Any, after: Any) -> bool:
    """Whether two arguments made from the same inputs are still equal; things that cannot be compared are."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(before, torch.Tensor):
        if not isinstance(after, torch.Tensor) or before.shape != after.shape or before.dtype != after.dtype:
            return False
        return bool(((before == after) | ((before != before) & (after != after))).all())
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[k], after[k]) for k in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float, str, bool)):
        return bool(before == after)
    return True


def as_text(argument: Any) -> str:
    """An argument on one line: tensors by their first numbers, rounded."""
    if hasattr(argument, "tolist"):
        if math.prod(argument.shape) > LARGE:
            return f"{type(argument).__name__} of shape {tuple(argument.shape)}"
        rows = argument.tolist()
        shown = rows[:2] if isinstance(rows, list) else rows
        more = ", …" if shown != rows else ""
        return f"{re.sub(r'[0-9]+[.][0-9]+(e-?[0-9]+)?', lambda n: f'{float(n[0]):.4g}', repr(shown))}{more}"
    text = repr(argument)
    return text if len(text) <= 200 else f"{text[:200]} …"


@contextmanager
def fixed_luck(seed: int) -> Iterator[None]:
    """Seed the shared random generators, so that a check says the same twice, and put them back after."""
    state = random.getstate()
    random.seed(seed)
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    torch_state = torch.get_rng_state() if torch else None
    numpy_state = numpy.random.get_state() if numpy else None
    if torch:
        torch.default_generator.manual_seed(seed)
    if numpy:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(state)
        if torch:
            torch.set_rng_state(torch_state)
        if numpy:
            numpy.random.set_state(numpy_state)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: a check has tiny tensors, and threads on a busy machine wait for each other."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp in this thread after ``seconds``, again and again until it gets through.

    A timer signal where there is one (it also wakes a sleeping thread); elsewhere (Windows, other threads) an
    exception handed to the thread, which acts between two Python instructions.
    """
    seconds = max(seconds, 0.001)
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        yield from _by_signal(seconds)
    else:
        yield from _by_thread(seconds)


def _by_signal(seconds: float) -> Iterator[None]:
    armed = True

    def ring(*_: Any) -> None:
        if armed:
            raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        try:
            yield
        finally:
            armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _by_thread(seconds: float) -> Iterator[None]:
    target = ctypes.c_ulong(threading.get_ident())
    done, turn = threading.Event(), threading.Lock()

    def ring() -> None:
        wait = seconds
        while not done.wait(wait):
            with turn:
                if not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(TimeUp))
            wait = 0.2

    threading.Thread(target=ring, daemon=True).start()
    try:
        yield
    finally:
        # What was sent and not yet received arrives here. Taking it back (SetAsyncExc with None) would leave
        # CPython 3.11's "something is pending" flag up for good, and every traced thread turning in its spot.
        while True:
            try:
                with turn:
                    done.set()
                for _ in range(3):  # a loop's end is where a thread looks
                    pass
                break
            except TimeUp:
                pass


class _Capped(io.StringIO):
    """Keeps the first characters written to it."""

    def write(self, text: str) -> int:
        room = KEPT_OUTPUT - self.tell()
        if room > 0:
            super().write(text if len(text) <= room else text[:room] + " … (cut)")
        return len(text)
