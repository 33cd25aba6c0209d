"""The probes' hand in the student's process: does what it is asked, and answers with values.

It lives where the student's code lives, so nothing it says is believed: the trusted side reads values and judges them
itself. Run in the kernel by ``serve``; the objects of either side go to the other as numbers (see ``wire``).
"""

from __future__ import annotations

import builtins
import io
import linecache
import random
import re
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from .wire import Away, Closed, Decoder, Encoder, Line, WireError

PRINTED = 2000  # characters kept of what one call prints
_CELL = re.compile(r"^<ipython-input|[/\\]ipykernel_\d+[/\\]|^<student")


class Elsewhere(Away):
    """Stands for an object of the grader's: what may be called can be called, what is plain can be read."""

    def __init__(self, agent: Agent, number: int, face: dict[str, Any]):
        super().__init__(number)
        self._agent, self._face = agent, face
        for name, value in face["constants"].items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        face = self.__dict__.get("_face") or {"methods": (), "values": (), "selves": ()}
        if name in face["methods"]:
            return lambda *args, **named: self._agent.ask(self._number, name, args, named)
        if name in face["values"]:
            return self._agent.ask(self._number, name, (), {})
        if name in face["selves"]:  # .eval() and the like, which give the object itself
            return lambda *_, **__: self
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: Any, **named: Any) -> Any:
        if "__call__" not in self._face["methods"]:
            raise TypeError(f"{type(self).__name__!r} object is not callable")
        return self._agent.ask(self._number, "__call__", args, named)

    def parameters(self) -> Any:
        return iter(self._face["constants"].get("_parameters", ()))


