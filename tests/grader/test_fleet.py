"""A class is graded by many and written by one; whatever stops it, the gradebook is the same in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from grader import build, desk, fingerprint, fleet, guard, work
from grader.exercises import planted
from grader.grading import Budget
from grader.store import Store
from lessonlib.course import CourseError, notebooks_dir

from . import releases
from .releases import as_bytes, code_points, notebook, solutions

SLUG = "02_kv_cache"


def gradebook(course: Path) -> dict[str, dict[str, float | None]]:
    """Every cell's points, by student."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        return {
            submission.student.id: {grade.name: grade.auto_score for grade in submission.notebooks[0].grades}
            | {"needs": submission.needs_manual_grade, "late": submission.late_submission_penalty}
            for submission in book.assignment_submissions(SLUG)
        }


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A course folder with lesson 02 in its gradebook."""
    course = tmp_path_factory.mktemp("class")
    instructor, _ = build.compose(notebooks_dir() / f"{SLUG}.py", None, execute=False)
    folder = course / "source" / SLUG
    folder.mkdir(parents=True)
    (folder / f"{SLUG}.ipynb").write_bytes(as_bytes(instructor))
    desk.release(course, SLUG)
    return course


@pytest.fixture
def course(released: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "class"
    shutil.copytree(released, copy)
    return copy


def hand_in(course: Path, student: str, data: bytes | None, when: str = "") -> None:
    folder = course / "submitted" / student / SLUG
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        (folder / f"{SLUG}.ipynb").write_bytes(data)
    if when:
        (folder / "timestamp.txt").write_text(when)


def a_class(course: Path) -> dict[str, float]:
    """Six submissions, and what each is due."""
    right = solutions("02")
    wrong = next(attempt for attempt in planted("02.visible") if attempt.expect != "pass")
    hand_in(course, "ada", as_bytes(notebook("02", right)))
    hand_in(course, "bob", as_bytes(notebook("02")))
    hand_in(
        course,
        "cyd",
        as_bytes(notebook("02", {"02-visible": right["02-visible"], "02-kv_bytes": right["02-kv_bytes"]})),
    )
    hand_in(course, "dan", as_bytes(notebook("02", right | {"02-visible": wrong.source})))
    hand_in(course, "eve", b"{damaged")
    hand_in(course, "fay", as_bytes(notebook("02", right | {"02-visible": "import os\nos._exit(0)"})))
    each = {task.exercise: task.points for task in releases.released("02").tasks}
    full, visible = code_points("02"), each["02.visible"]
    some = visible + each["02.kv_bytes"]
    return {"ada": full, "bob": 0, "cyd": some, "dan": full - visible, "eve": 0, "fay": full - visible}


def points(course: Path) -> dict[str, float]:
    return {
        name: sum(cells[c] for c in cells if c.endswith("-check"))
        for name, cells in gradebook(course).items()
    }


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    """One worker for all tests of this file."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as found,
    ):
        yield found


def run(
    course: Path, client, budget: Budget | None = None, only: list[str] | None = None
) -> list[fleet.Event]:
    crew = fleet.Fleet(course, fleet.lesson(course, SLUG, budget), lambda: client)
    return list(crew.run(fleet.submissions(course, SLUG, only or ())))


@pytest.mark.needs("bwrap")
def test_a_class_is_graded_and_a_second_run_runs_nothing(course, client):
    due = a_class(course)
    events = run(course, client)
    assert {event.student: event.points for event in events} == due == points(course)
    assert {event.state for event in events} == {fleet.GRADED}
    first = gradebook(course)
    files = {p: p.read_bytes() for p in (course / "autograded").rglob("*.ipynb")}
    assert len(files) == len(due)

    def nobody():
        raise AssertionError("nothing has to run")

    again = fleet.Fleet(course, fleet.lesson(course, SLUG), nobody)
    events = list(again.run(fleet.submissions(course, SLUG)))
    assert {event.state for event in events} == {fleet.AGAIN} and gradebook(course) == first
    assert {p: p.read_bytes() for p in (course / "autograded").rglob("*.ipynb")} == files


@pytest.mark.needs("bwrap")
def test_equal_submissions_run_once_and_each_has_its_own_row(course, client, monkeypatch):
    data = as_bytes(notebook("02", {"02-kv_bytes": solutions("02")["02-kv_bytes"]}))
    for student in ("ada", "bob", "cyd"):
        hand_in(course, student, data)
    asked = []
    submit = fleet.Fleet._submit
    monkeypatch.setattr(fleet.Fleet, "_submit", lambda self, *args: asked.append(args) or submit(self, *args))
    run(course, client)
    assert len(asked) == 1 and points(course) == dict.fromkeys(("ada", "bob", "cyd"), 2)


