"""Progress is read from the logs and from nowhere else."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from lessonlib import course
from lessonlib.classroom import CheckFailed, check, hint, predict, progress, quiz
from lessonlib.classroom.progress import (
    Standing,
    card,
    minutes_spent,
    render_terminal,
    standing,
    standings,
    together,
)
from lessonlib.classroom.store import Event, log_for

from .test_feedback import count_work, wrong_count


@pytest.fixture(autouse=True)
def two_lessons(tmp_path, monkeypatch):
    """A course whose first two lessons are available."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for lesson in course.LESSONS[:2]:
        (folder / f"{lesson.slug}.ipynb").touch()
    monkeypatch.setattr(course, "notebooks_dir", lambda: folder)


@pytest.fixture
def worked(shown):
    with pytest.raises(CheckFailed):
        check("01.count_work", wrong_count)
    check("01.count_work", count_work)
    hint("01.sample")
    predict("01.doubling", answer=4)
    quiz("01", {"slower": "a", "twice-as-long": "c"})
    shown()


def test_a_fresh_student(shown):
    progress()
    text = shown()
    assert "00 Start here" in text and "0/3" in text and "02 The KV cache" in text and "coming" in text
    assert [s.minutes for s in standings()] == [0] * 9


def test_everything_is_counted(worked):
    one = standing(course.lesson("01"))
    assert (one.checks, one.checks_total, one.answers, one.answers_total) == (1, 3, 2, 13)
    assert (one.predictions, one.hints, one.minutes) == (1, 1, 1)
    assert one.share == pytest.approx(3 / 16)


def test_the_whole_course_is_one_row_more(worked):
    log_for("00").append("note", "x")
    rows = standings()
    whole = together(rows)
    assert (whole.checks, whole.checks_total, whole.answers, whole.answers_total) == (1, 3, 2, 16)
    assert (whole.minutes, whole.share) == (2, pytest.approx(3 / 19)) and not whole.number
    last = card(rows).text().splitlines()[-1]
    assert last.startswith("All together") and "██░░░░░░░░  16%" in last and last.endswith("2 min")
    assert "<th scope='row'>All together</th>" in card(rows).html()
    out = io.StringIO()
    render_terminal(Console(file=out, width=120))
    assert out.getvalue().splitlines()[-1].startswith("All together") and "2/16" in out.getvalue()


def test_long_times_are_told_in_hours():
    row = Standing("01", "x", available=True, minutes=150)
    assert card([row]).text().splitlines()[-1].endswith("2.5 h")


def test_a_pass_is_not_lost_by_a_later_failure(worked):
    with pytest.raises(CheckFailed):
        check("01.count_work", wrong_count)
    assert standing(course.lesson("01")).checks == 1


def test_the_card_has_a_table_for_everybody(worked):
    shown = card(standings())
    assert "<th scope='row'>01 One token at a time</th>" in shown.html() and "1/3" in shown.html()
    assert "1/3" in shown.text() and "██░" in shown.text()


def test_the_terminal_shows_the_same(worked):
    out = io.StringIO()
    render_terminal(Console(file=out, width=120))
    assert "01 One token at a time" in out.getvalue() and "1/3" in out.getvalue() and "2/13" in out.getvalue()


def test_damage_is_told(worked):
    with log_for("01").path.open("ab") as file:
        file.write(b"{torn")
    assert "1 line of 01_generation.log.jsonl" in card(standings()).text()
    out = io.StringIO()
    render_terminal(Console(file=out, width=200))
    assert "1 line of 01_generation.log.jsonl" in out.getvalue()


def test_breaks_are_not_counted_as_work():
    start = datetime(2026, 1, 31, 9, tzinfo=UTC)
    events = [Event("check", "01.sample", {}, start + timedelta(minutes=m)) for m in (0, 4, 8, 95, 100)]
    assert minutes_spent(events) == 13 and minutes_spent(events[:1]) == 1 and minutes_spent([]) == 0
