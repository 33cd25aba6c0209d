"""Turns ``kernels.cpp`` into a library with the machine's own compiler, once; later calls find it in the user's cache.

Plain C on the outside, so nothing of torch's own headers is compiled: seconds. OpenMP's threads are the ones that torch
has already started, since both ask for the same runtime library.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch  # noqa: F401  # loads the OpenMP runtime that the kernels then share

from ..errors import NoCompiler
from . import pack

SOURCES = [Path(__file__).with_name(n) for n in ("kernels.cpp", "attention.h", "products.h", "vectors.h")]
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-w", "-ffp-contract=off")
# The best first: what a compiler does not know makes it fail at once. Without OpenMP, there is one thread.
TUNINGS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)


def find_compiler() -> str | None:
    """The C++ compiler of this machine: $CXX, or the usual names."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises NoCompiler."""
    compiler = find_compiler()
    if compiler is None:
        raise NoCompiler(
            "The compiled path needs a C++ compiler and found none; install one (on Debian: apt-get install g++), "
            "or leave compiled=False."
        )
    problem = ""
    for tuning in TUNINGS:
        try:
            return _load(_build(compiler, tuning))
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip() or type(error).__name__
            problem = said.splitlines()[0]
    raise NoCompiler(
        f"{compiler} could not compile the kernels ({problem}); try another one with CXX=…, or leave compiled=False."
    )


def _load(path: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(path))
    found.forward.argtypes = [ctypes.POINTER(t) for t in (pack.Model, pack.Cache, pack.Pass)]
    found.multiply.argtypes = [ctypes.POINTER(pack.Matrix), ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    found.forward.restype = found.multiply.restype = None
    return found


def _build(compiler: str, tuning: tuple[str, ...]) -> Path:
    """The library for this source, compiler and CPU: from the cache, or compiled into it."""
    # What a compiler says of itself with these flags: its version, and the instructions of this very CPU.
    about = _run([compiler, *tuning, "-dM", "-E", "-x", "c++", os.devnull])
    sources = [path.read_bytes() for path in SOURCES]
    key = hashlib.sha256(repr((sources, FLAGS, tuning, about)).encode()).hexdigest()[:24]
    folder = _cache_folder()
    path = folder / f"kernels-{key}.so"
    if not path.exists():
        # Under a name of its own, then moved: whoever comes at the same time sees all of it or nothing.
        handle, unfinished = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            _run([compiler, *FLAGS, *tuning, str(SOURCES[0]), "-o", unfinished])
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return path


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def _cache_folder() -> Path:
    """A folder that only this user can write to: what lies there is run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-inference-course"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) and _mine_alone(folder):
            return folder
    except OSError:
        pass
    return _temporary_folder()


def _mine_alone(folder: Path) -> bool:
    if os.name != "posix":  # elsewhere a user's folders are the user's without our doing
        return True
    about = folder.stat()
    return about.st_uid == os.getuid() and not about.st_mode & 0o022


@functools.cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="llm-inference-course-"))
