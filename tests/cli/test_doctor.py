"""`lesson doctor`: every part is tried; a missing one says what to do and only a required one fails."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lessonlib import cli
from lessonlib.lab import health
from lessonlib.lab.health import Finding


def only(monkeypatch: pytest.MonkeyPatch, *checks: tuple) -> None:
    monkeypatch.setattr(health, "CHECKS", checks)


def good(name: str) -> Finding:
    return Finding(name, "ok", "there")


def broken(name: str) -> Finding:
    raise RuntimeError("it went\nwrong")


def missing(name: str) -> Finding:
    return Finding(name, "absent", "not [installed]", "Get one.")


def test_the_report_says_what_works_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, ("Engine", True, good), ("Radio", False, missing))
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for text in ("works   Engine  there", "absent  Radio", "not [installed]", "Get one.", "lesson lab"):
        assert text in shown


@pytest.mark.parametrize(("required", "status"), [(True, 1), (False, 0)])
def test_only_a_required_part_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: bool, status: int
) -> None:
    only(monkeypatch, ("Part", required, broken), ("Engine", True, good))
    assert cli.main(["doctor", "--json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (status == 0)
    assert report["findings"][0]["found"] == "RuntimeError: it went wrong"
    assert report["findings"][1]["status"] == "ok"  # one broken part does not hide the next


def test_the_parts_this_test_run_itself_needs_work_here() -> None:
    """Kernel and pictures are really tried."""
    checks = {name: check for name, _, check in health.CHECKS}
    for name in ("Python", "Memory", "Disk", "Packages", "Notebook kernel", "Interactive pictures"):
        finding = checks[name](name)
        assert finding.status in ("ok", "tight"), finding


def test_a_package_below_its_bound_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=99", "no-such-package>=1", "x; extra == 'test'"]
    )
    finding = health._packages("Packages")
    assert finding.status == "failed"
    assert "numpy" in finding.found and ">=99" in finding.found
    assert "no-such-package is missing" in finding.found
    assert "x" not in finding.found.split("; ")
    assert "make lab" in finding.todo


def test_a_kernel_that_answers_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health.sys, "executable", health.sys.executable)
    original = health.write_kernelspec

    def other(folder: Path) -> Path:
        kernels = original(folder)
        spec = kernels / "python3/kernel.json"
        startup = "import sys; sys.executable = 'elsewhere'; from ipykernel import kernelapp as k; "
        content = json.loads(spec.read_text())
        content["argv"][1:3] = ["-c", startup + "k.launch_new_instance()"]
        spec.write_text(json.dumps(content))
        return kernels

    monkeypatch.setattr(health, "write_kernelspec", other)
    finding = health._kernel("Notebook kernel")
    assert finding.status == "failed"
    assert "elsewhere" in finding.found


def test_missing_picture_extensions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LAB_EXTENSIONS", ("anywidget", "no-such-extension"))
    finding = health._widgets("Interactive pictures")
    assert finding.status == "failed"
    assert finding.found.startswith("no-such-extension")


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MODELS", ("never-trained",))
    finding = health._models("Models")
    assert finding.status == "failed"
    assert "never-trained" in finding.found
    assert "lesson train" in finding.todo


def test_a_sandbox_that_may_not_start_is_not_a_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = health._sandbox("Sandbox")
    assert finding.status == "absent"
    assert "namespaces" in finding.todo
    refusing.unlink()
    assert "not installed" in health._sandbox("Sandbox").found


def test_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = health.GIB
    for total, available, status in [(8, 4, "ok"), (8, 0.5, "tight"), (0.5, 0.4, "failed")]:
        monkeypatch.setattr(health, "memory_limit", lambda t=total, a=available: (int(t * gib), int(a * gib)))
        assert health._memory("Memory").status == status


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(health.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert health._disk("Disk").status == "failed"


def test_offline_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = health._hub("Model hub")
    assert finding.status == "absent"
    assert "Nothing to do" in finding.todo


def test_every_sentence_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    only(monkeypatch, ("Part", False, lambda name: Finding(name, "absent", "long " * 40, "do " * 40)))
    cli.main(["doctor"])
    assert Console(width=60).width == 60
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 62


def test_the_chromium_one_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSON_CHROMIUM", "/opt/my/chromium")
    assert health.find_chromium() == "/opt/my/chromium"
    with pytest.raises((OSError, subprocess.SubprocessError)):
        health._chromium("Chromium")
