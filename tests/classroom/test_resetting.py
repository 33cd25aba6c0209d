"""`lesson reset`: the exercise is as shipped again, and everything else is still the student's."""

from __future__ import annotations

import copy
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import course
from lessonlib.classroom import files
from lessonlib.classroom.errors import ClassroomError
from lessonlib.classroom.resetting import reset_cell, reset_lesson
from lessonlib.classroom.submission import SubmissionError, submit

from .handout import (
    GRADED,
    NAME,
    SLUG,
    UNFIT,
    as_bytes,
    at,
    lesson_book,
    listing,
    no_health_check,
    one_sentence,
    refusing,
    ship,
    spoilt,
    worked_on,
)

IDS = [c["id"] for c in lesson_book()["cells"]]


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path / "notebooks", monkeypatch)


@pytest.fixture
def mine(home: Path) -> Path:
    """The student's notebook, untouched."""
    (home / NAME).write_bytes(as_bytes(lesson_book()))
    return home / NAME


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def test_one_cell_is_as_shipped_and_nothing_else_changes(home, mine):
    before = as_bytes(worked_on())
    mine.write_bytes(before)
    done = reset_cell("01.sample", home)
    assert (done.what, done.changed, done.copies) == ("01.sample", True, 0)
    assert done.backup == home / f"{SLUG}.before-reset-1.ipynb"
    assert done.backup.read_bytes() == before
    expected = worked_on()
    at(expected, "01-sample").update(at(lesson_book(), "01-sample"))
    assert read(mine) == expected


def test_backups_are_never_overwritten(home, mine):
    kept = []
    for n in range(3):
        book = worked_on()
        at(book, "01-sample")["source"] = f"attempt = {n}"
        mine.write_bytes(as_bytes(book))
        kept.append(mine.read_bytes())
        if n % 2:
            reset_lesson("01", home)
        else:
            reset_cell("01.sample", home)
    backups = [home / f"{SLUG}.before-reset-{n}.ipynb" for n in (1, 2, 3)]
    assert [path.read_bytes() for path in backups] == kept


def test_what_is_as_shipped_is_left_alone(home, mine):
    book = lesson_book()
    at(book, "01-sample").update(execution_count=3, source="".join(at(book, "01-sample")["source"]))
    mine.write_bytes(as_bytes(book))
    before = listing(home)
    done = reset_cell("01.sample", home)
    assert (done.changed, done.backup) == (False, None)
    mine.write_bytes(as_bytes(lesson_book()))
    assert not reset_lesson("01", home).changed
    assert listing(home) == before | {NAME: as_bytes(lesson_book())}


