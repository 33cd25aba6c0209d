"""`lesson` itself: quick to answer, helpful, and one sentence when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lessonlib import cli

HEAVY = (
    "torch",
    "transformers",
    "jupyterlab",
    "jupyter_server",
    "matplotlib",
    "IPython",
    "nbgrader",
    "tokenizers",
)


def names() -> list[str]:
    app, _ = cli.build_app()
    return sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, lessonlib.cli as cli; cli.build_app(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_installed_program_answers(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "lesson")
    result = subprocess.run([program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for word in ("lab", "doctor", "generate", "For students"):
        assert word in result.stdout
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("lesson ")


def test_the_commands_of_the_design_are_there() -> None:
    assert {"lab", "doctor", "generate", "progress", "train", "build"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_command_shows_an_example(name: str) -> None:
    app, _ = cli.build_app()
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"lesson {name}" in result.output.split("Example")[-1]


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "nobody-trained-this", "def f():"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nobody-trained-this" in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_a_misspelt_command_is_named_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docter"]) == 2
    assert "doctor" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr("lessonlib.lab.delivery.student_folder", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["lab"])


def test_commands_that_cannot_be_loaded_cost_only_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        name = "grader"

        def load(self) -> None:
            raise ImportError("No module named 'nbgrader'")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Broken()])
    assert cli.main(["--version"]) == 0
    assert cli.main(["grade"]) == 2
    assert "No module named 'nbgrader'" in capsys.readouterr().err


def test_an_installed_package_adds_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(app: typer.Typer) -> None:
        @app.command()
        def shout() -> None:
            print("HELLO")

    class Point:
        name = "extra"

        def load(self) -> object:
            return register

    monkeypatch.setattr(cli, "entry_points", lambda group: [Point()])
    assert cli.main(["shout"]) == 0
    assert capsys.readouterr().out == "HELLO\n"
