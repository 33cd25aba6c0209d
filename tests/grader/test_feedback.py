"""Students' pages: what they say, what they never say, and that what a stranger wrote stays text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.api import Gradebook
from nbgrader.utils import find_all_files

from grader import desk, markup, writing
from grader.checks import Hidden
from grader.checks.lesson_02 import kv_bytes as hidden
from grader.exercises import define
from grader.grading import Graded, hidden_checks
from grader.guard import Task
from grader.keys import load_key
from grader.release import nbgrader_config
from lessonlib.classroom import cards, checking, feedback
from lessonlib.classroom.exercises import find
from lessonlib.classroom.quiz import ANSWER as ANSWERED
from lessonlib.classroom.store import Log

from ..engine.conftest import QUIET
from . import hostile_text
from .graded_class import ANSWER, BY_MACHINE, CELL, EXERCISE, OUT_OF, QUIZ, RIGHT, SLUG, WRONG, HandedIn, make

ODD = "02.find_bug is there <b>more</b> than once."
WARNED = [{"output_type": "stream", "name": "stderr", "text": "a warning & more\n"}]
ALLOWED = {*markup.TAGS, "h1", "h2", "h5", "h6", "s", "img", *markup._MATHML}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A graded class, its pages made: right, wrong, blank, stopped, and one that wrote everything it could."""
    folder = tmp_path_factory.mktemp("class")
    log = Log(folder / "answers.log.jsonl")
    for name, entry in load_key(SLUG).items():
        log.append(ANSWERED, f"{SLUG}.{name}", answer=entry.answer)
    answers = (folder / "answers.log.jsonl").read_bytes()
    course = make(
        folder,
        {
            "ada": HandedIn(RIGHT, hostile_text.ORDINARY, WARNED, answers),
            "ben": HandedIn(WRONG, "I found nothing.", notes=(ODD,)),
            "cleo": HandedIn(),
            "dan": HandedIn(RIGHT, why="its cell ran longer than 60 s"),
            "mallory": HandedIn(hostile_text.CODE + WRONG, hostile_text.ANSWER, hostile_text.OUTPUTS),
        },
    )
    desk.feedback(course, SLUG)
    return course


def attributes(tag):
    return [(name, str(value)) for name, value in tag.attrs.items()]


@pytest.fixture
def page(graded):
    """`page("ada")`: (the page's HTML, the words on it)."""

    def read(student):
        html = (graded / "feedback" / student / SLUG / f"{SLUG}.html").read_text(encoding="utf-8")
        soup = BeautifulSoup(html, "html.parser")
        for style in soup("style"):
            style.decompose()
        return html, " ".join(soup.get_text(" ").split())

    return read


def test_a_right_answer_is_told_so(page):
    _, words = page("ada")
    assert f"{BY_MACHINE} of {OUT_OF} points, and 1 part not marked yet" in words
    assert "Right on all" in words and "Took 1.25 s." in words
    assert "to stderr a warning & more" in words
    assert "Hints" not in words  # nothing is missing


def test_a_mistake_is_named_with_its_input_and_hints(page):
    _, words = page("ben")
    assert "This looks like: ignores the number of bits." in words and "With this input kv_bytes(" in words
    for hint in find(EXERCISE).hints:
        shown = BeautifulSoup(cards.markdown(hint), "html.parser").get_text(" ")
        assert " ".join(shown.split()) in words
    assert find(EXERCISE).analogue[:60] not in words
    assert ODD in words  # as it is, tags and all


def test_what_ended_it_is_told(page):
    assert "Ended early: its cell ran longer than 60 s." in page("dan")[1]


def test_a_blank_one(page):
    _, words = page("cleo")
    assert (
        f"0 of {OUT_OF} points" in words
        and "not started yet" in words
        and "About your submission" not in words
    )


def test_quiz_questions_come_with_the_answer_given(page):
    _, words = page("ada")
    assert f"Quiz: {QUIZ:g} of {QUIZ:g}" in words and "The price of a token" in words
    assert "attention-growth" in words and "1 of 1, your answer" in words


