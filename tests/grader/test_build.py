"""What `lesson build` writes, keeps, and refuses to write."""

import shutil
import subprocess
import sys

import nbformat
import pytest
from typer.testing import CliRunner

from grader import build, commands, exercises
from grader.authoring import BuildError
from grader.keys import KeyFileError
from lessonlib.cli import build_app
from lessonlib.course import CourseError

SOLUTION = 'nbgrader={"solution": true, "grade_id": "91-f"}'
CHECK = 'nbgrader={"grade": true, "grade_id": "91-f-check", "points": 1} tags=["raises-exception"]'


def small(lesson, code, tags=""):
    return lesson(f'# %% id="91-cell" {tags}\n{code}\n')


def refused(toy) -> str:
    with pytest.raises(BuildError) as caught:
        build.build(toy.source, toy.course)
    assert not toy.student.exists() and not toy.instructor.exists()
    return str(caught.value)


# ---------------------------------------------------------------- the student's notebook


def test_the_student_gets_blanks_and_no_hidden_tests(toy):
    text = toy.student.read_text()
    for secret in (
        "twice_the_value",
        "minus twenty-one",
        "as the model answer says",
        "BEGIN SOLUTION",
        "BEGIN HIDDEN",
    ):
        assert secret not in text
    assert toy.cell("90-double").source.endswith("raise NotImplementedError()")
    assert toy.cell("90-double-check").source == 'check("90.double", double)'
    assert toy.cell("90-explain").source.endswith("*Your answer here.*")


def test_check_cells_are_locked_and_carry_nbgraders_checksum(toy):
    check = toy.cell("90-double-check").metadata
    assert (check.editable, check.deletable) == (False, False)
    assert len(check.nbgrader.checksum) == 32
    assert "editable" not in toy.cell("90-double").metadata


def test_the_instructor_keeps_everything_and_no_outputs(toy):
    text = toy.instructor.read_text()
    assert "twice_the_value_of_x = x + x" in text and "the hidden minus twenty-one" in text
    assert not any(cell.get("outputs") for cell in nbformat.read(toy.instructor, as_version=4).cells)


def test_every_code_cell_has_been_run(toy):
    codes = [cell for cell in toy.read().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))


def test_a_widget_is_stored_as_its_still_picture(toy):
    assert "widget-view" not in toy.student.read_text() and "widgets" not in toy.read().metadata
    [explorer] = [c for c in toy.read().cells if c.cell_type == "code" and c.source.endswith("\nexplorer")]
    assert explorer.outputs[0].data == {"text/plain": "Explorer at 2", "text/html": "<p>A still picture</p>"}


def test_streams_are_stored_whole(toy):
    [cell] = [c for c in toy.read().cells if "both streams" in c.source]
    assert [(o.name, o.text) for o in cell.outputs[:2]] == [
        ("stdout", "out 0\nout 1\nout 2\n"),
        ("stderr", "err 0\nerr 1\nerr 2\n"),
    ]


def test_an_error_from_a_library_is_stored_without_the_library(toy):
    [cell] = [c for c in toy.read().cells if "json.loads" in c.source]
    assert len(cell.outputs[0].traceback) == 1 and "JSONDecodeError" in cell.outputs[0].traceback[0]


def test_a_lesson_runs_in_a_room_of_its_own(lesson, tmp_path, monkeypatch):
    """This interpreter, an empty folder that is also LESSON_HOME, and none of the author's settings."""
    profile = tmp_path / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "mine.py").write_text("mine = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("LESSON_HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "svg")
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["some-other-python"], "display_name": "Other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    toy = small(
        lesson,
        "import os, sys\nfrom pathlib import Path\n"
        "room = Path(os.environ['LESSON_HOME'])\n"
        "assert room == Path.cwd() and not [p for p in room.iterdir() if p.name[0] != '.']\n"
        f"assert sys.executable == {sys.executable!r}\n"
        "assert 'mine' not in globals()\n"
        "import matplotlib; matplotlib.get_backend()",
    )
    build.build(toy.source, toy.course)
    assert "inline" in toy.cell("91-cell").outputs[0].data["text/plain"]
    made = {path.name for path in tmp_path.iterdir()} - {"ipython", "jupyter"}
    assert made == {"91_small.ipynb", "91_small.py", "course"}


# ---------------------------------------------------------------- building again


def test_building_twice_gives_the_same_bytes(toy):
    before = toy.student.read_bytes(), toy.instructor.read_bytes()
    again = build.build(toy.source, toy.course)
    assert not again.changed
    assert (toy.student.read_bytes(), toy.instructor.read_bytes()) == before


