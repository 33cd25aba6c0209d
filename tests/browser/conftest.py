"""One JupyterLab and one Chromium for all browser tests; a page that remembers every error it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import AXE
from tests.explorers.tiny import write_tiny

SCREENSHOTS = Path(__file__).parent / "screenshots"


# "package": Playwright keeps an event loop running in this thread, and later tests want their own.
@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium: str):
    """A running Lab on an empty folder: `lab.write_notebook(name, cells)`, `lab.notebook_url(name)`."""
    from .jupyterlab_page import Lab

    # What `lesson lab` does too: a saved notebook keeps pictures, not views of a kernel that will be gone.
    hook = "--FileContentsManager.pre_save_hook=lessonlib.explorers.saved.keep_pictures"
    with Lab(tmp_path_factory.mktemp("lab") / "lessons", [hook]) as running:
        yield running


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights and a small tokenizer."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="package")
def browser(chromium: str):
    """Headless Chromium."""
    from .jupyterlab_page import launch

    with launch(chromium) as running:
        yield running


@pytest.fixture
def page(browser) -> Iterator:
    """A fresh page, 1280 wide. At the end the test fails if an explorer wrote an error to the console."""
    with fresh_page(browser) as opened:
        yield opened


@contextmanager
def fresh_page(browser, **options) -> Iterator:
    from .jupyterlab_page import errors_of

    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **options)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    errors = errors_of(opened)
    yield opened
    context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what was seen are left; ignored by git."""
    SCREENSHOTS.mkdir(exist_ok=True)
    return SCREENSHOTS


@pytest.fixture(scope="session")
def axe(needs: Callable[[str], None]) -> str:
    """The source of axe-core, the accessibility checker."""
    needs("axe")
    return AXE.read_text(encoding="utf-8")