def test_an_error_without_words_stops_nobody(course, client, monkeypatch):
    hand_in(course, "ada", as_bytes(notebook("02")))
    hand_in(course, "bob", as_bytes(notebook("02", {"02-visible": "x = 1"})))
    monkeypatch.setattr(fleet.apart, "run", _wordless)
    events = run(course, client)
    assert {(event.student, event.state, event.why) for event in events} == {
        ("ada", fleet.FAILED, "MemoryError"),
        ("bob", fleet.FAILED, "MemoryError"),
    }


def _wordless(*_: object) -> None:
    raise MemoryError


@pytest.mark.needs("bwrap")
def test_a_changed_probe_grades_its_exercise_again_and_no_other(course, client, monkeypatch):
    hand_in(course, "ada", as_bytes(notebook("02", solutions("02"))))
    run(course, client)
    probes_of = fingerprint.probes_of
    monkeypatch.setattr(
        fingerprint, "probes_of", lambda name: "changed" if name == "02.find_bug" else probes_of(name)
    )
    asked = []
    submit = fleet.Fleet._submit

    def watched(self, submission, job):
        asked.append(job.missing)
        return submit(self, submission, job)

    monkeypatch.setattr(fleet.Fleet, "_submit", watched)
    [event] = run(course, client)
    assert asked == [["02.find_bug"]] and event.points == code_points("02")


@pytest.mark.needs("bwrap")
def test_a_second_submission_replaces_the_first_and_manual_points_stay(course, client):
    from nbgrader.api import Gradebook

    hand_in(course, "ada", as_bytes(notebook("02")))
    run(course, client)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        grade = book.find_grade("02-visible-check", SLUG, SLUG, "ada")
        grade.manual_score = 1
        book.db.commit()
    hand_in(course, "ada", as_bytes(notebook("02", solutions("02"))))
    [event] = run(course, client)
    assert event.state == fleet.GRADED and points(course) == {"ada": code_points("02")}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        grade = book.find_grade("02-visible-check", SLUG, SLUG, "ada")
        assert (grade.manual_score, grade.auto_score, grade.needs_manual_grade) == (1, 2, True)


@pytest.mark.needs("bwrap")
def test_the_gradebook_says_what_nbgrader_itself_would_say(course, client, tmp_path):
    """The same class through `nbgrader autograde` with the course's configuration: equal rows, late ones too."""
    from nbgrader.api import Gradebook

    a_class(course)
    hand_in(course, "late", as_bytes(notebook("02")), "2030-01-02 00:00:00 UTC")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        book.update_or_create_assignment(SLUG, duedate="2030-01-01 00:00:00 UTC")
    other = tmp_path / "nbgrader"
    shutil.copytree(course, other)
    shutil.rmtree(other / "submitted" / "eve")  # nbgrader cannot open it at all
    (other / "nbgrader_config.py").write_text(build.COURSE_SHIM)
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "autograde", SLUG],
        cwd=other,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run(course, client)
    ours = gradebook(course)
    assert ours.pop("eve") and ours == gradebook(other)


def test_what_cannot_be_run_is_told_and_the_others_go_on(course, client, monkeypatch):
    """A worker that fails (no sandbox, no memory) costs one submission, which is tried again next time."""
    hand_in(course, "ada", as_bytes(notebook("02", solutions("02"))))
    hand_in(course, "bob", as_bytes(notebook("02")) + b" ")
    monkeypatch.setattr(fleet.Fleet, "_submit", lambda self, *_: self.client.submit(_fails, pure=False))
    events = {event.student: event for event in run(course, client)}
    assert events["ada"].state == fleet.FAILED and "no room for a sandbox" in events["ada"].why
    assert "ada" not in points(course)


def _fails():
    raise OSError("no room for a sandbox")


