"""Whatever a submission tries, it earns what its code is due, harms nobody, learns nothing, and ends.

Each hostile cell stands in a submission whose other exercise is solved: that one must get its points.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from grader import grading, guard, sandbox, warm
from grader.grading import Budget

from .hostile import cells
from .releases import as_bytes, notebook, released, solutions

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.slow]

ATTACKED, OTHER = "07.choose_threshold", "07.StreamFilter"
SMALL = sandbox.Limits(
    memory=3000 * sandbox.MIB, cpu=10, temporary=16 * sandbox.MIB, file_size=8 * sandbox.MIB
)
BUDGET = Budget(cell=2.0, probes=3.0, submission=40.0, limits=SMALL)
WORD = "the word that must not come out"


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Iterator[dict]:
    """What an attack would like to reach: a file, a folder, a port; and what of it was reached."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o777)
    secret = folder / "secret.txt"
    secret.write_text(WORD)
    os.environ["LESSON_CANARY"] = WORD
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    calls.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", port))
            packets.setblocking(False)
            yield {
                "secret": str(secret),
                "outside": str(folder),
                "port": port,
                "calls": calls,
                "packets": packets,
            }
    del os.environ["LESSON_CANARY"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def graded(source: str, cache: Path, log: bytes = b"") -> dict[str, grading.Graded]:
    sources = {"07-choose_threshold": source, "07-StreamFilter": solutions("07")["07-StreamFilter"]}
    rebuilt = guard.rebuild(released("07"), as_bytes(notebook("07", sources)), log)
    result = grading.grade(
        released("07"), rebuilt, Random().randrange(2**32), cache, BUDGET, only=(ATTACKED, OTHER)
    )
    return {one.task.exercise: one for one in result.exercises}


def everything_shown(found: dict[str, grading.Graded]) -> str:
    return "".join(f"{one.outputs} {one.why} {one.report.failure}" for one in found.values())


def running() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)} - zygote()


def zygote() -> set[int]:
    """The grader's own, which forks kernels."""
    return {warm._one.process.pid} if warm._one else set()


@pytest.mark.parametrize("name", cells.ALL)
def test_a_hostile_cell(name, outside, cache):
    before, memory = running(), psutil.Process().memory_info().rss
    found = graded(cells.cell(name, outside["secret"], outside["outside"], outside["port"]), cache)
    assert found[ATTACKED].points == 0, found[ATTACKED]
    assert found[OTHER].points == found[OTHER].task.points, found[OTHER]
    if name.startswith(("reading", "leaving")) and name not in cells.HARMLESS:
        assert found[ATTACKED].why, "it could do what it tried"
    assert WORD not in everything_shown(found)
    assert {path.name for path in Path(outside["outside"]).iterdir()} == {"secret.txt"}
    assert not outside["calls"]
    with pytest.raises(BlockingIOError):
        outside["packets"].recv(10)
    assert not running() - before, "something still runs"
    assert psutil.Process().memory_info().rss < memory + 300 * sandbox.MIB


def test_the_right_solution_earns_its_points_after_all_that(cache):
    """And what one submission left in /tmp, the library or the cache, no other finds."""
    left = "import pathlib; pathlib.Path('/tmp/mine').write_text('x'); pathlib.Path('mine').write_text('x')\n"
    found = graded(left + cells.RIGHT, cache)
    assert found[ATTACKED].points == found[ATTACKED].task.points
    search = "import pathlib; assert not pathlib.Path('/tmp/mine').exists() and not pathlib.Path('mine').exists()\n"
    found = graded(search + cells.RIGHT, cache)
    assert found[ATTACKED].points == found[ATTACKED].task.points, found[ATTACKED]


ANSWER_WITH = """
import lesson_agent.agent as agent
def choose_threshold(benign, attacks, budget):
    return {"threshold": 0.5, "recall": 1.0}
send = agent.Line.send
def lie(self, message, buffers=(), deadline=None):
    return send(self, {**message, "@part@": @value@} if "value" in message else message, buffers, deadline)
agent.Line.send = lie
"""
COLLIDING = '["l", [["s", [i * (2**61 - 1) for i in range(390_000)]]]]'
BOMB = '["T", "bool", [2**40, 0], 0, 0]'
COSTLY = {  # cell: what its values do to who reads them
    "07-choose_threshold": [
        ANSWER_WITH.replace("@part@", "value").replace("@value@", COLLIDING),
        ANSWER_WITH.replace("@part@", "after").replace("@value@", f'["l", [["l", [{BOMB}] * 3], ["d", []]]]'),
    ],
    "02-visible": [
        f"import torch\ndef visible(held, new):\n    return torch.empty({size}, 0, dtype=torch.bool)"
        for size in (2**24, 2**40)
    ],
    "02-find_bug": ["import torch\ndef find_bug(make):\n    x = torch.zeros(14_000, 2)\n    make().attend(x, x, x)"],
    "08-decode": [
        f"from decimal import Decimal\ndef decode(*a, **k):\n    return [Decimal('{number}')]"
        for number in ("1E+300000000", "1E+99999999999")
    ],
    "04-ContinuousBatcher": [
        "from decimal import Decimal\nclass ContinuousBatcher:\n    def __init__(self, *a, **k): ...\n"
        "    def add(self, *a): ...\n    def batch(self): return []\n"
        "    def step(self): return {'a': Decimal('1E+99999999999')}"
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "cell, n", [(cell, n) for cell, sources in COSTLY.items() for n in range(len(sources))]
)
def test_values_that_would_cost_the_grader_its_memory_or_its_evening(cell, n, cache):
    release, began = released(cell[:2]), time.process_time()
    before = psutil.Process().memory_info().rss
    rebuilt = guard.rebuild(release, as_bytes(notebook(cell[:2], {cell: COSTLY[cell][n]})))
    [graded] = grading.grade(release, rebuilt, 1, cache, BUDGET, only=[cell.replace("-", ".")]).exercises
    assert graded.points == 0 and (graded.why or graded.report.name)
    assert time.process_time() - began < 20
    assert psutil.Process().memory_info().rss < before + 500 * sandbox.MIB


LOGS = {
    "large": b'{"v": 1}\n' * 200_000,
    "deep": b'{"a":' * 50_000,
    "no text": bytes(range(256)) * 100,
    "another lesson's": b'{"v":1,"at":"2026-01-31T09:30:00Z","kind":"answer","id":"01_generation.x","data":{}}',
    "odd answers": b"\n".join(
        b'{"v":1,"at":"9999-01-31T09:30:00Z","kind":"answer","id":"07_security.%s","data":{"answer":%s}}'
        % (name, value)
        for name in (b"x", b"__class__", b"../../keys")
        for value in (b"null", b"[[[[]]]]", b'"<script>"', b"1e999", b"{}", b'"a"')
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_hostile_log_costs_its_own_quiz_only(name, cache):
    sources = {"07-StreamFilter": solutions("07")["07-StreamFilter"]}
    rebuilt = guard.rebuild(released("07"), as_bytes(notebook("07", sources)), LOGS[name])
    result = grading.grade(released("07"), rebuilt, 1, cache, BUDGET, only=[OTHER])
    assert result.points == result.exercises[0].task.points == 4
    assert result.quiz and not any(scored.points for scored in result.quiz)
