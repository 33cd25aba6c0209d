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
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from lessonlib import LLM, cli

from .conftest import NAME, SECONDS, request_bytes, running
from .test_bad_inputs import FORMATS

BODY = {"model": NAME, "prompt": "x", "max_tokens": 200, "ignore_eos": True}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def process(*options: str, key: str | None = None) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`lesson serve` on a free port: (process, base URL, what it printed)."""
    command = [sys.executable, "-m", "lessonlib.cli", "serve", NAME, "--port", "0", *options]
    environment = ENVIRONMENT if key is None else {**ENVIRONMENT, "LESSON_API_KEY": key}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
@pytest.mark.parametrize("path", FORMATS)
def test_who_is_not_done_when_the_time_is_up_is_told_so(path, stream):
    body = {**FORMATS[path], "stream": stream}
    with (
        running(LLM(NAME), server={"drain_seconds": 0}) as server,
        ThreadPoolExecutor(1) as pool,
        server.held() as release,  # so that no answer is done before
    ):
        asked = pool.submit(server.post, path, body)
        server.wait(lambda: server.engine.batcher.unfinished > 0, "it runs")
        server.server.should_exit = True
        server.wait(lambda: not server.engine.alive, "the time is up")
        release.set()
        answer = asked.result()
    assert answer.status_code == (200 if stream else 503)
    assert "went down before this was finished" in answer.text
    assert ("event: error" in answer.text) == (stream and path == "/v1/messages")


@pytest.mark.parametrize("ends", ["drain", "twice"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_who_is_cut_off_is_told_in_the_vendor_s_words_and_leaves_no_traceback(path, ends):
    options = ("--drain", "0") if ends == "drain" else ()
    with process(*options) as (server, url, _printed):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as slow:
            slow.sendall(request_bytes(path, FORMATS[path])[:-1])  # its body never ends
            httpx.get(f"{url}/health")  # so that the other one has been read
            server.send_signal(signal.SIGINT)
            if ends == "twice":
                with pytest.raises(httpx.ConnectError):  # until the first one has been seen to
                    for _ in range(300):
                        httpx.get(f"{url}/health")
                        time.sleep(0.02)
                server.send_signal(signal.SIGINT)
            answer = b"".join(iter(lambda: slow.recv(65536), b"")).decode()
        _, errors = server.communicate(timeout=SECONDS)
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert "went down" in json.loads(body)["error"]["message"]
    assert "traceback" not in errors.lower()
    assert server.returncode == 0


def test_what_is_printed_and_the_bench_work_with_the_key_of_the_shell(monkeypatch, capsys):
    monkeypatch.setenv("LESSON_API_KEY", "ann:sesame")
    with process(key="ann:sesame") as (_server, url, printed):
        found = re.findall(r"""curl (\S+) -H "([^:]+): ([^"]+)" -d '([^']+)'""", printed)
        assert len(found) == 2
        for address, name, value, body in found:
            headers = {name: os.path.expandvars(value)}
            assert httpx.post(address, content=body, headers=headers, timeout=SECONDS).status_code == 200
        assert printed.count('api_key=os.environ["LESSON_API_KEY"]') == 2
        asked = ["--requests", "2", "--concurrency", "1", "--max-tokens", "2"]
        assert cli.main(["bench", "serve", "--base-url", f"{url}/v1", *asked]) == 0
    assert "answered" in capsys.readouterr().out
