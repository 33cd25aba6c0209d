"""An instructor's bad day: things done in the wrong order, typing mistakes, a broken file, a lesson that changed."""

from __future__ import annotations

import errno
import json

import pytest
from typer.testing import CliRunner

from grader import build, desk, fleet, intake
from lessonlib.course import CourseError

from .test_class_command import FULL, app, graded, rows, say, tree  # noqa: F401 - fixtures
from .test_fleet import SLUG, course, gradebook, released  # noqa: F401 - fixtures


@pytest.fixture
def bare(course):  # noqa: F811
    """A lesson that was built and not yet released."""
    (course / "gradebook.db").unlink()
    return course


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    "command", [["due", "02", "2026-12-01"], ["extend", "02", "ada"], ["marks", "02"], ["feedback", "02"]]
)
def test_before_the_release_everything_says_so_and_makes_nothing(bare, say, command, dry):  # noqa: F811
    before = tree(bare)
    with pytest.raises(CourseError, match="not in the gradebook; put it there: lesson release 02"):
        say("class", *command, *dry)
    assert tree(bare) == before


def test_a_dry_release_makes_no_gradebook(bare, say):  # noqa: F811
    before = tree(bare)
    assert "would enter the gradebook" in say("release", "02", "--dry-run") and tree(bare) == before


def change(course, points=None, without=()):  # noqa: F811
    """The lesson, built anew."""
    path = course / "source" / SLUG / f"{SLUG}.ipynb"
    book = json.loads(path.read_text())
    names = [(cell["metadata"].get("nbgrader") or {}).get("grade_id") for cell in book["cells"]]
    book["cells"] = [cell for cell, name in zip(book["cells"], names, strict=True) if name not in without]
    for cell in book["cells"]:
        about = cell["metadata"].get("nbgrader") or {}
        if points and about.get("grade_id") == "02-visible-check":
            about["points"] = points
    path.write_text(json.dumps(book))


def test_new_points_count_when_they_are_released(graded, say):  # noqa: F811
    """Else there were more points than possible: those of one lesson out of another's."""
    before = tree(graded / "autograded"), gradebook(graded)
    change(graded, points=5)
    run = fleet.Fleet(graded, fleet.lesson(graded, SLUG), lambda: None)
    with pytest.raises(CourseError, match="built anew since it was released"):
        list(run.run(fleet.submissions(graded, SLUG)))
    assert (tree(graded / "autograded"), gradebook(graded)) == before
    total = float(rows(say("class", "marks", "02"))[0]["out of"])
    say("release", "02")
    assert float(rows(say("class", "marks", "02"))[0]["out of"]) > total


def test_other_cells_do_not_cost_what_was_handed_out(graded, say):  # noqa: F811
    before = tree(graded / "release"), gradebook(graded)
    change(graded, without=("02-visible", "02-visible-check"))
    with pytest.raises(CourseError, match=r"2 students have marks .*\(02-visible-check\); build it"):
        say("release", "02")
    assert (tree(graded / "release"), gradebook(graded)) == before and before[0]


@pytest.mark.parametrize(
    "command",
    [["release", "02"], ["class", "due", "02", "2026-12-01"], ["class", "extend", "02", "ada"]],
    ids=["release", "due", "extend"],
)
def test_what_a_mark_hangs_on_is_not_changed_in_a_frozen_lesson(graded, say, command):  # noqa: F811
    say("class", "freeze", "02")
    before = gradebook(graded)
    with pytest.raises(CourseError, match="was frozen on"):
        say(*command)
    assert gradebook(graded) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"ada": "much"}'])
def test_a_damaged_list_of_times_is_no_empty_one(graded, say, text):  # noqa: F811
    path = graded / ".grading" / "time.json"
    path.write_text(text)
    for command in (["grade", "02"], ["class", "time", "bob", "2"]):
        with pytest.raises(CourseError, match=r"time\.json is damaged .* say every student's time again"):
            say(*command)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("c.AssignLatePenalties.plugin_class = 'grader.late.PreDay'", "late policy .* cannot be used"),
        (
            "c.AssignLatePenalties.plugin_class = 'grader.late.PerDay'\nc.PerDay.share = 'ten'",
            "late policy .* cannot",
        ),
        (
            "c.AssignLatePenalties.plugin_class = 'grader.late.PerDay'\nc.PerDay.shere = 0.2",
            "late policy .*PerDay has no shere",
        ),
        ("c.AssignLatePenalties(", r"nbgrader_config\.py cannot be read"),
        ("import nothing_of_the_kind", r"nbgrader_config\.py cannot be read"),
    ],
)
def test_a_mistake_in_the_settings_is_told_before_anything_is_graded(graded, say, text, told):  # noqa: F811
    (graded / "nbgrader_config.py").write_text(f"{build.COURSE_SHIM}\nc = get_config()\n{text}\n")
    before = gradebook(graded)
    with pytest.raises(CourseError, match=told) as caught:
        say("grade", "02")
    assert "\n" not in str(caught.value) and gradebook(graded) == before


