"""``python -m benchmarks.grading``: our grader beside stock nbgrader, on the same submissions, in one run.

Writes ``benchmarks/grading.md``. Seconds are wall-clock; memory is the proportional set size (shared pages are counted
once) of the grader and all its processes, looked at twice a second.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer

from grader import build, desk, fleet, guard, work
from grader.demo import handed_in
from grader.exercises import planted
from lessonlib.classroom import workbook
from lessonlib.course import notebooks_dir

SLUG = "02_kv_cache"
PAGE = Path(__file__).with_name("grading.md")


@dataclass(frozen=True)
class Timed:
    """One run: wall-clock seconds, and the most memory in bytes."""

    seconds: float
    memory: int = 0


def main(
    submissions: Annotated[int, typer.Option(min=4, help="Submissions for our grader.")] = 64,
    stock: Annotated[int, typer.Option(min=2, help="Submissions for stock nbgrader: about 15 s each.")] = 64,
    workers: Annotated[int, typer.Option(min=1, help="Our workers on this machine.")] = os.cpu_count() or 1,
    page: Annotated[Path, typer.Option(help="Where the tables go.")] = PAGE,
) -> None:
    """Grade one class twice, once by stock nbgrader and once by ours, and see what each costs."""
    with tempfile.TemporaryDirectory(prefix="grading-bench-") as scratch:
        course = make_class(Path(scratch, "ours"), submissions)
        other = make_class(Path(scratch, "stock"), stock)
        plain = timed(nbgrader(other), {"LESSON_GRADER": "plain"}, other)
        told = f"stock nbgrader: {plain.seconds / stock:.2f} s a submission"
        typer.echo(told)
        command = [
            sys.executable,
            "-m",
            "lessonlib.cli",
            "grade",
            SLUG,
            "--workers",
            str(workers),
            "--course",
            str(course),
        ]
        first = timed(command, {}, course)
        typer.echo(f"ours, {workers} workers: {first.seconds / submissions:.2f} s a submission")
        slow = make_class(Path(scratch, "cold"), submissions)
        cold = timed([*command[:-1], str(slow)], {"LESSON_KERNELS": "cold"}, slow)
        typer.echo(f"the same with cold kernels: {cold.seconds / submissions:.2f} s a submission")
        again = median(timed(command, {}, course).seconds for _ in range(3))
        cost = seconds_of_one(course)
        grown = {count: overhead(Path(scratch, f"g{count}"), course, count) for count in (250, 500, 1000)}
        spread = {
            count: simulated(Path(scratch, f"s{count}"), course, count, cost)
            for count in (1, 2, 4, 8, 16, 20)
        }
    lines = written(stock, submissions, workers, plain, first, cold, again, cost, grown, spread)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    typer.echo(f"Wrote {page}.")


def make_class(course: Path, count: int) -> Path:
    """A released lesson and so many different submissions: half of them right, the others half done or mistaken."""
    instructor, _ = build.compose(notebooks_dir() / f"{SLUG}.py", None, execute=False)
    folder = course / "source" / SLUG
    folder.mkdir(parents=True)
    import nbformat

    (folder / f"{SLUG}.ipynb").write_text(nbformat.writes(instructor), encoding="utf-8")
    (course / "nbgrader_config.py").write_text(build.COURSE_SHIM)
    desk.release(course, SLUG)
    release = guard.load(folder / f"{SLUG}.ipynb")
    right = {
        t.cell: next(workbook.text(c) for c in release.cells if guard.solution_id(c) == t.cell)
        for t in release.tasks
    }
    wrong = [
        (t.cell, a.source)
        for t in release.tasks
        for a in planted(t.exercise)
        if "finish in time" not in a.expect
    ]
    for number in range(count):
        sources = dict(right)
        if number % 4 == 1:
            sources = dict([*right.items()][:2])
        elif number % 4 == 3:
            cell, source = wrong[number % len(wrong)]
            sources[cell] = source
        sources = {cell: f"# {number}\n{source}" for cell, source in sources.items()}  # no two are the same
        place = course / "submitted" / f"s{number:04}" / SLUG
        place.mkdir(parents=True)
        (place / f"{SLUG}.ipynb").write_bytes(handed_in(release, sources))
    return course


def nbgrader(course: Path) -> list[str]:
    return [sys.executable, "-m", "nbgrader", "autograde", SLUG, f"--CourseDirectory.root={course}"]


def timed(command: list[str], environment: dict[str, str], folder: Path) -> Timed:
    """Run a command to its end; what it used is looked at meanwhile."""
    settings = (
        os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        | environment
    )
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    most = 0
    while process.poll() is None:
        most = max(most, tree(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise typer.BadParameter(f"{' '.join(command[:5])} … ended with {process.returncode}.")
    return Timed(time.perf_counter() - began, most)


def tree(pid: int) -> int:
    """Bytes used by a process and all below it, shared pages divided among those who share them."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


# ---------------------------------------------------------------- the same work, without the work


