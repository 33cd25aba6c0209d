"""`lesson lab`: JupyterLab as the course wants it, whatever Jupyter the user has of their own."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
import websocket

from lessonlib.course import CourseError
from lessonlib.lab import server

from .conftest import RunningLab, snapshot, start_lab, write_lesson, write_own_jupyter


def page_config(lab: RunningLab) -> dict:
    status, page = lab.get("/lab/tree/00_start_here.ipynb")
    assert status == 200
    found = re.search(
        r'<script id="jupyter-config-data" type="application/json">\s*(.*?)\s*</script>', page, re.S
    )
    assert found
    return json.loads(found.group(1))


def run_in_kernel(lab: RunningLab, code: str) -> str:
    """What the code prints in a kernel started as the browser starts it."""
    session = {"path": "01_generation.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}}
    status, answer = lab.get("/api/sessions", data=session)
    assert status == 201, answer
    kernel = json.loads(answer)["kernel"]["id"]
    address = f"{lab.base.replace('http', 'ws')}/api/kernels/{kernel}/channels?token={lab.token}"
    channel = websocket.create_connection(address, timeout=60)
    header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"}
    content = {"code": code, "silent": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channel.send(json.dumps(message))
    printed = ""
    while True:
        reply = json.loads(channel.recv())
        if reply["parent_header"].get("msg_id") != "1":
            continue
        if reply["msg_type"] == "stream":
            printed += reply["content"]["text"]
        if reply["msg_type"] == "execute_reply":
            assert reply["content"]["status"] == "ok", reply["content"]
        if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
            channel.close()
            return printed


def test_the_printed_address_works(lab: RunningLab) -> None:
    assert lab.url.startswith("http://127.0.0.1:")
    assert "/lab/tree/00_start_here.ipynb?token=" in lab.url
    assert lab.get(lab.url.removeprefix(lab.base), token="")[0] == 200


@pytest.mark.parametrize("token", ["", "theirs", "wrong"])
def test_without_the_token_nothing_is_served(lab: RunningLab, token: str) -> None:
    assert lab.get("/api/contents", token=token)[0] == 403


def test_it_serves_the_students_copy(lab: RunningLab) -> None:
    listing = json.loads(lab.get("/api/contents")[1])["content"]
    assert sorted(item["name"] for item in listing) == ["00_start_here.ipynb", "01_generation.ipynb"]
    assert (lab.folder / "01_generation.ipynb").is_file()


def test_teacher_panels_and_news_are_off(lab: RunningLab) -> None:
    config = page_config(lab)
    assert set(server.DISABLED_PANELS) <= set(config["disabledExtensions"])
    assert config["extensionManager"]["can_install"] is False
    for path in ("/formgrader", "/assignments", "/courses", "/assignments/validate", "/jupytext"):
        assert lab.get(path)[0] == 404, path
    plugin = "@jupyterlab/apputils-extension:notification"
    settings = json.loads(lab.get(f"/lab/api/settings/{plugin}")[1])["schema"]["properties"]
    assert settings["fetchNews"]["default"] == "false"
    assert settings["checkForUpdates"]["default"] is False


def test_widgets_stay_on(lab: RunningLab) -> None:
    config = page_config(lab)
    present = {extension["name"] for extension in config["federated_extensions"]}
    assert {"anywidget", "@jupyter-widgets/jupyterlab-manager"} <= present
    assert not {"anywidget", "@jupyter-widgets/jupyterlab-manager"} & set(config["disabledExtensions"])


def test_the_kernel_is_this_python_in_the_students_folder(lab: RunningLab) -> None:
    specs = json.loads(lab.get("/api/kernelspecs")[1])
    assert list(specs["kernelspecs"]) == ["python3"]
    printed = run_in_kernel(
        lab,
        "import os, shutil, sys\n"
        "print(sys.executable, os.environ['LESSON_HOME'], os.getcwd(), shutil.which('lesson'), sep='\\n')",
    )
    lesson = str(Path(sys.executable).parent / "lesson")
    assert printed.split() == [sys.executable, str(lab.folder), str(lab.folder), lesson]


def test_tabs_are_kept_apart_and_forgotten_at_the_next_start(lab: RunningLab, tmp_path: Path) -> None:
    assert (lab.folder / ".lesson/jupyter/workspaces").is_dir()
    old = tmp_path / ".lesson/jupyter/workspaces/default-37a8.jupyterlab-workspace"
    theme = tmp_path / ".lesson/jupyter/settings/theme"
    for file in (old, theme):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    server.prepare(tmp_path)
    assert not old.exists()
    assert theme.exists()  # the student's own choice


@pytest.mark.needs("chromium")
def test_the_page_is_calm(lab: RunningLab, chromium: str) -> None:
    """In the browser: one tab, the first lesson, a kernel; no news, teacher's menu, dialog or error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(lab.url)
        page.get_by_role("heading", name="00_start_here").wait_for(timeout=60_000)
        page.locator(".jp-Toolbar-kernelName", has_text="Python 3 (this course)").wait_for(timeout=60_000)
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        assert page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel").all_inner_texts() == [
            "00_start_here.ipynb"
        ]
        menus = page.locator(".lm-MenuBar-itemLabel").all_inner_texts()
        assert menus == ["File", "Edit", "View", "Run", "Kernel", "Tabs", "Settings", "Help"]
        assert page.locator(".Toastify__toast, .jp-Dialog").count() == 0
        assert page.locator("#stored").inner_text() == "a stored picture"
        assert errors == []
        browser.close()
    assert "[W " not in lab.output and "WARNING" not in lab.output


