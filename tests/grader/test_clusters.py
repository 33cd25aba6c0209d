"""`lesson grade` on other machines: a running Dask scheduler, and a Slurm whose commands run its jobs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from .releases import as_bytes, code_points, notebook, solutions
from .test_fleet import course, hand_in, points, released  # noqa: F401 - fixtures

WAIT = 90  # seconds for a program to start on a busy machine

# What Slurm's commands do, with a job's script run on this machine. Each call is written down.
SBATCH = """#!/bin/sh
echo "sbatch" >>"$SLURM_TOLD"
setsid sh "$1" >"$SLURM_TOLD.out" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do echo "scancel $job" >>"$SLURM_TOLD"; kill -TERM -- "-$job" 2>/dev/null; done
exit 0
"""
YAML = """
kind: slurm
jobs: 2
options: {queue: course, cores: 1, processes: 1, memory: 2GB, walltime: "00:10:00", interface: lo}
"""


def a_small_class(folder: Path) -> dict[str, float]:
    right = solutions("02")
    hand_in(folder, "ada", as_bytes(notebook("02", right)))
    hand_in(folder, "bob", as_bytes(notebook("02")))
    hand_in(folder, "cyd", as_bytes(notebook("02", {"02-kv_bytes": right["02-kv_bytes"]})))
    return {"ada": code_points("02"), "bob": 0, "cyd": 2}


def grade(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lessonlib.cli", "grade", "02", "--course", str(folder), *options]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def gone(pid: int) -> bool:
    for _ in range(WAIT * 10):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.needs("bwrap")
def test_a_running_scheduler_is_used_and_left_running(course, tmp_path):  # noqa: F811
    due = a_small_class(course)
    about = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--no-dashboard", "--scheduler-file", str(about)]
    scheduler = subprocess.Popen(
        [*dask[:2], dask[2] + "scheduler", "--host", "127.0.0.1", "--port", "0", *common], **quiet
    )
    worker = subprocess.Popen(
        [*dask[:2], dask[2] + "worker", "--nthreads", "1", *common], cwd=tmp_path, **quiet
    )
    try:
        for _ in range(WAIT * 10):
            if about.is_file() and about.stat().st_size:
                break
            time.sleep(0.1)
        address = json.loads(about.read_text())["address"]
        done = grade(course, "--scheduler", address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert points(course) == due
        with Client(address) as looking:
            done_there = looking.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
        assert done_there > len(due), "it was this one that had the work"
        assert scheduler.poll() is None and worker.poll() is None, "they are somebody else's"
    finally:
        worker.terminate(), scheduler.terminate()
        worker.wait(WAIT), scheduler.wait(WAIT)


@pytest.mark.needs("bwrap")
def test_slurm_jobs_are_started_and_ended(course, tmp_path):  # noqa: F811
    due = a_small_class(course)
    bin_, told = tmp_path / "bin", tmp_path / "told"
    bin_.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    file = tmp_path / "slurm.yaml"
    file.write_text(YAML)
    done = grade(
        course, "--cluster", str(file), PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}", SLURM_TOLD=str(told)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert points(course) == due
    calls = told.read_text().split("\n")
    assert calls.count("sbatch") == 2
    ended = [int(call.split()[1]) for call in calls if call.startswith("scancel")]
    assert len(ended) == 2 and all(map(gone, ended)), "no job outlives the grading"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("jobs: 2", "does not describe a cluster"),
        ("kind: torque7\noptions: {}", "there is no kind 'torque7'; there are "),
        ("kind: slurm\noptions: {coers: 1}", "dask_jobqueue does not take that"),
    ],
)
def test_what_is_wrong_with_a_clusters_file_is_said(text, why, tmp_path):
    from grader.grade_command import _from_file
    from lessonlib.course import CourseError

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CourseError, match=why):
        _from_file(tmp_path / "c.yaml")
