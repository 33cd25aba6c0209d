"""Warm kernels: the same grades, nothing shared from one to the next, nothing of the grader's in their memory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from grader import grading, guard, warm
from grader.exercises import planted
from grader.library import library
from grader.locked import LockedKernel
from grader.sandbox import Jail, private_room

from .releases import as_bytes, notebook, released, solutions
from .test_sandbox import IPYTHONS_OWN

pytestmark = pytest.mark.needs("bwrap")


@pytest.fixture(scope="module")
def hollow(tmp_path_factory) -> Path:
    return library("02", ["lessonlib.engine.kv_cache"], tmp_path_factory.mktemp("cache"))


@pytest.fixture
def forks(hollow):
    found = warm.zygote(hollow)
    assert found, "no warm kernel to be had here"
    return found


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has no zygote yet; whatever the test begins is ended."""
    kept, warm._one = warm._one, None
    monkeypatch.setattr(warm, "_given_up", False)
    yield
    warm.end()
    warm._one = kept


def said(kernel: LockedKernel, source: str) -> str:
    ran = kernel.run(source, 60)
    assert ran.problem is None, ran
    return "".join(output.get("text", "") for output in ran.outputs)


def use(forks: warm.Zygote, *sources: str) -> list[str]:
    """What cells say, in a kernel of their own."""
    with private_room() as room, LockedKernel(Jail(room, forks.library), zygote=forks) as kernel:
        return [said(kernel, source) for source in sources]


def test_one_kernel_leaves_nothing_for_the_next(forks):
    spoil = "import random, torch, lessonlib; lessonlib.spoilt = torch.spoilt = 7; torch.set_num_threads(2)"
    luck = "import random, numpy, torch; print(random.random(), numpy.random.rand(), float(torch.rand(1)))"
    _, first = use(forks, spoil, luck)
    look, second = use(
        forks, "import torch, lessonlib; print(hasattr(torch, 'spoilt'), hasattr(lessonlib, 'spoilt'))", luck
    )
    assert look == "False False\n"
    assert not {*first.split()} & {*second.split()}, "their luck is their own"