@no_health_check
@given(
    kept=st.sets(st.sampled_from(IDS)),
    copies=st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 20)), max_size=4),
    wanted=st.sampled_from(GRADED),
    minor=st.sampled_from([4, 5]),
    stripped=st.booleans(),
)
def test_any_notebook_gets_its_cell_back(kept, copies, wanted, minor, stripped):
    """Cells deleted, pasted anywhere, or robbed of their metadata: one reset, and only that cell differs."""
    book = lesson_book() | {"nbformat_minor": minor}
    book["cells"] = [c for c in book["cells"] if c["id"] in kept]
    for number, (name, place) in enumerate(copies):
        pasted = copy.deepcopy(next(c for c in lesson_book()["cells"] if c["id"] == name))
        book["cells"].insert(place, pasted | {"id": f"pasted-{number}"})
    for number, one in enumerate(book["cells"]):
        one["source"] = f"mine = {number}"
        if stripped and one["id"] == wanted:
            one["metadata"] = {}
        if minor < 5:
            del one["id"]
    before = as_bytes(book)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAME).write_bytes(before)
        done = reset_cell(wanted.replace("-", ".", 1), folder)
        after = read(folder / NAME)
        assert done.backup and done.backup.read_bytes() == before
        assert {path.name for path in folder.iterdir()} == {NAME, done.backup.name}

    named = [c for c in after["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == wanted]
    original = at(lesson_book(), wanted)
    assert len(named) == 1
    assert {**named[0], "id": 0} == {**original, "id": 0}
    nbformat.validate(nbformat.from_dict(after))
    assert len({c.get("id", n) for n, c in enumerate(after["cells"])}) == len(after["cells"])

    texts = [c["source"] for c in book["cells"]]
    left = [c["source"] for c in after["cells"] if c is not named[0]]
    assert left == [text for text in texts if text in left]  # same order
    assert len(texts) - len(left) in (0, 1)
    if all(c["metadata"].get("nbgrader", {}).get("grade_id") != wanted for c in book["cells"]) and not (
        stripped and minor == 5 and wanted in kept
    ):
        assert left == texts  # it was missing: nothing made room for it


@no_health_check
@given(book=spoilt())
def test_a_damaged_notebook_is_reset_or_said_to_be_damaged(book: dict[str, Any]):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAME).write_bytes(as_bytes(book))
        try:
            done = reset_cell("01.sample", folder)
        except ClassroomError as error:
            assert one_sentence(error)
            assert listing(folder) == {NAME: as_bytes(book)}
        else:
            assert (done.backup or done.notebook).read_bytes() == as_bytes(book)


def test_a_missing_cell_comes_back_to_its_place(home, mine):
    for grade_id in GRADED:
        book = lesson_book()
        book["cells"].remove(at(book, grade_id))
        mine.write_bytes(as_bytes(book))
        reset_cell(grade_id.replace("-", ".", 1), home)
        assert read(mine) == lesson_book()


def test_the_original_is_restored_and_the_copy_stays(home, mine):
    book = worked_on()
    pasted = copy.deepcopy(at(book, "01-sample")) | {"id": "pasted", "source": "another = 'try'"}
    pasted["metadata"]["editable"] = False
    book["cells"].insert(1, pasted)
    mine.write_bytes(as_bytes(book))
    assert reset_cell("01.sample", home).copies == 1
    after = read(mine)
    assert after["cells"][1] == pasted | {"metadata": {}}
    assert at(after, "01-sample") == at(lesson_book(), "01-sample")


def test_a_cell_that_lost_its_metadata_is_the_one_restored(home, mine):
    """Some editors drop what they do not know."""
    book = worked_on()
    at(book, "01-sample")["metadata"] = {}
    mine.write_bytes(as_bytes(book))
    reset_cell("01.sample", home)
    expected = worked_on()
    expected["cells"][3] = at(lesson_book(), "01-sample")
    assert read(mine) == expected


@pytest.mark.parametrize("lost", ["tags", "nbgrader"])
def test_changed_metadata_comes_back(home, mine, lost):
    lesson = lesson_book()
    at(lesson, "01-sample-check")["metadata"]["tags"] = ["raises-exception"]
    course.lesson("01").notebook.write_bytes(as_bytes(lesson))
    book = copy.deepcopy(lesson)
    if lost == "tags":
        at(book, "01-sample-check")["metadata"]["tags"] = []
    else:
        at(book, "01-sample-check")["metadata"]["nbgrader"]["points"] = 100
    mine.write_bytes(as_bytes(book))
    assert reset_cell("01.sample-check", home).changed
    assert read(mine) == lesson


def test_no_two_cells_get_one_id(home, mine):
    book = lesson_book()
    at(book, "01-sample")["metadata"]["nbgrader"]["grade_id"] = "01-mine"
    mine.write_bytes(as_bytes(book))
    reset_cell("01.sample", home)
    ids = [c["id"] for c in read(mine)["cells"]]
    assert len(ids) == len({*ids}) == len(IDS) + 1


@pytest.mark.parametrize(("reset", "name"), [(reset_cell, "01.sample"), (reset_lesson, "01")])
def test_nothing_is_reset_before_it_is_kept(home, mine, monkeypatch, reset, name):
    def refuse(*_: Any) -> Path:
        raise files.FileError("No room.")

    mine.write_bytes(as_bytes(worked_on()))
    monkeypatch.setattr(files, "create_numbered", refuse)
    with pytest.raises(ClassroomError, match="No room"):
        reset(name, home)
    assert mine.read_bytes() == as_bytes(worked_on())


@pytest.mark.parametrize("change", [change for change, says in UNFIT if "reset" in says])
def test_what_submit_says_about_a_missing_cell_works(home, mine, change):
    mine.write_bytes(change(mine, worked_on()))
    with pytest.raises(SubmissionError) as caught:
        submit("01", home, "1.2.3")
    reset_cell(str(caught.value).split("`")[1].removeprefix("lesson reset "), home)
    submit("01", home, "1.2.3")


def test_a_check_is_restored_without_touching_the_solution(home, mine):
    book = worked_on()
    at(book, "01-sample-check")["source"] = "pass"
    mine.write_bytes(as_bytes(book))
    reset_cell("01.sample-check", home)
    assert read(mine) == worked_on()


@no_health_check
@given(had=st.binary(max_size=200))
def test_a_whole_lesson_comes_back_whatever_was_there(had: bytes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAME).write_bytes(had)
        (folder / f"{SLUG}.log.jsonl").write_bytes(had)
        done = reset_lesson("01", folder)
        assert done.backup
        assert listing(folder) == {
            NAME: course.lesson("01").notebook.read_bytes(),
            done.backup.name: had,
            f"{SLUG}.log.jsonl": had,
        }


def test_a_notebook_too_large_to_hand_in_can_be_reset(home, mine):
    had = as_bytes(worked_on()) + b" " * files.LIMIT
    mine.write_bytes(had)
    done = reset_cell("01.sample", home)
    assert done.backup and done.backup.read_bytes() == had
    assert mine.stat().st_size < files.LIMIT
    mine.write_bytes(had)
    done = reset_lesson("01", home)
    assert done.backup and done.backup.read_bytes() == had


def test_a_deleted_lesson_comes_back(home, mine):
    mine.unlink()
    with pytest.raises(ClassroomError, match="--whole"):
        reset_cell("01.sample", home)
    done = reset_lesson("01", home)
    assert (done.changed, done.backup) == (True, None)
    assert mine.read_bytes() == as_bytes(lesson_book())


@pytest.mark.parametrize(
    ("name", "whole", "says"),
    [
        ("01", False, r"01\.sample, 01\.generate, 01\.why.*--whole"),
        ("01.smaple", False, r"no exercise 01\.smaple in lesson 01; it has 01\.sample, "),
        ("01.end", False, r"no exercise 01\.end"),
        ("01.sample", True, "leave out --whole"),
        ("77.x", False, "no lesson '77.x'"),
        ("02", True, "not there yet"),
    ],
)
def test_what_cannot_be_reset_is_one_sentence(home, mine, name, whole, says):
    before = listing(home)
    with pytest.raises(ClassroomError, match=says) as caught:
        reset_lesson(name, home) if whole else reset_cell(name, home)
    assert one_sentence(caught.value)
    assert listing(home) == before


def test_links_and_damage_are_not_written_over(home, mine, tmp_path):
    mine.write_bytes(b"{torn")
    with pytest.raises(ClassroomError, match=r"not JSON.*--whole"):
        reset_cell("01.sample", home)
    assert listing(home) == {NAME: b"{torn"}
    mine.rename(tmp_path / "elsewhere")
    mine.symlink_to(tmp_path / "elsewhere")
    for reset, name in ((reset_cell, "01.sample"), (reset_lesson, "01")):
        with pytest.raises(ClassroomError, match="is a link"):
            reset(name, home)
    assert mine.is_symlink()
    with pytest.raises(ClassroomError, match="as shipped"):
        reset_lesson("01", course.notebooks_dir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing(home, mine, monkeypatch, call):
    mine.write_bytes(as_bytes(worked_on()))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(errno.ENOSPC))
        with pytest.raises(ClassroomError, match="no space left"):
            reset_cell("01.sample", home)
    assert mine.read_bytes() == as_bytes(worked_on())
    assert not list(home.glob(".*"))
    assert {path.read_bytes() for path in home.iterdir()} == {as_bytes(worked_on())}


def test_a_save_in_between_is_not_lost(home, mine, monkeypatch):
    """JupyterLab saves while the backup is being written."""
    saved = as_bytes(worked_on() | {"metadata": {"saved": "just now"}})
    create = files.create_numbered

    def and_save(*arguments: Any) -> Path:
        mine.write_bytes(saved)
        return create(*arguments)

    mine.write_bytes(as_bytes(worked_on()))
    monkeypatch.setattr(files, "create_numbered", and_save)
    with pytest.raises(ClassroomError, match="try again"):
        reset_cell("01.sample", home)
    assert mine.read_bytes() == saved


def test_permissions_stay(home, mine):
    mine.write_bytes(as_bytes(worked_on()))
    mine.chmod(0o640)
    reset_cell("01.sample", home)
    assert mine.stat().st_mode & 0o777 == 0o640
