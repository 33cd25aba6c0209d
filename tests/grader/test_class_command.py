"""`lesson class …`, `lesson release` and `lesson grade` as an instructor types them."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader import build, fleet, late, marks
from lessonlib.cli import build_app
from lessonlib.course import CourseError

from .releases import as_bytes, code_points, notebook, solutions
from .test_fleet import SLUG, course, gradebook, hand_in, released  # noqa: F401 - fixtures
from .test_intake import submitted, zipped

app = build_app()[0]
FULL, HALF = f"{code_points('02'):g}", f"{code_points('02') / 2:g}"


@pytest.fixture
def say(course):  # noqa: F811
    """Run a command on the course: what it printed. Raises what the command line would show as one sentence."""

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--course", str(course)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


def tree(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def moodle(tmp_path: Path, **students: bytes) -> Path:
    members = {
        f"{name}_{n}_assignsubmission_file_/{SLUG}.submission-1.zip": data
        for n, (name, data) in enumerate(students.items(), 101)
    }
    return zipped(tmp_path / "moodle.zip", members)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def graded(course, say, tmp_path):  # noqa: F811
    """Two students from Moodle, one right and one blank; their results need no sandbox: they are given."""
    right = submitted(as_bytes(notebook("02", solutions("02"))).decode())
    say(
        "class",
        "collect",
        "02",
        str(moodle(tmp_path, Ada=right, Bob=submitted(as_bytes(notebook("02")).decode()))),
    )

    class Given(fleet.Fleet):
        def _submit(self, submission, job):
            raise AssertionError("nothing should run")

    lesson = fleet.lesson(course, SLUG)
    run = Given(course, lesson, lambda: None)
    for submission in fleet.submissions(course, SLUG):
        job = run._job(submission)
        for task in run.release.tasks:
            points = task.points if submission.student == "ada" else 0.0
            error = {"output_type": "error", "ename": "CheckFailed", "evalue": "no", "traceback": ["no"]}
            record = {
                "exercise": task.exercise,
                "cell": task.cell,
                "check": task.check,
                "mistake": None,
                "why": "",
            }
            record |= {"points": points, "out_of": task.points, "seconds": 0.1, "shown": []}
            record |= {"verdict": [] if points else [error]}
            run.store.put(job.keys[task.exercise], record)
    list(run.run(fleet.submissions(course, SLUG)))
    return course


def test_a_dry_run_writes_nothing(graded, say, tmp_path):
    (graded / ".grading" / "seeds" / SLUG).unlink()  # as before the first run
    before = tree(graded)
    place = str(moodle(tmp_path, Cyd=submitted("x")))
    for command in (
        ["release", "02"],
        ["class", "collect", "02", place],
        ["class", "due", "02", "2026-01-01"],
        ["class", "extend", "02", "ada"],
        ["class", "time", "ada", "2"],
        ["class", "feedback", "02", "--output", str(tmp_path / "f.zip")],
        ["class", "marks", "02", "--output", str(tmp_path / "m.csv")],
        ["class", "freeze", "02"],
        ["grade", "02"],
    ):
        say(*command, "--dry-run")
        assert tree(graded) == before, command
    assert not (tmp_path / "f.zip").exists() and not (tmp_path / "m.csv").exists()


def test_marks_in_every_form(graded, say, tmp_path):
    plain = rows(say("class", "marks", "02"))
    assert [(row["student"], row["final"]) for row in plain] == [("ada", FULL), ("bob", "0")]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(
        "\ufeffIdentifier,Full name,Grade,Feedback comments\nParticipant 101,Ada,,good\nParticipant 999,Other,3,\n",
        "utf-8",
    )
    told = say("class", "marks", "02", "--for", "moodle", "--worksheet", str(sheet))
    left_out = "Not in sheet.csv, so not in the table: bob.\n"
    assert left_out in told
    filled = rows(told.replace(left_out, ""))
    assert [(r["Identifier"], r["Grade"], r["Feedback comments"]) for r in filled] == [
        ("Participant 101", FULL, "good"),
        ("Participant 999", "3", ""),
    ]
    fresh = rows(say("class", "marks", "02", "--for", "moodle"))
    assert [tuple(row.values()) for row in fresh] == [
        ("Participant 101", "Ada", FULL, "-"),
        ("Participant 102", "Bob", "0", "-"),
    ]
    assert "Last modified (grade)" in fresh[0], "Moodle refuses a worksheet without this column"
    with pytest.raises(CourseError, match="None of these submissions came from Canvas"):
        say("class", "marks", "02", "--for", "canvas")
    sheet.write_text("Name,Points\n")
    with pytest.raises(CourseError, match="no column 'Identifier'"):
        say("class", "marks", "02", "--for", "moodle", "--worksheet", str(sheet))
    with pytest.raises(CourseError, match="--for takes csv, moodle, canvas"):
        say("class", "marks", "02", "--for", "blackboard")


def test_canvas_takes_the_marks(graded, say, course, tmp_path):  # noqa: F811
    """Its importer wants more than three columns: Student and ID first, Section last before the lessons."""
    origins = {
        student: {"platform": "canvas", "name": student, "id": number, "submission": "1"}
        for student, number in (("ada", "7"), ("bob", "anon_x1"))
    }
    (course / ".grading" / "roster" / f"{SLUG}.json").write_text(json.dumps(origins))
    fresh = rows(say("class", "marks", "02", "--for", "canvas"))
    assert list(fresh[0]) == ["Student", "ID", "Section", SLUG]
    assert [row[SLUG] for row in fresh] == [FULL, "0"]
    sheet = tmp_path / "grades.csv"
    sheet.write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,02 KV cache (991),Final Score\n"
        "    Points Possible,,,,,20,(read only)\n"
        '"Lovelace, Ada",7,s7,ada,One,,\n'
    )
    told = say("class", "marks", "02", "--for", "canvas", "--worksheet", str(sheet))
    assert (
        f'"Lovelace, Ada",7,s7,ada,One,{FULL},' in told and "    Points Possible,,,,,20,(read only)" in told
    )
    assert "not in the table: bob." in told, "Canvas hides who that is; its gradebook does not know the name"


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_a_name_is_never_a_formula(name):
    assert marks.plain(name) == f"'{name}" and marks.plain("Ada") == "Ada"


def test_feedback_goes_back_as_it_came(graded, say, tmp_path):
    output = tmp_path / "feedback.zip"
    say("class", "feedback", "02", "--for", "moodle", "--output", str(output))
    with zipfile.ZipFile(output) as archive:
        assert archive.namelist() == [
            f"Ada_101_assignsubmission_file_/{SLUG}-feedback.html",
            f"Bob_102_assignsubmission_file_/{SLUG}-feedback.html",
        ]
        assert b"HIDDEN TESTS" not in archive.read(archive.namelist()[0])


def test_late_work_costs_what_the_class_has_agreed(graded, say):
    """The policy stands in the class's own settings; an extension takes it away."""
    settings = "c.AssignLatePenalties.plugin_class = 'grader.late.PerDay'\nc.PerDay.share = 0.25\n"
    (graded / "nbgrader_config.py").write_text(f"{build.COURSE_SHIM}\nc = get_config()\n{settings}")
    assert [row["late penalty"] for row in rows(say("class", "marks", "02"))] == ["0", "0"]
    for student, hours in (("ada", 30), ("bob", 1)):
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        stamp = graded / "submitted" / student / SLUG / "timestamp.txt"
        stamp.write_text(when.strftime("%Y-%m-%d %H:%M:%S.%f UTC"))
    for _ in range(2):
        say("class", "due", "02", "2026-01-01T00:00+00:00")
    say("grade", "02")
    assert [row["final"] for row in rows(say("class", "marks", "02"))] == [HALF, "0"], "2 days begun"
    say("class", "extend", "02", "ada", "--hours", "40")
    say("grade", "02")
    assert [row["final"] for row in rows(say("class", "marks", "02"))] == [FULL, "0"]


