"""What is committed: executed, clean, and giving nothing away. Nothing runs here."""

import re

import yaml
from proven import ROOT, SOURCES, Lesson

from grader import authoring, outputs, release


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_a_source():
    built = {
        path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb") if ".edited" not in path.name
    }
    assert built <= set(SOURCES), f"without a NN_slug.py: {sorted(built - set(SOURCES))}"


def test_every_code_cell_has_been_executed(lesson: Lesson):
    unrun = [cell.id for cell in code_cells(lesson.read()) if cell.execution_count is None]
    assert not unrun, (
        f"never run, so nbval would pass them unseen: {unrun}; run `lesson build {lesson.source.stem}`"
    )


def test_the_cells_were_run_once_from_top_to_bottom(lesson: Lesson):
    counts = [cell.execution_count for cell in code_cells(lesson.read())]
    assert counts == list(range(1, len(counts) + 1))


def test_no_widget_state_and_no_timestamps(lesson: Lesson):
    notebook = lesson.read()
    assert set(notebook.metadata) == {"kernelspec", "language_info", "lesson"}
    assert outputs.LIVE_VIEW not in lesson.committed.read_text()
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata]


def test_nothing_of_the_authors_machine(lesson: Lesson):
    assert not {cell.id: told for cell in lesson.read().cells if (told := outputs.machine_traces(cell))}


def test_no_line_of_a_solution_or_hidden_test(lesson: Lesson):
    text = "\n".join(outputs.strings(lesson.read()))
    leaked = [line for line in authoring.secret_lines(authoring.read_lesson(lesson.source)) if line in text]
    assert not leaked
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN|MARK)", text)


def test_a_sentinel_in_every_secret_block_is_taken_out(lesson: Lesson):
    """Whatever an author writes between the markers: the notebook made of it does not hold it."""
    notebook = authoring.read_lesson(lesson.source)
    planted = 0
    for cell in notebook.cells:
        lines = cell.source.split("\n")
        for block in reversed(authoring.blocks(cell.source)):
            indent = re.match(r"\s*", lines[block.start - 1])[0]
            lines.insert(block.start, f"{indent}# SENTINEL {cell.id}")
            planted += 1
        cell.source = "\n".join(lines)
    assert "SENTINEL" not in "\n".join(outputs.strings(release.student_version(notebook)))
    graded = [cell for cell in notebook.cells if cell.metadata.get("nbgrader")]
    assert bool(planted) == bool(graded)


def test_nothing_out_of_the_answer_keys(lesson: Lesson):
    """Graded questions: not one text of the grader's key files, unless the question bank tells it openly."""
    told = "".join(path.read_text() for path in (ROOT / "quizzes").glob("*.yaml"))
    text = "\n".join(outputs.strings(lesson.read()))
    keys = [yaml.safe_load(path.read_text()) for path in (ROOT / "grader" / "keys").rglob("*.y*ml")]
    private = {line for line in outputs.strings(keys) if len(line) >= 20 and line not in told}
    assert not [line for line in private if line in text]
