"""From source to library: compiled once, kept for the next time, and a clear sentence where it cannot be."""

from __future__ import annotations

import os
import stat

import pytest

from lessonlib.engine import LLM
from lessonlib.engine.compiled import build, compile_model
from lessonlib.engine.errors import NoCompiler

from ..conftest import random_model, refuses, tiny_config


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As on a machine that never compiled anything; what was loaded before is loaded again afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.library.cache_clear()
    yield tmp_path / "cache" / "llm-inference-course"
    build.library.cache_clear()


def counted(monkeypatch) -> list[list[str]]:
    """Every command that the build runs from now on."""
    commands: list[list[str]] = []
    run = build._run
    monkeypatch.setattr(build, "_run", lambda command: commands.append(command) or run(command))
    return commands


@pytest.mark.needs("c++")
def test_it_compiles_once_and_again_after_a_change(fresh, monkeypatch, tmp_path):
    commands = counted(monkeypatch)
    build.library()
    made = list(fresh.iterdir())
    assert [path.suffix for path in made] == [".so"] and any("-O3" in command for command in commands)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700  # what lies there is run
    build.library.cache_clear()
    commands.clear()
    build.library()
    assert not any("-O3" in command for command in commands)
    copies = [tmp_path / path.name for path in build.SOURCES]
    for path, copy in zip(build.SOURCES, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    copies[-1].write_bytes(copies[-1].read_bytes() + b"// changed\n")
    monkeypatch.setattr(build, "SOURCES", copies)
    build.library.cache_clear()
    build.library()
    assert len(list(fresh.iterdir())) == 2


@pytest.mark.needs("c++")
def test_a_cache_that_others_can_write_to_is_not_trusted(fresh, monkeypatch):
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    build.library()
    assert not list(fresh.iterdir())


@pytest.mark.needs("c++")
def test_flags_that_a_compiler_does_not_know_are_left_out(fresh, monkeypatch):
    monkeypatch.setattr(build, "TUNINGS", (("-march=nonsense",), ("-fopenmp",)))
    assert build.library().forward


def test_no_compiler(fresh, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    with refuses(NoCompiler, match="install one"):
        compile_model(random_model(tiny_config(num_hidden_layers=1)))
    with refuses(NoCompiler, match="compiled=False"):
        LLM("pico-draft", compiled=True)


def test_a_compiler_that_cannot(fresh, monkeypatch, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'internal error: no luck today' >&2\necho 'and more' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(broken))
    with refuses(NoCompiler, match="no luck today"):
        build.library()
