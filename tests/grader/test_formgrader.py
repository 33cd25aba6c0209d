"""Formgrader in JupyterLab and students' pages, in a real browser, on a class of which one tries everything.

The browser ends with this module: Playwright keeps an event loop running in its thread, and later tests want their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from nbgrader.api import Gradebook

from grader import desk
from grader.feedback import FORMGRADER

from ..browser.conftest import SCREENSHOTS
from . import hostile_text
from .graded_class import ANSWER, CELL, RIGHT, SLUG, WRONG, HandedIn, make

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

WARNED = [{"output_type": "stream", "name": "stderr", "text": "a warning\n"}]
HOSTILE_NAME = f"eve<img src=x onerror='{hostile_text.FLAG}'>\"'"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Right, wrong and hostile, and blank; one has a hostile folder name as well."""
    hostile = HandedIn(
        hostile_text.CODE + WRONG,
        hostile_text.ANSWER,
        hostile_text.OUTPUTS,
        notes=(f"<img src=x onerror='{hostile_text.FLAG}'> [x](javascript:1) is odd.",),
        cell=hostile_text.CELL,
    )
    handed_in = {
        "ada": HandedIn(RIGHT, "I measured **twice**.", WARNED),
        "ben": HandedIn(WRONG, hostile_text.ORDINARY, WARNED, notes=("02.slots is missing.",)),
        "cleo": HandedIn(),
        "mallory": hostile,
        HOSTILE_NAME: hostile,
    }
    made = make(tmp_path_factory.mktemp("class"), handed_in)
    desk.feedback(made, SLUG)
    return made


@pytest.fixture(scope="module")
def ids(course):
    """{student: what Formgrader calls the submission}"""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return {found.student.id: found.id for found in book.notebook_submissions(SLUG, SLUG)}


@pytest.fixture(scope="module")
def lab(course, chromium):
    from ..browser.jupyterlab_page import Lab

    with Lab(course) as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium):
    from ..browser.jupyterlab_page import launch

    with launch(chromium) as running:
        yield running


class Watched:
    """A page, and everything that it asked for, said or opened. ``stays``: the addresses it may ask."""

    def __init__(self, page, stays: str):
        self.page, self.stays = page, stays
        self.asked: list[str] = []
        self.said: list[str] = []
        page.set_default_timeout(60_000)
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda told: self.said.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.said.append(f"uncaught {error}"))
        page.on("dialog", self._dialog)
        page.context.on("page", lambda opened: self.said.append(f"opened {opened.url}"))

    def _dialog(self, dialog):
        self.said.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def is_clean(self) -> None:
        """Nothing of a stranger's ran, was loaded, or was even asked for."""
        assert [frame.evaluate("window.pwned") for frame in self.page.frames] == [None] * len(
            self.page.frames
        )
        strange = [url for url in self.asked if not url.startswith((self.stays, "data:", "blob:"))]
        assert not strange and not [url for url in self.asked if "stranger" in url]
        ours = [
            told for told in self.said if "pwned" in told or not told.startswith("Failed to load resource")
        ]
        assert not ours


@contextmanager
def watched(browser, stays: str, **options) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **options)
    try:
        yield Watched(context.new_page(), stays)
    finally:
        context.close()


@pytest.fixture
def desktop(browser, lab):
    """A page that is logged in, for Formgrader outside of JupyterLab."""
    with watched(browser, f"http://127.0.0.1:{lab.port}/") as found:
        found.page.goto(f"http://127.0.0.1:{lab.port}/tree?token={lab.token}")
        found.asked.clear()
        found.said.clear()
        yield found


def submission(frame, lab, ids, student):
    """Open a submission in Formgrader and wait until it can be marked."""
    frame.goto(f"http://127.0.0.1:{lab.port}/formgrader/submissions/{ids[student]}/?index=0")
    for _ in range(600):  # not wait_for_function: the page's policy forbids its eval
        if frame.evaluate("formgrader.loaded && formgrader.grades.loaded && formgrader.comments.loaded"):
            return
        frame.wait_for_timeout(50)
    raise AssertionError("Formgrader did not load.")


