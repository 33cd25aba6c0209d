"""The class report: its figures by hand, its invariants, what it reads of a graded class, and what it never shows."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from grader import keys, report
from grader.report import Class, Item, Person, Work
from grader.report_page import page
from grader.report_reading import read
from grader.report_tables import tables, written
from grader.similarity import Pair
from lessonlib.classroom import bank
from lessonlib.classroom.checking import NOT_STARTED
from lessonlib.classroom.store import Event
from lessonlib.cli import build_app
from lessonlib.course import CourseError

from . import hostile_text
from .graded_class import CELL, EXERCISE, OUT_OF, QUIZ, RIGHT, SLUG, WRONG, HandedIn, make
from .releases import as_bytes, notebook

ONE, TWO = Item("02.one", "First", 4), Item("02.two", "Second", 2)
BANK = bank.load(SLUG)
KEY = keys.load_key(SLUG)


def person(name: str, one: float, two: float, quiz: float = 0, **more) -> Person:
    works = {
        "02.one": Work(one, None if one == 4 else "off by one", attempts=int(one) + 1),
        "02.two": Work(two, None if two == 2 else NOT_STARTED, blank=two == 0, hints=int(two == 0)),
    }
    return Person(name, works, quiz, **more)


CLASS = Class(
    SLUG,
    "The KV cache",
    (ONE, TWO),
    (
        person("ada", 4, 2, 7),
        person("ben", 4, 2, 5, penalty=1.5),
        person("cyd", 2, 2, 5),
        person("dan", 1, 0, 3, open=2),
        person("eve", 0, 0, 1),
        Person("fay", {}, flags=((report.UNREADABLE, "It is not JSON."),)),
        Person("gus", {}, flags=((report.UNGRADED, "It is not graded yet."),)),
    ),
    13,
    BANK.questions,
    KEY,
)


def test_figures_of_exercises_by_hand():
    one, two = report.items(CLASS)
    assert (one.n, one.full, one.blank, one.began, one.attempts, one.most_attempts) == (5, 2, 0, 5, 3, 5)
    assert one.difficulty == pytest.approx((1 + 1 + 0.5 + 0.25 + 0) / 5)
    rest = [9, 7, 7, 3, 1]  # what the others of the lesson gave: two + quiz
    assert one.discrimination == pytest.approx(np.corrcoef([4, 4, 2, 1, 0], rest)[0, 1])
    assert (two.blank, two.began, two.hinted, two.hints, two.difficulty) == (2, 3, 2, 2, 0.6)


def test_totals_late_penalties_and_their_spread():
    assert [p.total for p in CLASS.readable] == [13, 9.5, 9, 4, 1]
    found = report.spread([p.total for p in CLASS.readable])
    assert (found.n, found.low, found.high) == (5, 1, 13)
    assert found.quartiles == tuple(np.percentile([13, 9.5, 9, 4, 1], [25, 50, 75]))
    assert found.deviation == pytest.approx(np.std([13, 9.5, 9, 4, 1], ddof=1))
    assert report.histogram([13, 9.5, 9, 4, 1], 13) == [
        *((0, 2, 1), (2, 4, 0), (4, 6, 1), (6, 8, 0), (8, 10, 2), (10, 12, 0), (12, 13, 1))
    ]
    assert report.histogram([0, 2.5, 3], 2.5) == [(0, 1, 1), (1, 2, 0), (2, 2.5, 2)]


def test_misconceptions_by_exercise_the_most_frequent_first():
    found = report.mistakes(CLASS)
    assert [(m.exercise, m.name, list(m.students)) for m in found] == [
        ("02.one", "off by one", ["cyd", "dan", "eve"]),
        ("02.two", NOT_STARTED, ["dan", "eve"]),
    ]
    heat = report.heatmap(found, ["02.one", "02.two"])
    assert heat.names == ["off by one", NOT_STARTED] and heat.counts == [[3, None], [None, 2]]


def test_few_students_have_no_discrimination():
    few = replace(CLASS, people=CLASS.people[:4])
    assert all(item.discrimination is None for item in report.items(few))


def test_questions_say_which_wrong_answer_how_often():
    by_id = {question.id: question for question in BANK.questions}
    single = next(q for q in BANK.questions if q.kind == "single" and not q.practice)
    wrong = next(w for w in KEY[single.id].wrong)
    number = next(q for q in BANK.questions if q.kind == "numeric" and not q.practice)
    given_ = [KEY[single.id].answer] * 3 + [wrong.answer] * 2
    people = [
        replace(p, answers={single.id: answer, number.id: float(KEY[number.id].wrong[0].answer)})
        for p, answer in zip(CLASS.readable, given_, strict=True)
    ]
    found = {q.question.id: q for q in report.questions(replace(CLASS, people=people))}
    assert {*found} == {*by_id}
    told = found[single.id]
    assert (told.n, told.asked, told.right) == (5, 5, 3)
    assert {r.answer: (r.count, r.right, r.mistake) for r in told.rows}[wrong.answer] == (
        *(2, False, wrong.mistake),
    )
    [row] = found[number.id].rows
    assert (row.count, row.right, row.mistake) == (5, False, KEY[number.id].wrong[0].mistake)
    assert all(q.n == 0 for name, q in found.items() if name not in (single.id, number.id))


SHARES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 7), st.sampled_from([0, 1.5])), max_size=12
)


@settings(max_examples=80, deadline=None)
@given(SHARES)
def test_whatever_a_class_did_the_figures_add_up(rows):
    people = [person(f"s{n:02}", *row[:3], penalty=row[3]) for n, row in enumerate(rows)]
    of = replace(CLASS, people=people)
    for item in report.items(of):
        assert item.began + item.blank == item.n == len(people)
        assert item.difficulty is None or 0 <= item.difficulty <= 1
        assert item.discrimination is None or -1.0000001 <= item.discrimination <= 1.0000001
    failed = sum(work.mistake is not None for p in people for work in p.works.values())
    heat = report.heatmap(report.mistakes(of), ["02.one", "02.two"])
    assert sum(count or 0 for row in heat.counts for count in row) == failed
    assert sum(count for *_, count in report.histogram([p.total for p in people], 13)) == len(people)
    scores = tables(of, [])["scores.csv"]
    shown = [row.get_text("|") for row in BeautifulSoup(page(of, []), "html.parser").select("#students tr")]
    assert len(scores) == len(shown) == 1 + len(people)
    for row, text, p in zip(scores[1:], shown[1:], people, strict=True):
        assert row[0] == p.name and row[6] == p.total, "the table says what the class did"
        assert text.startswith(f"{p.name}|") and f"|{round(p.total, 2):g}" in text, (
            "and the page says the same"
        )


EVIL = f"=cmd|'/c calc'!A0<img src=x onerror='{hostile_text.FLAG}'>"


def hostile() -> tuple[Class, list[Pair]]:
    works = {
        "02.one": Work(0, f"off <script>{hostile_text.FLAG}</script>", source=hostile_text.CODE),
        "02.two": Work(0, "‮gnp.exe", source="</pre><script>"),
    }
    people = [Person(EVIL + str(n), works, 0, flags=((report.LOG, EVIL),)) for n in range(2)]
    return replace(CLASS, people=people, title="<b>KV</b>"), [
        Pair("02.one", EVIL + "0", EVIL + "1", 0.9, (50, 60))
    ]


def test_a_strangers_text_stays_text():
    soup = BeautifulSoup(page(*hostile()), "html.parser")
    assert not soup.find_all(["script", "img", "iframe", "object", "link", "base", "form", "svg"])
    loads = {name for tag in soup.find_all(True) for name in tag.attrs} - {
        *("class", "id", "scope", "tabindex", "role", "aria-label", "aria-hidden", "style", "href", "lang"),
        *("charset", "http-equiv", "content", "name"),
    }
    assert not loads, "no attribute that runs or loads"
    assert {tag["href"][0] for tag in soup.find_all(href=True)} == {"#"}
    assert "default-src 'none'" in soup.find("meta", {"http-equiv": True})["content"]
    assert EVIL in soup.get_text() and "‮" not in soup.get_text() and "\\u202e" in soup.get_text()


def test_no_cell_of_a_table_is_a_formula():
    for data in (data for name, data in written(*hostile()).items() if name.endswith(".csv")):
        for row in csv.reader(io.StringIO(data.decode())):
            assert not [cell for cell in row if cell.startswith(("=", "+", "@", "\t", "\r"))]


# ---------------------------------------------------------------- a graded class


def on_the_way() -> bytes:
    events = [
        Event("check", EXERCISE, {"passed": False, "name": "ignores the number of bits", "trials": 3}),
        Event("check", EXERCISE, {"passed": False, "name": "<b>made up</b>", "trials": 1}),
        Event("hint", EXERCISE, {"step": 1}),
        Event("check", EXERCISE, {"passed": True, "name": None, "trials": 9}),
        Event("quiz", f"{SLUG}.purpose", {"answer": "a"}),
        Event("quiz", f"{SLUG}.purpose", {"answer": "d"}),
        *(Event("quiz", f"{SLUG}.{name}", {"answer": entry.answer}) for name, entry in KEY.items()),
    ]
    return b"".join(event.line() for event in events)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    students = {
        "ada": HandedIn(RIGHT, log=on_the_way()),
        "ben": HandedIn(WRONG, "I found nothing."),
        "cleo": HandedIn(),
        "dan": HandedIn(RIGHT, why="its cell ran longer than 60 s"),
    }
    course = make(tmp_path_factory.mktemp("class"), students)
    for student, what in students.items():
        place = course / "submitted" / student / SLUG
        place.mkdir(parents=True)
        made = json.loads((course / "release" / SLUG / f"{SLUG}.ipynb").read_text())
        for cell in made["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("grade_id") == CELL and what.code:
                cell["source"] = what.code
        (place / f"{SLUG}.ipynb").write_text(json.dumps(made))
        if what.log:
            (place / f"{SLUG}.log.jsonl").write_bytes(what.log)
    late = course / "submitted" / "eve" / SLUG
    late.mkdir(parents=True)
    (late / f"{SLUG}.ipynb").write_bytes(as_bytes(notebook("02")))
    return course


def say(course, *arguments: str) -> str:
    done = CliRunner().invoke(
        build_app()[0], ["report", "02", "--course", str(course), *arguments], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_what_a_graded_class_did_is_read(graded):
    of, _ = read(graded, SLUG)
    by_name = {p.name: p for p in of.people}
    ada, ben = by_name["ada"], by_name["ben"]
    assert (ada.works[EXERCISE].points, ada.quiz, ada.works[EXERCISE].mistake) == (2, QUIZ, None)
    assert ada.works[EXERCISE].attempts == 3 and ada.works[EXERCISE].hints == 1
    assert ada.works[EXERCISE].met == {"ignores the number of bits", report.UNNAMED}, (
        "a log may say anything; what the exercise does not know is not believed"
    )
    assert ada.answers["purpose"] == "a", "of practice the first"
    assert ben.works[EXERCISE].mistake == "ignores the number of bits" and ben.open == 1
    assert by_name["cleo"].works[EXERCISE].blank
    assert by_name["dan"].has(report.LIMITS) and by_name["eve"].has(report.UNGRADED)
    assert f"{of.out_of:g}" == OUT_OF and len(of.graded) == 4


def test_the_command_writes_a_page_and_tables_and_twice_the_same(graded, tmp_path):
    told = say(graded, "--output", str(tmp_path / "r"))
    assert "4 of 5 submissions" in told
    first = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert {*first} == {
        *("report.html", "scores.csv", "exercises.csv", "misconceptions.csv", "quiz.csv", "pairs.csv")
    }
    say(graded, "--output", str(tmp_path / "r"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == first
    rows = [*csv.DictReader(io.StringIO(first["misconceptions.csv"].decode()))]
    assert ("ignores the number of bits", "ben") in [(row["name"], row["students"]) for row in rows]


def test_a_dry_run_writes_nothing(graded):
    before = set(graded.rglob("*"))
    assert "5 submissions" in say(graded, "--dry-run")
    assert set(graded.rglob("*")) == before


def test_without_names_nobody_is_named(graded, tmp_path):
    say(graded, "--anonymous", "--output", str(tmp_path))
    everything = "".join(path.read_text() for path in tmp_path.iterdir())
    for name in ("ada", "ben", "cleo", "dan", "eve"):
        assert f"{name}|" not in BeautifulSoup(everything, "html.parser").get_text("|")
    assert "student 1" in everything and "student 5" in everything


def test_nothing_graded_is_said_in_a_sentence(graded, tmp_path):
    with pytest.raises(CourseError, match="There is no lesson '03'"):
        CliRunner().invoke(build_app()[0], ["report", "03", "--course", str(graded)], catch_exceptions=False)
    with pytest.raises(CourseError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        say(graded, "--output", str(tmp_path / "file" / "r"))
