"""What an exercise leans on: of the other cells, the statements that make the names it uses.

So a lesson's exercises run in seconds, without the walk-through around them, and a student's own helper
functions are there all the same. A name that a cell has bound itself is its own, whoever else uses it. Statements that
only change a thing (``box["a"] = 1``) are not followed.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)  # use names when they are called
AT_ONCE = (ast.Assign, ast.AugAssign, ast.AnnAssign)  # use names before they bind theirs


def statements(source: str) -> list[ast.stmt]:
    """The statements of a cell, magics turned into calls as IPython does; none where it is not Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return ast.parse(TransformerManager().transform_cell(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def names(code: str) -> tuple[set[str], set[str]]:
    """The global names that a piece of code binds, and those it uses (inside its functions as well)."""
    table = symtable.symtable(code, "cell", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    inner = list(table.get_children())
    while inner:
        scope = inner.pop()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        inner += scope.get_children()
    return bound, used


@dataclass(frozen=True)
class _Part:
    """A statement: the names it binds, those it uses that its cell has bound by then, and those from elsewhere."""

    code: str
    bound: set[str]
    inside: set[str]
    outside: set[str]


@lru_cache(maxsize=1000)
def _parts(cell: str) -> list[_Part]:
    found = [(statement, ast.unparse(statement)) for statement in statements(cell)]
    named = [names(code) for _, code in found]
    everything = {name for bound, _ in named for name in bound}
    parts, before = [], set[str]()
    for (statement, code), (bound, used) in zip(found, named, strict=True):
        if isinstance(statement, ast.AugAssign):
            used = used | bound
        if isinstance(statement, LATER):
            own = everything
        elif isinstance(statement, AT_ONCE):
            own = before
        else:  # a loop's variable, say, is bound before it is used
            own = before | bound
        parts.append(_Part(code, bound, used & own, used - own))
        before = before | bound
    return parts


def leaned_on(others: Sequence[str], sources: Iterable[str]) -> list[list[str]]:
    """For each of the other cells, the statements that ``sources`` need in order to run."""
    cells = [_parts(cell) for cell in others]
    wanted = {name for source in sources for part in _parts(source) for name in part.outside}
    within: list[set[str]] = [
        set() for _ in cells
    ]  # of each cell, what its needed statements have from itself
    while True:
        needed = [
            [part for part in cell if part.bound & (wanted | own)]
            for cell, own in zip(cells, within, strict=True)
        ]
        more = {name for parts in needed for part in parts for name in part.outside} - wanted
        inside = [{name for part in parts for name in part.inside} for parts in needed]
        if not more and inside == within:
            return [[part.code for part in parts] for parts in needed]
        wanted |= more
        within = inside
