"""How an exercise is declared: what is asked, on which inputs, and which mistakes have a name.

Inputs are plain data (numbers, strings, lists in a dict), from which ``prepare`` makes the real arguments. So
a failing input can be shrunk and printed, an argument the student changed is noticed, and a grader can send
inputs elsewhere. Keys that start with an underscore (a seed, say) belong to the test and are not arguments.

A misconception is a named wrong function: what it would return is compared with what the student returned.
"""

from __future__ import annotations

import ast
import importlib
import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from .. import course
from .errors import ClassroomError, lesson_of

Inputs = dict[str, Any]
FAR = 1e9  # a distance that no tolerance forgives


class Call(Protocol):
    """The student's function or class, called with fresh arguments made from plain inputs.

    ``repeat`` calls it many times with the same arguments; ``then`` calls something that came of it, such as a method
    of the object. Both behind the same glass.
    """

    arguments: dict[str, Any]  # those of the last call, as the function left them

    def __call__(self, inputs: Inputs) -> Any: ...

    def repeat(self, inputs: Inputs, times: int) -> list[Any]: ...

    def then(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any: ...


class ExerciseError(ClassroomError):
    """An exercise that is not there; one sentence for the student."""


class AnyOf(tuple[Any, ...]):
    """Several values that one mistake can lead to, depending on details that do not matter."""


class WrongForm(Exception):
    """A returned value of the wrong type or shape: ``name`` says which mistake, ``text`` what came."""

    def __init__(self, name: str, text: str):
        super().__init__(text)
        self.name, self.text = name, text


@dataclass(frozen=True)
class StudentError:
    """How the student's function ended without returning. ``kind``: "raised", "not started", "too long", and of
    a grader "died" (with the whole process) or "never ran"."""

    kind: str
    type: str = ""
    message: str = ""
    line: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Change:
    """An argument that is not what it was before the call."""

    argument: str
    before: str
    after: str


@dataclass(frozen=True)
class Observation:
    """What one trial of the student's function showed. ``inputs``: those of its last call."""

    value: Any = None
    error: StudentError | None = None
    wrong_form: WrongForm | None = None
    changed: Change | None = None
    printed: str = ""
    inputs: Inputs | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Comparison:
    """Expected beside observed, for the card: two texts, or a table of (label, expected, got) shares of 1."""

    expected: str = ""
    got: str = ""
    shares: tuple[tuple[str, float, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Misconception:
    """A mistake with a name. ``why`` says what it is and how to see it, without giving the solution.

    gives: the value (in the case's plain form, or AnyOf) that a function with this mistake leads to; it may
    raise Skip where the mistake makes no difference. sees: recognises the mistake from what happened instead.
    """

    name: str
    why: str
    gives: Callable[[Inputs], Any] | None = None
    sees: Callable[[Inputs, Observation], bool] | None = None


class Skip(Exception):
    """Raised by ``gives`` for inputs on which the mistake cannot be simulated."""


def call_once(call: Call, inputs: Inputs) -> Any:
    """The plain trial: one call, the returned value as it is."""
    return call(inputs)


@dataclass(frozen=True)
class Case:
    """One thing an exercise must get right, tried on fixed examples and on generated inputs.

    expected(inputs): the right plain value. trial(call, inputs): plays the inputs and returns a plain value.
    distance(inputs, observed, predicted): at most 1 means "the same". compare: the two, for the card.
    make(rng): one generated input, or None to be asked again; valid: what a shrunk input must still fulfil.
    simulated: whether ``gives`` of the misconceptions speaks about what this trial returns.
    """

    title: str
    expected: Callable[[Inputs], Any]
    distance: Callable[[Inputs, Any, Any], float]
    compare: Callable[[Inputs, Any, Any], Comparison]
    trial: Callable[[Call, Inputs], Any] = call_once
    examples: Sequence[Inputs] = ()
    make: Callable[[random.Random], Inputs | None] | None = None
    count: int = 0
    valid: Callable[[Inputs], bool] = lambda inputs: True
    simulated: bool = True

    def generated(self, rng: random.Random) -> Iterator[Inputs]:
        """``count`` generated inputs; ``make`` may turn down very many draws before it accepts one."""
        for _ in range(self.count if self.make else 0):
            for _ in range(20_000):
                assert self.make is not None
                if (inputs := self.make(rng)) is not None:
                    yield inputs
                    break
            else:
                raise RuntimeError(f"no input could be made for the case {self.title!r}")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson.

    signature: as the student is asked to write it, "sample(logits, temperature=1.0)" (of a class: its name and
    what makes an object, "Cache(size)"; see ``cases.script``); arguments without a default are passed by
    position, the others by name and only when the inputs have them. hints: three steps.
    analogue: a worked example of the same idea somewhere else (Markdown), never the solution. show: the call
    as the card prints it, to be pasted into a cell.
    """

    id: str
    title: str
    signature: str
    prepare: Callable[[Inputs], dict[str, Any]]
    cases: tuple[Case, ...]
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, str, str]
    analogue: str
    show: Callable[[Inputs], str] | None = None
    about: str = ""  # Markdown under the call: what is in it that the student has not seen
    positional: tuple[str, ...] = field(init=False)
    optional: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        function = ast.parse(f"def {self.signature}: ...").body[0]
        assert isinstance(function, ast.FunctionDef)
        names = tuple(a.arg for a in function.args.args)
        needed = len(names) - len(function.args.defaults)
        object.__setattr__(self, "positional", names[:needed])
        object.__setattr__(self, "optional", names[needed:])

    @property
    def name(self) -> str:
        """The name of the function, or of the class."""
        return self.signature.split("(")[0]

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        """Fresh arguments by name, made from plain inputs, which the call cannot change."""
        made = self.prepare(deepcopy(inputs))
        return {name: made[name] for name in (*self.positional, *self.optional) if name in made}

    def call_text(self, inputs: Inputs) -> str:
        """The call as Python: ``count_work(5, 3, use_cache=True)``."""
        if self.show is not None:
            return self.show(inputs)
        parts = [repr(inputs[name]) for name in self.positional]
        parts += [f"{name}={inputs[name]!r}" for name in self.optional if name in inputs]
        return f"{self.name}({', '.join(parts)})"

    def misconception(self, name: str) -> Misconception:
        return next(m for m in self.misconceptions if m.name == name)


@cache
def exercises(lesson_name: str) -> tuple[Exercise, ...]:
    """The exercises of a lesson ("01", "01_generation", …), in order; none where it has no checks."""
    number = lesson_of(lesson_name).number
    try:
        module = importlib.import_module(f"{__package__}.checks.lesson_{number}")
    except ModuleNotFoundError as missing:
        if missing.name == f"{__package__}.checks.lesson_{number}":
            return ()
        raise
    return tuple(module.EXERCISES)


def find(target: str | Callable[..., Any]) -> Exercise:
    """The exercise with this id, or the one whose function has this function's name.

    Raises ExerciseError when there is none, or when several lessons have one.
    """
    if isinstance(target, str):
        known = exercises(target)
        for exercise in known:
            if exercise.id == target:
                return exercise
        names = ", ".join(f'"{e.id}"' for e in known) or "none yet"
        raise ExerciseError(f'There is no exercise "{target}"; the exercises of this lesson are: {names}.')
    name = getattr(target, "__name__", "")
    matches = [e for lesson in course.LESSONS for e in exercises(lesson.number) if e.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = " or ".join(f'check("{e.id}", {name})' for e in matches)
        raise ExerciseError(f"Several lessons have an exercise called {name}; write {ids}.")
    raise ExerciseError(
        f"No exercise asks for a function called {name or 'that'}; keep the name the cell came with."
    )
