"""The quiz: answered, explained or only saved, and there again after a restart."""

from __future__ import annotations

import json

import pytest

from lessonlib.classroom import ClassroomError, quiz
from lessonlib.classroom.bank import load
from lessonlib.classroom.quiz import answered, form, printed
from lessonlib.classroom.store import log_for

BANK = load("01_generation")


@pytest.fixture
def log(home):
    return log_for("01_generation")


def click(widget, question, answer):
    widget._receive(widget, {"question": question, "answer": answer}, [])
    return widget.state[question]


def test_practice_explains_every_choice(log):
    state = click(form(BANK, log), "slower", "a")
    assert state["tone"] == "retry" and "Not yet" in state["message"] and state["answer"] == "a"
    assert {k: v["right"] for k, v in state["reasons"].items()} == {
        "a": False,
        "b": False,
        "c": False,
        "d": True,
    }
    assert all(len(v["html"]) > 20 for v in state["reasons"].values())
    assert click(form(BANK, log), "slower", "d")["tone"] == "good"


def test_a_known_wrong_number_is_recognised(log):
    state = click(form(BANK, log), "count-without", "115 tokens")
    assert "after its token was appended" in state["message"] and state["answer"] == "115"
    assert click(form(BANK, log), "count-without", "110")["tone"] == "good"


def test_graded_answers_are_only_saved(log):
    for question, answer in [
        ("twice-as-long", "b"),
        ("same-twice", ["a"]),
        ("k-then-p", "1"),
        ("least-work", list("abcd")),
    ]:
        state = click(form(BANK, log), question, answer)
        assert (
            state["message"] == "<p>Saved. You can change it until you submit.</p>"
            and state["tone"] == "info"
        )
        assert "reasons" not in state
    assert all("right" not in e.data for e in log.events("quiz"))


def test_answers_are_there_after_a_restart_and_the_last_one_counts(log):
    first = form(BANK, log)
    click(first, "twice-as-long", "b")
    click(first, "twice-as-long", "c")
    click(first, "nucleus", ["e", "a"])
    again = form(BANK, log_for("01"))
    assert again.state["twice-as-long"]["answer"] == "c" and again.state["nucleus"]["answer"] == ["a", "e"]
    assert again.spec == first.spec
    assert answered(log, BANK) == {"twice-as-long": "c", "nucleus": ["a", "e"]}


def test_two_notebooks_do_not_lose_each_others_answers(log):
    one, two = form(BANK, log), form(BANK, log)
    click(one, "slower", "d")
    click(two, "logits-shape", "a")
    assert {*answered(log, BANK)} == {"slower", "logits-shape"}


def test_a_damaged_log_is_told_and_the_rest_is_there(log):
    click(form(BANK, log), "slower", "d")
    with log.path.open("ab") as file:
        file.write(b'{"v": 1, "at\n')
    widget = form(BANK, log)
    assert widget.state["slower"]["answer"] == "d"
    assert "1 line of 01_generation.log.jsonl could not be read" in widget.spec["intro"]


def test_an_answer_that_no_longer_fits_is_left_out(log):
    log.append("quiz", "01_generation.slower", answer="z")
    log.append("quiz", "01_generation.gone", answer="a")
    assert answered(log, BANK) == {} and form(BANK, log).state == {}


def test_every_student_has_an_order_of_their_own(log, home):
    def orders(widget):
        return [[c["id"] for c in q["choices"]] for q in widget.spec["questions"]]

    mine = orders(form(BANK, log))
    assert mine == orders(form(BANK, log))
    log.path.unlink()
    assert mine != orders(form(BANK, log))
    fixed = BANK.questions.index(BANK.question("nucleus"))
    assert mine[fixed] == list("abcde")


def test_nonsense_is_answered_with_a_sentence_and_not_kept(log):
    state = click(form(BANK, log), "count-without", "<i>lots</i>")
    assert (
        state["tone"] == "retry" and "is not a number" in state["message"] and "<i>" not in state["message"]
    )
    assert answered(log, BANK) == {}


def test_nothing_graded_reaches_the_browser_or_the_paper(log):
    whole = json.dumps(form(BANK, log).spec) + printed(BANK).text()
    for word in ("correct", '"answer"', "6,225", "1,045"):
        assert word not in whole


def test_paper_is_the_same_for_everybody_and_complete(log):
    before = form(BANK, log)._repr_mimebundle_()[0]
    click(form(BANK, log), "slower", "d")
    log.path.unlink()
    after = form(BANK, log)._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in after
    for kind in ("text/plain", "text/html"):
        assert before[kind] == after[kind]
    for number, question in enumerate(BANK.questions, 1):
        assert f"Question {number} of {len(BANK.questions)}" in after["text/plain"]
        assert all(choice.text in after["text/plain"] for choice in question.choices)
    assert "<script" not in after["text/html"] and 'class="language-python"' in after["text/html"]


def test_without_widgets(shown, log):
    quiz(
        "01",
        {"slower": "b", "twice-as-long": "c", "one-step": [c.id for c in BANK.question("one-step").choices]},
    )
    text = shown()
    assert "**Not yet.**" in text and "- `d`, right: Step 1 runs" in text
    assert "twice-as-long: your answer\n    c\nSaved." in text
    assert {*answered(log, BANK)} == {"slower", "twice-as-long", "one-step"}
    quiz("01")
    assert "Question 1 of 13" in shown()


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: quiz("01", {"what": 1}), "has no question 'what'"),
        (lambda: quiz("01", {"slower": "q"}), "takes one of a, b, c, d"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ClassroomError) as failure:
        call()
    assert sentence in str(failure.value)
