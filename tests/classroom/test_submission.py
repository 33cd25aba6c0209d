"""`lesson submit`: what is handed in is what the student saved, and only the unreadable is refused."""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import course
from lessonlib.classroom.errors import ClassroomError
from lessonlib.classroom.store import Log
from lessonlib.classroom.submission import submit

from .handout import (
    GRADED,
    LOG,
    NAME,
    SLUG,
    UNFIT,
    as_bytes,
    at,
    cell,
    lesson_book,
    listing,
    no_health_check,
    one_sentence,
    refusing,
    ship,
    spoilt,
)

VERSION = "1.2.3"
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The lesson as shipped."""
    ship(tmp_path / "notebooks", monkeypatch)
    return lesson_book()


@pytest.fixture
def mine(home: Path, shipped: dict[str, Any]) -> Path:
    """The student's notebook, untouched."""
    (home / NAME).write_bytes(as_bytes(shipped))
    return home / NAME


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


@no_health_check
@given(log=st.none() | st.binary(max_size=300), spaces=st.integers(0, 4), extra=st.text(max_size=40))
def test_what_comes_out_is_what_was_saved(shipped, log: bytes | None, spaces: int, extra: str):
    book = copy.deepcopy(shipped)
    book["cells"].insert(1, cell("mine", extra))
    saved = json.dumps(book, indent=spaces).encode()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAME).write_bytes(saved)
        if log is not None:
            (folder / LOG).write_bytes(log)
        out = contents(submit("01", folder, VERSION, now=AT).path)
    expected = {NAME: saved} | ({} if log is None else {LOG: log})
    manifest = json.loads(out.pop("manifest.json"))
    assert out == expected
    assert manifest == {
        "format": 1,
        "lesson": SLUG,
        "course": VERSION,
        "at": "2026-01-31T09:30:00Z",
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in expected.items()
        },
    }


def test_the_same_work_at_the_same_time_is_the_same_file(home, mine):
    first = submit("01", home, VERSION, now=AT).path.read_bytes()
    os.utime(mine, (1_000_000_000, 1_000_000_000))
    mine.chmod(0o600)
    assert submit("01", home, VERSION, now=AT).path.read_bytes() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        entries = archive.infolist()
        assert [e.filename for e in entries] == ["manifest.json", NAME]
        assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_earlier_submissions_stay(home, mine):
    kept = home / f"{SLUG}.submission-7.zip"
    kept.write_bytes(b"the one the teacher has")
    assert submit("01", home, VERSION).path.name == f"{SLUG}.submission-8.zip"
    assert submit("01_generation", home, VERSION).path.name == f"{SLUG}.submission-9.zip"
    assert kept.read_bytes() == b"the one the teacher has"


@pytest.mark.parametrize("links", [True, False])
def test_a_number_taken_meanwhile_is_left_alone(home, mine, monkeypatch, links):
    """Another `lesson submit` takes the number between our looking and our writing."""
    real, looked = os.listdir, []

    def behind(folder):
        names = [name for name in real(folder) if looked or not name.endswith(".zip")]
        looked.append(folder)
        return names

    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    first = submit("01", home, VERSION, now=AT)
    first.path.write_bytes(b"theirs")
    monkeypatch.setattr(os, "listdir", behind)
    assert submit("01", home, VERSION, now=AT).path.name == f"{SLUG}.submission-2.zip"
    assert first.path.read_bytes() == b"theirs"
    assert set(contents(home / f"{SLUG}.submission-2.zip")) == {"manifest.json", NAME}
    assert not [name for name in real(home) if name.endswith(".part")]


def test_a_place_of_ones_own_choice(home, mine, tmp_path):
    target = tmp_path / "elsewhere" / "mine.zip"
    with pytest.raises(ClassroomError, match=r"mine\.zip cannot be written"):
        submit("01", home, VERSION, target)
    target.parent.mkdir()
    assert submit("01", home, VERSION, target).path == target
    before = target.read_bytes()
    with pytest.raises(ClassroomError, match="never overwritten"):
        submit("01", home, VERSION, target)
    assert target.read_bytes() == before
    assert submit("01", home, VERSION, target.parent).path == target.parent / f"{SLUG}.submission-1.zip"


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.ENOSPC), ("listdir", errno.EACCES)])
def test_a_full_disk_leaves_nothing_half_written(home, mine, monkeypatch, call, number):
    before = listing(home)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(number))
        with pytest.raises(ClassroomError, match=os.strerror(number).lower()) as caught:
            submit("01", home, VERSION)
    assert one_sentence(caught.value)
    assert listing(home) == before


@pytest.mark.parametrize(("change", "says"), UNFIT)
def test_what_the_grader_could_not_read_is_refused(home, mine, shipped, change, says):
    mine.write_bytes(change(mine, copy.deepcopy(shipped)))
    before = listing(home)
    with pytest.raises(ClassroomError, match=says) as caught:
        submit("01", home, VERSION)
    assert one_sentence(caught.value)
    assert listing(home) == before


