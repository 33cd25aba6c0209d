"""The course's package as a student's code finds it while it is graded: without what it is asked to write.

What an exercise names in ``forbid`` is hollow here: it can be imported, so that the rest of the package works, and
stops with one sentence when it is used. So are the course's own answers in ``lessonlib.classroom.checks``.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import lessonlib
from lessonlib.course import CourseError

PACKAGE = Path(lessonlib.__file__).parent
INSIDE = Path(__file__).parent / "inside"
AGENT = "lesson_agent"  # what `grader.inside` is called over there
TOOLS = {  # modules of `classroom.checks` that their own lesson imports, and that answer nothing there
    "lesson_02.toys",
    "lesson_06.local_server",
    "lesson_06.wire",
    "lesson_08.race",
    "lesson_08.runners",
}
LINKED = 2**20  # bytes from which a file (a model's weights) is linked instead of copied
_HOLLOW = '''"""Held back while this lesson is graded."""


class _Hollow:
    def __init__(self, *args, **named):
        raise RuntimeError(
            f"{{__name__}} is what an exercise of this lesson asks you to write; it is not there while you are graded."
        )


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (_Hollow,), {{}})
'''


def library(number: str, hollow: Iterable[str], folder: Path) -> Path:
    """A folder with a lesson's copy of ``lessonlib``, in which these modules are hollow; made once, then found again.

    Raises CourseError where there is no module of that name.
    """
    names = sorted({*hollow, *answers(number)})
    made = folder / f"library-{library_key(number, names)}"
    if made.is_dir():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix="library."))
    try:
        package = scratch / "lessonlib"
        shutil.copytree(PACKAGE, package, copy_function=_copy, ignore=shutil.ignore_patterns("__pycache__"))
        for name in names:
            _make_hollow(package, name)
        shutil.copytree(INSIDE, scratch / AGENT, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(scratch, quiet=2)
        scratch.chmod(0o755)
        scratch.rename(made)
    except OSError:
        if not made.is_dir():  # if it is there, somebody else has made it meanwhile
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def library_key(number: str, hollow: Iterable[str]) -> str:
    """A digest of what a lesson's library is now, with these modules hollow."""
    told = [*sorted({*hollow, *answers(number)}), _fingerprint()]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def answers(number: str) -> list[str]:
    """The modules of ``lessonlib.classroom.checks`` that may hold right answers for a lesson."""
    root = PACKAGE / "classroom" / "checks"
    found = [path.relative_to(root).with_suffix("").parts for path in root.glob("lesson_*/*.py")]
    inside = [".".join(part for part in parts if part != "__init__") for parts in sorted(found)]
    own = [name for name in TOOLS if name.startswith(f"lesson_{number}.")]
    return [f"lessonlib.classroom.checks.{name}" for name in inside if name not in own]


def _make_hollow(package: Path, name: str) -> None:
    place = package.joinpath(*name.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not name.startswith("lessonlib.") or not file.is_file():
        raise CourseError(f"There is no module {name} to forbid; look for the name in grader/checks.")
    file.unlink()  # it may be a link
    file.write_text(_HOLLOW.format(), encoding="utf-8")


def _copy(source: str, target: str) -> str:
    if os.path.getsize(source) >= LINKED:
        try:
            os.link(source, target)
            return target
        except OSError:
            pass
    return shutil.copy2(source, target)


@cache
def _fingerprint() -> str:
    """What the package and the agent are now: their files' names, sizes and times."""
    told = []
    for path in sorted([*PACKAGE.rglob("*"), *INSIDE.rglob("*.py")]):
        if path.is_file() and "__pycache__" not in path.parts:
            about = path.stat()
            told.append(f"{path} {about.st_size} {about.st_mtime_ns}")
    return "\n".join(told)