@pytest.mark.parametrize("student", ["ada", "ben", "cleo", "mallory"])
def test_no_hidden_test_is_on_a_page(page, student):
    html, words = page(student)
    for secret in ("HIDDEN TESTS", "grader.checks", "grader.keys", "hidden(kv_bytes)", "earned("):
        assert secret not in html and secret not in words


def by_hand(course, score, comment):
    """What a person writes in Formgrader about ada's answer, and the pages made again."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        grade = book.find_grade(ANSWER, SLUG, SLUG, "ada")
        grade.manual_score, grade.needs_manual_grade = score, score is None
        book.find_comment(ANSWER, SLUG, SLUG, "ada").manual_comment = comment
        book.db.commit()
    desk.feedback(course, SLUG)


def test_comments_and_marks_by_hand(graded, page):
    by_hand(graded, 4.5, "Well **seen** <script>alert(1)</script>")
    try:
        html, words = page("ada")
        assert (
            f"{float(BY_MACHINE) + 4.5:g} of {OUT_OF} points" in words
            and "not marked yet" not in words
            and "4.5 of 6" in words
        )
        assert "<strong>seen</strong> &lt;script&gt;" in html
    finally:
        by_hand(graded, None, None)  # the others see the class as it was


def test_a_page_asks_for_nothing_and_runs_nothing(page):
    html, _ = page("mallory")
    soup = BeautifulSoup(html, "html.parser")
    assert not soup(["script", "iframe", "object", "embed", "link", "base", "form", "svg", "video", "input"])
    for tag in soup(True):
        for name, value in attributes(tag):
            assert not name.startswith("on"), tag
            assert name not in ("href", "src") or value.startswith(
                ("#", "data:image/png", "data:image/jpeg")
            ), tag
    assert "script-src" not in html and "default-src 'none'" in html


def test_nbgrader_makes_the_same_page_without_a_word_of_warning(graded):
    page = graded / "feedback" / "ben" / SLUG / f"{SLUG}.html"
    before = page.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "generate_feedback", SLUG, "--force", "--student=ben"],
        cwd=graded,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "not recognized" not in done.stderr and "Alternative text" not in done.stderr
    assert page.read_text(encoding="utf-8") == before


# ---------------------------------------------------------------- inputs that stay secret


def card_of(code, secret):
    report = hidden_checks(EXERCISE).run(define(find(EXERCISE), code), seed=3)
    return feedback.card(report, hidden=True, secret=secret).text(), report


LEAKS = {
    "wrong": WRONG,
    "raises": "def kv_bytes(config, tokens, bits=16):\n    raise ValueError(config, tokens, bits)",
    "named": "def kv_bytes(*given, **named):\n    raise type(f'E{given}', (Exception,), {})()",
    "prints": "def kv_bytes(*given, **named):\n    print(given, named)\n    return 0",
    "returns": "def kv_bytes(*given, **named):\n    return str(given)",
    "changes": "def kv_bytes(config, tokens, bits=16):\n    config['seen'] = tokens\n    return 0",
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_secret_input_is_not_shown_nor_what_a_function_makes_of_it(name):
    told, report = card_of(LEAKS[name], secret=True)
    open_card, _ = card_of(LEAKS[name], secret=False)
    numbers = {*re.findall(r"\d\d\d+", report.exercise.call_text(report.failure.inputs))}
    assert numbers and any(number in open_card for number in numbers)
    assert "num_attention_heads" not in told and not any(number in told for number in numbers)
    assert "does not show it" in told
    assert report.name in (None, checking.RAISES) or f"like: {report.name}." in told
    assert "shows an input" not in feedback.headline(report, secret=True)


def test_an_exercise_says_whether_its_inputs_are_secret(capsys):
    secretly = Hidden(hidden.exercise, hidden.cases, secret=True)
    with pytest.raises(Exception, match="ignores the number of bits") as caught:
        secretly(define(find(EXERCISE), WRONG), seed=3)
    assert "shows an input" not in str(caught.value)
    assert "num_attention_heads" not in capsys.readouterr().out


def test_the_graded_notebook_keeps_a_secret(monkeypatch):
    _, report = card_of(WRONG, secret=True)
    graded = Graded(Task(EXERCISE, CELL, f"{CELL}-check", 2.0), report)
    assert "num_attention_heads" in str(writing.check_outputs(graded))
    monkeypatch.setattr(writing, "hidden_checks", lambda exercise: replace(hidden, secret=True))
    told = str(writing.check_outputs(graded))
    assert "num_attention_heads" not in told and "shows an input" not in told
    assert "ignores the number of bits" in told


# ---------------------------------------------------------------- Markdown, HTML, formulas, files


def test_ordinary_markdown_looks_as_it_should():
    html = markup.markdown(hostile_text.ORDINARY)
    for part in (
        "<strong>bold</strong>",
        "<em>slanted</em>",
        "<code>a &lt; b &amp; c</code>",
        "1 &lt; 2 &amp; 3",
        "<td>INT4</td>",
        'print("<b>")'.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;"),
        "<msup><mi>e</mi><mrow><mi>x</mi></mrow></msup>",
        "<mo>≤</mo>",
    ):
        assert part in html, part
    assert markup.markdown("It costs $5 and $6.") == "<p>It costs $5 and $6.</p>\n"


def harmless(html):
    for tag in BeautifulSoup(html, "html.parser")(True):
        assert tag.name in ALLOWED, tag
        for name, value in attributes(tag):
            assert name in {*markup._PLAIN, *markup._MATHML_LOOKS, "class", "style", "src", "alt", "start"}, (
                tag
            )
            assert name != "src" or value.startswith("data:image/"), tag
            assert name != "style" or re.fullmatch(
                r"(width: ?\d+px;?|text-align:(left|right|center))", value
            ), tag


PIECES = [
    *re.findall(r"<[^>]+>|\"|'|`+|\$+|\[[^\]]*\]\([^)]*\)|!\[|\n+", hostile_text.ANSWER),
    "\\text{", "}", "\\href{javascript:1}{", "\\frac{1}", "&lt;", "&#60;", "|", "|-|\n", "# ", "> ", "- ", "x", "\\",
    "<", ">",
]  # fmt: skip


@QUIET
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join))
def test_whatever_is_written_nothing_of_it_runs(text):
    harmless(markup.markdown(text))
    harmless(markup.clean(text))
    harmless(markup.maths(text))


def test_a_card_stays_a_card():
    card = cards.Card(
        "retry",
        "a <b>title</b>",
        [
            cards.Shares([("cat", 0.5, 0.75)], "caption"),
            cards.Code("your function printed", "<script>"),
            cards.Pair(("expected", "<1>"), ("yours", "2")),
            cards.Mistake("forgets one", "See `x`."),
            cards.Foot("small"),
        ],
    )
    kept = BeautifulSoup(markup.clean(card.html()), "html.parser")
    whole = BeautifulSoup(card.html(), "html.parser")
    assert kept.find("style") == whole.find("style")  # our own, whatever stood there
    for before, after in zip(whole(True), kept(True), strict=True):
        assert (before.name, before.get("class"), before.get_text()) == (
            after.name, after.get("class"), after.get_text(),
        )  # fmt: skip
    assert len(kept.select("[style]")) == 2


def test_a_forged_card_brings_no_style_of_its_own():
    forged = "<style>body { display: none }</style><section class='lesson-card modal'><p class='nbgrader_cell'>10 of 10"
    kept = markup.clean(forged)
    assert "display: none" not in kept and "modal" not in kept and "nbgrader_cell" not in kept


def test_a_formula_without_end_stays_text():
    assert markup.maths("x" * 10_000) == f"<code>{'x' * 10_000}</code>"
    assert markup.maths("{" * 4_000).startswith("<")


def test_files_that_a_browser_runs_are_not_copied(tmp_path):
    kept = {f"{SLUG}.log.jsonl", "timestamp.txt", "plot.png", "data.csv"}
    for name in kept | {"a.html", "b.HTM", "c.svg", "d.xhtml", "e.Xml", "f.js", "g.xht", "h.sHtml"}:
        (tmp_path / name).write_text("x")
    found = find_all_files(str(tmp_path), nbgrader_config().CourseDirectory.ignore)
    assert {os.path.basename(path) for path in found} == kept
