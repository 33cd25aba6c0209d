"""The log survives what happens to files: crashes at any byte, two writers, damage, full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.classroom import store
from lessonlib.classroom.errors import ClassroomError
from lessonlib.classroom.store import Event, Log, StoreError, log_for, parse, student_seed

words = st.text(max_size=20) | st.sampled_from(["a\nb", "ä€🙂", "\ud800", "\u2028", '"', "{"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
events = st.builds(Event, kind=words, id=words, data=st.dictionaries(words, values, max_size=3))
WRITER = """
import os, sys
os.fsync = lambda descriptor: None  # more haste, more collisions
if sys.argv[4] == "unlocked":  # as on a system without file locks
    sys.modules["fcntl"] = None
from pathlib import Path
from lessonlib.classroom.store import Log
log, name, count = Log(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
log.path.with_suffix(f".{name}").touch()
while not log.path.with_suffix(".go").exists():
    pass
n = 0
while n != count:
    log.append("note", f"{name}-{n}", text="ä" * (n % 50))
    n += 1
"""


def write(path: Path, name: str, count: int, locks: str = "locked") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(count), locks])


@given(events)
def test_an_event_is_one_line_and_reads_back(event: Event):
    line = event.line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    back = parse(line)
    assert (back.kind, back.id, back.data) == (event.kind, event.id, event.data)
    assert abs((back.at - event.at).total_seconds()) < 0.001


@given(st.lists(events, min_size=1, max_size=5), st.data())
def test_truncation_at_any_byte_loses_at_most_the_last_event(written: list[Event], data: st.DataObject):
    lines = [event.line() for event in written]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    path = Path(os.environ["LESSON_HOME"]) / f"cut-{time.monotonic_ns()}.jsonl"
    path.write_bytes(whole[:cut])
    touched = (
        next((i + 1 for i in range(len(lines)) if len(b"".join(lines[: i + 1])) >= cut), 0) if cut else 0
    )
    kept = [event.id for event in Log(path).events()]
    assert kept in ([e.id for e in written[:touched]], [e.id for e in written[: touched - 1]])

    Log(path).append("after", "the crash")
    assert [event.id for event in Log(path).events()] == [*kept, "the crash"]
    assert path.read_bytes().startswith(whole[:cut])


@pytest.mark.parametrize("locks", ["locked", "unlocked"])
def test_two_processes_lose_nothing(tmp_path: Path, locks: str):
    path = tmp_path / "shared.jsonl"
    writers = [write(path, name, 2000, locks) for name in "ab"]
    while not all(path.with_suffix(f".{name}").exists() for name in "ab"):
        time.sleep(0.01)
    path.with_suffix(".go").touch()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    log = Log(path)
    assert sorted(e.id for e in log.events()) == sorted(f"{name}-{n}" for name in "ab" for n in range(2000))
    assert log.complaint() is None


def test_a_killed_writer_leaves_a_readable_log(tmp_path: Path):
    path = tmp_path / "killed.jsonl"
    path.with_suffix(".go").touch()
    writer = write(path, "w", -1)
    while writer.poll() is None and (not path.exists() or path.stat().st_size < 4000):
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    log = Log(path)
    before = [e.id for e in log.events()]
    assert before == [f"w-{n}" for n in range(len(before))] and len(before) > 10
    log.append("note", "next")
    assert [e.id for e in log.events()] == [*before, "next"]


KILLED_AT_EVERY_BYTE = """
import json, os, resource, signal, sys
from pathlib import Path
from lessonlib.classroom.store import Log

path, told = Path(sys.argv[1]), []
log = Log(path)
log.append("note", "first", text="ä")
before = path.read_bytes()
log.append("note", "second", text="größer")
line = len(path.read_bytes()) - len(before)
for survivors in range(line + 1):
    path.write_bytes(before)
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system ends us at this size of a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + survivors,) * 2)
        log.append("note", "second", text="größer")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    size = path.stat().st_size - len(before)
    kept = [event.id for event in log.events()]
    log.append("note", "third")
    told.append([os.WIFSIGNALED(status), size, kept, [event.id for event in log.events()]])
