"""Hidden checks of a function that runs somewhere else: it is asked for values, and they are judged here.

``checking`` does the judging, as in the notebook; only the glass between it and the student's function is thicker.
A function that is right by luck in a statistical case: see ``lessonlib.classroom.cases.FALSE_ALARM``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lessonlib.classroom import checking, forms
from lessonlib.classroom.checking import Failure, Report
from lessonlib.classroom.exercises import Case, Change, Exercise, Inputs, Observation, StudentError, WrongForm
from lessonlib.classroom.observing import Stopped, Student, as_text, fixed_luck, one_thread, same

from .conversation import Conversation, Lost, StudentObject

SECONDS = 30.0  # for all probes of one exercise: each value takes a way over the line
LUCK = 20_240_101  # of ``checking.play``
# What reading or comparing strange values may end in. Not AssertionError: that is a mistake of ours.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Remote(Student):
    """The student's function in another process, for one exercise."""

    def __init__(self, exercise: Exercise, conversation: Conversation, seconds: float | None = None):
        super().__init__(exercise, _never, SECONDS if seconds is None else seconds)
        self.conversation = conversation
        conversation.deadline = self.deadline

    def repeat(self, inputs: Inputs, times: int) -> list[Any]:
        arguments, untouched = self.exercise.arguments(inputs), self.exercise.arguments(inputs)
        self.arguments, self.inputs = arguments, inputs
        positional = [arguments[name] for name in self.exercise.positional]
        named = {name: arguments[name] for name in self.exercise.optional if name in arguments}
        said = self.conversation.call(self.exercise.name, positional, named, times, back=True)
        self.printed.write(said.printed)
        changes = list(self._changes(untouched, said.after))
        if said.error and not (said.values and changes):
            raise Stopped(self._in_its_terms(said.error))
        for change in changes[:1]:
            self.changed = self.changed or change
        return said.values

    def then(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if not isinstance(function, StudentObject):
            raise TypeError("only what came from the student's process can be called there")
        said = self.conversation.call(function, list(arguments), named)
        self.printed.write(said.printed)
        if said.error:
            raise Stopped(said.error)
        return said.values[0]

    def observe(self, case: Case, inputs: Inputs) -> Observation:
        if self.conversation.lost or time.monotonic() > self.deadline:
            return Observation(error=StudentError("too long"), inputs=inputs)
        try:
            self.conversation.forget()
            self.conversation.luck(LUCK)
            return super().observe(case, inputs)
        except Lost as lost:
            why = str(lost)
            gone = StudentError("too long") if why == "too long" else StudentError("died", message=why)
            return Observation(error=gone, printed=self.printed.getvalue(), inputs=self.inputs)
        except UNREADABLE as error:
            # What came is of no use to the case at all, and the case has no words for it.
            text = f"What it returned cannot be read ({type(error).__name__})."
            return Observation(wrong_form=WrongForm(forms.TYPE, text), inputs=self.inputs)

    def _changes(self, untouched: dict[str, Any], after: Any) -> list[Change]:
        """Which arguments came back different; what has no value (a model, say) cannot."""
        try:
            back, named = after
            found = {**dict(zip(self.exercise.positional, back, strict=True)), **named}
        except (TypeError, ValueError):
            return []
        return [
            Change(name, as_text(before), as_text(found[name]))
            for name, before in untouched.items()
            if name in found and not same(before, found[name])
        ]

    def _in_its_terms(self, error: StudentError) -> StudentError:
        if error.type == "TypeError" and not error.line:  # it was not called as the exercise says
            text = f"{error.message}; the exercise asks for {self.exercise.signature}"
            return StudentError("raised", "TypeError", text[:500])
        return error


def probe(
    exercise: Exercise,
    cases: Sequence[Case],
    conversation: Conversation,
    seed: int,
    seconds: float | None = None,
) -> Report:
    """The report on a student's function, which the notebook over there has defined."""
    exercise.arguments(checking.first_inputs(cases))  # imports what it needs before luck is fixed
    student = Remote(exercise, conversation, seconds)
    with one_thread(), fixed_luck(LUCK):
        try:
            return checking.judge(student, cases, seed)
        except UNREADABLE as error:
            text = f"What it returned cannot be compared ({type(error).__name__})."
            seen = Observation(wrong_form=WrongForm(forms.TYPE, text), inputs=student.inputs)
            return Report(exercise, 0, Failure(None, None, seen, forms.TYPE, forms.WHY[forms.TYPE]))


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the student's function is not here")