class Agent:
    """One conversation. names: the notebook's own, in which functions are looked up."""

    def __init__(self, connection: socket.socket, names: dict[str, Any]):
        self.line, self.names = Line(connection), names
        self.kept: dict[int, Any] = {}
        self.theirs: dict[int, Elsewhere] = {}
        self.faces: dict[int, dict[str, Any]] = {}
        self.alive: list[
            Any
        ] = []  # what was answered: freed memory would be used again, and looks like the same
        self.playing = False

    # ------------------------------------------------------------ values

    def _keep(self, value: Any) -> int:
        number = id(value)
        self.kept[number] = value
        return number

    def _stand(self, number: int, kind: str) -> Elsewhere:
        if number not in self.theirs:
            made = type(kind, (Elsewhere,), {})
            self.theirs[number] = made(self, number, self.faces[number])
        return self.theirs[number]

    def _send(self, message: dict[str, Any], **values: Any) -> None:
        encoder = Encoder(self._keep)
        told = {**message, **{name: encoder(value) for name, value in values.items()}}
        was, self.playing = self.playing, False  # half a message would be the last one
        try:
            self.line.send(told, encoder.buffers)
        finally:
            self.playing = was

    def _read(self, message: dict[str, Any], buffers: list[bytes]) -> Callable[[Any], Any]:
        decoder = Decoder(buffers, self.kept.__getitem__, self._stand)
        for number, face in message.get("faces", {}).items():
            constants = {name: decoder(value) for name, value in face["constants"].items()}
            self.faces[int(number)] = {**face, "constants": constants}
        return decoder

    # ------------------------------------------------------------ talking

    def serve(self) -> None:
        """Answer until the other side ends the conversation."""
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            while self._turn() is None:
                pass
        except Closed:
            pass
        finally:
            signal.signal(signal.SIGINT, before)

    def ask(self, number: int, name: str, args: Any, named: Any) -> Any:
        """Call something of the grader's; meanwhile it may call something of ours."""
        self._send({"ask": number, "name": name}, args=list(args), named=dict(named))
        answer = None
        while answer is None:
            answer = self._turn()
        message, read = answer
        if "error" in message:
            kind = getattr(builtins, message["error"], RuntimeError)
            raise kind(message["text"])
        return read(message["value"])

    def _turn(self) -> tuple[dict[str, Any], Callable[[Any], Any]] | None:
        """Take one message: do what it asks, or hand back the answer that it is."""
        self.playing, was = False, self.playing
        try:
            message, buffers = self.line.receive()
        finally:
            self.playing = was
        read = self._read(message, buffers)
        if "value" in message or "error" in message:
            return message, read
        what = message["do"]
        if what == "end":
            raise Closed("the conversation is over")
        if what == "luck":
            self._luck(message["seed"])
        elif what == "untouched":
            self._send({}, value=self._untouched(message["name"]))
        elif what == "lean":
            self._send({}, value=lean(read(message["others"]), read(message["sources"])))
        elif what == "forget":
            self.kept.clear()
            self.alive.clear()
            self.theirs.clear()
            self.faces.clear()
        else:
            self._answer(message, read)
        return None

    def _answer(self, message: dict[str, Any], read: Callable[[Any], Any]) -> None:
        printed = _Capped()
        found: dict[str, Any] = {"value": None}
        told: dict[str, Any] = {}
        # What changes an argument must be seen by the grader, so all calls get the same ones.
        args, named = read(message.get("args", ["l", []])), read(message.get("named", ["d", []]))
        values: list[Any] = []
        was, self.playing = self.playing, True
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                target = self._target(message["what"])
                if message["do"] == "get":
                    found["value"] = getattr(target, message["name"])
                else:
                    for _ in range(message["times"]):
                        values.append(target(*args, **named))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            told = {"failed": self._explain(error)}
        finally:
            self.playing = was
        if message["do"] == "call":
            found["value"] = values
            self.alive.append(values)
            found["after"] = [args, named] if message.get("back") else None
        try:
            self._send({**told, "printed": printed.getvalue()}, **found)
        except WireError as error:
            if isinstance(error, Closed):
                raise
            failed = {"kind": "raised", "type": "ValueError", "message": f"The answer has {error}."}
            self._send({"failed": failed, "printed": ""}, value=[])

    def _target(self, what: Any) -> Any:
        if not isinstance(what, str):
            return self.kept[what]
        if what not in self.names:
            raise NameError(f"name {what!r} is not defined")
        return self.names[what]

    def _untouched(self, name: str) -> bool:
        from lessonlib.classroom.observing import is_untouched

        return is_untouched(self.names.get(name, len))

    def _explain(self, error: BaseException) -> dict[str, Any]:
        """The error in the student's own terms, as ``observing.StudentError`` has it."""
        if isinstance(error, KeyboardInterrupt):
            return {"kind": "too long"}
        frames = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if _CELL.search(frame.f_code.co_filename)
        ]
        file, line = frames[-1] if frames else ("", None)
        return {
            "kind": "not started" if isinstance(error, NotImplementedError) and line else "raised",
            "type": type(error).__name__[:80],
            "message": re.sub(r"0x[0-9a-fA-F]+", "0x…", str(error)).strip()[:500],
            "line": line,
            "source": linecache.getline(file, line).strip()[:300] if line else "",
        }

    def _interrupted(self, *_: Any) -> None:
        if self.playing:
            raise KeyboardInterrupt

    @staticmethod
    def _luck(seed: int) -> None:
        """As in the notebook's own check: the shared random generators say the same twice."""
        random.seed(seed)
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch:
            torch.set_num_threads(1)
            torch.default_generator.manual_seed(seed)
        if numpy:
            numpy.random.seed(seed % 2**32)


class _Capped(io.StringIO):
    def write(self, text: str) -> int:
        room = PRINTED - self.tell()
        if room > 0:
            super().write(text if len(text) <= room else text[:room] + " … (cut)")
        return len(text)


def serve(path: str, names: dict[str, Any]) -> None:
    """Connect to the grader's socket and answer until it ends the conversation."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    try:
        Agent(connection, names).serve()
    finally:
        connection.close()


def lean(others: list[str], sources: list[list[str]]) -> list[list[list[str]]]:
    """For each exercise's sources, the statements of each other cell that they need. Before any student's code ran."""
    from lessonlib.classroom.leaning import leaned_on

    found = []
    for own in sources:
        try:
            found.append(leaned_on(others, own))
        except (RecursionError, SyntaxError, ValueError, MemoryError):
            found.append([[] for _ in others])
    return found