print(json.dumps([line, told]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot end a process at a file's size")
def test_a_writer_killed_at_every_byte_loses_only_what_it_wrote(tmp_path: Path):
    command = [sys.executable, "-c", KILLED_AT_EVERY_BYTE, str(tmp_path / "log.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    line, told = json.loads(done.stdout)
    for survivors, (killed, size, kept, after) in enumerate(told):
        assert killed == (survivors < line) and size == survivors
        whole = survivors >= line - 1  # without its newline the line can be read
        assert kept == (["first", "second"] if whole else ["first"])
        assert after == [*kept, "third"]


@pytest.mark.parametrize(
    "damage", [b"\x00" * 4096, b"\xff\xfe{\x00", b"not json at all", b'{"v": 1}\n' * 3, b"\n\n"], ids=range(5)
)
def test_a_log_of_nothing_but_damage_is_kept_and_used_on(home: Path, damage: bytes):
    log = log_for("01")
    log.path.write_bytes(damage)
    assert log.events() == []
    log.append("hint", "01.sample", step=1)
    assert [e.id for e in log.events()] == ["01.sample"] and log.path.read_bytes().startswith(damage)


def test_a_log_that_is_none_is_said(home: Path):
    log = log_for("01")
    log.path.mkdir()
    assert log.events() == [] and "cannot be read (is a directory)" in (log.complaint() or "")
    with pytest.raises(StoreError, match="could not be recorded"):
        log.append("hint", "01.sample")


def test_damage_is_reported_and_left_alone(home: Path):
    log = log_for("01.sample")
    log.append("check", "01.sample", passed=True)
    damage = b'{"v": 1, "at": "2026-\n\x00\x00\xff\n[]\n{"v": 99, "kind": "new"}\n'
    with log.path.open("ab") as file:
        file.write(damage)
    log.append("check", "01.generate", passed=False)
    assert [e.id for e in log.events()] == ["01.sample", "01.generate"]
    complaint = log.complaint()
    assert complaint and "4 lines of 01_generation.log.jsonl" in complaint and "kept" in complaint
    assert damage in log.path.read_bytes()


def test_lines_are_for_people_too(home: Path):
    log_for("01").append("predict", "01.cost", answer="größer")
    record = json.loads((home / "01_generation.log.jsonl").read_text(encoding="utf-8"))
    assert record.pop("at").endswith("Z")
    assert record == {"v": 1, "kind": "predict", "id": "01.cost", "data": {"answer": "größer"}}
    assert "größer" in (home / "01_generation.log.jsonl").read_text(encoding="utf-8")


def test_a_write_cut_short_is_written_again(home: Path, monkeypatch: pytest.MonkeyPatch):
    log, real = log_for("01"), os.write
    short = iter([True])
    monkeypatch.setattr(store.os, "write", lambda fd, b: real(fd, b[:9] if next(short, False) else b))
    log.append("hint", "01.sample", step=1)
    assert [e.data for e in log.events()] == [{"step": 1}]


def test_a_folder_that_cannot_be_written_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "file").write_text("")
    monkeypatch.setenv("LESSON_HOME", str(home / "file"))
    with pytest.raises(StoreError, match="could not be recorded in 01_generation") as failure:
        log_for("01").append("hint", "01.sample")
    assert str(failure.value).count(". ") == 0
    assert failure.value._render_traceback_() == [str(failure.value)]
    assert log_for("01").events() == []


def test_an_unknown_lesson_is_one_sentence():
    with pytest.raises(ClassroomError, match="There is no lesson"):
        log_for("99.sample")


def test_the_seed_is_drawn_once(home: Path):
    log = log_for("01")
    seed = student_seed(log)
    assert seed == student_seed(log_for("01")) and len(log.events("student")) == 1
    log.path.unlink()
    assert student_seed(log) != seed
