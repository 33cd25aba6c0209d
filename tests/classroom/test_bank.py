"""Question banks: what they may say, what they must not, and how answers are read."""

from __future__ import annotations

import pytest
import yaml

from lessonlib import course
from lessonlib.classroom.bank import BadAnswer, BankError, load, parse, read_number, tolerance

SINGLE = {
    "id": "one",
    "kind": "single",
    "mode": "practice",
    "text": "?",
    "choices": [
        {"id": "a", "text": "A", "correct": True, "reason": "yes"},
        {"id": "b", "text": "B", "reason": "no"},
    ],
}
GRADED = {
    "id": "two",
    "kind": "multiple",
    "mode": "graded",
    "text": "?",
    "choices": [{"id": i, "text": i.upper()} for i in "abc"],
}
NUMERIC = {
    "id": "three",
    "kind": "numeric",
    "mode": "practice",
    "text": "?",
    "answer": 200,
    "tolerance": ("2 %"),
    "unit": "tokens",
    "reason": "because",
}
ORDER = {
    "id": "four",
    "kind": "ordering",
    "mode": "practice",
    "text": "?",
    "reason": "because",
    "items": [{"id": i, "text": i} for i in "wxyz"],
}


def bank(*questions, **more):
    return parse(yaml.safe_dump({"quiz": "q", "questions": list(questions), **more}), "q")


def test_a_bank_reads():
    q = bank(SINGLE, GRADED, NUMERIC, ORDER, title="T", intro="I")
    assert (q.title, q.intro, [x.id for x in q.questions]) == ("T", "I", ["one", "two", "three", "four"])
    assert q.question("three").tolerance == 4 and q.question("four").choices[0].id == "w"


@pytest.mark.parametrize(
    "question, complaint",
    [
        ({**SINGLE, "kind": "essay"}, "kind must be one of"),
        ({**SINGLE, "mode": "secret"}, "mode must be one of"),
        ({**SINGLE, "colour": "red"}, "has no field colour"),
        ({k: v for k, v in SINGLE.items() if k != "text"}, "needs id, kind, mode, text"),
        ({**SINGLE, "choices": SINGLE["choices"][:1]}, "at least two"),
        ({**SINGLE, "choices": [SINGLE["choices"][0]] * 2}, "two choices with the same id"),
        (
            {**SINGLE, "choices": [{"id": "a", "text": "A", "reason": "x"}, SINGLE["choices"][1]]},
            ("one correct choice"),
        ),
        (
            {**SINGLE, "choices": [SINGLE["choices"][0], {"id": "b", "text": "B"}]},
            "a reason for every choice",
        ),
        ({**SINGLE, "choices": [{"id": True, "text": "A"}, {"id": "b", "text": "B"}]}, "needs a text as id"),
        ({**SINGLE, "mode": "graded"}, "correct, reason belongs in the grader's key"),
        ({**NUMERIC, "mode": "graded"}, "answer, reason, tolerance belongs in the grader's key"),
        ({**NUMERIC, "answer": "many"}, "needs a number as answer"),
        ({k: v for k, v in ORDER.items() if k != "reason"}, "needs a reason"),
        ("what", "question 'what'"),
    ],
)
def test_a_bad_question_is_named(question, complaint):
    with pytest.raises(BankError) as failure:
        bank(question)
    assert complaint in str(failure.value) and str(failure.value).startswith("q.yaml, question")


@pytest.mark.parametrize(
    "source", ["quiz: other\nquestions: [1]", "quiz: q", "- a\n- b", "quiz: [q", "quiz: q\nquestions: []"]
)
def test_a_bad_file_is_named(source):
    with pytest.raises(BankError, match=r"q\.yaml"):
        parse(source, "q")


def test_two_questions_need_two_ids():
    with pytest.raises(BankError, match="two questions with the same id"):
        bank(SINGLE, SINGLE)


def test_no_quiz_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "quizzes_dir", lambda: tmp_path)
    with pytest.raises(BankError, match="There is no quiz for 08_capstone yet"):
        load("08")


