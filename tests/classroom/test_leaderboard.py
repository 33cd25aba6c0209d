"""The leaderboard: ranked by work, one line of the log an attempt, the same for everybody who reads it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.classroom import leaderboard as boards
from lessonlib.classroom.leaderboard import PASS, Entry, Work, attempts, card, enter, leaderboard, standings
from lessonlib.classroom.store import StoreError
from lessonlib.engine.simulator import StepCost

BOARD = "08.engine"
REFERENCES = {"slow": Work(100, 1000, 100), "fast": Work(20, 200, 100)}


def test_a_pass_counts_as_in_lesson_04():
    assert pytest.approx(StepCost().fixed / StepCost().per_token) == PASS
    assert Work(20, 200, 60).per_token == pytest.approx(20)


def test_without_an_attempt_the_references_stand_alone(shown, home: Path):
    leaderboard(BOARD, REFERENCES)
    text = shown()
    assert text.index("fast") < text.index("slow") and "No engine of yours is on it yet." in text
    assert not list(home.iterdir())


def test_every_attempt_stays_and_has_its_place(shown, home: Path):
    enter(BOARD, "first try", Work(100, 500, 100))
    assert enter(BOARD, "better", Work(10, 200, 100)).attempt == 2
    order = [entry.title for entry in standings(BOARD, REFERENCES)]
    assert order == ["you, attempt 2: better", "fast", "you, attempt 1: first try", "slow"]
    leaderboard(BOARD, REFERENCES)
    assert "you, attempt 2: better" in shown()
    assert [file.name for file in home.iterdir()] == ["08_capstone.log.jsonl"]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 999), st.integers(1, 99)), min_size=1))
def test_the_table_is_sorted_and_complete(numbers: list[tuple[int, int, int]]):
    references = {f"engine {i}": Work(*n) for i, n in enumerate(numbers)}
    entries = standings(BOARD, references)
    scores = [entry.work.per_token for entry in entries]
    assert scores == sorted(scores) and {e.name for e in entries} == {*references}
    text = card(entries).text()
    assert all(name in text for name in references)


def test_equals_keep_their_order():
    same = {"b": Work(1, 1, 1), "a": Work(1, 1, 1)}
    enter(BOARD, "mine", Work(1, 1, 1))
    assert [e.name for e in standings(BOARD, same)] == ["b", "a", "mine"]


def test_several_notebooks_may_enter_at_once():
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: enter(BOARD, f"engine {i}", Work(i + 1, 1, 1)), range(40)))
    assert sorted(e.work.passes for e in attempts(BOARD)) == list(range(1, 41))
    assert [e.attempt for e in attempts(BOARD)] == list(range(1, 41))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "x", "passes": 1, "run": 1, "made": 0},
        {"name": "x", "passes": "1", "run": 1, "made": 1},
        {"name": "x", "passes": True, "run": 1, "made": 1},
        {"name": 5, "passes": 1, "run": 1, "made": 1},
        {"passes": -1, "run": 1, "made": 1, "name": "x"},
        {},
    ],
)
def test_what_is_no_attempt_is_left_out(data, home: Path):
    enter(BOARD, "good", Work(1, 1, 1))
    line = {"v": 1, "at": "2026-01-31T09:30:00.123Z", "kind": boards.ATTEMPT, "id": BOARD, "data": data}
    with (home / "08_capstone.log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    enter(BOARD, "after", Work(2, 2, 2))
    assert [(e.name, e.attempt) for e in attempts(BOARD)] == [("good", 1), ("after", 2)]


def test_a_torn_line_is_told_and_harms_nothing(home: Path, shown):
    enter(BOARD, "good", Work(1, 1, 1))
    with (home / "08_capstone.log.jsonl").open("a") as file:
        file.write('{"v": 1, "kind": "leader')
    enter(BOARD, "after", Work(2, 2, 2))
    leaderboard(BOARD, {})
    assert [e.name for e in attempts(BOARD)] == ["good", "after"] and "could not be read" in shown()


def test_names_are_text_and_not_html():
    html = card([Entry("<script>alert(1)</script>", Work(1, 1, 1), 1)]).html()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_work_that_cannot_be_is_refused():
    for numbers in ((1, 1, 0), (-1, 1, 1), (1.5, 1, 1)):
        with pytest.raises(ValueError, match="whole numbers"):
            Work(*numbers)


def test_a_folder_that_cannot_be_written_is_said(home: Path):
    (home / "08_capstone.log.jsonl").mkdir()
    with pytest.raises(StoreError, match="could not be recorded"):
        enter(BOARD, "x", Work(1, 1, 1))
