"""The trusted end of the line to a student's process: asks for values, reads them, believes nothing else.

While the student's function runs, it may call what it was handed (see ``faces``); nothing else of ours can be reached.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from lessonlib.classroom.exercises import StudentError
from lessonlib.classroom.observing import Stopped

from .faces import face_of, too_large
from .inside.wire import Away, Decoder, Encoder, Late, Line, WireError

GRACE = 3.0  # seconds for code to stop after it was interrupted
AGAIN = 0.3  # seconds between interrupts
CALLS = 200_000  # calls of our objects in one conversation
KEPT = 20_000  # objects of ours that it may hold at a time


class Lost(Exception):
    """The conversation is over: the process is gone, does not answer, or does not keep to the grammar."""


@dataclass(frozen=True)
class Said:
    """What a call gave: a value for each time, the arguments as they are afterwards, what was printed."""

    values: list[Any]
    after: Any
    printed: str
    error: StudentError | None


class StudentObject(Away):
    """Stands for an object that stays in the student's process: its attributes are read there, when asked for."""

    def __init__(self, number: int, conversation: Conversation):
        super().__init__(number)
        self._conversation = conversation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._conversation.get(self, name)
        except Stopped as stopped:
            if stopped.error.type == "AttributeError":
                raise AttributeError(name) from None
            raise

    def __call__(self, *args: Any, **named: Any) -> Any:
        said = self._conversation.call(self, list(args), named)
        if said.error:
            raise Stopped(said.error)
        return said.values[0]


