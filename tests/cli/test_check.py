"""`lesson check` in a terminal, with real kernels: what passes, what is wrong, and what never ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lessonlib import cli, course
from lessonlib.classroom import predict, quiz
from lessonlib.classroom.store import log_for

SAMPLE = """def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    return draw((logits * temperature).softmax(-1), generator)
"""
DRAW = """%matplotlib inline
from pathlib import Path; Path("touched").touch()
def draw(p, generator):
    return torch.multinomial(p, 1, generator=generator).squeeze(-1)
"""
GENERATE = """def generate(model, prompts, max_tokens, eos_id):
    rows = []
    for prompt in prompts:
        row = list(prompt)
        for _ in range(min(max_tokens, model.config.max_position_embeddings - len(row))):
            row.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
            if row[-1] == eos_id:
                break
        rows.append(row)
    return rows
"""
COUNT = """def count_work(prompt, new, use_cache):
    return prompt + new - 1 if use_cache else sum(prompt + i for i in range(new))
"""
ENDLESS = "while True:\n    pass\n"
STUBBORN = (
    "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass\n"
)


class Desk:
    """A student's folder with lesson 01."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "01_generation.ipynb"
        self.book: dict[str, Any] = json.loads(course.lesson("01").notebook.read_text(encoding="utf-8"))

    def position(self, name: str) -> int:
        ids = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in self.book["cells"]]
        return ids.index(f"01-{name}")

    def write(self, before: str = "", **sources: str) -> None:
        """Fill in exercises, and put a cell of the student's own before the first."""
        for name, source in sources.items():
            self.book["cells"][self.position(name)]["source"] = source.splitlines(keepends=True)
        own = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "own"}
        self.book["cells"].insert(self.position("sample"), own | {"source": before})
        self.path.write_text(json.dumps(self.book), encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("LESSON_HOME", str(tmp_path))
    return Desk(tmp_path)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]):
    """Run the command: exit status, and what was printed to both."""

    def call(*arguments: str) -> tuple[int, str]:
        status = cli.main(["check", *arguments])
        told = capsys.readouterr()
        return status, told.out + told.err

    return call


def row(shown: str, exercise: str) -> str:
    return " ".join(next(line for line in shown.splitlines() if line.startswith(exercise)).split())


def test_every_exercise_has_its_row_and_the_log_remembers(desk: Desk, check):
    desk.write(DRAW, sample=SAMPLE, count_work=COUNT)
    before = desk.path.read_bytes()
    quiz("01", {"slower": "d", "twice-as-long": "c"})
    predict("01.doubling", answer="4 times", choices=["4 times"])
    status, shown = check("01")
    assert status == 1
    assert row(shown, "01.sample").startswith(
        "01.sample ✗ failed multiplies by the temperature: sample(torch.tensor([[2.0, 1.0, 0.0]]), "
        "temperature=0.5) → token 0 comes in 52."
    )
    assert row(shown, "01.generate") == "01.generate ○ blank"
    assert row(shown, "01.count_work") == "01.count_work ✓ passed"
    assert "visible checks: 1 of 3." in shown
    assert "Quiz questions answered: 2 of 13." in shown and "Predictions made: 1 of 2." in shown
    kept = [(e.id, e.data["passed"], e.data["name"]) for e in log_for("01").events("check")]
    assert kept == [
        ("01.sample", False, "multiplies by the temperature"),
        ("01.count_work", True, None),
    ]
    assert desk.path.read_bytes() == before
    assert not Path(desk.folder, "touched").exists(), "only what an exercise leans on is run"


def test_the_status_is_0_only_when_all_that_was_asked_passes(desk: Desk, check):
    desk.write(generate=GENERATE, count_work=COUNT)
    status, shown = check("01.generate")
    assert (status, row(shown, "01.generate")) == (0, "01.generate ✓ passed") and "1 of 1." in shown
    assert "01.count_work" not in shown
    assert check("01")[0] == 1
    assert check("01.sample")[0] == 1


