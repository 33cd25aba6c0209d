"""What an exercise leans on: of the other cells, the statements that make the names it uses.

So a lesson's exercises run in seconds, without the walk-through around them, and a student's own helper
functions are there all the same. Statements that only change a thing (``box["a"] = 1``) are not followed.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Sequence
from functools import lru_cache


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


@lru_cache(maxsize=1000)
def _parts(cell: str) -> list[tuple[str, set[str], set[str]]]:
    """Each statement, with the names that it binds and uses."""
    return [(code, *names(code)) for code in map(ast.unparse, statements(cell))]


def leaned_on(others: Sequence[str], sources: Iterable[str]) -> list[list[str]]:
    """For each of the other cells, the statements that ``sources`` need in order to run."""
    cells = [_parts(cell) for cell in others]
    wanted = {name for source in sources for _, _, used in _parts(source) for name in used}
    while True:
        more = {name for cell in cells for _, bound, used in cell if bound & wanted for name in used}
        if more <= wanted:
            return [[code for code, bound, _ in cell if bound & wanted] for cell in cells]
        wanted |= more
