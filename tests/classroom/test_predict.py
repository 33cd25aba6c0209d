"""A prediction is locked once, compared gently, and never lost."""

from __future__ import annotations

import pytest

from lessonlib.classroom import ClassroomError, predict
from lessonlib.classroom.bank import BadAnswer
from lessonlib.classroom.predict import locked, predictions_made, verdict, written
from lessonlib.classroom.store import log_for

ID, QUESTION, CHOICES = "01.doubling", "How many **times**?", ["twice", "four <times>"]


def test_a_number_is_locked_and_compared(shown):
    predict(ID, QUESTION, unit="tokens", answer="5,050 tokens")
    assert "Locked: 5,050 tokens." in shown()
    predict.compare(ID, measured=5100, note="Because it *grows*.")
    text = shown()
    assert "you predicted: 5,050 tokens" in text and "measured:      5,100 tokens" in text
    assert "within 10 %" in text and "Because it *grows*." in text


def test_a_second_prediction_is_refused_kindly_and_kept_in_the_log(shown):
    predict(ID, answer=2)
    predict(ID, answer=4)
    assert "already locked: 2. A first guess is worth keeping" in shown()
    log = log_for(ID)
    assert locked(log, ID)["answer"] == 2 and predictions_made(log) == 1
    assert [e.data["answer"] for e in log.events("predict")] == [2, 4]


def test_running_the_cell_again_changes_nothing(shown):
    predict(ID, answer=2)
    predict(ID, answer=2)
    assert "already locked" not in shown() and len(log_for(ID).events("predict")) == 1


def test_choices_are_texts(shown):
    predict(ID, QUESTION, choices=CHOICES, answer="four <times>")
    predict.compare(ID, measured="twice")
    text = shown()
    assert "you predicted: four <times>" in text and "It came out differently. Why?" in text
    with pytest.raises(BadAnswer, match="none of the choices: 'twice', 'four <times>'"):
        predict("01.other", QUESTION, choices=CHOICES, answer="thrice")


def test_without_a_prediction_the_measurement_is_shown_all_the_same(shown):
    predict.compare(ID, measured=3.98, unit="times")
    text = shown()
    assert "measured:      3.98 times" in text and "nothing this time" in text and "try it next time" in text


def test_a_prediction_after_the_measurement_is_marked(shown):
    predict.compare(ID, measured=4)
    predict(ID, answer=4)
    assert [e.data["late"] for e in log_for(ID).events("predict")] == [True]


def test_without_widgets_the_question_is_printed(shown):
    predict(ID, QUESTION, choices=CHOICES)
    text = shown()
    assert QUESTION in text and "- twice" in text and "predict(\"01.doubling\", answer='twice')" in text


def test_a_damaged_log_does_not_hide_a_prediction(shown):
    predict(ID, answer=2)
    with log_for(ID).path.open("ab") as file:
        file.write(b'{"v": 1, "at": "20')
    predict(ID, answer=7)
    assert locked(log_for(ID), ID)["answer"] == 2


def test_an_unknown_lesson_is_one_sentence():
    with pytest.raises(ClassroomError, match="There is no lesson"):
        predict("55.x", answer=1)


def test_what_cannot_be_kept_is_said(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("LESSON_HOME", str(home / "file"))
    with pytest.raises(ClassroomError, match="could not be recorded"):
        predict(ID, answer=1)


@pytest.mark.parametrize(
    "value, text",
    [(5050, "5,050"), (2.0, "2"), (0.123456, "0.1235"), (12345.678, "12,345.7"), (True, "True"), ("a", "a")],
)
def test_written(value, text):
    assert written(value) == text and written(value, "s") == f"{text} s".replace("True s", "True").replace(
        "a s", "a"
    )


@pytest.mark.parametrize(
    "predicted, measured, part",
    [
        (4, 4, "Exactly"),
        (4, 4.2, "within 10 %"),
        (2, 8, "below the measurement by a factor of 4.0"),
        (80, 8, "above the measurement by a factor of 10.0"),
        (0, 8, "They differ"),
        ("a", "a", ("As you predicted")),
    ],
)
def test_verdict(predicted, measured, part):
    assert part in verdict(predicted, measured)


class TestForm:
    """What the widget shows and does, without a browser."""

    @pytest.fixture
    def asked(self):
        from lessonlib.classroom.predict import _Asked

        return _Asked(ID, QUESTION, tuple(CHOICES), "")

    def test_a_click_locks(self, asked):
        form = asked.form()
        assert form.state == {} and form.spec["questions"][0]["kind"] == "single"
        form._receive(form, {"question": ID, "answer": "1"}, [])
        assert form.state[ID]["closed"] and "Locked: four &lt;times&gt;" in form.state[ID]["message"]
        assert locked(log_for(ID), ID)["answer"] == "four <times>"
        again = asked.form()
        assert again.state[ID]["answer"] == "1" and again.state[ID]["closed"]
        again._receive(again, {"question": ID, "answer": "0"}, [])
        assert again.state[ID]["answer"] == "1"

    def test_nonsense_is_answered_with_a_sentence(self):
        from lessonlib.classroom.predict import _Asked

        form = _Asked(ID, QUESTION, (), "times").form()
        form._receive(form, {"question": ID, "answer": "<b>many</b>"}, [])
        assert form.state[ID]["tone"] == "retry" and "is not a number" in form.state[ID]["message"]
        assert "<b>" not in form.state[ID]["message"] and not log_for(ID).events()

    def test_strange_messages_are_ignored(self, asked):
        form = asked.form()
        for message in (None, 3, {}, {"question": "other", "answer": 1}, {"question": ["x"]}):
            form._receive(form, message, [])
        assert form.state == {}

    def test_without_a_kernel_the_same_page_for_everybody(self, asked):
        before = asked.form()._repr_mimebundle_()[0]
        asked.lock("twice")
        after = asked.form()._repr_mimebundle_()[0]
        assert "application/vnd.jupyter.widget-view+json" in after
        for kind in ("text/plain", "text/html"):
            assert before[kind] == after[kind] and "four" in after[kind]
