"""Lesson 01 as a student meets it: opened in JupyterLab, run from top to bottom, a slider moved by keyboard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lessonlib import course

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]


def test_lesson_01_runs_and_its_picture_answers(lab, page, screenshots: Path):
    from .jupyterlab_page import Notebook

    source = course.lesson("01").notebook
    shutil.copy(source, lab.folder / source.name)
    notebook = Notebook(page, lab, source.name)
    notebook.run_all()
    page.evaluate("document.fonts.ready")

    number = next(i for i, text in enumerate(notebook.cell_sources()) if "explorers.autoregressive(" in text)
    page.evaluate(f"""async () => {{
        const content = window.jupyterapp.shell.currentWidget.content;
        content.activeCellIndex = {number};
        await content.scrollToItem({number}, "start");
    }}""")
    box = notebook.explorers().filter(has=page.get_by_role("slider", name="Prompt")).first
    box.scroll_into_view_if_needed()
    box.locator(".lx-words:not(:empty)").wait_for()
    slider = box.get_by_role("slider", name="Prompt")
    picture, words = box.locator(".lx-figure"), box.locator(".lx-words")
    before, said = picture.inner_html(), words.inner_text()

    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    page.wait_for_function("([e, t]) => e.innerText !== t", arg=[words.element_handle(), said])

    assert picture.inner_html() != before
    cells = len(notebook.cell_sources())
    slider.press("d")
    slider.press("d")
    assert len(notebook.cell_sources()) == cells, "typing d d on a slider must not delete the notebook's cell"
    page.screenshot(path=screenshots / "lesson-01.png")
