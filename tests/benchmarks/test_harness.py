"""The harness measures what it says, side by side, and reports all of it. Speeds themselves are not tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import report, suite
from benchmarks.measure import WARM_UP, Bench, Row, agreement, read_bytes
from benchmarks.shapes import prepare
from benchmarks.suite import BENCHMARKS, Benchmark
from benchmarks.worker import ENGINES as ENGINE_MODULES
from benchmarks.worker import PEERS, Answer, Ask, Worker, WorkerFailed
from lessonlib.engine import generate, load_model


def small(*rows: tuple[str, str], **changes: Any) -> Benchmark:
    named: dict[str, Any] = {
        "name": "decode",
        "title": "A small one",
        "counts": "output tokens",
        "rows": rows,
        "asks": lambda model, quick: [Ask(0.0, model.ids(12, seed), 6) for seed in range(2)],
        "speed": suite.output_speed,
        "models": ("tiny",),
        "sequences": 2,
        "seconds": 0.0,
    }
    return Benchmark(**named | changes)


# ---------------------------------------------------------------- figures


def test_what_each_speed_counts() -> None:
    asks = [Ask(0.0, [1] * 10, 3), Ask(0.5, [1] * 30, 2)]
    answers = [Answer([5, 6, 7], [1.0, 2.0, 3.0]), Answer([8, 9], [2.0, 4.0])]
    assert suite.decode_speed(asks, answers) == pytest.approx(3 / 4)  # 3 steps, 2 + 2 seconds
    assert suite.prefill_speed(asks[:1], answers[:1]) == pytest.approx(10 / 1.0)
    assert suite.output_speed(asks, answers) == pytest.approx(5 / 4.0)


def test_agreement_ends_at_the_first_difference() -> None:
    reference = [Answer([1, 2, 3, 4], []), Answer([5, 6], [])]
    assert agreement(reference, reference) == 1
    assert agreement([Answer([1, 9, 3, 4], []), Answer([5, 6], [])], reference) == pytest.approx(3 / 6)


def test_bytes_of_a_step_are_weights_and_cache() -> None:
    model = prepare("tiny")
    row = Row("ours", "bf16", facts={"weight_bytes": 1000})
    config = model.config
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
    assert read_bytes(model, row, [Ask(0.0, [1] * 10, 20)]) == 1000 + (10 + 20 / 2) * a_token


def test_every_workload_fits_its_models_and_comes_out_the_same() -> None:
    for benchmark in BENCHMARKS.values():
        assert benchmark.rows[0] == ("transformers", "f32")  # what every ratio is over
        for name in (*benchmark.models, "tiny"):
            model = prepare(name) if name in ("pico", "tiny") else None
            if model is None:
                continue
            asks = benchmark.asks(model, name == "tiny")
            assert asks == benchmark.asks(model, name == "tiny")
            assert all(0 <= i < model.config.vocab_size for ask in asks for i in ask.prompt)
            longest = max(len(ask.prompt) + ask.new_tokens for ask in asks)
            assert longest <= model.config.max_position_embeddings


# ---------------------------------------------------------------- side by side


class Script(Bench):
    """A bench whose engines only note what they were asked; engine "broken" fails at its third workload."""

    def __init__(self) -> None:
        super().__init__(say=lambda _: None)
        self.served: list[tuple[str, int]] = []

    def worker(self, engine: str) -> Any:
        outer = self

        class Fake:
            def call(self, method: str, **named: Any) -> Any:
                return {"weight_bytes": 1.0}

            def serve(self, key: str, asks: list[Ask], sequences: int) -> list[Answer]:
                outer.served.append((engine, asks[0].new_tokens))
                if engine == "broken" and sum(name == "broken" for name, _ in outer.served) == 3:
                    raise WorkerFailed("out of paper")
                return [
                    Answer([1] * ask.new_tokens, [0.1 * (i + 1) for i in range(ask.new_tokens)])
                    for ask in asks
                ]

        return Fake()


def test_rows_take_turns_after_a_warm_up_that_does_not_count() -> None:
    bench = Script()
    rows, rounds = bench.measure(small(("a", "f32"), ("b", "f32")), prepare("tiny"))
    assert rounds == 3
    assert bench.served == [("a", WARM_UP), ("b", WARM_UP)] + 3 * [("a", 6), ("b", 6)]
    assert [len(row.samples) for row in rows] == [3, 3]


def test_a_row_that_fails_says_why_and_the_others_go_on() -> None:
    bench = Script()
    rows, rounds = bench.measure(small(("broken", "f32"), ("b", "f32")), prepare("tiny"))
    assert rounds == 3
    assert (rows[0].failed, rows[1].failed, len(rows[1].samples)) == ("out of paper", None, 3)
    found = report.record(small(), "tiny", rows, rounds, {"read": 1.0, "copy": 1.0}, {}, 1, False)
    assert [row["engine"] for row in found["rows"]] == ["b"]
    assert found["failed"] == {"broken f32": "out of paper"}
    assert "broken f32 did not run: out of paper" in report.table(small(), found)


# ---------------------------------------------------------------- the engines


ENGINES = [
    ("ours", "f32"),
    ("ours", "f32 static"),
    ("transformers", "f32"),
    ("transformers", "f32 continuous"),
]
if PEERS.exists():
    ENGINES.append(("llama.cpp", "f16"))


@pytest.fixture(scope="module")
def worker() -> Iterator[Callable[[str], Worker]]:
    """Each engine's process, started once."""
    started: dict[str, Worker] = {}

    def start(engine: str) -> Worker:
        if engine not in started:
            started[engine] = Worker(engine, threads=1)
        return started[engine]

    yield start
    for one in started.values():
        one.close()


