"""`lesson bench serve` against a real server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from lessonlib import cli
from lessonlib.serving.bench import Settings, arrival_times
from tests.serving.benching import URL, FakeServer, fake_server


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


def script(tmp_path: Path, *ways: str) -> str:
    file = tmp_path / "ways.txt"
    file.write_text("\n".join(ways))
    return str(file)


def test_every_kind_of_answer_finds_its_place_in_the_report(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing may come in between
    ways = ["ok", "429", "slow", "500", "malformed", "cut", "no usage", "elsewhere"]
    result, picture = tmp_path / "result.json", tmp_path / "result.png"
    prompts = script(tmp_path, *ways)
    asked = ["--prompts", prompts, "--concurrency", "1", "--requests", "8", "--api-key", "sesame", "--chat"]
    shown = ["--slo-ttft", "60000", "--slo-tpot", "60000", "--output", str(result), "--plot", str(picture)]
    assert cli.main(["bench", "serve", "--base-url", server.url, *asked, *shown]) == 0
    assert server.asked == ["ok", *ways[1:], "ok"]  # the first is not measured; no redirect is followed
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sesame"}
    assert server.bodies[0]["model"] == "fake"

    told = json.loads(result.read_text())
    (stage,) = told["stages"]
    wanted = {"HTTP 429": 1, "HTTP 500": 1, "malformed": 1, "disconnect": 1, "HTTP 307": 1}
    assert stage["errors"] == wanted
    assert (stage["requests"], stage["completed"], stage["tokens_from"]) == (8, 3, "both")
    assert stage["output_tokens"] == 12 + 12 + 2 and stage["goodput_share"] == 3 / 8
    assert stage["examples"]["HTTP 429"] == "too many (Retry-After: 1)"
    slow, after = stage["samples"][1], stage["samples"][0]
    assert slow["due"] - after["due"] >= 1  # the user waited as it was asked to
    assert slow["first"] - slow["due"] >= 0.5
    assert slow["first"] < slow["last"] <= slow["end"]
    assert "sesame" not in result.read_text() and told["settings"]["base_url"] == server.url
    with Image.open(picture) as image:
        assert image.format == "PNG"
    out = capsys.readouterr().out
    assert "1 × HTTP 500: it [bold]broke" in out and "goodput" in out and "TTFT, ms, p99" in out


def test_an_open_loop_over_several_rates(server, tmp_path, capsys):
    result = tmp_path / "result.json"
    plan = ["--rate", "50,100", "--requests", "10", "--kind", "words", "--words", "3-5", "--model", "mine"]
    assert cli.main(["bench", "serve", "--base-url", server.url, *plan, "--output", str(result)]) == 0
    stages = json.loads(result.read_text())["stages"]
    assert [stage["load"]["rate"] for stage in stages] == [50, 100]
    for stage in stages:
        assert [sample["due"] for sample in stage["samples"]] == arrival_times(stage["load"]["rate"], 10, 60)
        assert all(sample["due"] <= sample["sent"] <= sample["first"] for sample in stage["samples"])
        assert stage["completed"] == 10
    assert len(server.asked) == len(set(server.asked)) == 21
    assert all(3 <= len(asked.split()) <= 5 for asked in server.asked)
    assert {body["model"] for body in server.bodies} == {"mine"}
    out = capsys.readouterr().out
    assert "goodput" not in out and "50/s" in out


def test_ctrl_c_shows_what_was_measured(server, tmp_path):
    result = tmp_path / "result.json"
    prompts = script(tmp_path, "ok", "ok", "ok", "ok", "hang")
    command = [sys.executable, "-m", "lessonlib.cli", "bench", "serve", "--base-url", server.url]
    command += ["--prompts", prompts, "--concurrency", "1,2", "--output", str(result)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.hanging.wait(timeout=120)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "stopped; 1 still running" in out and "Traceback" not in err
    told = json.loads(result.read_text())
    assert told["interrupted"] and [stage["completed"] for stage in told["stages"]] == [3]


@pytest.mark.parametrize(
    ("way", "says"),
    [("429", "HTTP 429: too many"), ("500", "HTTP 500"), ("malformed", "malformed"), ("cut", "disconnect")],
)
def test_a_first_request_that_fails_ends_the_run_in_one_sentence(server, tmp_path, capsys, way, says):
    prompts = script(tmp_path, way)
    assert cli.main(["bench", "serve", "--base-url", server.url, "--prompts", prompts]) == 1
    shown = capsys.readouterr()
    assert says in shown.err and "nothing was measured" in shown.err and shown.out == ""
    assert len(server.asked) == 1


def test_nobody_there_is_one_sentence(capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert cli.main(["bench", "serve", "--base-url", url]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("lesson: No server answers at") and len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("model", [[], ["--model", "m"]])
def test_https_where_only_http_is_spoken_is_one_sentence(server, capsys, model):
    assert cli.main(["bench", "serve", "--base-url", server.url.replace("http:", "https:"), *model]) == 1
    shown = capsys.readouterr().err
    assert "write http://" in shown and "SSL" not in shown and len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--base-url", "http://192.0.2.1/v1"], "--allow-remote"),
        (["--rate", "1", "--concurrency", "1"], "give one of them"),
        (["--rate", "0"], "--rate 0"),
        (["--rate", "nan"], "--rate nan"),
        (["--rate", "1,,2"], "--rate 1,,2"),
        (["--concurrency", "1.5"], "--concurrency 1.5"),
        (["--concurrency", "200"], "--requests"),
        (["--words", "9-3"], "--words 9-3"),
        (["--words", "many"], "--words many"),
        (["--prompts", "missing.txt"], "missing.txt"),
        (["--plot", "new.bmp"], ".png"),
        (["--plot", "nowhere/new.png"], "nowhere"),
        (["--output", "kept.json"], "kept.json is there already"),
        (["--output", "same.png", "--plot", "same.png"], "name two files"),
        (["--model", "m", "--api-key", "schlüssel"], "API key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    Path("kept.json").write_text("mine")
    assert cli.main(["bench", "serve", *options]) == 1
    shown = capsys.readouterr()
    assert says in shown.err and len(shown.err.strip().splitlines()) == 1 and shown.out == ""
    assert Path("kept.json").read_text() == "mine"


def test_the_key_may_come_from_the_environment_and_is_never_shown(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LESSON_API_KEY", "sesame")
    plan = ["--concurrency", "1", "--requests", "5"]
    assert cli.main(["bench", "serve", "--base-url", server.url, *plan]) == 0
    assert server.headers[-1]["authorization"] == "Bearer sesame"
    assert len(set(server.callers)) < len(server.callers) == 6  # connections are kept
    shown = capsys.readouterr()
    assert "sesame" not in shown.out + shown.err
    assert "sesame" not in repr(Settings(URL, api_key="sesame"))
