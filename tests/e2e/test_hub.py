"""A class on JupyterHub, from fetching to feedback: two students and an instructor, each in a server of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from grader import authoring
from grader.build import COURSE_SHIM

from ..browser.conftest import SCREENSHOTS
from ..browser.jupyterlab_page import _free_port, launch
from ..grader.graded_class import BY_MACHINE, CELL, LESSON, OUT_OF, RIGHT, SLUG, WRONG

HUB = Path(__file__).resolve().parents[2] / "grader" / "hub"
PASSWORD = "a trial"
START = 90  # seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.needs("chromium"),
    pytest.mark.needs("bwrap"),
    pytest.mark.needs("hub proxy"),
]


class Hub:
    """A running hub in ``place``; `account` is what somebody types in a terminal of their server."""

    def __init__(self, place: Path):
        self.place = place
        self.port = _free_port()

    def __enter__(self) -> Hub:
        about = {
            "": str(self.place),
            "_STUDENTS": "ada,ben",
            "_INSTRUCTORS": "grace",
            "_PASSWORD": PASSWORD,
            "_PORT": str(self.port),
            "_INNER_PORT": str(_free_port()),
            "_PROXY_PORT": str(_free_port()),
        }
        environment = os.environ | {f"LESSON_HUB{name}": value for name, value in about.items()}
        self.log = self.place / "hub.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(HUB / "jupyterhub_config.py")],
            cwd=self.place,
            env=environment,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/hub/login", timeout=5).close()
                return self
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[
                    -3000:
                ]
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def home(self, name: str) -> Path:
        return self.place / "homes" / name

    def account(self, name: str, *command: str, folder: str = ".") -> str:
        """Run a command as somebody in a terminal of their server does."""
        role = "instructor" if name == "grace" else "student"
        environment = {
            "HOME": str(self.home(name)),
            "JUPYTERHUB_USER": name,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "JUPYTER_CONFIG_PATH": str(self.place / "config" / role),
            "LESSON_EXCHANGE": str(self.place / "exchange"),
            "LESSON_ONE_ACCOUNT": "1",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command,
            cwd=self.home(name) / folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def hub(tmp_path_factory, needs) -> Iterator[Hub]:
    for part in ("chromium", "bwrap", "hub proxy"):
        needs(part)
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(chromium):
    with launch(chromium) as running:
        yield running


@contextmanager
def logged_in(browser, hub: Hub, name: str):
    """JupyterLab in somebody's own server."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(START * 1000)
        page.goto(f"{hub.url}/hub/login")
        page.fill("input[name=username]", name)
        page.fill("input[name=password]", PASSWORD)
        page.click("input[type=submit], button[type=submit]")
        page.wait_for_url(f"**/user/{name}/lab**")
        page.wait_for_selector("#jp-main-dock-panel")
        yield page
    finally:
        context.close()


def menu(page, *path: str) -> None:
    page.click(f".lm-MenuBar-item:has-text('{path[0]}')")
    for name in path[1:]:
        page.click(f".lm-Menu-item:has-text('{name}')")


def work(hub: Hub, name: str, code: str | None, answers: bytes = b"") -> None:
    """What a student does with the notebook that was fetched."""
    folder = hub.home(name) / SLUG
    book = nbformat.read(folder / f"{SLUG}.ipynb", as_version=4)
    for cell in book.cells:
        if code and cell.metadata.get("nbgrader", {}).get("grade_id") == CELL:
            cell.source = code
    nbformat.write(book, folder / f"{SLUG}.ipynb")
    if answers:
        (folder / f"{SLUG}.log.jsonl").write_bytes(answers)


