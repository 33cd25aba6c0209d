"""A test that asks for `lesson` runs once for each lesson under proof."""

from __future__ import annotations

import pytest
from proven import SOURCES, TOY, Lesson, built_toy


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lesson" in metafunc.fixturenames:
        metafunc.parametrize("lesson", SOURCES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    return built_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def lesson(request: pytest.FixtureRequest) -> Lesson:
    source = SOURCES[request.param]
    return request.getfixturevalue("toy") if source == TOY else Lesson(source)
