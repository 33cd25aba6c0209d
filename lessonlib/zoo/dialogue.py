"""Conversations made from the library itself: a request (signature and docstring) and its answer (the body)."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator

from .corpus import Document

REQUESTS = (
    "Write a Python function `{signature}`. {doc}",
    "Write a function named {name}. {doc}",
    "{doc}",
    "{doc} Call the function {name}.",
    "Implement `{signature}`: {doc}",
    "Please write this function:\n{signature}\n{doc}",
)
QUESTIONS = ("What does this function do?\n\n{code}", "Explain this function.\n\n{code}")
MIN_LINES, MAX_LINES, MAX_CHARACTERS = 2, 24, 1200


def dialogues(documents: Iterable[Document], seed: int = 0) -> Iterator[tuple[str, str]]:
    """Pairs (what the user says, what the assistant answers), in a reproducible order."""
    rng = random.Random(seed)
    for document in documents:
        try:
            tree = ast.parse(document.text)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (pair := _pair(node, document.text, rng)):
                yield pair


def _pair(node: ast.FunctionDef, text: str, rng: random.Random) -> tuple[str, str] | None:
    docstring = ast.get_docstring(node)
    arguments = [argument.arg for argument in node.args.args[:1]]
    if not docstring or node.decorator_list or len(node.body) < 2 or arguments in (["self"], ["cls"]):
        return None
    doc = " ".join(docstring.split("\n\n")[0].split())
    code = _without_docstring(node, text)
    if not (20 <= len(doc) <= 240) or not doc.isascii() or len(code) > MAX_CHARACTERS:
        return None
    if not MIN_LINES <= code.count("\n") <= MAX_LINES or "NotImplementedError" in code:
        return None
    doc = doc if doc.endswith((".", "?", "!")) else doc + "."
    if rng.random() < 0.2:
        return rng.choice(QUESTIONS).format(code=code.rstrip()), doc
    signature = f"{node.name}({ast.unparse(node.args)})"
    return rng.choice(REQUESTS).format(signature=signature, name=node.name, doc=doc), code


def _without_docstring(node: ast.FunctionDef, text: str) -> str:
    """The function's own source, comments and all, moved to the left margin."""
    lines = text.splitlines()
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    body = lines[(node.body[0].end_lineno or node.lineno) : node.end_lineno]
    while body and not body[0].strip():
        body = body[1:]
    indent = node.col_offset
    return "\n".join(line[indent:] if not line[:indent].strip() else line for line in head + body) + "\n"
