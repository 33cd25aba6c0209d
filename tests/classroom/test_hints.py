from __future__ import annotations

import pytest

from lessonlib.classroom import CheckFailed, check, hint
from lessonlib.classroom.exercises import exercises
from lessonlib.classroom.hints import hints_used, steps
from lessonlib.classroom.store import log_for

from .test_feedback import wrong_count


def test_three_steps_then_the_analogue_again_and_again(shown):
    titles = []
    for _ in range(6):
        hint("01.count_work")
        titles.append(shown().splitlines()[0])
    assert [t.split(" · ")[0] for t in titles] == [
        "▸ Hint 1 of 3",
        "▸ Hint 2 of 3",
        "▸ Hint 3 of 3",
        *["▸ A worked example of the same idea"] * 3,
    ]
    assert hints_used(log_for("01"), "01.count_work") == 6
    hint("01.count_work")
    assert "That was the last step; here it is again." in shown()


def test_a_card_says_how_many_are_left(shown):
    hint("01.count_work")
    with pytest.raises(CheckFailed):
        check("01.count_work", wrong_count)
    assert "has 3 steps left" in shown()


def test_hints_are_there_even_where_nothing_can_be_recorded(home, monkeypatch, shown):
    (home / "file").write_text("")
    monkeypatch.setenv("LESSON_HOME", str(home / "file"))
    hint("01.sample")
    assert "Hint 1 of 3" in shown()


@pytest.mark.parametrize("exercise", exercises("01"), ids=lambda e: e.id)
def test_every_exercise_has_its_ladder(exercise):
    assert len(steps(exercise)) == 4 and all(len(step.strip()) > 60 for step in steps(exercise))
    assert f"def {exercise.name}" not in exercise.analogue
    names = [m.name for m in exercise.misconceptions]
    assert len({*names}) == len(names)