def test_what_is_in_its_memory_is_what_a_kernel_may_have(forks, hollow):
    (modules,) = use(forks, "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert {"torch", "lessonlib", "lesson_agent"} <= {*modules.split()}
    assert not {"grader", "nbgrader", "distributed", "matplotlib", "pytest"} & {*modules.split()}
    where, names = use(
        forks,
        "import lessonlib, sys; print({m.__file__ for n, m in sys.modules.items() if n.startswith('lesson')})",
        "import os; print(*sorted(os.environ))",
    )
    assert str(hollow) in where and str(Path(warm.__file__).parents[1] / "lessonlib") not in where
    assert {*names.split()} <= {*Jail(Path("/"), hollow).environment()} | IPYTHONS_OWN


OPEN = """
import os
for name in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink(f"/proc/self/fd/{name}"))
    except OSError:
        pass  # the folder itself, closed by now
"""


def test_no_descriptor_of_the_graders_is_open(forks):
    with private_room() as room, LockedKernel(Jail(room, forks.library), zygote=forks) as kernel:
        theirs = {*said(kernel, OPEN).split("\n")}
        assert len(theirs) > 5 and not [name for name in theirs if "pidfd" in name]
        assert {name for name in theirs if name.startswith("/")} <= {"/dev/null"}
        here = subprocess.run(["ls", "-l", f"/proc/{os.getpid()}/fd"], capture_output=True, text=True).stdout
        shared = [name for name in theirs if name.startswith("pipe:") and name in here]
        assert len(shared) == 1, "only the pipe of its standard error is read here"


def test_who_ends_the_holder_ends_himself(forks):
    with private_room() as room, LockedKernel(Jail(room, forks.library), zygote=forks) as kernel:
        assert kernel.run("import os, time; os.kill(2, 9); time.sleep(60)", 30).problem == "died"
        assert not kernel.alive
    assert use(forks, "print(6 * 7)") == ["42\n"]


def test_a_kernel_that_kills_its_group_kills_itself(forks):
    with private_room() as room, LockedKernel(Jail(room, forks.library), zygote=forks) as kernel:
        assert kernel.run("import os; os.kill(0, 9)", 30).problem == "died"
    assert forks.process.poll() is None and warm.zygote(forks.library) is forks


def test_the_holder_may_do_no_more_than_the_kernel(forks):
    with private_room() as room, LockedKernel(Jail(room, forks.library), zygote=forks) as kernel:
        same = """
import os
def about(pid):
    kept = ("Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups")
    status = [line for line in open(f"/proc/{pid}/status") if line.startswith(kept)]
    spaces = [os.readlink(f"/proc/{pid}/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
    return status, spaces, open(f"/proc/{pid}/limits").read()
print(about(2) == about("self"))
"""
        assert said(kernel, same) == "True\n"


def tasks_of(name: str) -> list[tuple[str, str]]:
    return [(attempt.name, attempt.source) for attempt in planted(name)]


@pytest.mark.slow
@pytest.mark.parametrize("exercise", ["02.visible", "02.KVCache"])
def test_grades_are_the_same_warm_and_cold(exercise, tmp_path, monkeypatch):
    release = released("02")
    cell = exercise.replace(".", "-")
    chosen = random.Random(exercise).sample(tasks_of(exercise), 4)
    for name, source in [
        *chosen,
        ("hostile", "import torch\ntorch.equal = lambda *a: True\n" + chosen[0][1]),
    ]:
        data = as_bytes(notebook("02", solutions("02") | {cell: source}))
        rebuilt = guard.rebuild(release, data, b"")
        found = {}
        for way in ("warm", "cold"):
            monkeypatch.setenv(warm.SWITCH, way)
            result = grading.grade(release, rebuilt, 11, tmp_path)
            found[way] = [(g.task.exercise, g.points, g.report.name, g.why) for g in result.exercises]
        assert found["warm"] == found["cold"], name


def test_what_cannot_fork_starts_cold(fresh, monkeypatch, tmp_path):
    """A library that starts a thread as it is imported: a fork would copy its locks, so none is made."""
    (tmp_path / "threads.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=[999], daemon=True).start()"
    )
    monkeypatch.setattr(warm, "COMMON", ("threads",))
    monkeypatch.setattr(warm, "OF_THE_COURSE", ("threads",))
    release = released("02")
    rebuilt = guard.rebuild(release, as_bytes(notebook("02", solutions("02"))), b"")
    made = library("02", set(), tmp_path / "cache")
    (made / "threads.py").write_text((tmp_path / "threads.py").read_text())
    monkeypatch.setattr(grading, "library", lambda *_: made)
    result = grading.grade(release, rebuilt, 3, tmp_path, only=["02.kv_bytes"])
    assert result.points == 2 and warm._given_up


def test_a_zygote_that_does_not_start_is_told_by_none(fresh, monkeypatch, hollow):
    monkeypatch.setattr(warm, "COMMON", ("no_such_module",))
    assert warm.zygote(hollow) is None and warm._given_up
    monkeypatch.setattr(warm, "_given_up", False)
    monkeypatch.setenv(warm.SWITCH, "cold")
    assert warm.zygote(hollow) is None


def test_one_that_was_killed_is_begun_anew(fresh, hollow):
    first = warm.zygote(hollow)
    first.process.kill()
    first.process.wait()
    second = warm.zygote(hollow)
    assert second is not first and use(second, "print(1)") == ["1\n"]
    assert warm.zygote(hollow) is second


WORKER = """
import sys
from pathlib import Path
from grader import warm
from grader.locked import LockedKernel
from grader.sandbox import Jail, make_room
forks = warm.zygote(Path(sys.argv[1]))
with LockedKernel(Jail(make_room(), forks.library), zygote=forks) as kernel:
    print(forks.process.pid, kernel.room, flush=True)
    kernel.run("import time; time.sleep(600)", 600)
"""


def test_nothing_outlives_a_worker_that_is_killed(hollow):
    command = [sys.executable, "-c", WORKER, str(hollow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        pid, room = worker.stdout.readline().split()
        family = psutil.Process(worker.pid).children(recursive=True)
        assert int(pid) in [process.pid for process in family] and len(family) >= 5
        worker.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, 20)
    assert alive == []
    for _ in range(100):
        if not Path(room).exists():
            break
        time.sleep(0.01)
    subprocess.run(["rm", "-rf", room], check=True)
