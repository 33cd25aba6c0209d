"""Every explorer in a real JupyterLab: by keyboard, in both themes, at all widths, without a kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import fresh_page
from .contact_sheet import TIMES, table

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

CALLS = {
    "autoregressive": "explorers.autoregressive(folder)",
    "batching": "explorers.batching()",
    "deployment": "explorers.deployment()",
    "kv_cache": "explorers.kv_cache(folder)",
    "next_token": "explorers.next_token(folder, folder, 'def f(x):')",
    "paged_blocks": "explorers.paged_blocks()",
    "pipeline": "explorers.pipeline(folder, 'def f(x):')",
    "quantization": "explorers.quantization(folder, text='def f(x):\\n    return x\\n' * 20)",
    "roofline": "explorers.roofline()",
    "sampling": "explorers.sampling(folder, folder, 'def f(x):')",
    "security": "explorers.security()",
    "speculative": "explorers.speculative(folder, folder, 'def f(x):')",
    "tokenizer": "explorers.tokenizer(folder, 'def f(x):\\n    return x + 1')",
}
PIPELINE_STEP = "Look back at token"
ANNOUNCED_MS = 450  # the words follow when the reader has stopped moving


@pytest.fixture(scope="module")
def notebook_name(lab, tiny: Path) -> str:
    cells = [f"from lessonlib import explorers\nfolder = {str(tiny)!r}", *CALLS.values()]
    lab.write_notebook("explorers.ipynb", cells)
    return "explorers.ipynb"


@pytest.fixture(scope="module")
def opened(lab, browser, notebook_name: str):
    """The notebook with all explorers, open and run once for all tests."""
    from .jupyterlab_page import Notebook

    with fresh_page(browser) as page:
        notebook = Notebook(page, lab, notebook_name)
        run(notebook)
        yield notebook


@pytest.fixture
def notebook(opened):
    """The open notebook, every explorer as it was at first."""
    opened.page.set_viewport_size({"width": 1280, "height": 1000})
    for button in opened.page.locator(".lx").get_by_role("button", name="Reset").all():
        button.click()
    explorer(opened, "pipeline").get_by_text("1 of 1").wait_for()
    opened.page.wait_for_timeout(ANNOUNCED_MS)
    return opened


def run(notebook) -> None:
    """Run all cells and wait until every explorer has drawn itself and said so."""
    notebook.run_all()
    for name in CALLS:
        explorer(notebook, name)


def explorer(notebook, name: str):
    cell = notebook.page.locator(".jp-Notebook .jp-CodeCell").nth(1 + list(CALLS).index(name))
    cell.scroll_into_view_if_needed()  # JupyterLab draws no cell that is out of sight
    cell.locator(".lx-words:not(:empty)").wait_for()
    title = cell.locator(".lx-title").element_handle()
    notebook.page.wait_for_function("title => title.innerText", arg=title)  # empty until the next frame
    return cell.locator(".lx")


def seen(box) -> tuple[str, str, str]:
    """Title, drawing and text summary of an explorer."""
    return tuple(box.locator(part).first.inner_html() for part in (".lx-title", ".lx-figure", ".lx-words"))


def wait_until_words_change(box, before: str) -> None:
    words = box.locator(".lx-words")
    words.page.wait_for_function("([e, t]) => e.innerHTML !== t", arg=[words.element_handle(), before])


def test_sliders_answer_to_the_keyboard(notebook, screenshots: Path):
    cells = notebook.cell_sources()
    for name in CALLS:
        box = explorer(notebook, name)
        if name == "pipeline":  # its slider looks back: there must be something behind
            box.get_by_role("button", name="Next token").click()
            box.locator(".lx-words", has_text="New token 2").wait_for()
        slider = box.get_by_role("slider").first
        slider.focus()
        before, at = seen(box), slider.input_value()
        slider.press("Home")
        assert slider.input_value() != at, name
        wait_until_words_change(box, before[2])
        after = seen(box)
        assert before[0] != after[0] and before[1] != after[1], name
        notebook.page.keyboard.type("ddxb")
        notebook.page.keyboard.press("ArrowUp")
        assert notebook.cell_sources() == cells, f"a key pressed on {name}'s slider changed the notebook"
        assert slider.evaluate("element => element === document.activeElement"), name
        box.screenshot(path=screenshots / f"{name}.png")


def test_typing_in_the_playground_stays_there(notebook):
    cells = notebook.cell_sources()
    box = explorer(notebook, "tokenizer")
    area = box.get_by_role("textbox")
    area.fill("")
    area.press_sequentially("dd x\nif 1:")
    assert area.input_value() == "dd x\nif 1:"
    assert notebook.cell_sources() == cells
    box.get_by_text("10 characters become").wait_for()
    assert box.locator(".lx-chip").count() >= 4


def test_escape_and_shift_enter_reach_the_notebook(notebook):
    page = notebook.page
    slider = explorer(notebook, "autoregressive").get_by_role("slider").first
    counts = "[...window.jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.executionCount)"
    before = page.evaluate(counts)
    drawn = slider.element_handle()
    slider.focus()
    slider.press("Shift+Enter")
    page.wait_for_function(f"before => JSON.stringify({counts}) !== JSON.stringify(before)", arg=before)
    page.wait_for_function("drawn => !drawn.isConnected", arg=drawn)
    explorer(notebook, "autoregressive")  # drawn again by the new run


def test_play_pause_and_reset(notebook):
    box = explorer(notebook, "autoregressive")
    title = box.locator(".lx-title")
    start = title.inner_text()
    assert start.startswith("Step 12: without a cache 23 tokens are processed, with a cache 1.")
    box.get_by_role("button", name="Play").press("Enter")
    box.get_by_role("button", name="Pause").wait_for()
    notebook.page.wait_for_function(
        "e => +/Step (\\d+)/.exec(e.textContent)[1] >= 15", arg=title.element_handle()
    )
    box.get_by_role("button", name="Pause").press("Enter")
    stopped = title.inner_text()
    notebook.page.wait_for_timeout(500)
    assert title.inner_text() == stopped
    box.get_by_label("FLOPs").press(" ")
    box.get_by_text("FLOPs at each step").wait_for()
    box.get_by_role("button", name="Reset").click()
    box.get_by_text("Tokens processed at each step").wait_for()
    assert title.inner_text() == start


def test_drawing_tokens_adds_up(notebook):
    box = explorer(notebook, "sampling")
    draw = box.get_by_role("button", name="Draw 100")
    draw.click()
    box.get_by_text("of 100", exact=True).wait_for()
    draw.click()
    box.get_by_text("of 200", exact=True).wait_for()
    box.get_by_role("slider", name="Temperature").press("Home")
    box.get_by_text("Temperature 0 is greedy").wait_for()
    assert box.get_by_text("of 200", exact=True).count() == 0


def test_the_pipeline_runs_the_model(notebook):
    box = explorer(notebook, "pipeline")
    story = box.locator(".lx-story")
    before = len(story.inner_text())
    box.get_by_role("button", name="Run 20").click()
    box.get_by_role("button", name="Pause").wait_for()
    box.get_by_role("button", name="Run 20").wait_for(timeout=60_000)
    last = box.get_by_role("slider", name=PIPELINE_STEP)
    assert int(last.get_attribute("max")) >= 21
    assert len(story.inner_text()) > before
    box.get_by_role("button", name="Reset").click()
    box.get_by_text("1 of 1").wait_for()


def test_every_control_has_a_name(notebook):
    unnamed = notebook.page.evaluate("""() =>
        [...document.querySelectorAll('.lx :is(button, input, textarea, select)')]
            .filter(e => !(e.labels?.[0] ?? e).textContent.trim() && !e.getAttribute('aria-label'))
            .map(e => e.outerHTML)""")
    assert unnamed == []
    assert notebook.page.locator(".lx input[type=range]").count() >= 11
    for name in CALLS:
        assert explorer(notebook, name).locator(".lx-words").get_attribute("aria-live") == "polite", name


def test_no_serious_accessibility_violation(notebook, axe: str):
    notebook.page.evaluate(axe)
    bad = []
    for name in CALLS:
        box = explorer(notebook, name)
        found = box.evaluate("box => axe.run(box, {resultTypes: ['violations']})")
        bad += [
            f"{name}: {violation['id']}: {violation['help']}: {violation['nodes'][0]['html'][:200]}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
    assert not bad, "\n".join(bad)


def test_latency_is_shown(notebook, screenshots: Path, capsys: pytest.CaptureFixture[str]):
    """Printed and kept, not judged: from a slider's input event to the next frame after the picture is drawn."""
    measure = """async element => {
        const times = [];
        const steps = Math.min(30, element.max - element.min || 1);
        for (let i = 0; i < 40; i++) {
            element.value = +element.min + +element.step * (i % steps);
            const start = performance.now();
            element.dispatchEvent(new Event('input', {bubbles: true}));
            await new Promise(requestAnimationFrame);
            element.closest('.lx').getBoundingClientRect();  // layout belongs to the answer
            times.push(performance.now() - start);
            await new Promise(requestAnimationFrame);
        }
        return times.sort((a, b) => a - b);
    }"""
    times = {name: explorer(notebook, name).get_by_role("slider").first.evaluate(measure) for name in CALLS}
    (screenshots / TIMES).write_text(json.dumps(times), encoding="utf-8")
    with capsys.disabled():
        print("\nslider to picture\n" + table(times))
    assert all(len(each) == 40 for each in times.values())


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_fits_narrow_and_wide_in_both_themes(lab, page, notebook_name: str, theme: str, screenshots: Path):
    from .jupyterlab_page import LIGHT, Notebook

    lab.set_theme(theme)
    try:
        opened = Notebook(page, lab, notebook_name)
        run(opened)
        for width in (900, 1600):
            page.set_viewport_size({"width": width, "height": 1900})
            page.wait_for_timeout(600)
            for name in CALLS:
                box = explorer(opened, name)
                box.scroll_into_view_if_needed()
                overflow = box.evaluate("e => e.scrollWidth - e.clientWidth")
                assert overflow <= 0, f"{name} is {overflow} px too wide at {width} px"
                box.screenshot(path=screenshots / f"{name}-{theme.split()[-1].lower()}-{width}.png")
        ground = page.locator(".lx").first.evaluate("e => getComputedStyle(e).backgroundColor")
        dark = sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(","))) < 3 * 128
        assert dark == ("Dark" in theme)
    finally:
        lab.set_theme(LIGHT)