def test_a_class_from_fetching_to_feedback(hub, browser, tmp_path):
    # The instructor logs in, hands out a lesson, and sees Formgrader, which a student does not have.
    with logged_in(browser, hub, "grace") as page:
        course = hub.home("grace") / "course"
        (course / "source" / SLUG).mkdir(parents=True)
        source = tmp_path / f"{SLUG}.py"
        source.write_text(LESSON, encoding="utf-8")
        nbformat.write(authoring.read_lesson(source), course / "source" / SLUG / f"{SLUG}.ipynb")
        (course / "nbgrader_config.py").write_text(COURSE_SHIM, encoding="utf-8")
        hub.account("grace", "lesson", "release", "02", "--course", "course")
        hub.account("grace", "nbgrader", "release_assignment", SLUG, folder="course")
        menu(page, "Nbgrader", "Formgrader")
        page.frame_locator("iframe[src*=formgrader]").locator(f"text={SLUG}").first.wait_for()

    # One student fetches and submits by mouse, the other in a terminal.
    with logged_in(browser, hub, "ada") as page:
        page.click(".lm-MenuBar-item:has-text('Nbgrader')")
        page.wait_for_selector(".lm-Menu-item:has-text('Assignment List')")
        assert page.locator(".lm-Menu-item:has-text('Formgrader')").count() == 0
        page.click(".lm-Menu-item:has-text('Assignment List')")
        page.click(".btn:text-is('Fetch')")
        page.wait_for_selector(".btn:text-is('Submit')")
        log = b"".join(_answers())
        work(hub, "ada", RIGHT, log)
        page.screenshot(path=SCREENSHOTS / "hub-assignments.png")
        page.click(".btn:text-is('Submit')")
        for _ in range(300):
            if len(_handed_in(hub)) == 1:
                break
            page.wait_for_timeout(100)
    hub.home("ben").mkdir(exist_ok=True)
    hub.account("ben", "nbgrader", "fetch_assignment", SLUG)
    work(hub, "ben", WRONG)
    hub.account("ben", "nbgrader", "submit", SLUG)
    handed_in = _handed_in(hub)
    assert [name.split("+")[0] for name in handed_in] == ["ada", "ben"]
    inbound = hub.place / "exchange" / "llm-inference" / "inbound"
    assert inbound.stat().st_mode & 0o777 == 0o733, "everybody may hand in, nobody else may look"

    # The instructor collects, grades with the course's own grader, and hands feedback back.
    hub.account("grace", "nbgrader", "collect", SLUG, folder="course")
    assert (course / "submitted" / "ada" / SLUG / f"{SLUG}.log.jsonl").read_bytes() == log
    told = hub.account("grace", "lesson", "grade", "02", "--course", "course", "--workers", "1")
    assert f"ada: {BY_MACHINE} of {BY_MACHINE}" in told and f"ben: 0 of {BY_MACHINE}" in told, (
        "6 more are a person's to give"
    )
    hub.account("grace", "lesson", "class", "feedback", "02", "--course", "course")
    hub.account("grace", "nbgrader", "release_feedback", SLUG, folder="course")

    # Each student gets one page: their own, without a hidden test.
    for name, points in (("ada", BY_MACHINE), ("ben", "0")):
        hub.account(name, "nbgrader", "fetch_feedback", SLUG)
        pages = list((hub.home(name) / SLUG / "feedback").rglob("*.html"))
        assert len(pages) == 1
        text = pages[0].read_text(encoding="utf-8")
        assert f"Feedback for {name}" in text and f"<b>{points}</b> of {OUT_OF} points" in text
        for secret in ("HIDDEN TESTS", "hidden(", "earned(", "grader.checks", "grader.keys"):
            assert secret not in text


def _answers() -> Iterator[bytes]:
    from grader.keys import load_key
    from lessonlib.classroom.quiz import ANSWER
    from lessonlib.classroom.store import Event

    for name, entry in load_key(SLUG).items():
        yield Event(ANSWER, f"{SLUG}.{name}", {"answer": entry.answer}).line()


def _handed_in(hub: Hub) -> list[str]:
    inbound = hub.place / "exchange" / "llm-inference" / "inbound"
    return sorted(path.name for path in inbound.iterdir()) if inbound.is_dir() else []


@pytest.mark.parametrize("missing", ["_STUDENTS", "_INSTRUCTORS", "_PASSWORD"])
def test_a_hub_that_is_not_told_enough_says_what(missing, tmp_path):
    about = {"_STUDENTS": "ada", "_INSTRUCTORS": "grace", "_PASSWORD": "x"}
    about.pop(missing)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LESSON_HUB")}
    environment |= {f"LESSON_HUB{name}": value for name, value in about.items()} | {
        "LESSON_HUB": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "-f", str(HUB / "jupyterhub_config.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode and f"LESSON_HUB{missing} is not set" in done.stdout + done.stderr
    assert not list(tmp_path.iterdir()), "and begins nothing"