class Pretending(fleet.Fleet):
    """A fleet whose workers wait instead of working, and answer what was answered before."""

    seconds = 0.0
    records: dict[str, Any]

    def _submit(self, submission: Any, job: Any) -> Any:
        return self.client.submit(
            _wait, self.seconds, {name: self.records[name] for name in job.missing}, pure=False
        )


def _wait(seconds: float, records: dict[str, Any]) -> dict[str, Any]:
    time.sleep(seconds)
    return records


@contextmanager
def crew(workers: int) -> Iterator[Any]:
    """A cluster in this process: workers that only wait need no core each."""
    from distributed import Client, LocalCluster

    options = {"dashboard_address": None, "silence_logs": 50, "processes": False}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def pretend(course: Path, graded: Path, count: int, workers: int, seconds: float) -> float:
    """Seconds to grade a generated class whose submissions cost so much each."""
    make_class(course, count)
    lesson = fleet.lesson(course, SLUG)
    with crew(workers) as client:
        run = Pretending(course, lesson, lambda: client)
        run.seconds, run.records = seconds, an_answer(graded)
        began = time.perf_counter()
        assert sum(event.state == fleet.GRADED for event in run.run(fleet.submissions(course, SLUG))) == count
        return time.perf_counter() - began


def overhead(course: Path, graded: Path, count: int) -> float:
    return pretend(course, graded, count, 1, 0.0)


def simulated(course: Path, graded: Path, workers: int, seconds: float) -> float:
    """Seconds of 16 submissions for each worker."""
    return pretend(course, graded, 16 * workers, workers, seconds)


def an_answer(graded: Path) -> dict[str, Any]:
    """The records of one real submission."""
    lesson = fleet.lesson(graded, SLUG)
    run = fleet.Fleet(graded, lesson, _nobody)
    return dict(run._job(fleet.submissions(graded, SLUG)[0]).records)


def seconds_of_one(course: Path) -> float:
    """What one submission costs a worker, here and now: the median of five."""
    lesson = fleet.lesson(course, SLUG)
    names = [task.exercise for task in lesson.open().tasks]

    def one() -> float:
        began = time.perf_counter()
        work.run(lesson, fleet.submissions(course, SLUG)[0].notebook(), names)
        return time.perf_counter() - began

    one()
    return median(one() for _ in range(5))


def _nobody() -> Any:
    raise AssertionError("everything has been graded")


# ---------------------------------------------------------------- the page


def written(
    stock: int,
    ours: int,
    workers: int,
    plain: Timed,
    first: Timed,
    cold: Timed,
    again: float,
    cost: float,
    grown: dict[int, float],
    spread: dict[int, float],
) -> list[str]:
    """The page, a line each."""
    by_stock, by_us = plain.seconds / stock, first.seconds / ours
    lines = [
        "# Grading a class: ours beside stock nbgrader",
        "",
        f"Lesson 02 (five exercises), {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}. "
        f"Made by `python -m benchmarks.grading --submissions {ours} --stock {stock} --workers {workers}`.",
        "",
        "| | submissions | seconds | a submission | of stock | most memory |",
        "|---|---|---|---|---|---|",
        f"| stock `nbgrader autograde` (no sandbox, hidden tests in the student's process) | {stock} | {plain.seconds:.0f} "
        f"| {by_stock:.2f} s | 1 | {plain.memory / 2**20:.0f} MiB |",
        f"| `lesson grade`, {workers} workers, sandboxed and probed | {ours} | {first.seconds:.0f} | {by_us:.2f} s "
        f"| **{by_stock / by_us:.1f} times as fast** | {first.memory / 2**20:.0f} MiB |",
        f"| the same with cold kernels (`LESSON_KERNELS=cold`) | {ours} | {cold.seconds:.0f} | {cold.seconds / ours:.2f} s "
        f"| {by_stock / (cold.seconds / ours):.1f} times as fast | {cold.memory / 2**20:.0f} MiB |",
        f"| the same again, nothing changed (median of 3) | {ours} | {again:.1f} | {again / ours:.3f} s "
        f"| **{by_stock / (again / ours):.0f} times as fast** | |",
        "",
        f"Stock nbgrader runs every cell of the notebook; ours runs each exercise's cell and what it needs. One submission "
        f"costs a worker {cost:.2f} s (median of 5, nothing else running).",
        "",
        "## Growing",
        "",
        "Generated classes whose submissions cost nothing to run: what is left is reading, keeping and the one writer.",
        "",
        "| submissions | seconds | a submission |",
        "|---|---|---|",
        *(
            f"| {count} | {seconds:.1f} | {1000 * seconds / count:.1f} ms |"
            for count, seconds in grown.items()
        ),
        "",
        "## Many workers",
        "",
        f"A simulated cluster: every worker waits {cost:.2f} s for a submission instead of working (16 submissions a worker), "
        "and the one writer is real.",
        "",
        "| workers | seconds | speed-up | of ideal |",
        "|---|---|---|---|",
    ]
    for count, seconds in spread.items():
        speed_up = 16 * count * cost / seconds
        lines.append(f"| {count} | {seconds:.1f} | {speed_up:.1f} | {speed_up / count:.2f} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
