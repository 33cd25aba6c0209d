"""The corpus: what goes in, in which order, and what never does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from lessonlib.zoo.corpus import Document, collect, digest, named_in
from lessonlib.zoo.dialogue import dialogues
from lessonlib.zoo.licences import is_permissive

from .conftest import module, write


def names(documents: list[Document], source: str) -> list[str]:
    return [d.name for d in documents if d.source == source]


def test_every_source_has_its_files(library):
    documents = collect(*library)
    assert names(documents, "library") == ["alpha.py", "beta/__init__.py"]
    assert names(documents, "tests") == ["test/test_alpha.py"]
    assert names(documents, "held_out") == ["_heap.py", "kept/secret.py"]
    assert names(documents, "packages") == [
        "listed/core.py",
        "single/single.py",
    ]  # no tests, nothing unlisted


def test_the_order_is_that_of_the_names_whatever_the_disk_says(library, monkeypatch):
    import pathlib

    expected = collect(*library)
    glob = pathlib.Path.glob
    monkeypatch.setattr(pathlib.Path, "glob", lambda self, pattern: reversed(list(glob(self, pattern))))
    assert collect(*library) == expected
    assert digest(collect(*library)) == digest(expected)
    assert digest(expected[1:]) != digest(expected) != digest([*expected[1:], expected[0]])


def test_what_is_held_out_is_never_trained_on(library):
    stdlib, packages = library
    secret = (stdlib / "kept/secret.py").read_text()
    write(stdlib, "copy_of_it.py", secret)  # the same file elsewhere
    write(packages, "listed/vendored.py", "# vendored\n" + secret)  # nearly the same file
    write(stdlib, "half.py", module(20, 3) + "\n".join(secret.splitlines()[:20]) + "\n")  # a good part of it
    write(stdlib, "test/test_secret.py", module(21))  # its tests
    write(stdlib, "test/test_heap.py", module(22))  # those of _heap.py
    write(stdlib, "test/test_other.py", module(23))
    before = {d.name for d in collect(*library)}
    assert before == {
        "_heap.py", "kept/secret.py", "alpha.py", "beta/__init__.py", "test/test_alpha.py", "test/test_other.py",
        "listed/core.py", "single/single.py",
    }  # fmt: skip


def test_sharing_a_few_lines_with_a_held_out_module_is_no_crime(library):
    stdlib, _ = library
    some = (stdlib / "kept/secret.py").read_text().splitlines()[2:4]
    write(stdlib, "gamma.py", module(30) + "\n".join(some) + "\n")
    assert "gamma.py" in names(collect(*library), "library")


def test_a_file_found_twice_counts_once(library):
    stdlib, packages = library
    write(packages, "listed/same.py", (stdlib / "alpha.py").read_text())
    assert "listed/same.py" not in names(collect(*library), "packages")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("short.py", "x = 1\n"),
        ("huge.py", module(40, 1200)),
        ("table.py", "TABLE = [\n" + "    0x00, 0x01, 0x02, 0x03,\n" * 100 + "]\n"),
        ("one_line.py", module(41) + "DATA = '" + "a" * 2000 + "'\n"),
        ("encodings/cp037.py", module(42)),
        ("pydoc_data/topics.py", module(43)),
        ("site-packages/other/core.py", module(44)),
        ("_sysconfigdata_linux.py", module(45)),
        ("notes.txt", module(46)),
    ],
)
def test_what_teaches_nothing_is_left_out(library, name, content):
    write(library[0], name, content)
    assert name not in {d.name for d in collect(*library)}


def test_what_is_no_utf_8_is_left_out_and_line_ends_are_unix(library):
    stdlib, _ = library
    (stdlib / "latin.py").write_bytes(module(50).encode() + "# caf\xe9\n".encode("latin-1"))
    (stdlib / "dos.py").write_bytes(module(51).replace("\n", "\r\n").encode())
    found = {d.name: d.text for d in collect(*library)}
    assert "latin.py" not in found
    assert found["dos.py"] == module(51).strip() + "\n"


def test_another_python_is_refused_in_words(library):
    stdlib, _ = library
    (stdlib / "_heap.py").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks the held-out modules _heap.py; use the Python version"
    ):
        collect(*library)


# ---------------------------------------------------------------- near-copies


def test_a_file_put_together_from_earlier_ones_is_left_out(library):
    """Each of its sources has less than half of its lines; only together do they hold most of it."""
    _, packages = library
    parts = [module(100 + i, 3) for i in range(3)]
    for i, part in enumerate(parts):
        write(packages, f"listed/part_{i}.py", part)
    write(packages, "listed/together.py", "\n".join([*parts, module(110, 1)]))
    kept = names(collect(*library), "packages")
    assert {"listed/part_0.py", "listed/part_1.py", "listed/part_2.py"} < set(kept)
    assert "listed/together.py" not in kept


@pytest.mark.parametrize(("own", "kept"), [(7, True), (5, False)])
def test_half_of_the_long_lines_have_to_be_new(library, own, kept):
    """A licence notice or a few borrowed functions may be shared, and the first of two near-copies stays."""
    _, packages = library
    write(packages, "listed/late.py", "\n".join([module(120, own), *module(6).splitlines()[1:]]))
    found = names(collect(*library), "packages")
    assert "listed/core.py" in found
    assert ("listed/late.py" in found) == kept


# ---------------------------------------------------------------- licences


@pytest.mark.parametrize(
    "notice",
    [
        "This file is subject to the terms of the Mozilla Public License, v. 2.0.",
        "This file is subject to the terms of the GNU General Public License.",
        "Free software under the terms of the GNU Lesser\n# General Public License.",
        "Adapted from a demo, and thus licensed under LGPL 2.1.",
        "SPDX-License-Identifier: MPL-2.0",
        "SPDX-License-Identifier: AGPL-3.0-only",
        "Licensed under the EUPL",
        "Taken from an answer under CC BY-SA 4.0.",
        "Released under the Creative Commons\n# Attribution-ShareAlike licence.",
        "Licensed under the Somebody's-Own License.",
        "Licensed under the terms of the Big Company Community License, Version 1",
        "Licensed under the Business\n#  Source License",
    ],
)
@pytest.mark.parametrize("where", ["listed/foreign.py", "single.py"])
def test_a_file_under_other_terms_in_a_permissive_package_is_left_out(library, notice, where):
    assert not is_permissive(f"# {notice}\n")
    body = module(60)
    write(library[1], where, f"{body}\n# {notice}\n" if where == "single.py" else f"# {notice}\n{body}")
    assert Path(where).name not in {Path(d.name).name for d in collect(*library)}


@pytest.mark.parametrize(
    "notice",
    [
        'Licensed under the Apache License, Version 2.0 (the "License");',
        "Licensed under the terms of the Modified BSD License.",
        "This code is licensed under the MIT license",
        "This license is approved by the OSI and FSF as GPL-compatible.",
        "Written for the GNU C Library and for mpl2 of matplotlib.",
        "SPDX-License-Identifier: BSD-3-Clause",
    ],
)
def test_permissive_notices_stay(library, notice):
    assert is_permissive(f"# {notice}\n")
    write(library[1], "listed/noted.py", f"# {notice}\n{module(61)}")
    assert "listed/noted.py" in names(collect(*library), "packages")


# ---------------------------------------------------------------- the committed lists


def test_thirty_modules_are_held_out_as_the_comment_says():
    held_out = named_in("held_out.txt")
    assert len(held_out) == len(set(held_out)) == 30
    assert all(name.endswith(".py") for name in held_out)


# By its SPDX name, by its classifier, or in the words of its metadata.
PERMISSIVE = re.compile(
    r"(MIT(-0|-CMU)?|0?BSD([- ][23][- ]Clause)?|Apache([- ]2\.0)?|PSF(-2\.0)?|Python Software Foundation|ISCL?|HPND|"
    r"Zlib|CC0-1\.0|BSL-1\.0|Software|License|Licence|LLVM-exception|AND|OR|WITH|[()])"
)
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|CDDL|EUPL|GNU|Mozilla|Eclipse)", re.IGNORECASE)


@cache
def installed() -> Mapping[str, list[str]]:
    """Import name -> distributions; takes a moment."""
    return metadata.packages_distributions()


def licence(distribution: str) -> str:
    """What a package's metadata says of its licence, the most precise field first."""
    meta = metadata.metadata(distribution)
    classifiers = [
        c.split("::")[-1].strip() for c in meta.get_all("Classifier", []) if c.startswith("License ::")
    ]
    first_line = (meta.get("License") or "").split("\n")[0].strip()
    return meta.get("License-Expression") or " AND ".join(classifiers) or first_line