# ---------------------------------------------------------------- nothing of a stranger's


def test_the_attacks_work_where_nothing_is_done_about_them(course, browser):
    """So that the tests below can fail: nbgrader's own page, with nbconvert's own settings."""
    exporter = HTMLExporter(template_name="formgrade", extra_template_basedirs=[str(FORMGRADER)])
    notebook = nbformat.read(course / "autograded" / "mallory" / SLUG / f"{SLUG}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("attachment:", "")  # a missing one would end it
    told = {"index": 0, "total": 1, "base_url": "", "student": HOSTILE_NAME}
    html, _ = exporter.from_notebook_node(notebook, resources=told)
    with watched(browser, "about:") as stock:
        stock.page.route("**/*", lambda route: route.abort())
        stayed = html.replace("http-equiv=refresh", "").replace(
            'http-equiv="refresh"', ""
        )  # or it is gone at once
        stock.page.set_content(stayed, wait_until="domcontentloaded")
        stock.page.wait_for_timeout(1000)
        assert stock.page.evaluate("window.pwned") > 3
        assert [url for url in stock.asked if "stranger" in url]


@pytest.mark.parametrize("student", ["mallory", HOSTILE_NAME], ids=["answers", "name"])
def test_a_hostile_submission_in_formgrader(desktop, lab, ids, screenshots, student):
    submission(desktop.page, lab, ids, student)
    page = desktop.page
    page.locator(".name-hidden.glyphicon").click()  # the policy lets nbgrader's own handlers run
    assert page.locator("a.name-shown").inner_text().strip() == student
    assert "This looks like: ignores the number of bits." in page.inner_text("body")
    for link in page.locator("#notebook a[href]").all():
        raise AssertionError(f"{link.get_attribute('href')} can be followed")
    page.wait_for_timeout(500)
    desktop.is_clean()
    page.locator(f"[id='{ANSWER}-comment']").scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "formgrader-hostile.png", full_page=True)


@pytest.mark.parametrize(
    "place",
    ["manage_assignments", "gradebook", f"gradebook/{SLUG}", f"gradebook/{SLUG}/{SLUG}", "manage_students",
     f"manage_submissions/{SLUG}", "manage_students/mallory", f"manage_students/mallory/{SLUG}"],
)  # fmt: skip
def test_formgraders_lists(desktop, lab, place):
    page = desktop.page
    page.goto(f"http://127.0.0.1:{lab.port}/formgrader/{place}")
    page.wait_for_function("typeof models !== 'undefined' && models && models.loaded")
    if page.locator("#toggle_names").count():
        page.locator("#toggle_names").click()
    page.wait_for_timeout(300)
    desktop.is_clean()


def test_behind_all_that_stands_a_policy(desktop, browser, lab, ids, course):
    """Even what got into the page would not run, load or lead away."""
    got_in = f"""() => {{
        const box = document.createElement('div');
        box.innerHTML = `<img src=x onerror="{hostile_text.FLAG}"><img src="{hostile_text.AWAY}/a.png">
            <iframe srcdoc="<script>parent.{hostile_text.FLAG}</script>"></iframe>`;
        document.body.append(box);
        const script = document.createElement('script');
        script.textContent = "{hostile_text.FLAG}";
        document.body.append(script);
    }}"""
    submission(desktop.page, lab, ids, "ada")
    with watched(browser, "file:") as found:
        found.page.goto((course / "feedback" / "ada" / SLUG / f"{SLUG}.html").as_uri())
        for page in (desktop.page, found.page):
            ended = {}
            page.on(
                "requestfailed", lambda request, ended=ended: ended.update({request.url: request.failure})
            )
            page.evaluate(got_in)
            page.wait_for_timeout(300)
            assert page.evaluate("window.pwned") is None
            assert (
                ended[f"{hostile_text.AWAY}/a.png"] == "csp"
            )  # stopped by the policy, not by a missing host


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("student", ["mallory", HOSTILE_NAME, "ben"], ids=["answers", "name", "wrong"])
def test_a_students_page_needs_no_network(browser, course, screenshots, student, scheme):
    page = course / "feedback" / student / SLUG / f"{SLUG}.html"
    with watched(browser, "file:", color_scheme=scheme) as found:
        found.page.route(re.compile("^(?!file:)"), lambda route: route.abort())
        found.page.goto(page.as_uri())
        found.page.locator("details").first.click()
        found.page.wait_for_timeout(300)
        found.is_clean()
        assert found.asked == [page.as_uri()] or all(
            url.startswith("data:image/png") for url in found.asked[1:]
        )
        assert not found.said
        if student != HOSTILE_NAME:
            shot = screenshots / f"feedback-{student}-{scheme}.png"
            found.page.screenshot(path=shot, full_page=True)


