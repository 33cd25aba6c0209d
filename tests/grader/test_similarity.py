"""Similar solutions are found whatever they are called; different ones are left alone."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.exercises import from_notebook, planted
from grader.similarity import SHORTEST, THRESHOLD, similar, tokens
from lessonlib import course
from lessonlib.classroom.exercises import exercises

IDS = [exercise.id for lesson in course.LESSONS for exercise in exercises(lesson.slug)]
PROGRAM = '''
def blend(left, right, share=0.5):
    """Mix two lists."""
    mixed = []
    for first, second in zip(left, right):
        if first is None or second is None:
            mixed.append(first if second is None else second)
            continue
        mixed.append(share * first + (1 - share) * second)
    if len(left) != len(right):
        raise ValueError("they differ")
    return mixed
'''


def renamed(source: str) -> str:
    """The same program: other names, other comments, another layout."""
    names: dict[str, str] = {}
    made = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        own = token.type == tokenize.NAME and not keyword.iskeyword(text) and text in OWN
        made.append((token.type, names.setdefault(text, f"v{len(names)}") if own else text))
    return re.sub(r"\n", "\n\n", tokenize.untokenize(made)) + "\n# mine, all mine\n"


OWN = {"blend", "left", "right", "share", "mixed", "first", "second"}


def base(exercise: str) -> list[str]:
    return [from_notebook(exercise, blank=True), from_notebook(exercise, blank=False)]


@pytest.mark.parametrize("exercise", IDS)
def test_different_right_solutions_are_not_alike(exercise):
    sources = {attempt.name: attempt.source for attempt in planted(exercise) if attempt.expect == "pass"}
    assert similar(exercise, sources, base(exercise)) == []


def test_other_names_comments_and_layout_hide_nothing():
    copy = renamed(PROGRAM)
    assert "left" not in copy and copy != PROGRAM
    (pair,) = similar("x", {"bob": copy, "ada": PROGRAM}, [])
    assert (pair.first, pair.second, pair.similarity) == ("ada", "bob", 1.0)
    assert pair.tokens[0] == pair.tokens[1] >= SHORTEST


def test_what_was_handed_out_or_is_the_reference_does_not_count():
    assert similar("x", {"ada": PROGRAM, "bob": PROGRAM}, [PROGRAM]) == []
    own = "\n".join(f"total = total + {n} * weights[{n}] - bias" for n in range(8))
    (pair,) = similar("x", {"ada": PROGRAM + own, "bob": PROGRAM + own}, [PROGRAM])
    assert pair.tokens[0] < len(tokens(PROGRAM + own)), "only what is their own is counted"


def test_a_copy_that_was_worked_on_is_still_seen_and_a_short_one_never():
    worked = PROGRAM.replace("(1 - share) * second", "second - share * second").replace(
        "is None or", "is None and"
    )
    (pair,) = similar("x", {"ada": PROGRAM, "bob": worked}, [])
    assert THRESHOLD <= pair.similarity < 1
    assert similar("x", {"ada": "return a + b", "bob": "return a + b"}, []) == []


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), st.text(max_size=300), max_size=5), st.text(max_size=100))
def test_whatever_is_handed_in_is_compared(sources, handed_out):
    pairs = similar("x", {**sources, "p": PROGRAM, "q": PROGRAM}, [handed_out])
    again = similar("x", dict(reversed({**sources, "p": PROGRAM, "q": PROGRAM}.items())), [handed_out])
    assert pairs == again
    assert all(THRESHOLD <= pair.similarity <= 1 and pair.first < pair.second for pair in pairs)
    assert ("p", "q") in {(pair.first, pair.second) for pair in pairs}


def test_all_pairs_of_a_class_are_compared():
    sources = {f"s{n:02}": PROGRAM for n in range(12)}
    pairs = similar("x", sources, [])
    assert [(p.first, p.second) for p in pairs] == [*combinations(sorted(sources), 2)]
