"""A missing system part is skipped with one sentence, and never silently under CI."""

from __future__ import annotations

import pytest

from . import conftest


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(conftest.PARTS, "radio", (lambda: False, "This test needs a radio: buy one."))
    return "radio"


def test_missing_on_a_laptop_is_skipped(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a radio: buy one"):
        conftest.require(part)


def test_missing_under_ci_fails(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs a radio"):
        conftest.require(part)


def test_present_is_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(conftest.PARTS, "radio", (lambda: True, ""))
    conftest.require("radio")