def test_only_what_varies_differs_between_two_first_builds(toy, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(toy.source, tmp_path / "other" / "90_toy.py")
    build.build(other, tmp_path / "other" / "course")
    ours, theirs = toy.read(), nbformat.read(other.with_suffix(".ipynb"), as_version=4)
    differing = [a.id for a, b in zip(ours.cells, theirs.cells, strict=True) if a != b]
    [timing] = [cell.id for cell in ours.cells if "forgiven by sanitize.cfg" in cell.source]
    assert set(differing) <= {"90-clock", timing} and "90-clock" in differing


def test_fresh_measures_again(toy):
    before = toy.cell("90-clock").outputs
    build.build(toy.source, toy.course, fresh=True)
    assert toy.cell("90-clock").outputs != before


def test_a_varying_cell_whose_text_changed_is_measured_again(toy):
    before = toy.cell("90-clock").outputs
    toy.source.write_text(toy.source.read_text().replace('print("now",', 'print("just now",'))
    build.build(toy.source, toy.course)
    assert (
        toy.cell("90-clock").outputs[0].text.startswith("just now") and before != toy.cell("90-clock").outputs
    )


def test_without_executing_unchanged_cells_keep_their_outputs(toy):
    before = {cell.id: cell for cell in toy.read().cells}
    toy.source.write_text(toy.source.read_text().replace("plt.plot([1, 2, 4])", "plt.plot([1, 2, 5])"))
    built = build.build(toy.source, toy.course, execute=False)
    assert built.executed == 0
    [plot] = [cell for cell in toy.read().cells if cell.id not in before]
    assert plot.outputs == [] and plot.execution_count is None
    assert all(cell == before[cell.id] for cell in toy.read().cells if cell is not plot and cell.id in before)


def test_an_edited_notebook_is_set_aside_never_lost(toy):
    edited = toy.student.read_text().replace("# 90 · A toy lesson", "# An hour of work")
    for name in ("90_toy.edited.ipynb", "90_toy.edited-2.ipynb"):
        toy.student.write_text(edited)
        built = build.build(toy.source, toy.course, execute=False)
        assert built.set_aside == toy.student.with_name(name)
        assert built.set_aside.read_text() == edited
        assert "An hour of work" not in toy.student.read_text()


def test_a_notebook_run_and_saved_in_jupyterlab_is_not_edited(toy):
    notebook = toy.read()
    notebook.metadata.language_info.version = "3.12.1"
    notebook.cells[1].metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    nbformat.write(notebook, toy.student)
    built = build.build(toy.source, toy.course, execute=False)
    assert built.set_aside is None and "iopub" not in toy.student.read_text()


def test_a_broken_notebook_is_not_overwritten(toy):
    toy.student.write_text("{ half a notebo")
    with pytest.raises(BuildError, match="not a readable notebook"):
        build.build(toy.source, toy.course, execute=False)
    assert toy.student.read_text() == "{ half a notebo"


# ---------------------------------------------------------------- --check


def test_check_is_silent_when_nothing_differs(toy):
    assert build.differences(toy.source) == []


def test_check_says_which_cell_differs_and_how(toy):
    toy.source.write_text(
        toy.source.read_text().replace("{'passes' if", "{'well done' if").replace("{line}", "{line}")
    )
    toy.source.write_text(toy.source.read_text().replace('display(HTML(f"<div', 'display(HTML(f"<p'))
    toy.source.write_text(toy.source.read_text().replace("as the model answer says", "as anyone can see"))
    before = toy.student.read_bytes()
    told = "\n".join(build.differences(toy.source))
    assert "cell 90-double-check: its output differs" in told and "+<p class='card'>" in told
    assert "no longer in the lesson" in told and "new or edited" in told
    assert "anyone can see" not in told and "90-explain" not in told
    assert toy.student.read_bytes() == before


def test_check_says_when_the_notebook_was_never_built(toy):
    toy.student.unlink()
    assert build.differences(toy.source, execute=False) == ["90_toy.ipynb does not exist."]


# ---------------------------------------------------------------- what is refused


def test_a_cell_that_fails_is_named(lesson):
    assert refused(small(lesson, "1 / 0")) == (
        "91_small.py without solutions, cell 91-cell failed with ZeroDivisionError: division by zero"
    )


def test_a_check_that_passes_on_the_blank_is_refused(lesson):
    toy = lesson(
        f"# %% {SOLUTION}\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n\n# %% {CHECK}\nprint('fine')\n"
    )
    toy.source.write_text(
        toy.source.read_text().replace("### BEGIN", "def f():\n    ### BEGIN").replace("\nx", "\n    x")
    )
    toy.source.write_text(toy.source.read_text().replace("\n### END", "\n    ### END"))
    assert "91-f-check passes without a solution" in refused(toy)


@pytest.mark.parametrize(
    "code",
    [
        "import os; print(os.getcwd())",
        "import sys; sys.prefix",
        "import warnings; warnings.warn('old')",
        "object()",
    ],
)
def test_outputs_that_belong_to_one_machine_are_refused(lesson, code):
    assert "91-cell prints a" in refused(small(lesson, code))


def test_a_solution_printed_by_another_cell_is_refused(lesson):
    toy = lesson(
        "# %%\nprint('return sorted(', end='')\nprint('numbers)[-1]')\n\n"
        f"# %% {SOLUTION}\ndef f(numbers):\n"
        "    ### BEGIN SOLUTION\n    return sorted(numbers)[-1]\n    ### END SOLUTION\n"
    )
    assert "shows 'return sorted(numbers)[-1]', a line of a solution" in refused(toy)


# ---------------------------------------------------------------- the version with solutions


def test_the_solutions_earn_all_points(toy):
    assert build.verify(toy.source) == 3


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (("return twice_the_value_of_x", "return 6"), "AssertionError: the hidden minus twenty-one"),
        (("assert double(-21) == -42", "double(1)\nassert True"), None),
        (('assert double(-21) == -42, "the hidden minus twenty-one"', "double(0)"), "last line has a value"),
        (("assert double(-21)", "print('!', file=sys.stderr); assert double(-21)"), "writes to stderr"),
    ],
)
def test_a_solution_without_all_points_is_named(toy, broken, reason):
    assert broken[0] in toy.source.read_text()
    toy.source.write_text(toy.source.read_text().replace(*broken))
    if reason is None:
        assert build.verify(toy.source) == 3
        return
    with pytest.raises(BuildError, match="90-double-check gives 0 of 3") as caught:
        build.verify(toy.source)
    assert reason in str(caught.value)