# ---------------------------------------------------------------- what Formgrader is for


def test_points_cards_and_notes_in_formgrader(desktop, lab, ids):
    submission(desktop.page, lab, ids, "ben")
    page, words = desktop.page, desktop.page.inner_text("#notebook")
    assert page.locator(f"[id='{CELL}-check']").get_attribute("placeholder") == "0"
    card = page.locator("section.lesson-retry")
    assert "ignores the number of bits" in card.inner_text()
    assert card.evaluate("card => getComputedStyle(card).borderLeftColor") == "rgb(213, 94, 0)"
    assert "02.slots is missing." in words and "Took 1.25 s." in words and "a warning" in words
    assert page.locator("td", has_text="INT4").count() == 1
    assert page.locator("math mfrac").count() == 1  # the lesson's own formula
    assert page.locator(".text_cell strong", has_text="bold").count() == 1
    desktop.is_clean()
    assert not desktop.said  # MathJax is not missed


def test_marks_and_comments_are_kept(desktop, lab, ids, course):
    submission(desktop.page, lab, ids, "ada")
    page = desktop.page
    for place, text in ((f"[id='{ANSWER}']", "4.5"), (f"[id='{ANSWER}-comment']", "Good, but <b>why</b>?")):
        with page.expect_response(lambda response: response.request.method == "PUT") as saved:
            page.locator(place).fill(text)
            page.locator(place).blur()
        assert saved.value.ok
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        grade, comment = (find(ANSWER, SLUG, SLUG, "ada") for find in (book.find_grade, book.find_comment))
        assert (grade.manual_score, grade.needs_manual_grade) == (4.5, False)
        assert comment.manual_comment == "Good, but <b>why</b>?"
    desk.feedback(course, SLUG)
    told = (course / "feedback" / "ada" / SLUG / f"{SLUG}.html").read_text(encoding="utf-8")
    assert "4.5 of 6" in told and "Good, but &lt;b&gt;why&lt;/b&gt;?" in told
    desktop.is_clean()


def test_formgrader_inside_jupyterlab(browser, lab, ids, screenshots):
    address = f"http://127.0.0.1:{lab.port}/"
    with watched(browser, address) as found:
        page = found.page
        page.set_viewport_size({"width": 1700, "height": 1100})
        page.goto(f"{address}lab?token={lab.token}&reset")
        page.wait_for_function("window.jupyterapp?.commands.hasCommand('nbgrader:open-formgrader')")
        page.evaluate("window.jupyterapp.commands.execute('nbgrader:open-formgrader')")
        frame = page.wait_for_selector("iframe[src*=formgrader]").content_frame()
        submission(frame, lab, ids, "ben")
        frame.locator("section.lesson-card").first.scroll_into_view_if_needed()
        page.wait_for_timeout(800)  # its own scrolling
        frame.locator(f"[id='{CELL}-check']").evaluate("box => box.scrollIntoView({block: 'start'})")
        page.screenshot(path=screenshots / "formgrader-in-jupyterlab.png")
        assert frame.evaluate("window.pwned") is None
        assert not [url for url in found.asked if not url.startswith((address, "data:", "blob:", "ws:"))]


@pytest.fixture(scope="session")
def screenshots() -> Path:
    SCREENSHOTS.mkdir(exist_ok=True)
    return SCREENSHOTS
