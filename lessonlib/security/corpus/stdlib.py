"""Prose and code that every machine has and nobody wrote for this: Python's own library. Benign, all of it.

What comes out depends on the Python that runs it; the trained file says which one that was.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from random import Random

from .grammar import pick

MODULES = """
    argparse ast asyncio.queues asyncio.runners base64 bdb bisect calendar cmd code codecs collections configparser
    contextlib copy csv dataclasses datetime decimal difflib doctest email.message email.utils enum fileinput
    fnmatch fractions functools getopt getpass gettext glob graphlib gzip hashlib heapq hmac html.parser http.client
    http.cookiejar http.server imaplib inspect ipaddress json.decoder json.encoder logging logging.handlers mailbox
    mimetypes multiprocessing.pool optparse os pathlib pdb pickle pickletools platform plistlib poplib pprint
    profile pstats queue random re sched secrets selectors shelve shlex shutil smtplib socket socketserver
    sqlite3.dbapi2 ssl statistics string subprocess sysconfig tarfile tempfile textwrap threading timeit trace
    traceback turtle types typing unittest.case unittest.mock urllib.parse urllib.request urllib.robotparser uuid
    venv warnings weakref webbrowser xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipfile zoneinfo
""".split()  # noqa: SIM905
SHORT, LONG = 40, 900


@cache
def passages() -> tuple[str, ...]:
    """The language reference, docstrings and stretches of code, in a fixed order."""
    found: list[str] = []
    for text in topics.values():  # the language reference: paragraphs, three at a time
        blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if len(block) > SHORT]
        found += ["\n\n".join(blocks[at : at + 3])[:LONG] for at in range(0, len(blocks), 3)]
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        source = Path(spec.origin).read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")[:LONG]
                if len(text) >= SHORT:
                    found.append(text)
        lines = source.splitlines()
        for start in range(0, len(lines), 60):
            code = "\n".join(lines[start : start + 25])[:LONG]
            if len(code) >= SHORT:
                found.append(code)
    return tuple(found)


def texts(count: int, seed: int = 0) -> list[str]:
    """So many passages at most, a third of them with a request in front."""
    random = Random(f"stdlib/{seed}")
    pool = passages()
    chosen = sorted((random.random(), place) for place in range(len(pool)))[:count]
    requests = (
        "Explain this:\n",
        "What does this do?\n\n",
        "Summarise:\n",
        "Write tests for this.\n\n",
        "Translate:\n",
    )
    return [(pick(requests, random) if random.random() < 0.33 else "") + pool[place] for _, place in chosen]
