"""The gate: blank fails, solution and differently written ones pass, each planted bug fails with its own
name."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader import exercises as gate
from grader.checks import Hidden, fresh_seed
from lessonlib import course
from lessonlib.classroom import CheckFailed
from lessonlib.classroom.exercises import exercises

DECLARED = [e.id for lesson in course.LESSONS for e in exercises(lesson.number)]


@pytest.mark.parametrize("exercise_id", gate.with_mutants())
def test_gate(exercise_id: str):
    complaints = gate.complaints(exercise_id, seeds=(11,))
    assert not complaints, "\n".join(complaints)


def test_every_exercise_goes_through_the_gate():
    assert sorted(DECLARED) == gate.with_mutants()
    assert all(isinstance(gate.hidden(name), Hidden) for name in DECLARED)


def test_the_notebooks_have_their_exercises():
    for name in (n for n in DECLARED if gate.notebook_source(n).exists()):
        assert "NotImplementedError" in gate.from_notebook(name, blank=True)
        assert "NotImplementedError" not in gate.from_notebook(name, blank=False)


NOTEBOOK = """
# ---
# jupyter: {}
# ---
# %%
import math
from collections import Counter
unrelated = math.pi

# %% nbgrader={"grade_id": "01-count_work", "solution": true, "grade": false, "schema_version": 3}
def count_work(prompt, new, use_cache):
    ### BEGIN SOLUTION
    if use_cache:
        return prompt + new - 1
    return sum(prompt + i for i in range(new))
    ### END SOLUTION
"""
SOLVED = NOTEBOOK[NOTEBOOK.index("    ### BEGIN") :].rstrip()
UNMARKED = "\n".join(line for line in SOLVED.splitlines() if "###" not in line)


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "01_generation.py").write_text(NOTEBOOK.lstrip())
    monkeypatch.setattr(course, "notebooks_dir", lambda: tmp_path)
    gate.complaints.cache_clear()
    yield tmp_path / "01_generation.py"
    gate.complaints.cache_clear()


def test_solution_and_blank_come_from_the_notebook(notebook: Path):
    solved, blank = (gate.from_notebook("01.count_work", blank=b) for b in (False, True))
    assert solved.startswith("import math\nfrom collections import Counter\ndef count_work")
    assert "unrelated" not in solved and "raise NotImplementedError()" in blank and "sum" not in blank
    assert gate.verdict("01.count_work", solved) == "pass"
    assert gate.verdict("01.count_work", blank) == "not started yet"
    assert gate.complaints("01.count_work") == ()


@pytest.mark.parametrize(
    "before, after, complaint",
    [
        ("prompt + new - 1", "prompt + new", "01.count_work solution: visible checks say"),
        (
            SOLVED,
            f"{UNMARKED}\n    ### BEGIN SOLUTION\n    pass\n    ### END SOLUTION",
            "01.count_work blank",
        ),
    ],
)
def test_a_bad_notebook_does_not_pass_the_gate(notebook: Path, before: str, after: str, complaint: str):
    notebook.write_text(notebook.read_text().replace(before, after))
    assert any(c.startswith(complaint) for c in gate.complaints("01.count_work"))


def test_a_wrong_expectation_does_not_pass_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "01.count_work"
    folder.mkdir()
    (folder / "wrong.py").write_text(
        "# expect: pass\ndef count_work(prompt, new, use_cache):\n    return -1\n"
    )
    (folder / "forgot.py").write_text(
        "# expect: pass\ndef count_work(prompt, new, use_cache):\n    return math.ceil(prompt)\n"
    )
    monkeypatch.setattr(gate, "MUTANTS", tmp_path)
    gate.complaints.cache_clear()
    found = gate.complaints("01.count_work")
    gate.complaints.cache_clear()
    assert any("visible checks say 'a failure without a name', not 'pass'" in c for c in found)
    crash = "visible checks say 'raises an error' (NameError: name 'math' is not defined), not 'pass'"
    assert any(crash in c for c in found)
    assert any("at least three different mistakes; it has 0" in c for c in found)


def test_hidden_inputs_are_fresh_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch):
    def inputs(seed=None):
        asked = []
        gate.hidden("01.count_work").run(lambda *a: asked.append(a), seed)
        return asked

    assert inputs() != inputs() and inputs(5) == inputs(5)
    monkeypatch.setenv("LESSON_GRADER_SEED", "5")
    assert fresh_seed() == 5 and inputs() == inputs(5)


def test_hidden_checks_show_a_card_and_raise(shown, home):
    hidden = gate.hidden("01.count_work")
    with pytest.raises(CheckFailed, match="the card above"):
        hidden(lambda prompt, new, use_cache: prompt + new - 1)
    text = shown()
    assert "counts every token once" in text and "hint(" not in text
    hidden(
        lambda prompt, new, use_cache: prompt + new - 1 if use_cache else prompt * new + new * (new - 1) // 2
    )
    assert "Right on all 42 inputs the grader tried." in shown()
    assert not list(home.iterdir())