@pytest.mark.parametrize("command", [["grade", "02"], ["release", "02"], ["class", "marks", "02"]])
def test_a_gradebook_that_is_none(graded, say, command):  # noqa: F811
    (graded / "gradebook.db").write_text("this is no database")
    with pytest.raises(CourseError, match=r"cannot be used .*not a database") as caught:
        say(*command)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_a_sentence(graded, say, tmp_path, monkeypatch):  # noqa: F811
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "more" / "zoe").mkdir(parents=True)
    (tmp_path / "more" / "zoe" / f"{SLUG}.ipynb").write_text("{}")
    monkeypatch.setattr(intake, "keep", full)
    with pytest.raises(CourseError, match="No space left on device"):
        say("class", "collect", "02", str(tmp_path / "more"))


def test_nothing_found_is_no_success(graded, say, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match="No submission of 02_kv_cache was found"):
        say("class", "collect", "02", str(tmp_path / "empty"))


@pytest.mark.parametrize("command", [["extend", "02", "adda"], ["time", "adda", "2"]])
def test_a_mistyped_student_is_asked_about(graded, say, command):  # noqa: F811
    assert "is it ada?" in say("class", *command)
    right = [word.replace("adda", "ada") for word in command]
    assert "!" not in say("class", *right)


@pytest.mark.parametrize("command", [["extend", "02"], ["time"]])
@pytest.mark.parametrize("name", ["../ada", "a/b", "", ".."])
def test_what_can_be_no_folder_can_be_no_student(graded, say, command, name):  # noqa: F811
    before = gradebook(graded)
    with pytest.raises(CourseError, match="cannot be a student's name"):
        say("class", *command, name, *(["2"] if command == ["time"] else []))
    assert gradebook(graded) == before


def test_a_lesson_that_nobody_has_handed_out_is_not_frozen(course, say):  # noqa: F811
    instructor = course / "source" / "03_quantization" / "03_quantization.ipynb"
    instructor.parent.mkdir()
    instructor.write_bytes((course / "source" / SLUG / f"{SLUG}.ipynb").read_bytes())
    with pytest.raises(CourseError, match="03_quantization is not in the gradebook"):
        say("class", "freeze", "03")


def test_a_dry_run_counts_the_pages_that_there_will_be(graded, say):  # noqa: F811
    say("class", "extend", "02", "nobody")  # is in the gradebook from now on, without a submission
    told = say("class", "feedback", "02", "--dry-run")
    assert told.split()[0] == "2" == say("class", "feedback", "02").split()[1]


@pytest.mark.parametrize("hours", ["inf", "1e12"])
def test_an_extension_has_an_end(graded, hours):  # noqa: F811
    done = CliRunner().invoke(
        app, ["class", "extend", "02", "ada", "--hours", hours, "--course", str(graded)]
    )
    assert done.exit_code == 2


def test_a_date_of_another_age(graded, say):  # noqa: F811
    with pytest.raises(CourseError, match="in the year 1;"):
        say("class", "due", "02", "0001-01-01")


def test_a_worksheet_of_another_country(graded, say, tmp_path):  # noqa: F811
    sheet = tmp_path / "sheet.csv"
    sheet.write_bytes('\ufeffIdentifier;Full name;Grade\r\nParticipant 101;"Ada; Countess";\r\n'.encode())
    told = say("class", "marks", "02", "--for", "moodle", "--worksheet", str(sheet))
    assert f'Participant 101;"Ada; Countess";{FULL}\n' in told
    with pytest.raises(CourseError, match=r"nowhere\.csv cannot be read"):
        say("class", "marks", "02", "--for", "moodle", "--worksheet", str(tmp_path / "nowhere.csv"))


def test_a_question_mark_would_end_the_gradebooks_address(graded, tmp_path):  # noqa: F811
    graded.rename(tmp_path / "what?")
    with pytest.raises(CourseError, match="question mark"):
        CliRunner().invoke(
            app, ["class", "marks", "02", "--course", str(tmp_path / "what?")], catch_exceptions=False
        )


def test_nbgraders_own_reason_is_told(course, monkeypatch):  # noqa: F811
    """Its exception says only "see the traceback above"."""
    path = course / "source" / SLUG / f"{SLUG}.ipynb"
    path.write_text(path.read_text().replace('"02-visible-check"', '"02-kv_bytes-check"'))
    with pytest.raises(CourseError, match="Duplicate grade id") as caught:
        desk.release(course, SLUG)
    assert "traceback" not in str(caught.value)
