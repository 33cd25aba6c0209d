"""Of the cells around an exercise, what it leans on, and nothing else."""

from __future__ import annotations

import pytest

from lessonlib.classroom.leaning import leaned_on

USES = "def f(x):\n    y = g(x)\n    return [y + limit for y in range(3)]"


@pytest.mark.parametrize(
    "other, needed",
    [
        ("import torch", []),
        ("from math import sqrt as g, pi", ["from math import sqrt as g, pi"]),
        ("%matplotlib inline\nlimit = 3; print(limit)", ["limit = 3"]),
        ("y = 1", []),  # a name of its own inside f
        ("if True:\n    limit = 1\nelse:\n    limit = 2", ["if True:\n    limit = 1\nelse:\n    limit = 2"]),
        ("a, (limit, *b) = 1, (2, 3)", ["a, (limit, *b) = (1, (2, 3))"]),
        ("for limit in range(3):\n    pass", ["for limit in range(3):\n    pass"]),
        ("@g\nclass limit:\n    pass", ["@g\nclass limit:\n    pass"]),
        ("if (limit := 3):\n    pass", ["if (limit := 3):\n    pass"]),
        ("!pip install nothing", []),
        ("def f(:", []),
        ("limit = '\x00'", []),
    ],
)
def test_what_makes_a_used_name_is_needed(other: str, needed: list[str]):
    assert leaned_on([other], [USES]) == [needed]


def test_what_is_needed_needs_things_too_in_any_cell():
    cells = ["import math, torch", "base = math.e\nother = torch.ones(3)", "def g(x):\n    return x ** base"]
    assert leaned_on(cells, [USES]) == [["import math, torch"], ["base = math.e"], [cells[2]]]


def test_the_needed_part_runs_alone():
    cells = ["1 / 0", "from operator import neg", "g = neg\nprint(1 / 0)", "limit = 5\nlimit += 1"]
    names: dict = {}
    for cell in [*leaned_on(cells, [USES]), [USES]]:
        for statement in cell:
            exec(statement, names)
    assert names["f"](1) == [6, 7, 8]


@pytest.mark.parametrize(
    "own",
    [
        "n = 3\nprint(n)",
        "for n in range(3):\n    print(n)",
        "def f(x):\n    return n(x)\n\ndef n(x):\n    return x",
        "import math as n\nn.pi",
        "with open('x') as n:\n    n.read()",
        "n = [n for n in range(3)]",
    ],
)
def test_a_name_that_a_cell_binds_itself_is_its_own(own: str):
    assert leaned_on(["n = 1 / 0", "def n(): ..."], [own]) == [[], []]


@pytest.mark.parametrize("own", ["n += 1", "print(n)\nn = 3", "n = n + 1", "def f():\n    return n"])
def test_a_name_that_is_used_before_is_somebody_elses(own: str):
    assert leaned_on(["n = 1"], [own]) == [["n = 1"]]


def test_what_a_needed_statement_has_from_its_own_cell_comes_from_there():
    """And an equal name elsewhere is not asked for it."""
    cells = ["rows = missing()", "rows = [1, 2]\ntotal = sum(rows)\nrows = None"]
    assert leaned_on(cells, ["print(total)"]) == [[], ["rows = [1, 2]", "total = sum(rows)", "rows = None"]]