@pytest.mark.parametrize("which", [NAME, LOG])
@pytest.mark.parametrize("how", ["link", "dangling", "folder"])
def test_only_files_are_handed_in(home, mine, tmp_path, which, how):
    elsewhere = tmp_path / "elsewhere"
    shutil.copy(mine, elsewhere)
    (home / which).unlink(missing_ok=True)
    if how == "folder":
        (home / which).mkdir()
    else:
        (home / which).symlink_to(elsewhere if how == "link" else tmp_path / "nowhere")
    with pytest.raises(ClassroomError, match="not a file" if how == "folder" else "is a link") as caught:
        submit("01", home, VERSION)
    assert one_sentence(caught.value)
    assert not list(home.glob("*.zip"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("77", "no lesson '77'"),
        ("02", r"Lesson 02 \(The KV cache\) is not there yet"),
        ("01", f"no {NAME} in"),
    ],
)
def test_what_is_not_there(home, shipped, name, says):
    with pytest.raises(ClassroomError, match=says) as caught:
        submit(name, home, VERSION)
    assert one_sentence(caught.value)


def test_the_lessons_as_shipped_are_nobodys_work(shipped):
    with pytest.raises(ClassroomError, match="as shipped"):
        submit("01", course.notebooks_dir(), VERSION)


@pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")
@no_health_check
@given(book=spoilt())
def test_whatever_is_accepted_can_be_read_by_graders(mine, book: dict[str, Any]):
    mine.write_bytes(as_bytes(book))
    try:
        submit("01", mine.parent, VERSION)
    except ClassroomError as error:
        assert one_sentence(error)
    else:
        read = nbformat.reads(mine.read_text(encoding="utf-8"), as_version=4)
        names = [c.metadata.get("nbgrader", {}).get("grade_id") for c in read.cells]
        assert all(names.count(c["id"]) == 1 for c in lesson_book()["cells"] if c["id"] in GRADED)


def notes(home: Path) -> str:
    return "\n".join(submit("01", home, VERSION).notes)


def solve(path: Path, name: str, source: str) -> None:
    book = json.loads(path.read_bytes())
    at(book, f"01-{name}")["source"] = source
    path.write_bytes(as_bytes(book))


def test_unfinished_work_is_accepted_and_said(home, mine):
    assert "Still as handed out: 01.sample, 01.generate, 01.why." in notes(home)
    assert f"There is no {LOG}" in notes(home)
    solve(mine, "sample", "def sample(x):\n    return x")
    assert "Still as handed out: 01.generate, 01.why." in notes(home)
    assert "Never checked: 01.sample." in notes(home)

    log = Log(home / LOG)
    log.append("check", "01.sample", passed=True)
    log.append("check", "01.sample", passed=False)
    assert "The last check did not pass: 01.sample." in notes(home)
    log.append("check", "01.sample", passed=True)
    assert "check" not in notes(home)


@pytest.mark.parametrize(
    ("name", "source", "blank"),
    [
        ("sample", "def sample( x ):\n  raise NotImplementedError()  # later\n\n", True),
        ("sample", "", False),
        ("sample", "def sample(x): raise NotImplementedError('later')", False),
        ("sample", "def sample(x", False),
        ("why", "Write here.\n\n", True),
        ("why", "# Write here.", False),
    ],
)
def test_comments_and_spaces_are_no_answer(home, mine, name, source, blank):
    solve(mine, name, source)
    told = next(note for note in submit("01", home, VERSION).notes if note.startswith("Still"))
    assert (f"01.{name}" in told) is blank


def test_quiz_questions_left_open_are_said(home, mine, tmp_path, monkeypatch):
    choices = "[{id: a, text: A}, {id: b, text: B}]"
    bank = f"quiz: {SLUG}\nquestions:\n" + "".join(
        f"  - {{id: {name}, kind: single, mode: graded, text: T, choices: {choices}}}\n"
        for name in ("q", "r")
    )
    bank += "  - {id: p, kind: numeric, mode: practice, text: T, answer: 1, reason: R}\n"
    monkeypatch.setattr(course, "quizzes_dir", lambda: tmp_path)
    (tmp_path / f"{SLUG}.yaml").write_text(bank)
    assert "without an answer: q, r." in notes(home)
    Log(home / LOG).append("quiz", f"{SLUG}.q", answer="b")
    assert "without an answer: r." in notes(home)


def test_the_students_own_notebook_goes_not_the_newer_one(home, mine, shipped):
    (home / f"{SLUG}.new-3fa9c1d.ipynb").write_bytes(as_bytes(shipped | {"metadata": {"newer": True}}))
    done = submit("01", home, VERSION)
    assert contents(done.path)[NAME] == mine.read_bytes()
    assert set(contents(done.path)) == {"manifest.json", NAME}
    assert f"{SLUG}.new-3fa9c1d.ipynb" in "\n".join(done.notes)


def test_a_torn_log_is_handed_in_as_it_is(home, mine):
    (home / LOG).write_bytes(b'{"v": 1, "at"')
    done = submit("01", home, VERSION)
    assert contents(done.path)[LOG] == b'{"v": 1, "at"'
    assert f"1 line of {LOG}" in "\n".join(done.notes)


def test_the_first_lesson_can_be_handed_in_as_shipped(home):
    lesson = course.lesson("01")
    shutil.copy(lesson.notebook, home)
    done = submit("01", home, VERSION)
    assert contents(done.path)[NAME] == lesson.notebook.read_bytes()
    assert "Still as handed out: 01.sample, 01.generate, 01.count_work." in done.notes
