"""Instructor's commands where something is missing: a package of the extra, or the checkout."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from grader import needs
from lessonlib.cli import build_app
from lessonlib.course import CourseError

ALL = (["build", "02"], ["release", "02"], ["grade", "02"], ["class", "marks", "02"])


def told(command: list[str]) -> str:
    with pytest.raises(CourseError) as refused:
        CliRunner().invoke(build_app()[0], command, catch_exceptions=False)
    return str(refused.value)


@pytest.mark.parametrize("command", ALL, ids=lambda command: command[0])
def test_a_missing_package_is_named(command, monkeypatch):
    monkeypatch.setattr(needs, "EXTRA", ("json", "no_such_package"))
    assert told(command) == (
        f"`lesson {command[0]}` needs no_such_package; "
        "install it with: pip install 'llm-inference-course[grader]'"
    )


@pytest.mark.parametrize("command", ALL, ids=lambda command: command[0])
def test_an_installed_package_has_no_keys(command, monkeypatch, tmp_path):
    monkeypatch.setattr(needs, "KEYS", tmp_path / "keys")
    assert "works in a checkout of the course" in told(command)


def test_the_extra_is_what_pyproject_declares():
    import tomllib
    from importlib.metadata import packages_distributions
    from pathlib import Path

    text = (Path(needs.__file__).parents[1] / "pyproject.toml").read_text()
    declared = {
        name.partition("[")[0].partition(">")[0]
        for name in tomllib.loads(text)["project"]["optional-dependencies"]["grader"]
    }
    known = packages_distributions()
    listed = {known[name][0].lower().replace("_", "-") for name in needs.EXTRA}
    assert listed <= declared and declared - listed == {"dask-jobqueue", "nbconvert"}, (
        "dask-jobqueue is only for --cluster, nbconvert comes with JupyterLab"
    )
