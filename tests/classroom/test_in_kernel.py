"""A notebook as students run it, in a real kernel: a card, one line for a traceback, and Run All goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FIRST = "from lessonlib.classroom import check, hint, predict, quiz, progress"
WRONG = """import torch

def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    print("<b>temperature</b>", temperature)
    probabilities = (logits * temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
"""
BREAKS = """def count_work(prompt, new, use_cache):
    total = prompt
    return total / (prompt - 5)
"""
ENDLESS = """from lessonlib.classroom import observing
observing.SECONDS = 1
def count_work(prompt, new, use_cache):
    while True:
        try:
            new += 1
        except Exception:
            pass
"""
RIGHT = """def count_work(prompt, new, use_cache):
    return prompt + new - 1 if use_cache else sum(prompt + i for i in range(new))
"""


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Run code cells in a fresh kernel; returns each cell's outputs."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.setenv("IPYTHONDIR", str(home.parent / "ipython"))

    def execute(*sources: str) -> list[list[dict]]:
        cells = [
            nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"]}) for source in sources
        ]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(home)}}).execute()
        return [cell.outputs for cell in notebook.cells]

    return execute


def card(outputs: list[dict]) -> str:
    return next(o.data["text/plain"] for o in outputs if o.output_type == "display_data")


def error(outputs: list[dict]) -> dict:
    return next(o for o in outputs if o.output_type == "error")


def test_failing_checks_show_only_our_lines_and_the_rest_runs(run):
    outputs = run(
        FIRST,
        WRONG,
        'check("01.sample", sample)',
        BREAKS,
        "check(count_work)",
        ENDLESS,
        "check(count_work)",
        RIGHT,
        'check("01.count_work")',
        "print('still here')",
    )
    failed, broke, endless, passed = outputs[2], outputs[4], outputs[6], outputs[8]

    assert [o.output_type for o in failed] == ["display_data", "error"], "printing belongs to the card"
    assert error(failed).traceback == [
        ("01.sample: multiplies by the temperature; the card above shows an input that fails.")
    ]
    assert error(failed).ename == "CheckFailed" and error(failed).evalue == error(failed).traceback[0]
    html = failed[0].data["text/html"]
    assert "&lt;b&gt;temperature&lt;/b&gt; 0.5" in html and "<b>temperature</b>" not in html

    text = card(broke)
    assert "Line 3 of your cell: return total / (prompt - 5)" in text
    assert "ZeroDivisionError: division by zero" in text
    for ours in ("lessonlib", "observing", str(sys.prefix), "Traceback", "ipykernel"):
        assert ours not in text and ours not in "".join(error(broke).traceback)

    assert "does not finish in time" in card(endless) and "Attempt 2." in card(endless)
    assert "Visible checks passed (18 inputs)" in card(passed) and len(passed) == 1
    assert outputs[9][0].text == "still here\n"


def test_the_same_notebook_twice_gives_the_same_outputs(run, home):
    cells = [
        FIRST,
        WRONG,
        'check("01.sample", sample)',
        'hint("01.sample")',
        'predict("01.x", "How many?", unit="tokens")',
        'predict.compare("01.x", measured=5050)',
        'quiz("01_generation")',
        "progress()",
    ]

    def stored() -> list[list[tuple]]:
        told = []
        for outputs in run(*cells):
            told.append(
                [
                    (o.get("data", {}).get("text/plain"), o.get("data", {}).get("text/html"), o.get("evalue"))
                    for o in outputs
                ]
            )
        for file in home.glob("*.jsonl"):
            file.unlink()
        return told

    first = stored()
    assert first == stored()
    assert all(all(text for text in output[:1]) or output[2] for cell in first for output in cell)


def test_a_wrong_name_is_one_line(run):
    failed = run(FIRST, 'check("01.sampel")')[1]
    assert error(failed).traceback == [
        'There is no exercise "01.sampel"; the exercises of this lesson are: "01.sample", "01.generate", '
        '"01.count_work".'
    ]