@pytest.mark.parametrize("package", named_in("packages.txt"))
def test_every_package_of_the_corpus_is_permissively_licensed(package):
    distributions = installed().get(package)
    if not distributions:
        pytest.skip(f"{package} is not installed here")
    for distribution in set(distributions):
        said = licence(distribution)
        assert said, f"{distribution} says nothing of its licence"
        assert not COPYLEFT.search(said), f"{distribution} is under {said}: take {package} off packages.txt"
        assert not PERMISSIVE.sub("", said).strip(" -,."), (
            f"{distribution} is under {said}, which this test does not know"
        )


def test_every_package_of_the_corpus_is_pinned():
    """Else the corpus would differ from machine to machine, and with it the digest in the model card."""
    from lessonlib.zoo.corpus import HERE

    constraints = HERE.parent.parent / "constraints.txt"

    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {canonical(line.split("==")[0]) for line in constraints.read_text().splitlines() if "==" in line}
    for package in named_in("packages.txt"):
        for distribution in installed().get(package, []):
            assert canonical(distribution) in pinned, (
                f"{package} comes from {distribution}, which is not pinned"
            )


# ---------------------------------------------------------------- dialogues

FUNCTIONS = '''
def joined(parts, separator=", "):
    """Return the parts as one text with a separator between them.

    More that is not asked for.
    """
    # a comment that stays
    texts = [str(part) for part in parts]
    return separator.join(texts)


class Thing:
    def method(self):
        """A method is no function that one could ask for."""
        first = 1
        return first

    def outer():
        """Return a number, from inside of a class body."""
        number = 3
        return number


@decorated
def decorated():
    """Decorated functions need what decorates them."""
    number = 3
    return number


def undocumented():
    number = 3
    return number


def abstract():
    """Say that somebody else has to write this one."""
    number = 3
    raise NotImplementedError
'''