def test_right_answers():
    q = bank(SINGLE, {**SINGLE, "id": "m", "kind": "multiple"}, NUMERIC, ORDER)
    assert q.question("one").is_right("a") and not q.question("one").is_right("b")
    assert q.question("m").is_right(["a"]) and not q.question("m").is_right(["a", "b"])
    three = q.question("three")
    assert three.is_right(204.0) and three.is_right(196.0) and not three.is_right(204.1)
    assert q.question("four").is_right(list("wxyz")) and not q.question("four").is_right(list("wxzy"))


@pytest.mark.parametrize(
    "name, answer, kept",
    [
        ("one", "b", "b"),
        ("two", ["c", "a"], ["a", "c"]),
        ("two", [], []),
        ("three", "1,250 tokens", 1250.0),
        ("four", ["z", "y", "x", "w"], ["z", "y", "x", "w"]),
    ],
)
def test_answers_are_kept_in_one_form(name, answer, kept):
    assert bank(SINGLE, GRADED, NUMERIC, ORDER).question(name).read(answer) == kept


@pytest.mark.parametrize(
    "name, answer",
    [
        ("one", "d"),
        ("one", None),
        ("one", ["a"]),
        ("two", "a"),
        ("two", ["a", "a"]),
        ("two", ["q"]),
        ("two", None),
        ("two", [["a"]]),
        ("three", "many"),
        ("three", None),
        ("three", True),
        ("three", float("nan")),
        ("four", ["w"]),
        ("four", "wxyz"),
        ("one", {"a": 1}),
    ],
)
def test_impossible_answers_are_refused_in_one_sentence(name, answer):
    with pytest.raises(BadAnswer):
        bank(SINGLE, GRADED, NUMERIC, ORDER).question(name).read(answer)


@pytest.mark.parametrize(
    "text, number",
    [
        ("5050", 5050),
        ("5,050", 5050),
        ("5 050 tokens", 5050),
        ("1,234,567", 1234567),
        ("1.5e3", 1500),
        ("0.5", 0.5),
        (" .5 ", 0.5),
        ("1/4", 0.25),
        ("-3", -3),
        (7, 7),
        ("5_050", 5050),
        ("2 Tokens", 2),
    ],
)
def test_numbers_as_people_write_them(text, number):
    assert read_number(text, "tokens") == number


@pytest.mark.parametrize("text", ["1,5", "1/0", "", "ten", "1/2/3", "inf", "0x10", "1,23"])
def test_what_is_no_number(text):
    with pytest.raises(BadAnswer):
        read_number(text)


def test_tolerances():
    assert (tolerance(0.5, 9), tolerance("2 %", 200), tolerance("10%", -5)) == (0.5, 4.0, 0.5)


def test_the_printed_order_is_the_same_for_all_and_each_student_has_one():
    q = bank(SINGLE, GRADED, ORDER)
    two, four = q.question("two"), q.question("four")
    assert [c.id for c in two.arranged(None)] == ["a", "b", "c"]
    assert two.arranged(5) == two.arranged(5)
    assert len({tuple(c.id for c in two.arranged(seed)) for seed in range(40)}) == 6
    for seed in (None, *range(100)):
        assert [c.id for c in four.arranged(seed)] != list("wxyz")  # never given away


BANKS = [lesson.slug for lesson in course.LESSONS if lesson.quiz.is_file()]


@pytest.mark.parametrize("name", BANKS)
def test_the_courses_own_banks(name):
    q = load(name)
    for question in q.questions:
        assert question.practice or all(not c.correct and not c.reason for c in question.choices)
    right = [
        c.id for question in q.questions for c in question.choices if question.kind == "single" and c.correct
    ]
    assert len(right) < 3 or len({*right}) > 1, "the right choice must not always stand at the same place"


def test_the_quiz_of_lesson_01_has_what_it_needs():
    questions = load("01").questions
    practice = [q for q in questions if q.practice]
    assert len(practice) >= 6 and len(questions) - len(practice) >= 3
    assert {q.kind for q in questions} == {"single", "multiple", "numeric", "ordering"}
    assert len([q for q in questions if q.kind == "numeric" or "```" in q.text]) >= len(questions) // 2


def test_the_figures_of_lesson_01_are_right():
    from lessonlib.classroom.checks.lesson_01.count_work import right
    from lessonlib.classroom.checks.lesson_01.sample_mistakes import softmax

    q = load("01")
    assert q.question("count-without").answer == right(20, 5, False)
    assert q.question("temperature-2").is_right(softmax([1, 0])[0])
