"""The batching explorer in a real JupyterLab: requests are moved by the pointer and by the keyboard alike."""

from __future__ import annotations

import pytest

from .conftest import fresh_page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def box(lab, browser):
    """The explorer, open."""
    from .jupyterlab_page import Notebook

    lab.write_notebook("batching.ipynb", ["from lessonlib import explorers\nexplorers.batching()"])
    with fresh_page(browser) as page:
        page.set_viewport_size({"width": 1280, "height": 1400})
        notebook = Notebook(page, lab, "batching.ipynb")
        notebook.run_all()
        opened = notebook.explorers().first
        opened.locator(".lx-words:not(:empty)").wait_for()
        yield opened


@pytest.fixture(autouse=True)
def fresh(box):
    box.get_by_role("button", name="Reset").click()
    box.page.wait_for_timeout(100)


def shown(box, name: str) -> str:
    return box.get_by_role("slider", name=name).get_attribute("aria-valuetext")


def drag(box, part: str, place: int, by: int) -> None:
    grip = box.locator(f".lx-grip-{part}").nth(place).bounding_box()
    # A bar is taken at its left, where no other edge lies on top.
    x = grip["x"] + (3 if part == "arrival" else grip["width"] / 2)
    y = grip["y"] + grip["height"] / 2
    mouse = box.page.mouse
    mouse.move(x, y)
    mouse.down()
    for i in range(1, 6):
        mouse.move(x + by * i / 5, y)
    mouse.up()
    box.page.wait_for_timeout(100)


def test_dragging_a_bar_and_its_edges_changes_that_request(box):
    title = box.locator(".lx-title").inner_text()
    for part, name, by in (("output", "Answer", 120), ("prompt", "Prompt", 60), ("arrival", "comes at", 80)):
        drag(box, part, 1, 0)  # chooses it
        assert box.get_by_label("Request", exact=True).input_value() == "1"
        before = {other: shown(box, other) for other in ("comes at", "Prompt", "Answer")}
        drag(box, part, 1, by)
        after = {other: shown(box, other) for other in before}
        assert [other for other in before if before[other] != after[other]] == [name]
    assert box.get_by_label("Situation").input_value() == "own"
    assert box.locator(".lx-title").inner_text() != title


def test_a_press_on_the_chart_chooses_a_request(box):
    stay = box.locator("[data-part=choose][data-place='5']").first.bounding_box()
    box.page.mouse.click(stay["x"] + stay["width"] / 2, stay["y"] + stay["height"] / 2)
    box.get_by_text("F: first token after").first.wait_for()
    assert box.get_by_label("Situation").input_value() == "long"


def test_the_keyboard_does_all_the_pointer_does(box):
    box.get_by_label("Request", exact=True).select_option("1")
    for name in ("comes at", "Prompt", "Answer"):
        before = shown(box, name)
        box.get_by_role("slider", name=name).press("ArrowRight")
        assert shown(box, name) != before
    count = box.get_by_label("Request", exact=True).locator("option").count()
    box.get_by_role("button", name="Add a request").press("Enter")
    assert box.get_by_label("Request", exact=True).locator("option").count() == count + 1
    assert box.get_by_label("Request", exact=True).input_value() == str(count)
    remove = box.get_by_role("button", name="Remove it")
    for _ in range(count + 3):
        remove.press("Enter")
    assert box.get_by_label("Request", exact=True).locator("option").count() == 1
    assert remove.get_attribute("aria-disabled") == "true"
    assert remove.evaluate("e => e === document.activeElement")


def test_situations_and_clocks(box):
    for preset, words in (("rush", "sent back"), ("prompt", "A long prompt"), ("equal", "Here static")):
        box.get_by_label("Situation").select_option(preset)
        box.locator(".lx-title", has_text=words).wait_for()
    box.get_by_label("Situation").select_option("rush")
    box.get_by_text("▲ F sent back").first.wait_for()
    box.get_by_label("steps", exact=True).press(" ")
    box.get_by_text("Every step is drawn equally long").wait_for()
    assert box.get_by_label("on", exact=True).is_disabled()