# ---------------------------------------------------------------- the command


def lesson_build(toy, *arguments):
    command = [
        sys.executable,
        "-m",
        "lessonlib.cli",
        "build",
        "--notebooks",
        toy.source.parent,
        "--course",
        toy.course,
    ]
    return subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, timeout=120)


def test_the_command_says_what_it_built_and_how_long_it_took(toy):
    done = lesson_build(toy, "90", "--no-execute")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("✓ 90_toy: unchanged, 13 cells, not run, ") and done.stdout.endswith(" s\n")


def test_the_command_fails_when_a_committed_notebook_differs(toy):
    toy.source.write_text(toy.source.read_text().replace("A toy lesson", "A toy"))
    done = lesson_build(toy, "--check", "--no-execute")
    assert done.returncode == 1
    assert "✗ 90_toy: the committed notebook is not what the source builds" in done.stdout
    assert "new or edited" in done.stdout


def test_the_command_goes_on_after_a_lesson_that_fails(toy):
    (toy.source.parent / "89_bad.py").write_text('# %% id="8 9"\n1\n')
    done = lesson_build(toy, "--no-execute")
    assert done.returncode == 1
    assert "✗ 89_bad: 89_bad.py line 1, cell 1" in done.stdout and "✓ 90_toy" in done.stdout


def test_a_fault_in_a_key_or_a_mutant_is_its_own_lessons(toy, monkeypatch):
    """Whatever is wrong with one lesson's files, the others are built."""
    write = commands._write

    def faulty(source, *rest):
        if source.stem == "90_toy":
            raise KeyFileError("90_toy.yaml must begin with 'quiz: 90_toy'.")
        return write(source, *rest)

    monkeypatch.setattr(commands, "_write", faulty)
    (toy.source.parent / "91_more.py").write_text("# %% [markdown]\n# # More\n")
    folders = ["--notebooks", str(toy.source.parent), "--course", str(toy.course)]
    done = CliRunner().invoke(build_app()[0], ["build", "--no-execute", *folders])
    assert done.exit_code == 1 and "✗ 90_toy: 90_toy.yaml must begin" in done.output
    assert "✓ 91_more" in done.output


def test_what_is_missing_is_said_before_the_notebook_runs(toy, monkeypatch):
    monkeypatch.setattr(build.completeness, "complaint", lambda *_: "91.f has no probe.")
    monkeypatch.setattr(build.execution, "run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(BuildError, match=r"90_toy\.py: 91\.f has no probe"):
        build.build(toy.source, toy.course)


def test_a_mutant_without_its_first_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "MUTANTS", tmp_path)
    (tmp_path / "02.visible").mkdir()
    (tmp_path / "02.visible" / "mine.py").write_text("def visible(held, new): ...\n")
    with pytest.raises(CourseError, match=r"02\.visible/mine\.py of grader/mutants must begin"):
        exercises.planted("02.visible")


def test_an_unknown_lesson_is_answered_with_the_known_ones(toy):
    done = lesson_build(toy, "42")
    assert done.returncode == 1
    assert done.stderr == "lesson: There is no lesson '42' to build; there are 90_toy.\n"
