"""`lesson export`: what a student types to take a model elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonlib import cli
from lessonlib.engine import load_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_gguf_file_named_after_model_and_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "pico", "--to", "gguf", "--quantization", "Q8_0"]) == 0
    out = capsys.readouterr().out
    written = here / "pico-q8_0.gguf"
    assert f"{written.stat().st_size / 1e6:.1f} MB, q8_0" in out
    assert written.read_bytes()[:4] == b"GGUF"
    assert [path.name for path in here.iterdir()] == ["pico-q8_0.gguf"]


def test_a_folder_that_our_engine_loads_again(here: Path) -> None:
    assert cli.main(["export", "pico", "--to", "hf", "--output", "deep/down"]) == 0
    assert load_model("deep/down").config == load_model("pico").config


def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pico.gguf").write_text("mine")
    (here / "pico-hf").mkdir()
    (here / "pico-hf" / "notes").write_text("mine")
    for to in ("gguf", "hf"):
        assert cli.main(["export", "pico", "--to", to]) == 1
        shown = capsys.readouterr()
        assert "there already" in shown.err and len(shown.err.strip().splitlines()) == 1
    assert (here / "pico.gguf").read_text() == (here / "pico-hf" / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("to", "kind", "offered"), [("gguf", "int8", "q8_0"), ("hf", "q8_0", "int8"), ("hf", "nf4", "int4")]
)
def test_a_format_of_the_other_kind_is_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], to: str, kind: str, offered: str
) -> None:
    assert cli.main(["export", "pico", "--to", to, "--quantization", kind]) == 1
    error = capsys.readouterr().err
    assert offered in error and len(error.strip().splitlines()) == 1
    assert list(here.iterdir()) == []


def test_an_unknown_target_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "pico", "--to", "onnx"]) == 2
    assert cli.main(["export", "pico"]) == 2  # where to is for the student to say


def test_an_unknown_model_is_one_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "nobody", "--to", "gguf"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
