"""The class report in a real browser: light, dark, narrow, with a screen reader's eyes, and on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grader.report_page import page as html_of
from grader.similarity import Pair

from ..browser.conftest import SCREENSHOTS, axe  # noqa: F401 - a fixture
from .test_report import CLASS, hostile

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]


@pytest.fixture(scope="module")
def browser(chromium):
    from ..browser.jupyterlab_page import launch

    with launch(chromium) as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report with every part filled, and one whose students write what they like."""
    strange, pairs = hostile()
    people = [*CLASS.people, *strange.people]
    found = tmp_path_factory.mktemp("report") / "report.html"
    found.write_text(html_of(replace(CLASS, people=people), [*pairs, _pair()]), encoding="utf-8")
    return found


def _pair() -> Pair:
    return Pair("02.one", CLASS.people[0].name, CLASS.people[1].name, 0.71, (60, 64))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_reads_well_in_a_browser(browser, file, scheme, axe):  # noqa: F811
    context = browser.new_context(color_scheme=scheme, viewport={"width": 900, "height": 1200})
    try:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        assert asked == [file.as_uri()], "it loads nothing"
        assert page.evaluate("window.pwned") is None
        across = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert across <= 0, "the page itself never scrolls sideways"
        page.screenshot(path=SCREENSHOTS / f"report-{scheme}.png", full_page=True)
        found = []
        cdp = context.new_cdp_session(page)  # the page's own policy runs no script of ours
        cdp.send("Page.setBypassCSP", {"enabled": True})
        page.reload()
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found = [v["id"] for v in result["violations"] if v["impact"] in ("serious", "critical")]
        assert found == []
    finally:
        context.close()


def test_the_keyboard_gets_everywhere(browser, file):
    context = browser.new_context(viewport={"width": 900, "height": 1200})
    try:
        page = context.new_page()
        page.goto(file.as_uri())
        for link in page.locator("nav a").all():
            target = link.get_attribute("href")
            assert page.locator(f"section{target} h2").count() == 1
        wide = page.evaluate(
            "[...document.querySelectorAll('.frame, pre')]"
            ".filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
        )
        assert wide == 0, "what scrolls can be reached"
    finally:
        context.close()


def test_on_paper_no_table_is_cut(browser, file):
    context = browser.new_context(viewport={"width": 700, "height": 1000})  # about A4 between its margins
    try:
        page = context.new_page()
        page.emulate_media(media="print")
        page.goto(file.as_uri())
        cut = page.evaluate(
            "[...document.querySelectorAll('table, pre')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.textContent.slice(0, 80))"
        )
        assert cut == []
        assert page.pdf(format="A4").startswith(b"%PDF")
    finally:
        context.close()