@pytest.mark.parametrize("width", [900, 1600])
def test_nothing_jumps_while_a_slider_moves(notebook, width: int):
    notebook.page.set_viewport_size({"width": width, "height": 1000})
    for name in CALLS:
        if name == "pipeline":
            continue
        box = explorer(notebook, name)
        slider = box.get_by_role("slider").first
        heights = set()
        for key in ("Home", "ArrowRight", "End"):
            slider.press(key)
            notebook.page.wait_for_timeout(ANNOUNCED_MS)
            heights.add(round(box.bounding_box()["height"]))
        assert len(heights) == 1, f"{name}: {heights}"


def test_reduced_motion(lab, browser, notebook_name: str):
    from .jupyterlab_page import Notebook

    with fresh_page(browser, reduced_motion="reduce") as page:
        opened = Notebook(page, lab, notebook_name)
        run(opened)
        box = explorer(opened, "pipeline")
        box.get_by_role("button", name="Next token").click()
        box.get_by_text("2 of 2").wait_for()
        names = box.evaluate(
            "e => [...e.querySelectorAll('.lx-stage')].map(stage => getComputedStyle(stage).animationName)"
        )
        assert names == ["none"] * 5


def test_saved_and_reopened_without_its_kernel_it_is_still_a_picture(lab, page, tiny: Path):
    from .jupyterlab_page import Notebook

    cell = f"from lessonlib import explorers\nexplorers.sampling({str(tiny)!r}, None, 'def f(x):')"
    lab.write_notebook("saved.ipynb", [cell])
    opened = Notebook(page, lab, "saved.ipynb")
    opened.run_all()
    opened.explorers().first.wait_for()
    opened.save()
    assert opened.explorers().count() == 1, "saving must leave the open page alone"
    page.goto("about:blank")
    lab.stop_kernel("saved.ipynb")
    Notebook(page, lab, "saved.ipynb")
    image = page.locator(".jp-OutputArea-output img")
    image.wait_for()
    assert image.evaluate("e => e.naturalWidth") == 1880
    assert page.get_by_text("model not found").count() == 0
