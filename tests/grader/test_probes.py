"""Probed from another process, every planted attempt gets the verdict it gets in the notebook."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grader import probes
from grader.checks import Hidden
from grader.conversation import Conversation
from grader.exercises import PASS, STUB, UNNAMED, hidden, planted, with_mutants
from lessonlib.classroom import checking
from lessonlib.classroom.cases import values
from lessonlib.classroom.exercises import Exercise, find

SEED = 11  # that of the gate in tests/classroom

THERE = """
import json, linecache, socket, sys
sys.path[:0] = {path!r}
from grader.inside.agent import Agent
import torch
while True:
    call = socket.socket(socket.AF_UNIX)
    call.connect({socket!r})
    letters = b""
    while not letters.endswith(bytes([10])):
        letters += call.recv(1)
    source = json.loads(letters)
    names = {{"__name__": "__main__"}}
    linecache.cache["<student>"] = (len(source), None, source.splitlines(True), "<student>")
    try:
        exec(compile(source, "<student>", "exec"), names)
    except BaseException as error:
        print(error)
    Agent(call, names).serve()
    call.close()
"""
Talk = Callable[[str], Conversation]


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Iterator[Talk]:
    """A conversation with a process in which this cell has run; the process stays for the next cell."""
    address = tmp_path_factory.mktemp("there") / "s"
    code = THERE.format(path=[p for p in sys.path if p], socket=str(address))
    begun: list[subprocess.Popen] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(1)
        listener.settimeout(0.5)

        def call_of(process: subprocess.Popen) -> socket.socket | None:
            """The call that comes from there; None where nobody is alive to make it."""
            while process.poll() is None:
                with suppress(TimeoutError):
                    return listener.accept()[0]
            return None

        def say(cell: str) -> Conversation:
            while not begun or (call := call_of(begun[-1])) is None:
                env = os.environ | {"OMP_NUM_THREADS": "1"}
                begun.append(
                    subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
                )
            process = begun[-1]
            call.sendall(json.dumps(cell).encode() + b"\n")
            return Conversation(call, lambda: process.send_signal(signal.SIGINT))

        yield say
    for process in begun:
        process.kill()
        process.wait()


def verdict(
    talk: Talk, exercise_id: str, source: str, seed: int = SEED, seconds: float | None = None
) -> checking.Report:
    conversation = talk(source)
    try:
        exercise = find(exercise_id)
        if conversation.untouched(exercise.name):
            return checking.not_started(exercise)
        return probes.probe(exercise, hidden(exercise_id).cases, conversation, seed, seconds)
    finally:
        conversation.end()


@pytest.mark.parametrize("exercise_id", with_mutants())
def test_every_planted_attempt_gets_its_verdict(talk, exercise_id):
    wrong = []
    for attempt in planted(exercise_id):
        seconds = 2.0 if attempt.expect == checking.TOO_LONG else None
        report = verdict(talk, exercise_id, attempt.source, seconds=seconds)
        got = PASS if report.passed else report.name or UNNAMED
        if got != attempt.expect:
            wrong.append(f"{attempt.name}: {got!r}, not {attempt.expect!r}")
    assert not wrong


# ---------------------------------------------------------------- what a report says


def count(source: str, talk: Talk, **options) -> checking.Report:
    return verdict(talk, "01.count_work", source, **options)


def test_an_error_is_told_in_the_students_terms(talk):
    seen = count(
        "def count_work(prompt, new, use_cache):\n    x = {}\n    return x['no']\n", talk
    ).failure.observation
    assert (seen.error.type, seen.error.line, seen.error.source) == ("KeyError", 3, "return x['no']")


def test_a_stub_is_not_started(talk):
    for body in (STUB, "pass", "'''Nothing yet.'''", "..."):
        assert (
            count(f"def count_work(prompt, new, use_cache):\n    {body}\n", talk).name == checking.NOT_STARTED
        )


def test_another_signature_is_told_with_the_right_one(talk):
    seen = count("def count_work(prompt):\n    return 1\n", talk).failure.observation
    assert "the exercise asks for count_work(prompt, new, use_cache)" in seen.error.message


def test_a_name_that_is_not_there(talk):
    seen = count("x = 1\n", talk).failure.observation
    assert (seen.error.type, seen.error.message) == ("NameError", "name 'count_work' is not defined")


def test_a_loop_is_stopped_and_the_process_lives_on(talk):
    began = time.monotonic()
    report = count("def count_work(prompt, new, use_cache):\n    while True: pass\n", talk, seconds=1.0)
    assert report.name == checking.TOO_LONG and time.monotonic() - began < 30
    assert count("def count_work(prompt, new, use_cache):\n    return 0\n", talk).name != checking.TOO_LONG


def test_the_end_of_the_process_is_told(talk):
    report = count("import os\ndef count_work(prompt, new, use_cache):\n    os._exit(0)\n", talk)
    assert report.name == checking.DIED


def test_what_is_printed_is_kept_within_limits(talk):
    source = "def count_work(prompt, new, use_cache):\n    print('look' * 10_000)\n    return -1\n"
    printed = count(source, talk).failure.observation.printed
    assert printed.startswith("looklook") and len(printed) < 3000


def test_a_changed_argument_is_noticed(talk):
    source = f"""
{planted_right("07.choose_threshold")}
right = choose_threshold
def choose_threshold(benign, attacks, budget):
    found = right(benign, attacks, budget)
    benign.append(0)
    return found
