"""The corpus: Python source that every machine with this course already has.

Three sources: the standard library, its test suites, and the pinned, permissively licensed packages the course
installs (named in ``packages.txt``). Thirty standard-library modules (``held_out.txt``) are kept for
evaluation, and whatever resembles them is kept out of training. So are files under other licences than their
package's (``licences``), and files that say little that an earlier one has not said.
"""

from __future__ import annotations

import hashlib
import re
import string
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .licences import is_permissive

HERE = Path(__file__).parent
MAX_FILE_BYTES = 300_000
# Tables and generated data teach a code model nothing.
SKIPPED = re.compile(
    r"(^|/)(encodings|pydoc_data|turtledemo|lib2to3/tests/data|site-packages)/|_sysconfigdata"
)
LETTERS = string.ascii_letters.encode()
TEST_PARTS = {"test", "tests", "testing", "idle_test", "_testing"}
OVERLAP = 0.2  # a file sharing more than this of its long lines with a held-out module is dropped
REPEATED = 0.5  # and one sharing more than this of them with all the files before it says nothing new
LONG_LINE = 25


@dataclass(frozen=True)
class Document:
    """One source file. ``source``: "library", "tests", "packages" or "held_out"."""

    source: str
    name: str
    text: str


def named_in(file: str) -> list[str]:
    """Lines of a committed list, comments and blank lines left out."""
    lines = (HERE / file).read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def collect(stdlib: Path | None = None, packages: Path | None = None) -> list[Document]:
    """All documents in a reproducible order (by source, then path); see ``_clean`` for those left out.

    stdlib, packages: folders to read from; by default those of the running interpreter.
    """
    stdlib = stdlib or Path(sysconfig.get_path("stdlib"))
    packages = packages or Path(sysconfig.get_path("purelib"))
    held_out_names = set(named_in("held_out.txt"))
    documents = [*_library(stdlib, held_out_names), *_packages(packages)]
    held_out = [d for d in documents if d.source == "held_out"]
    if missing := held_out_names - {d.name for d in held_out}:
        raise FileNotFoundError(
            f"The standard library at {stdlib} lacks the held-out modules {', '.join(sorted(missing))}; "
            "use the Python version named in the model card."
        )
    return held_out + list(_clean([d for d in documents if d.source != "held_out"], held_out))


def digest(documents: Iterable[Document]) -> str:
    """SHA-256 over names and texts: equal digests mean the same corpus."""
    sha = hashlib.sha256()
    for d in documents:
        sha.update(f"{d.source}\0{d.name}\0{d.text}\0".encode())
    return sha.hexdigest()


def _library(root: Path, held_out: set[str]) -> Iterator[Document]:
    for name, text in _files(root):
        is_test = bool(TEST_PARTS & set(name.split("/")))
        if name in held_out:
            yield Document("held_out", name, text)
        elif not (is_test and _tests_held_out(name, held_out)):
            yield Document("tests" if is_test else "library", name, text)


def _tests_held_out(name: str, held_out: set[str]) -> bool:
    subject = Path(name).stem.removeprefix("test_")
    return subject in {Path(h).stem.lstrip("_") for h in held_out}


def _packages(root: Path) -> Iterator[Document]:
    for package in sorted(named_in("packages.txt")):
        path = root / package
        found = _files(path) if path.is_dir() else _files(root, f"{package}.py")
        for name, text in found:
            if not TEST_PARTS & set(name.split("/")):
                yield Document("packages", f"{package}/{name}", text)


def _files(root: Path, pattern: str = "**/*.py") -> Iterator[tuple[str, str]]:
    for path in sorted(root.glob(pattern)):
        name = path.relative_to(root).as_posix()
        if SKIPPED.search(name) or not path.is_file() or not 200 <= path.stat().st_size <= MAX_FILE_BYTES:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if _is_prose_or_code(text):
            yield name, text.replace("\r\n", "\n").strip() + "\n"


def _is_prose_or_code(text: str) -> bool:
    """False for tables: very long lines, or too few letters."""
    data = text.encode().replace(b" ", b"")
    letters = len(data) - len(data.translate(None, LETTERS))
    return max(map(len, text.splitlines())) < 1000 and letters > 0.35 * len(data)


def long_lines(text: str) -> set[str]:
    """The lines long enough to be recognised elsewhere, without their indentation."""
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= LONG_LINE}


def _clean(documents: list[Document], held_out: list[Document]) -> Iterator[Document]:
    """Leave out foreign licences, look-alikes of what is held out, and near-copies, in one pass.

    Near-copies are judged by lines, not by pairs of files: the time is linear in the size of the corpus, and a
    file pieced together from several others counts as the copy that it is.
    """
    kept_back = [long_lines(d.text) for d in held_out]
    all_kept_back = set().union(*kept_back)
    known: set[str] = set()
    for d in documents:
        own = long_lines(d.text)
        shared = own & all_kept_back
        if any(len(shared & lines) > OVERLAP * min(len(lines), len(own)) for lines in kept_back if shared):
            continue
        if len(own & known) > REPEATED * len(own) or not is_permissive(d.text):
            continue
        known |= own
        yield d