class Conversation:
    """One line to one process. ``interrupt`` must make what runs there stop, if it can be made to."""

    def __init__(self, connection: socket.socket, interrupt: Callable[[], None], seconds: float = 60.0):
        self.line, self.interrupt = Line(connection), interrupt
        self.deadline = time.monotonic() + seconds
        self.kept: dict[int, Any] = {}
        self.calls = 0
        self.lost: str | None = None

    # ------------------------------------------------------------ asking

    def call(
        self,
        what: str | StudentObject,
        args: list[Any],
        named: dict[str, Any],
        times: int = 1,
        back: bool = False,
    ) -> Said:
        """Call a function of the notebook by name, or an object that came from there. Raises Lost."""
        target = what if isinstance(what, str) else what._number
        asked = {"do": "call", "what": target, "times": times, "back": back}
        message, read = self._ask(asked, args=args, named=named)
        values = read(message.get("value"))
        after = read(message.get("after"))
        error = _error(message.get("failed"))
        if not isinstance(values, list) or len(values) > times or (not error and len(values) < times):
            self._give_up("it answered what was not asked")
        return Said(values, after, str(message.get("printed"))[:4000], error)

    def get(self, what: StudentObject, name: str) -> Any:
        """An attribute of an object over there. Raises Lost, or Stopped where it has none."""
        message, read = self._ask({"do": "get", "what": what._number, "name": name})
        if error := _error(message.get("failed")):
            raise Stopped(error)
        return read(message.get("value"))

    def untouched(self, name: str) -> bool:
        """Whether a function of the notebook does nothing at all (``observing.is_untouched``). Raises Lost."""
        message, read = self._ask({"do": "untouched", "name": name})
        return read(message.get("value")) is True

    def lean(self, others: list[str], sources: list[list[str]]) -> list[list[list[str]]]:
        """What each exercise's sources need of other cells (``leaning.leaned_on``). Raises Lost."""
        message, read = self._ask({"do": "lean"}, others=others, sources=sources)
        found = read(message.get("value"))
        try:
            return [[[str(code) for code in needed] for needed in by_cell] for by_cell in found]
        except TypeError:
            self._give_up("it answered what was not asked")

    def luck(self, seed: int) -> None:
        """Seed the shared random generators over there. Raises Lost."""
        self._send({"do": "luck", "seed": seed})

    def forget(self) -> None:
        """Let go of the objects of both sides. Raises Lost."""
        self.kept.clear()
        self._send({"do": "forget"})

    def end(self) -> None:
        if not self.lost:
            self.lost = "it was ended"
            with suppress(WireError):
                self.line.send({"do": "end"}, deadline=time.monotonic() + 1)
        self.line.close()

    # ------------------------------------------------------------ talking

    def _ask(self, message: dict[str, Any], **values: Any) -> tuple[dict[str, Any], Callable[[Any], Any]]:
        self._send(message, **values)
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], Callable[[Any], Any]]:
        """The answer to what was asked; on the way to it, calls of our objects are served."""
        while True:
            message, buffers = self._receive()
            decoder = Decoder(buffers, self._find, self._stand)

            def read(node: Any, decoder: Decoder = decoder) -> Any:
                try:
                    return decoder(node)
                except WireError as error:
                    self._give_up(f"it sent {error}")

            if "ask" not in message:
                return message, read
            self.calls += 1
            if self.calls > CALLS:
                self._give_up(f"it called the grader's objects more than {CALLS:,} times")
            self._serve(message, read)

    def _serve(self, message: dict[str, Any], read: Callable[[Any], Any]) -> None:
        """Do for the student's code what the object it was handed can do."""
        args, named, name = read(message.get("args")), read(message.get("named")), message.get("name")
        made = self.kept.get(message["ask"]) if isinstance(message["ask"], int) else None
        try:
            if (
                made is None
                or not isinstance(name, str)
                or not isinstance(args, list)
                or not isinstance(named, dict)
            ):
                raise AttributeError("there is nothing to call")
            face = face_of(made)
            if name in face.values:
                answer = getattr(made, name)
            elif name not in face.methods:
                raise AttributeError(f"{type(made).__name__!r} object has no attribute {name!r}")
            elif too_large(args) or too_large(named):
                raise ValueError("That number is far too large.")
            else:
                answer = getattr(made, name)(*args, **named)
        except Lost:
            raise
        except Stopped as stopped:  # an object of the student's own, which ours had called
            self._refuse(stopped.error.type or "RuntimeError", stopped.error.message)
        except Exception as error:
            self._refuse(type(error).__name__, str(error))
        else:
            try:
                self._send({}, value=answer)
            except TypeError:
                self._refuse("RuntimeError", "That answer cannot be sent.")

    def _refuse(self, kind: str, text: str) -> None:
        self._send({"error": kind, "text": text[:500]})

    def _send(self, message: dict[str, Any], **values: Any) -> None:
        faces: dict[int, Any] = {}

        def keep(made: Any) -> int:
            number = id(made)
            face = face_of(made)
            self.kept[number] = made
            if len(self.kept) > KEPT:
                self._give_up(f"it holds more than {KEPT:,} of the grader's objects")
            constants = {name: encoder(value) for name, value in face.constants(made).items()}
            faces[number] = {
                "methods": face.methods, "values": face.values, "selves": face.selves, "constants": constants,
            }  # fmt: skip
            return number

        encoder = Encoder(keep)
        told = {**message, **{name: encoder(value) for name, value in values.items()}}
        if self.lost:
            raise Lost(self.lost)
        try:
            self.line.send({**told, "faces": faces}, encoder.buffers, self.deadline + GRACE)
        except WireError as error:
            self._give_up(str(error))

    def _receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """One message. Past the deadline the code over there is interrupted, and given up after a grace."""
        if self.lost:
            raise Lost(self.lost)
        try:
            return self.line.receive(self.deadline)
        except Late:
            pass
        except WireError as error:
            self._give_up(str(error))
        end = max(self.deadline, time.monotonic()) + GRACE
        while time.monotonic() < end:
            self.interrupt()
            try:
                return self.line.receive(time.monotonic() + AGAIN)
            except Late:
                continue
            except WireError as error:
                self._give_up(str(error))
        self._give_up("too long")

    def _find(self, number: int) -> Any:
        if number not in self.kept:
            raise WireError("an object that was never handed out")
        return self.kept[number]

    def _stand(self, number: int, kind: str) -> StudentObject:
        made: StudentObject = type(kind, (StudentObject,), {})(number, self)
        return made

    def _give_up(self, why: str) -> NoReturn:
        self.lost = why
        raise Lost(why)


def _error(told: Any) -> StudentError | None:
    """What the agent says of an error, each part only if it is what it should be."""
    if not isinstance(told, dict):
        return None
    kind, line = told.get("kind"), told.get("line")

    def text(part: str, most: int) -> str:
        return str(told.get(part) or "")[:most]

    return StudentError(
        kind if kind in ("raised", "not started", "too long") else "raised",
        text("type", 80),
        text("message", 500),
        line if isinstance(line, int) and 0 < line < 100_000 else None,
        text("source", 300),
    )
