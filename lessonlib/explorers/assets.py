"""How plain files become one script: an explorer's JS with the shared files it imports, and its CSS.

A notebook has one ES module a widget and no server to import from. Each file here is an ES module that
node can test by itself; for the browser the imports are resolved, dependencies first, each file once, into
one scope.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
IMPORT = re.compile(r'^import\s+\{[^}]*\}\s+from\s+"(?P<path>\.[^"]+)";\n', re.MULTILINE)


@cache
def script(path: Path) -> str:
    """The ES module at ``path`` with every relative import written out in front of it."""
    parts: list[str] = []
    _collect(path.resolve(), parts, seen=set())
    return "\n".join(parts)


def _collect(path: Path, parts: list[str], seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    source = path.read_text(encoding="utf-8")
    for found in IMPORT.finditer(source):
        _collect((path.parent / found["path"]).resolve(), parts, seen)
    parts.append(f"// {path.name}\n{IMPORT.sub('', source)}")


@cache
def style(path: Path) -> str:
    """The shared CSS (common.css, then parts.css) and the file at ``path`` behind it."""
    files = [HERE / "shared" / "common.css", HERE / "shared" / "parts.css", path]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