def test_nothing_of_the_users_jupyter_is_touched_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    write_lesson(tmp_path / "shipped", "01_generation", "1 + 1")
    write_own_jupyter(tmp_path / "home")
    before = snapshot(tmp_path / "home")
    lab = start_lab(tmp_path)
    run_in_kernel(lab, "print(1)")
    children = psutil.Process(lab.process.pid).children(recursive=True)
    assert children
    assert lab.stop() == 0
    assert "JupyterLab has stopped." in lab.output
    assert "y/[n]" not in lab.output
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert snapshot(tmp_path / "home") == before


def test_a_termination_signal_ends_it_cleanly(tmp_path: Path) -> None:
    """What `docker stop` sends."""
    write_lesson(tmp_path / "shipped", "00_start_here")
    lab = start_lab(tmp_path, "--dir", str(tmp_path / "else where"))
    assert (tmp_path / "else where/00_start_here.ipynb").is_file()
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(timeout=60) == 0


# ---------------------------------------------------------------- ports and surroundings


@pytest.fixture
def taken() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_asked_for_and_taken_is_one_sentence(taken: int) -> None:
    with pytest.raises(CourseError, match=f"Port {taken} is already in use.*--port {taken + 1}"):
        server.choose_port("127.0.0.1", taken)


def test_without_a_wish_the_next_free_port_is_taken(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEFAULT_PORT", taken)
    chosen = server.choose_port("127.0.0.1", None)
    assert taken < chosen < taken + server.PORTS_TRIED


def test_all_ports_taken_is_one_sentence(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEFAULT_PORT", taken)
    monkeypatch.setattr(server, "PORTS_TRIED", 1)
    with pytest.raises(CourseError, match="--port"):
        server.choose_port("127.0.0.1", None)


@pytest.mark.parametrize(
    ("reason", "says"), [(errno.EACCES, "administrator"), (errno.EADDRNOTAVAIL, "--ip 127.0.0.1")]
)
def test_other_reasons_are_told_apart(monkeypatch: pytest.MonkeyPatch, reason: int, says: str) -> None:
    monkeypatch.setattr(server, "_why_not", lambda ip, port: reason)
    for asked in (80, None):
        with pytest.raises(CourseError, match=says):
            server.choose_port("10.9.8.7", asked)


def test_an_address_that_is_not_ours_is_one_sentence() -> None:
    with pytest.raises(CourseError, match=r"192\.0\.2\.1"):
        server.choose_port("192.0.2.1", 0)


def test_no_browser_where_none_can_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(server, "in_container", lambda: False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    assert not server.can_open_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert server.can_open_browser()
    monkeypatch.setattr(server, "in_container", lambda: True)
    assert not server.can_open_browser()
