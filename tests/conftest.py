"""What every test shares: no network, one thread a worker, and honest skips for missing system parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads on top would only quarrel
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from benchmarks.worker import PEERS
from lessonlib.engine.compiled import find_compiler
from lessonlib.lab.health import find_chromium, sandbox_works

settings.register_profile("course", deadline=None)  # a slow machine is not a failure
settings.load_profile("course")

ROOT = Path(__file__).parents[1]
AXE = Path(os.environ.get("AXE_CORE", ROOT / "tests/browser/node_modules/axe-core/axe.min.js"))
PROXY = ROOT / "grader/hub/node_modules/.bin/configurable-http-proxy"

# name: does it work here?, and the sentence that says what to do if not.
PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "chromium": (
        lambda: find_chromium() is not None,
        "This test needs Chromium: install it (on Debian: apt-get install chromium).",
    ),
    "node": (
        lambda: shutil.which("node") is not None,
        "This test needs node: install it (on Debian: apt-get install nodejs).",
    ),
    "bwrap": (
        sandbox_works,
        "This test needs a working bubblewrap: install it (on Debian: apt-get install bubblewrap) "
        "where user namespaces are allowed.",
    ),
    "c++": (
        lambda: find_compiler() is not None,
        "This test needs a C++ compiler: install one (on Debian: apt-get install g++).",
    ),
    "redis": (
        lambda: shutil.which("redis-server") is not None,
        "This test needs Redis: install it (on Debian: apt-get install redis-server).",
    ),
    "axe": (
        AXE.is_file,
        "This test needs the accessibility checker: run npm ci --prefix tests/browser.",
    ),
    "hub proxy": (
        PROXY.exists,
        "This test needs JupyterHub's proxy: run npm ci --prefix grader/hub.",
    ),
    "llama.cpp": (
        lambda: (PEERS.parent.parent / ".ready").is_file(),
        "This test needs llama.cpp beside the course: run make peers (a C++ compiler and some minutes).",
    ),
}


def require(part: str) -> None:
    """Skip the running test with one sentence if a system part is missing; under CI=true, fail."""
    works, sentence = PARTS[part]
    if works():
        return
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{sentence} Under CI=true it must be there.", pytrace=False)
    pytest.skip(sentence)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for part in mark.args:
            require(part)


@pytest.fixture(scope="session")
def needs() -> Callable[[str], None]:
    """For fixtures: `needs("chromium")` does what the mark of that name does for tests."""
    return require


@pytest.fixture(scope="session")
def chromium(needs: Callable[[str], None]) -> str:
    """The path of the browser to drive."""
    needs("chromium")
    found = find_chromium()
    assert found
    return found
