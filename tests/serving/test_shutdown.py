"""The server as a process: what it prints, how it ends, and that it begins again as if nothing had been."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from lessonlib import LLM, cli

from .conftest import NAME, SECONDS, running
from .test_bad_inputs import FORMATS

BODY = {"model": NAME, "prompt": "x", "max_tokens": 200, "ignore_eos": True}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`lesson serve` on a free port: (process, base URL, what it printed)."""
    command = [sys.executable, "-m", "lessonlib.cli", "serve", NAME, "--port", "0", *options]
    with subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        watchdog = threading.Timer(120, server.kill)
        watchdog.start()
        try:
            printed = ""
            assert server.stdout is not None
            while "Stop with Ctrl-C" not in printed:
                line = server.stdout.readline()
                assert line, server.stderr and server.stderr.read()
                printed += line
            yield server, re.findall(r"http://[\d.:]+", printed)[0], printed
        finally:
            watchdog.cancel()
            server.kill()


def lines(stream: httpx.Response) -> list[str]:
    return [line for line in stream.iter_lines() if line]


def test_a_signal_lets_those_inside_finish_and_nobody_else_in():
    with process("--api-key", "ann:sesame", "--max-num-seqs", "2") as (server, url, printed):
        headers = {"authorization": "Bearer sesame"}
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert "sesame" not in printed
        begun = threading.Barrier(4)

        def ask() -> list[str]:
            body = {**BODY, "stream": True}
            with httpx.stream(
                "POST", f"{url}/v1/completions", json=body, headers=headers, timeout=SECONDS
            ) as answer:
                begun.wait(SECONDS)  # two of them run, one is in the queue
                return lines(answer)

        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(ask) for _ in range(3)]
            begun.wait(SECONDS)
            server.send_signal(signal.SIGTERM)
            found = [call.result() for call in calls]
        output, errors = server.communicate(timeout=SECONDS)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    for each in found:
        assert each[-1] == "data: [DONE]"
        assert json.loads(each[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert "stopped" in output
    logged = [json.loads(line) for line in errors.splitlines()]
    done = [line for line in logged if line.get("status") == 200]
    assert [(line["caller"], line["completion_tokens"]) for line in done] == [("ann", 200)] * 3
    assert server.returncode == 0


def test_after_a_kill_the_next_one_begins_clean():
    with process() as (server, url, _printed):
        port = int(url.rpartition(":")[2])
        with httpx.stream("POST", f"{url}/v1/completions", json={**BODY, "stream": True}) as answer:
            pieces = answer.iter_lines()
            assert next(pieces).startswith("data: ")
            server.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
    with process("--port", str(port)) as (_, again, _printed):
        assert again == url
        assert httpx.post(f"{url}/v1/completions", json={**BODY, "max_tokens": 2}).status_code == 200


def test_the_examples_it_prints_work():
    with process("--requests-per-minute", "2") as (server, url, printed):
        [completion, generate] = re.findall(r"curl (\S+) -d '([^']+)'", printed)
        for address, body in (completion, generate):
            answer = httpx.post(address, content=body, timeout=SECONDS)
            assert answer.status_code == 200, answer.text
        assert (
            httpx.post(address, content=body, timeout=SECONDS).status_code == 429
        )  # two a minute, it was told
        assert f'base_url="{url}/v1"' in printed and "/api/generate" in generate[0]
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=SECONDS)
    assert (output, server.returncode) == ("The server has stopped.\n", 0)


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "lessonlib.cli", "serve", NAME, "--port", port]
        done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, timeout=SECONDS)
    assert done.returncode == 1
    assert re.fullmatch(rf"lesson: Cannot listen on 127.0.0.1, port {port} \(.*\); [^.]*\.\n", done.stderr)


def test_without_its_packages_it_says_which_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lessonlib.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", NAME]) == 1
    said = capsys.readouterr().err
    assert "uvicorn" in said and "[serve]" in said and said.count("\n") == 1


def test_who_does_not_finish_in_time_is_told_or_cut_off():
    with running(LLM(NAME), server={"drain_seconds": 1}) as server:
        with (
            server.held(),
            httpx.stream(
                "POST", f"{server.url}/v1/completions", json={**BODY, "stream": True}, timeout=SECONDS
            ) as answer,
        ):
            server.server.should_exit = True
            with pytest.raises(httpx.RemoteProtocolError):
                lines(answer)
        server.thread.join(SECONDS)
        server.empty()
        assert not server.engine.alive


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_who_is_not_done_when_the_time_is_up_is_told_so(path, stream):
    body = {**FORMATS[path], "stream": stream, "max_tokens": 2000, "ignore_eos": True}
    with running(LLM(NAME), server={"drain_seconds": 0}) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, path, body)
        server.wait(lambda: server.engine.batcher.unfinished, "it runs")
        server.server.should_exit = True
        answer = asked.result()
        assert answer.status_code == (200 if stream else 503)
        assert "went down before this was finished" in answer.text
