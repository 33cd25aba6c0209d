"""`lesson lab` and the student's copy: newer lessons arrive, nothing of theirs is lost."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lessonlib.course import CourseError
from lessonlib.lab.delivery import deliver, student_folder, use_student_folder, work_digest

NAME = "01_generation.ipynb"


def notebook(*sources: str, **metadata: Any) -> bytes:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{n}",
            "source": source,
            "metadata": {},
            "outputs": [{"output_type": "stream", "name": "stdout", "text": f"out {n}\n"}],
            "execution_count": n,
        }
        for n, source in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()


def edited(data: bytes, text: str) -> bytes:
    book = json.loads(data)
    book["cells"][0]["source"] = text
    return json.dumps(book).encode()


def rerun(data: bytes, text: str) -> bytes:
    book = json.loads(data)
    book["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
    return json.dumps(book).encode()


def opened_and_saved(data: bytes) -> bytes:
    """What Jupyter does to a file in which the student changed nothing."""
    book = json.loads(data)
    book["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3 (this course)"}
    book["metadata"]["language_info"] = {"name": "python", "version": "3.13.0"}
    for cell in book["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        cell["execution_count"] = 41
        cell["metadata"]["execution"] = {"iopub.execute_input": "now"}
        for output in cell["outputs"]:
            output["text"] = output["text"].splitlines(keepends=True)
    return json.dumps(book, indent=1).encode()


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / NAME).write_bytes(notebook("version 1"))
    return folder


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return tmp_path / "my-lessons"


def statuses(student: Path, shipped: Path) -> list[str]:
    return [item.status for item in deliver(student, shipped)]


def beside(student: Path) -> list[Path]:
    return sorted(student.glob("*.new-*.ipynb"))


def test_first_time_everything_is_copied(student: Path, shipped: Path) -> None:
    assert statuses(student, shipped) == ["new"]
    assert (student / NAME).read_bytes() == notebook("version 1")
    assert statuses(student, shipped) == ["current"]


def test_an_untouched_copy_is_replaced(student: Path, shipped: Path) -> None:
    deliver(student, shipped)
    (student / NAME).write_bytes(opened_and_saved(notebook("version 1")))
    (shipped / NAME).write_bytes(notebook("version 2"))
    assert statuses(student, shipped) == ["updated"]
    assert (student / NAME).read_bytes() == notebook("version 2")
    assert beside(student) == []


@pytest.mark.parametrize("change", [edited, rerun])
def test_a_new_version_arrives_beside_the_students_work(student: Path, shipped: Path, change: Any) -> None:
    deliver(student, shipped)
    mine = change(notebook("version 1"), "mine")
    (student / NAME).write_bytes(mine)
    assert statuses(student, shipped) == ["kept"]

    (shipped / NAME).write_bytes(notebook("version 2"))
    (item,) = deliver(student, shipped)
    assert item.status == "beside"
    assert item.path.read_bytes() == notebook("version 2")
    assert (student / NAME).read_bytes() == mine

    item.path.unlink()  # read and thrown away: it is not forced on them again
    assert statuses(student, shipped) == ["kept"]
    assert beside(student) == []


def test_only_the_newest_untouched_copy_stays_beside(student: Path, shipped: Path) -> None:
    deliver(student, shipped)
    (student / NAME).write_bytes(edited(notebook("version 1"), "mine"))
    for version in ("version 2", "version 3"):
        (shipped / NAME).write_bytes(notebook(version))
        deliver(student, shipped)
    assert [file.read_bytes() for file in beside(student)] == [notebook("version 3")]

    notes = edited(notebook("version 3"), "notes")
    beside(student)[0].write_bytes(notes)
    (shipped / NAME).write_bytes(notebook("version 4"))
    deliver(student, shipped)
    assert sorted(file.read_bytes() for file in beside(student)) == sorted([notes, notebook("version 4")])


def test_a_damaged_memory_makes_it_careful(student: Path, shipped: Path) -> None:
    deliver(student, shipped)
    (student / ".lesson/shipped.json").write_text("{ torn")
    (shipped / NAME).write_bytes(notebook("version 2"))
    assert statuses(student, shipped) == ["beside"]
    assert (student / NAME).read_bytes() == notebook("version 1")


def test_a_file_that_is_no_notebook_any_more_is_the_students(student: Path, shipped: Path) -> None:
    deliver(student, shipped)
    (student / NAME).write_bytes(b'{"cells": [')
    (shipped / NAME).write_bytes(notebook("version 2"))
    assert statuses(student, shipped) == ["beside"]
    assert (student / NAME).read_bytes() == b'{"cells": ['


def test_no_half_written_file_is_left(student: Path, shipped: Path) -> None:
    deliver(student, shipped)
    assert {file.name for file in student.iterdir()} == {NAME, ".lesson"}
    assert [file.name for file in (student / ".lesson").iterdir()] == ["shipped.json"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda student, shipped: (shipped / NAME).unlink(), "no lessons"),
        (lambda student, shipped: student.write_text("a file"), "--dir"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(student: Path, shipped: Path, make: Any, says: str) -> None:
    make(student, shipped)
    with pytest.raises(CourseError, match=says) as caught:
        deliver(student, shipped)
    assert "\n" not in str(caught.value)


def test_the_shipped_lessons_are_not_a_workplace(shipped: Path) -> None:
    with pytest.raises(CourseError, match="--dir"):
        deliver(shipped, shipped)


def test_inside_ones_lessons_the_folder_is_this_one(
    student: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(student.parent)
    monkeypatch.setenv("LESSON_HOME", "")
    assert student_folder() == student
    assert use_student_folder() == student.parent  # nothing delivered yet
    deliver(student, shipped)
    monkeypatch.setenv("LESSON_HOME", "")
    assert use_student_folder() == student
    monkeypatch.setenv("LESSON_HOME", "")
    monkeypatch.chdir(student)
    assert student_folder() == student
    monkeypatch.setenv("LESSON_HOME", str(student / "other"))
    assert student_folder() == student / "other"
    assert student_folder(student) == student


def test_outputs_and_metadata_count_as_work() -> None:
    base = notebook("a")
    assert work_digest(base) == work_digest(opened_and_saved(base))
    changed = [edited(base, "b"), rerun(base, "c"), notebook("a", "b"), notebook("a", author="me"), b"other"]
    assert len({work_digest(data) for data in [base, *changed]}) == len(changed) + 1


class Years(RuleBasedStateMachine):
    """Any sequence of releases, edits, runs, mishaps and starts of the lab."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.shipped, self.student = self.root / "shipped", self.root / "my-lessons"
        self.shipped.mkdir()
        self.ours: set[str] = set()
        self.theirs: dict[Path, bytes] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def start(self) -> None:
        self.release("v0")

    @rule(text=st.sampled_from(["v0", "v1", "v2", "v3"]))
    def release(self, text: str) -> None:
        data = notebook(text)
        self.ours.add(work_digest(data))
        (self.shipped / NAME).write_bytes(data)

    def files(self) -> list[Path]:
        return sorted(self.student.glob("*.ipynb"))

    @precondition(lambda self: self.files())
    @rule(which=st.integers(0, 9), text=st.text("xy", max_size=2), how=st.sampled_from([edited, rerun]))
    def work(self, which: int, text: str, how: Any) -> None:
        files = self.files()
        file = files[which % len(files)]
        data = how(notebook("mine"), text) if which % 2 else how(notebook("v1"), text)
        file.write_bytes(data)
        self.theirs[file] = data

    @precondition(lambda self: self.files())
    @rule(which=st.integers(0, 9))
    def open_and_save(self, which: int) -> None:
        files = self.files()
        file = files[which % len(files)]
        if file not in self.theirs:
            file.write_bytes(
                opened_and_saved(notebook(json.loads(file.read_bytes())["cells"][0]["source"][0]))
            )

    @precondition(lambda self: self.files())
    @rule(which=st.integers(0, 9))
    def delete(self, which: int) -> None:
        files = self.files()
        self.theirs.pop(files[which % len(files)], None)
        files[which % len(files)].unlink()

    @rule()
    def forget(self) -> None:
        (self.student / ".lesson/shipped.json").unlink(missing_ok=True)

    @rule()
    def lab(self) -> None:
        newest = work_digest((self.shipped / NAME).read_bytes())
        (item,) = deliver(self.student, self.shipped)
        if item.status != "kept":
            assert work_digest(item.path.read_bytes()) == newest
        self.theirs = {file: data for file, data in self.theirs.items() if work_digest(data) not in self.ours}

    @invariant()
    def nothing_of_theirs_is_lost(self) -> None:
        for file, data in self.theirs.items():
            assert file.read_bytes() == data


TestYears = Years.TestCase
TestYears.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