# ---------------------------------------------------------------- stopped at any moment


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("bwrap")
def test_killed_twenty_times_the_gradebook_is_the_same(course, tmp_path):
    due = a_class(course)
    calm = tmp_path / "calm"
    (course / ".grading" / "seeds").mkdir(parents=True, exist_ok=True)
    fleet.seed_of(course, SLUG)
    shutil.copytree(course, calm)
    command = [sys.executable, "-m", "lessonlib.cli", "grade", "02", "--workers", "1", "--course"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    began = time.monotonic()
    subprocess.run([*command, calm], env=env, check=True, capture_output=True, timeout=280)
    whole = time.monotonic() - began

    random, ends = Random(), []
    for _ in range(20):
        process = subprocess.Popen(
            [*command, course],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            ends.append(process.wait(whole * random.random()))  # it may have been done before
        except subprocess.TimeoutExpired:
            how = random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
            process.send_signal(how)
            process.wait(60)
    done = subprocess.run([*command, course], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert gradebook(course) == gradebook(calm) and points(course) == due
    ours, theirs = (
        {p.relative_to(c): p.read_bytes() for p in (c / "autograded").rglob("*") if p.is_file()}
        for c in (course, calm)
    )
    assert ours.keys() == theirs.keys()


# ---------------------------------------------------------------- what decides a result


def keys(**change):
    release = guard.Release(SLUG, change.pop("book", None) or _release().book)
    data = as_bytes(notebook("02", change.pop("sources", solutions("02"))))
    rebuilt = guard.rebuild(release, data)
    return fingerprint.keys(release, rebuilt, change.pop("seed", 1), change.pop("budget", Budget()))


def _release():
    return releases.released("02")


def test_equal_things_have_equal_keys_and_each_exercise_its_own():
    assert keys() == keys() and len({*keys().values()}) == 5


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"budget": Budget(cell=1)}, {"sources": {"02-visible": "x = 1"}}],
    ids=["seed", "limits", "source"],
)
def test_what_decides_a_result_changes_its_key(change):
    assert not {*keys().values()} & {*keys(**change).values()}


def test_points_are_part_of_a_result():
    book = json.loads(as_bytes(_release().book))
    for cell in book["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        if about.get("grade_id") == "02-visible-check":
            about["points"] = 7
    import nbformat

    before, after = keys(), keys(book=nbformat.from_dict(book))
    assert {name for name in before if before[name] != after[name]} == {"02.visible"}


def test_the_probes_of_an_exercise_are_its_own_files():
    """A change to one exercise's module changes its digest, and not those of its neighbours."""
    import lessonlib.classroom.checks.lesson_02.find_bug as module

    file = Path(module.__file__)
    names = [task.exercise for task in _release().tasks]
    before = {name: fingerprint.probes_of(name) for name in names}
    fingerprint.probes_of.cache_clear()
    read = Path.read_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" if self == file else read(self))
        after = {name: fingerprint.probes_of(name) for name in names}
    fingerprint.probes_of.cache_clear()
    assert {name for name in names if before[name] != after[name]} == {"02.find_bug"}


# ---------------------------------------------------------------- the store, and what is there


def test_a_record_is_kept_whole_or_not_at_all(tmp_path):
    store = Store(tmp_path)
    assert store.get("abc") is None
    store.put("abc", {"points": 1})
    store.put("abc", {"points": 2})  # says the same, by its key: the first stays
    assert store.get("abc") == {"points": 1}
    (tmp_path / "ab" / "abc.json").write_text('{"points": ')
    assert store.get("abc") is None
    (tmp_path / "ab" / "abc.json").write_text("[1]")
    assert store.get("abc") is None


def test_nobody_handed_in(course):
    with pytest.raises(CourseError, match="Nobody has handed in 02_kv_cache yet"):
        fleet.submissions(course, SLUG)
    hand_in(course, "ada", None)
    with pytest.raises(CourseError, match="bob did not hand in"):
        fleet.submissions(course, SLUG, ["bob"])
    [submission] = fleet.submissions(course, SLUG, ["ada"])
    assert submission.notebook() is None and submission.log() == b"" and submission.when() is None


def test_links_are_not_followed(course, tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_bytes(as_bytes(notebook("02", solutions("02"))))
    hand_in(course, "ada", None)
    (course / "submitted" / "ada" / SLUG / f"{SLUG}.ipynb").symlink_to(secret)
    (course / "submitted" / "bob").mkdir()
    (course / "submitted" / "bob" / SLUG).symlink_to(course / "submitted" / "ada" / SLUG)
    [submission] = fleet.submissions(course, SLUG)
    assert submission.student == "ada" and submission.notebook() is None


def test_a_lesson_travels(course):
    import pickle

    lesson = fleet.lesson(course, SLUG)
    there = pickle.loads(pickle.dumps(lesson))
    assert there == lesson and there.open().tasks[0].exercise == "02.visible"
    assert work.cache_folder().name == "grading"