"""
    assert verdict(talk, "07.choose_threshold", source).name == checking.CHANGES_INPUT


def planted_right(exercise_id: str) -> str:
    return next(attempt.source for attempt in planted(exercise_id) if attempt.expect == PASS)


# ---------------------------------------------------------------- what it can reach on our side


class Model:
    """An object of ours with a secret beside what may be called."""

    secret = "the answer"
    calls = 0

    def __call__(self, x):
        self.calls += 1
        if x == "large":
            return "x" * 40_000_000
        return x + 1

    def other(self):
        return self.secret


def asking(made: object) -> Exercise:
    """An exercise whose function gets this object."""
    about = {"title": "", "signature": "asks(model)", "cases": (), "misconceptions": ()}
    return Exercise(
        id="01.asks", prepare=lambda inputs: {"model": made}, hints=("", "", ""), analogue="", **about
    )


def asks(source: str, talk: Talk, model: Model) -> object:
    """What a function returns that is given this model."""
    from grader import faces

    exercise = asking(model)
    case = values("", lambda inputs: None, examples=[{}])
    conversation = talk(source)
    table = dict(faces.faces())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "faces", lambda: {**table, Model: faces.Face(values=("calls",))})
        found = probes.Remote(exercise, conversation, 20).observe(case, {})
        conversation.end()
    return found.error or found.value


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("return model(1)", 2),
        ("model(1); model(2); return model.calls", 2),
        ("return getattr(model, 'secret', 'hidden')", "hidden"),
        ("return hasattr(model, 'other')", False),
        ("return [n for n in dir(model) if 'secret' in n]", []),
        ("return model._agent.ask(model._number, 'secret', [], {})", "AttributeError"),
        ("return model._agent.ask(model._number, 'other', [], {})", "AttributeError"),
        ("return model._agent.ask(model._number, '__class__', [], {})", "AttributeError"),
        ("return model._agent.ask(model._number, '__init__', [], {})", "AttributeError"),
        ("return model._agent.ask(1, '__call__', [1], {})", "AttributeError"),
        ("return model._agent.ask('x', '__call__', [1], {})", "AttributeError"),
        ("return model._agent.ask(model._number, ['__call__'], [1], {})", "AttributeError"),
        ("return model(10**30)", "ValueError"),
        ("return model([[10**9]])", "ValueError"),
        ("return model('x')", "TypeError"),
        ("return model(1, 2, 3)", "TypeError"),
        ("model.calls = 99; model(1); return model._agent.ask(model._number, 'calls', [], {})", 1),
    ],
)
def test_only_what_the_face_shows_can_be_reached(talk, body, answer):
    model = Model()
    found = asks(f"def asks(model):\n    {body}\n", talk, model)
    assert getattr(found, "type", found) == answer
    assert Model.secret not in str(found)


def test_the_counters_stay_ours(talk):
    model = Model()
    asks("def asks(model):\n    model.calls = -5\n    model(1)\n    return 0\n", talk, model)
    assert model.calls == 1


def test_an_object_without_a_face_is_a_mistake_of_the_probe(talk):
    exercise = asking(object())
    conversation = talk("def asks(model):\n    return 1\n")
    with pytest.raises(TypeError, match="has no face in grader"):
        probes.Remote(exercise, conversation, 20)({})
    conversation.end()


@pytest.mark.parametrize("exercise_id", with_mutants())
def test_every_object_that_a_probe_hands_out_has_a_face(exercise_id):
    from grader.faces import face_of
    from grader.inside.wire import Encoder

    exercise = find(exercise_id)
    found: Hidden = hidden(exercise_id)
    for case in found.cases:
        for inputs in case.examples:
            Encoder(lambda made: face_of(made) and 0)([*exercise.arguments(inputs).values()])


def test_a_file_of_the_agent_imports_nothing_of_the_grader():
    """It runs in the student's process: what it imports must be there, and may be read."""
    inside = Path(probes.__file__).parent / "inside"
    for file in ("agent.py", "wire.py"):
        lines = (inside / file).read_text().splitlines()
        imported = [line for line in lines if line.strip().startswith(("import ", "from "))]
        assert not [line for line in imported if "grader" in line], file