def test_dialogues_ask_for_a_function_and_answer_with_its_source():
    pairs = list(dialogues([Document("library", "a.py", FUNCTIONS)]))
    assert len(pairs) == 2
    answers = "\n".join(answer for _, answer in pairs)
    requests = "\n".join(request for request, _ in pairs)
    assert (
        'def joined(parts, separator=", "):\n    # a comment that stays\n    texts = [str(part) for part in parts]\n'
        "    return separator.join(texts)\n"
    ) in answers + "\n" + requests
    assert "Return the parts as one text with a separator between them." in requests + answers
    assert "More that is not asked for" not in requests + answers
    assert "def outer():\n    number = 3\n" in answers + requests  # moved to the left margin
    for _, answer in pairs:
        assert answer.startswith("def ") or answer.endswith(".")


def test_dialogues_are_reproducible_and_skip_what_python_cannot_read():
    documents = [Document("library", f"{i}.py", module(i)) for i in range(20)]
    broken = [Document("library", "b.py", "def f(:\n"), Document("library", "n.py", "x = '\x00'\n")]
    first = list(dialogues(documents))
    assert first == list(dialogues([*broken, *documents]))
    assert first != list(dialogues(documents, seed=1))
    assert len(first) == 120
    asked_about_code = sum(request.startswith(("What does", "Explain")) for request, _ in first)
    assert 8 <= asked_about_code <= 45  # about a fifth
    for request, answer in first:
        compile(answer if answer.startswith("def ") else request.split("\n\n", 1)[1], "dialogue", "exec")
