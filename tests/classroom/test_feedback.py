"""Cards: kind, complete, escaped, and the same every time."""

from __future__ import annotations

import pytest
import torch

from lessonlib.classroom import CheckFailed, ClassroomError, check, feedback
from lessonlib.classroom.cards import Card, Code, Mistake, Pair, Prose, Shares, markdown
from lessonlib.classroom.checking import run
from lessonlib.classroom.exercises import find
from lessonlib.classroom.store import log_for

NASTY = "<script>alert('x')</script> & \"quotes\""


def count_work(prompt, new, use_cache):
    return prompt + new - 1 if use_cache else sum(prompt + i for i in range(new))


def wrong_count(prompt, new, use_cache):
    print(NASTY)
    return prompt * new


def test_passing_promises_no_more_than_it_can(shown):
    check("01.count_work", count_work)
    text = shown()
    assert "Visible checks passed (18 inputs). The grader will try other inputs." in text
    assert "all tests" not in text.lower()


def test_failing_shows_everything_and_raises(shown):
    with pytest.raises(CheckFailed, match="forgets that the text grows; the card above"):
        check("01.count_work", wrong_count)
    text = shown()
    for part in (
        "count_work(3, 3, use_cache=False)",
        "expected: 12",
        "yours:    9",
        "This looks like: forgets that the text grows.",
        NASTY,
        'hint("01.count_work")` has 4 steps left',
    ):
        assert part in text


def breaks(prompt, new, use_cache):
    return prompt // (prompt - 5) + new // 0


def forgets_return(prompt, new, use_cache):
    total = prompt + new
    total -= 1


def generate_in_place(model, prompts, max_tokens, eos_id):
    for prompt in prompts:
        prompt.append(eos_id)
    return prompts


def sample_greedily(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    return logits.argmax(-1)


@pytest.mark.parametrize(
    "exercise, function, parts",
    [
        ("01.count_work", count_work, [""]),
        (
            "01.count_work",
            wrong_count,
            ["forgets that the text grows: count_work(3, 3, use_cache=False) → 9, not 12"],
        ),
        ("01.count_work", breaks, ["raises an error: count_work(5, 1", "→ ZeroDivisionError: ", "(line "]),
        (
            "01.count_work",
            forgets_return,
            ["returns nothing: ", "→ It must return a whole number"],
        ),
        (
            "01.generate",
            generate_in_place,
            ["changes its input: generate(", "→ prompts is [[", " afterwards"],
        ),
        ("01.sample", sample_greedily, ["of the draws, not "]),
    ],
)
def test_the_same_in_one_line(exercise, function, parts):
    line = feedback.in_one_line(run(find(exercise), function))
    assert "\n" not in line and len(line) < 400
    at = [line.find(part) for part in parts]
    assert -1 not in at and at == sorted(at), line


def test_everything_from_the_student_is_escaped():
    report = run(find("01.count_work"), wrong_count)
    html = feedback.card(report).html()
    assert "<script>" not in html and "&lt;script&gt;alert(&#x27;x&#x27;)" in html


@pytest.mark.parametrize(
    "block",
    [
        Code(NASTY, NASTY),
        Pair((NASTY, NASTY), (NASTY, NASTY)),
        Shares([(NASTY, 0.5, 0.5)], NASTY),
        Mistake(NASTY, NASTY),
        Prose(NASTY),
    ],
)
def test_every_block_escapes(block):
    card = Card("info", NASTY, [block])
    assert "<script>" not in card.html() and "<script>" in card.text()


def test_markdown_of_the_course_has_code_and_no_html():
    html = markdown("Use `a < b`:\n\n```python\nx = 1\n```\n\n<b>no</b>")
    assert "<code>a &lt; b</code>" in html and '<code class="language-python">x = 1' in html
    assert "<b>" not in html


def test_a_card_is_a_labelled_section_with_a_heading():
    html = feedback.card(run(find("01.count_work"), wrong_count)).html()
    assert "<section class='lesson-card lesson-retry' aria-label='01.count_work · not right yet'>" in html
    assert "<h3><span aria-hidden='true'>✗</span> 01.count_work · not right yet</h3>" in html


def sampler(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    return torch.multinomial((logits * temperature).softmax(-1), 1, generator=generator).squeeze(-1)


def test_the_same_failure_gives_the_same_card():
    torch.manual_seed(1)
    first = feedback.card(run(find("01.sample"), sampler)).bundle()
    torch.manual_seed(2)
    assert feedback.card(run(find("01.sample"), sampler)).bundle() == first


def test_shares_are_shown_as_a_table():
    text = feedback.card(run(find("01.sample"), sampler)).text()
    assert "sample(torch.tensor([[2.0, 1.0, 0.0]]), temperature=0.5)" in text
    assert "token 0     86.7%" in text and "1,000 draws" in text and "multiplies by the temperature" in text


def test_attempts_are_counted_from_the_second_on(shown):
    for n in (1, 2, 3):
        with pytest.raises(CheckFailed):
            check("01.count_work", wrong_count)
        assert (f"Attempt {n}." in shown()) == (n > 1)


def test_a_blank_is_kindly_told_and_is_no_attempt(shown):
    def count_work(prompt, new, use_cache):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not started yet"):
        check(count_work)
    assert "Replace the line `raise NotImplementedError()`" in shown()
    assert feedback.attempts(log_for("01"), "01.count_work") == 0


def test_the_log_remembers_every_check(shown):
    with pytest.raises(CheckFailed):
        check("01.count_work", wrong_count)
    check(count_work)
    told = [(e.id, e.data["passed"], e.data["name"]) for e in log_for("01").events("check")]
    assert told == [
        ("01.count_work", False, "forgets that the text grows"),
        ("01.count_work", True, None),
    ]


def test_a_check_works_where_nothing_can_be_recorded(home, monkeypatch, shown):
    (home / "file").write_text("")
    monkeypatch.setenv("LESSON_HOME", str(home / "file"))
    check("01.count_work", count_work)
    assert "could not be recorded" in shown()


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: check("01.smaple", count_work), 'There is no exercise "01.smaple"; the exercises of this'),
        (lambda: check(lambda x: x), "No exercise asks for a function called <lambda>"),
        (lambda: check("01.sample"), "There is no function sample yet; run the cell"),
        (lambda: check("01.sample", 3), "pass sample itself, without calling it"),
        (lambda: check("88.sample", count_work), "There is no lesson '88.sample'"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, sentence):
    with pytest.raises(ClassroomError) as failure:
        call()
    assert sentence in str(failure.value) and failure.value._render_traceback_() == [str(failure.value)]