@pytest.mark.parametrize(
    ("seconds", "lost"), [(14 * 60, None), (16 * 60, 1), (86_400, 1), (86_401, 2), (86_400 * 99, 10)]
)
def test_so_much_for_every_day_begun(seconds, lost):
    assert late.PerDay(share=0.1, grace_minutes=15).late_submission_penalty("ada", 10, seconds) == lost


def test_an_extension_is_given_once(graded, say):
    from nbgrader.api import Gradebook

    for hours in ("48", "48", "5"):
        say("class", "extend", "02", "ada", "--hours", hours)
    with Gradebook(f"sqlite:///{graded}/gradebook.db") as book:
        assert book.find_submission(SLUG, "ada").extension.total_seconds() == 5 * 3600


def test_more_time_is_one_students(graded, say):
    lesson = fleet.lesson(graded, SLUG)
    say("class", "time", "ada", "1.5")
    run = fleet.Fleet(graded, lesson, lambda: None)
    budgets = {s.student: run._job(s).budget for s in fleet.submissions(graded, SLUG)}
    assert budgets["ada"] == lesson.budget.times(1.5) and budgets["bob"] == lesson.budget
    say("class", "time", "ada", "1")
    assert fleet.time_factors(graded) == {}


def test_a_frozen_lesson_stays_as_it_is(graded, say, tmp_path):
    say("class", "freeze", "02")
    for command in (["grade", "02"], ["class", "collect", "02", str(moodle(tmp_path, Ada=submitted("x")))]):
        with pytest.raises(CourseError, match="was frozen on"):
            say(*command)
    say("class", "freeze", "02", "--thaw")
    say("class", "freeze", "02", "--thaw")
    assert "2 of 2 graded, 2 of them as before" in say("grade", "02")


def test_again_runs_exactly_that_exercise(graded):
    run = fleet.Fleet(graded, fleet.lesson(graded, SLUG), lambda: None, again=["02.visible"])
    assert [run._job(s).missing for s in fleet.submissions(graded, SLUG)] == [["02.visible"]] * 2


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["grade", "99"], "There is no lesson '99'"),
        (["grade", "02", "--again", "02.nothing"], "02.nothing is no exercise of"),
        (["grade", "02", "--student", "zoe"], "zoe did not hand in"),
        (["class", "due", "02", "soon"], "'soon' is no date"),
        (["class", "collect", "02", "/nowhere.zip"], "neither a folder nor a zip"),
    ],
)
def test_errors_are_one_sentence(graded, say, command, told):
    with pytest.raises(CourseError, match=told) as caught:
        say(*command)
    assert "\n" not in str(caught.value)


def test_release_twice_is_release_once(graded, say):
    before = gradebook(graded)
    say("release", "02")
    assert gradebook(graded) == before and (graded / "release" / SLUG / f"{SLUG}.ipynb").is_file()


@pytest.mark.parametrize("name", ["collect", "due", "extend", "time", "feedback", "marks", "freeze"])
def test_every_command_shows_an_example(name):
    assert "Example: lesson class" in CliRunner().invoke(app, ["class", name, "--help"]).output
