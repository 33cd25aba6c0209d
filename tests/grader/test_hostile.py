"""Whatever a submission tries, it earns what its code is due, harms nobody, learns nothing, and ends.

Each hostile cell stands in a submission whose other exercise is solved: that one must get its points.
"""

from __future__ import annotations

import os
import socket
import threading
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
