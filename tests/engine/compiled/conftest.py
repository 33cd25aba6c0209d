"""The kernels as this machine's compiler makes them at its best, and as it would for CPUs that can do less."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable

import pytest

from lessonlib.engine.compiled import build

TUNINGS: dict[str, tuple[str, ...]] = {"best": ()}
if platform.machine() in ("x86_64", "AMD64"):
    TUNINGS |= {"AVX2": ("-march=x86-64-v3", "-fopenmp"), "no vectors, one thread": ("-march=x86-64",)}


@pytest.fixture(params=TUNINGS, scope="session")
def kernels(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> ctypes.CDLL:
    """The compiled library, once for each kind of CPU."""
    needs("c++")
    if request.param == "best":
        return build.library()
    compiler = build.find_compiler()
    assert compiler
    return build._load(build._build(compiler, TUNINGS[request.param]))
