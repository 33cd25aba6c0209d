"""Quiz, prediction and cards in a real JupyterLab: by keyboard alone, in both themes, and there again
tomorrow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

WRONG = """import torch
def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    return torch.multinomial((logits * temperature).softmax(-1), 1, generator=generator).squeeze(-1)"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The student's folder."""
    return tmp_path


@pytest.fixture
def setup(home: Path) -> str:
    return (
        f"import os\nos.environ['LESSON_HOME'] = {str(home)!r}\n"
        "from lessonlib.classroom import check, hint, predict, progress, quiz"
    )


CARDS = (
    WRONG,
    "try:\n    check('01.sample', sample)\nexcept AssertionError:\n    pass",
    "for _ in range(4):\n    hint('01.sample')",
    "predict.compare('01.doubling', measured=3.98)",
    "progress()",
)
QUIZ = "quiz('01_generation')"
NUMBER = "predict('01.doubling', 'How many times as many tokens?', unit='times')"
CHOICE = "predict('01.which', 'Which part takes longest?', choices=['the tokenizer', 'the model'])"


@pytest.fixture
def open_notebook(lab, page, setup: str, tmp_path: Path):
    """Open a notebook with these cells in a theme and run it."""
    from .jupyterlab_page import LIGHT, Notebook

    name = f"{tmp_path.name}.ipynb"

    def open_it(*cells: str, theme: str = LIGHT):
        lab.write_notebook(name, [setup, *cells])
        lab.set_theme(theme)
        notebook = Notebook(page, lab, name)
        notebook.run_all()
        page.wait_for_selector(".lesson-form")
        return notebook

    yield open_it
    lab.set_theme(LIGHT)


def answers(home: Path) -> dict[str, object]:
    lines = (home / "01_generation.log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return {e["id"]: e["data"]["answer"] for e in events if e["kind"] in ("quiz", "predict")}


def form(page, title: str):
    return page.get_by_role("region", name=title)


def test_a_quiz_needs_only_the_keyboard(open_notebook, page, home: Path):
    notebook = open_notebook(QUIZ)
    cells = notebook.cell_sources()
    quiz = form(page, "Quiz: one token at a time")
    quiz.locator("input[type=radio]").first.focus()
    for key in (
        "Space",
        "ArrowDown",
        "d",
        "d",
        "x",
        "Tab",
        "Enter",
    ):  # dd and x: the notebook's delete and cut
        page.keyboard.press(key)
    quiz.locator(".lesson-reason", has_text="Step 1 runs 50 tokens").wait_for()
    assert notebook.cell_sources() == cells
    assert answers(home)["01_generation.slower"] in list("abcd")
    assert quiz.get_by_role("button", name="Question 1 of 13 · practice").inner_text() in ("1 ✓", "1 ✗")

    following = quiz.get_by_role("button", name="Next →")
    following.focus()
    for _ in range(2):
        page.keyboard.press("Enter")
    quiz.get_by_role("textbox").focus()
    page.keyboard.type("110 tokens")
    page.keyboard.press("Enter")
    quiz.locator("form:not([hidden]) .lesson-message", has_text="Right.").wait_for()
    assert answers(home)["01_generation.count-without"] == 110

    quiz.get_by_role("button", name="Question 7 of 13").press("Enter")
    items = quiz.locator("form:not([hidden]) li")
    last = items.last.inner_text()
    items.last.get_by_role("button", name="Move up").press("Enter")
    page.keyboard.press("Enter")  # the focus went along with the item
    assert items.nth(4).inner_text() == last
    quiz.get_by_role("button", name="Check my answer").press("Enter")
    quiz.locator("form:not([hidden]) .lesson-message", has_text="stand in their place").wait_for()


def test_answers_are_there_tomorrow(open_notebook, page, home: Path):
    notebook = open_notebook(QUIZ)
    quiz = form(page, "Quiz: one token at a time")
    quiz.get_by_role("button", name="Question 8 of 13").click()
    quiz.get_by_label("1,125,000").check()
    quiz.get_by_role("button", name="Save my answer").click()
    quiz.locator(".lesson-message", has_text="Saved. You can change it").wait_for()
    assert answers(home) == {"01_generation.twice-as-long": "c"}
    order = quiz.locator("form:not([hidden]) label").all_inner_texts()
    notebook.save()

    open_notebook(QUIZ)
    again = form(page, "Quiz: one token at a time")
    again.get_by_role("button", name="Question 8 of 13 · graded: saved").click()
    assert again.get_by_label("1,125,000").is_checked()
    assert again.locator("form:not([hidden]) label").all_inner_texts() == order


def test_a_prediction_is_locked_once(open_notebook, page, home: Path):
    open_notebook(NUMBER, CHOICE)
    predict = form(page, "Predict first · 01.doubling")
    predict.get_by_role("textbox", name="Your answer").fill("many")
    page.keyboard.press("Enter")
    predict.locator(".lesson-message", has_text="is not a number").wait_for()
    predict.get_by_role("textbox", name="Your answer").fill("2 times")
    page.keyboard.press("Enter")
    predict.locator(".lesson-message", has_text="Locked: 2 times.").wait_for()
    assert predict.get_by_role("textbox").is_disabled()
    assert not predict.get_by_role("button", name="Lock my prediction").is_visible()

    choice = form(page, "Predict first · 01.which")
    choice.get_by_label("the model").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    choice.locator(".lesson-message", has_text="Locked: the model.").wait_for()
    assert answers(home) == {"01.doubling": 2, "01.which": "the model"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_serious_accessibility_violation(open_notebook, page, axe: str, screenshots: Path, dark: bool):
    from .jupyterlab_page import DARK, LIGHT

    open_notebook(*CARDS, NUMBER, CHOICE, QUIZ, theme=DARK if dark else LIGHT)
    quiz = form(page, "Quiz: one token at a time")
    quiz.locator("input[type=radio]").first.check()
    quiz.get_by_role("button", name="Check my answer").click()
    quiz.locator(".lesson-reason", has_text="Step 1 runs").wait_for()
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run({include: ['.lesson-form', '.lesson-card']}, {resultTypes: ['violations']})"
    )
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert found["passes"] and not serious, [
        (v["id"], v["help"], [n["html"][:150] for n in v["nodes"][:3]]) for v in serious
    ]
    for number, box in enumerate(page.locator(".lesson-form, .lesson-card").all()):
        box.scroll_into_view_if_needed()
        box.screenshot(path=screenshots / f"classroom-{number}-{'dark' if dark else 'light'}.png")