@pytest.mark.parametrize(("engine", "variant"), ENGINES)
def test_an_engine_serves_what_is_asked_when_it_is_asked(
    worker: Callable[[str], Worker], engine: str, variant: str
) -> None:
    model, mine = prepare("tiny"), worker(engine)
    asks = [Ask(0.0, model.ids(9, 1), 12), Ask(0.2, model.ids(20, 2), 5), Ask(0.0, model.ids(3, 3), 3)]
    exact = load_model(model.folder)
    place = model.gguf(variant, mine) if engine == "llama.cpp" else model.folder
    facts = mine.call("load", key="k", folder=str(place), variant=variant, length=64, sequences=2)
    answers = mine.serve("k", asks, 2)
    surprise = None if "continuous" in variant else mine.call("surprise", key="k", ids=model.ids(40))
    again = mine.serve("k", asks, 1)
    mine.call("unload", key="k")
    assert facts["weight_bytes"] >= 2 * model.config.num_parameters * 0.9
    for ask, answer in zip(asks, answers, strict=True):
        assert len(answer.tokens) == len(answer.times) == ask.new_tokens
        assert answer.times == sorted(answer.times) and answer.times[0] > ask.arrival
        if variant != "f16":
            assert answer.tokens == generate(exact, ask.prompt, ask.new_tokens)[len(ask.prompt) :]
    assert [answer.tokens for answer in again] == [answer.tokens for answer in answers]
    if "continuous" not in variant:  # theirs is told the number when it is made
        for one, next_one in pairwise(sorted(again, key=lambda answer: answer.times[0])):
            assert one.times[-1] < next_one.times[0]  # one at a time
    if surprise is not None:  # untrained: as unsure as a die with a face for each token
        assert surprise / 39 == pytest.approx(8.3, abs=0.5)


def test_a_peer_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("benchmarks.worker").worker.ENGINES,
        "llama.cpp",
        ("benchmarks.engine_llama_cpp", Path("/nowhere")),
    )
    with pytest.raises(WorkerFailed, match="make peers"):
        Worker("llama.cpp")


def test_what_a_child_cannot_do_is_told(worker: Callable[[str], Worker]) -> None:
    with pytest.raises(WorkerFailed, match="KeyError"):
        worker("ours").serve("nothing loaded", [Ask(0.0, [1], 1)])
    assert "torch" in worker("ours").call("about")  # and it lives on


def test_a_child_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINE_MODULES, "ours", ("no_such_module", Path(sys.executable)))
    with Worker("ours", threads=1) as worker, pytest.raises(WorkerFailed, match="ended with status 1"):
        worker.call("about")


# ---------------------------------------------------------------- the report


def test_one_command_leaves_json_picture_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (("transformers", "f32"), ("ours", "f32"), ("ours", "int8"))
    monkeypatch.setitem(BENCHMARKS, "decode", small(*rows))
    page = tmp_path / "README.md"
    page.write_text("# Mine\n\nprose\n")
    arguments = [
        "decode",
        "--model",
        "tiny",
        "--quick",
        "--results",
        str(tmp_path / "r"),
        "--readme",
        str(page),
    ]
    app = command.typer.Typer()
    app.command()(command.main)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output

    found = json.loads((tmp_path / "r" / "decode.json").read_text())["tiny"]
    assert found["command"] == "python -m benchmarks decode --model tiny --quick"
    assert [(row["engine"], row["variant"]) for row in found["rows"]] == list(rows)
    assert found["rows"][0]["ratio"] == 1 and found["rows"][1]["same_tokens"] == 1
    assert found["rows"][2]["weight_bytes"] < found["rows"][1]["weight_bytes"] / 3
    assert found["memory_gb_per_s"]["read"] > 0.1
    assert (tmp_path / "r" / "decode.png").read_bytes()[:4] == b"\x89PNG"
    text = page.read_text()
    assert text.startswith("# Mine\n\nprose\n") and report.table(small(), found) in text
    assert found["command"] in text and "(r/decode.png)" in text

    again = CliRunner().invoke(app, [*arguments, "--missing"])
    assert again.exit_code == 0 and "ours" not in again.output  # nothing is measured twice
    assert page.read_text() == text


def test_unknown_names_are_wrong_usage() -> None:
    app = command.typer.Typer()
    app.command()(command.main)
    for arguments in (["speed"], ["decode", "--model", "gpt-5"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2 and "is none of" in done.output


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text((report.HERE / "README.md").read_text())
    report.write_readme(page, report.HERE / "results")
    assert page.read_text() == (report.HERE / "README.md").read_text()