def test_a_cell_that_stops_or_is_gone_is_told_and_the_rest_runs(desk: Desk, check):
    desk.write(generate="def generate(:\n    pass", count_work=COUNT + "\nprint(undefined)")
    del desk.book["cells"][desk.position("sample")]
    desk.path.write_text(json.dumps(desk.book), encoding="utf-8")
    status, shown = check("01")
    assert status == 1
    assert row(shown, "01.sample").endswith(
        "– missing its cell is gone; `lesson reset 01.sample` puts it back"
    )
    assert row(shown, "01.generate").endswith("its cell stops with SyntaxError: invalid syntax (line 1)")
    assert row(shown, "01.count_work").endswith(
        "its cell stops with NameError: name 'undefined' is not defined (line 4)"
    )


def test_a_helper_that_stops_is_named_by_its_cell(desk: Desk, check):
    desk.write("draw = 1 / 0", sample=SAMPLE)
    number = next(n for n, cell in enumerate(desk.book["cells"], 1) if cell["id"] == "own")
    told = (
        f"cell {number} from the top, which it needs, stops with ZeroDivisionError: division by zero (line 1)"
    )
    assert row(check("01.sample")[1], "01.sample").endswith(told)


@pytest.mark.parametrize(
    "harm, says",
    [
        (ENDLESS, "its cell did not end within 5 seconds and was stopped"),
        (STUBBORN, "its cell did not end within 5 seconds and was stopped"),
        ("import os; os._exit(1)", "its cell ended the whole Python process"),
        ("exit()", "its cell stops with SystemExit"),
        (GENERATE.replace("    rows = []", "    import os; os._exit(1)"), "its check ended the whole Python"),
        (GENERATE.replace("    rows = []", "    quit()"), "raises an error: generate("),
    ],
)
def test_what_never_ends_or_takes_python_along_costs_only_itself(desk: Desk, check, harm: str, says: str):
    """The last exercise leans on the first: after a new start its cell is there again."""
    count = f"{COUNT}assert draws\n"
    desk.write(sample=SAMPLE + "draws = True\n", generate=harm, count_work=count)
    status, shown = check("01", "--seconds", "5")
    assert status == 1 and says in row(shown, "01.generate"), shown
    assert row(shown, "01.count_work") == "01.count_work ✓ passed"


@pytest.mark.parametrize(
    "arguments, change, says",
    [
        (["01"], lambda path: path.unlink(), "There is no 01_generation.ipynb in "),
        (
            ["01"],
            lambda path: path.write_text("{torn"),
            "01_generation.ipynb cannot be read (it is not JSON)",
        ),
        (["01.sampel"], lambda path: None, 'There is no exercise "01.sampel"'),
        (["77"], lambda path: None, "There is no lesson '77'"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(desk: Desk, check, arguments, change, says):
    desk.write()
    change(desk.path)
    status, shown = check(*arguments)
    assert status == 1 and shown.startswith("lesson: ") and says in shown and len(shown.splitlines()) == 1


def test_a_lesson_without_exercises_says_so(desk: Desk, check):
    name = course.lesson("00").notebook.name
    (desk.folder / name).write_bytes(course.lesson("00").notebook.read_bytes())
    status, shown = check("00")
    assert status == 0 and "This lesson has no exercises." in shown and "answered: 0 of 3." in shown


def test_ctrl_c_keeps_what_was_found_and_leaves_nothing_running(desk: Desk):
    reached = desk.folder / "reached"
    desk.write(DRAW, sample=SAMPLE, generate=f"open({str(reached)!r}, 'w').close()\n{STUBBORN}")
    command = [sys.executable, "-m", "lessonlib.cli", "check", "01"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            if reached.exists() or running.poll() is not None:
                break
            time.sleep(0.1)
        children = psutil.Process(running.pid).children(recursive=True)
        assert children
        running.send_signal(signal.SIGINT)
        shown, errors = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    assert "✗ failed" in row(shown, "01.sample") and row(shown, "01.count_work") == "01.count_work – not run"
    assert "what was checked before is kept" in shown and "Traceback" not in errors
    assert [e.id for e in log_for("01").events("check")] == ["01.sample"]
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert os.listdir(desk.folder).count("01_generation.ipynb") == 1
