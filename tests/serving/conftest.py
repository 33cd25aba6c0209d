"""Real servers on the loopback interface, around the smallest real model."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from lessonlib import LLM
from lessonlib.security.admission import AdmissionLimits
from lessonlib.serving.app import create_app
from lessonlib.serving.engine import AsyncEngine
from lessonlib.serving.guards import Guards
from lessonlib.serving.logs import LOGGERS, to_stream
from lessonlib.serving.server import Server, bind
from tests.engine.fakes import check_pool

NAME = "pico-draft"
SECONDS = 30.0  # until a test gives up waiting for something that has to happen


@dataclass
class Running:
    """A server that runs in a thread of this process."""

    url: str
    engine: AsyncEngine
    server: Server
    thread: threading.Thread

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, f"this did not come about: {what}"
            time.sleep(0.002)

    def empty(self) -> None:
        """Nobody is left, and every KV block is free."""
        self.wait(lambda: self.engine.sequences == 0, "no sequence is left")
        scheduler = self.engine.scheduler
        assert (scheduler.running, scheduler.waiting, self.engine.blocks_in_use) == ([], [], 0)
        check_pool(scheduler.pool)

    @contextmanager
    def held(self) -> Iterator[threading.Event]:
        """No step is taken until the event is set, or the block is left."""
        release, step = threading.Event(), self.engine.batcher.step

        def wait_and_step(on_token):
            release.wait(SECONDS)
            return step(on_token)

        self.engine.batcher.step = wait_and_step
        try:
            yield release
        finally:
            release.set()
            self.engine.batcher.step = step

    def post(self, path: str, body: Any, **settings: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, timeout=SECONDS, **settings)

    def connect(self) -> socket.socket:
        where = urlsplit(self.url)
        return socket.create_connection((where.hostname, where.port), timeout=SECONDS)


def request_bytes(path: str, body: Any, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


@contextmanager
def running(
    llm: LLM,
    guards: Guards | None = None,
    max_waiting: int = 256,
    server: dict | None = None,
    name: str = NAME,
    **settings: Any,
) -> Iterator[Running]:
    guards = guards or Guards(AdmissionLimits(queue=max_waiting))
    engine = AsyncEngine(llm)
    up = threading.Event()
    instance = Server(
        create_app(engine, name, guards=guards, **settings),
        bind(),
        ready=lambda _: up.set(),
        **(server or {}),
    )
    thread = threading.Thread(target=instance.run)
    thread.start()
    try:
        assert up.wait(SECONDS)
        yield Running(instance.url, engine, instance, thread)
    finally:
        instance.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def samples(server: Running) -> dict[str, float]:
    text = server.server.config.app.state.shared.metrics.text().decode()
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def request_log() -> Iterator[Callable[[list[httpx.Response]], list[dict[str, Any]]]]:
    """Waits for the log lines of these answers (a line is written behind its answer), and gives them back."""
    stream = io.StringIO()
    handler = to_stream(stream)

    def lines(answers: list[httpx.Response]) -> list[dict[str, Any]]:
        end = time.monotonic() + SECONDS
        ids = [answer.headers["x-request-id"] for answer in answers]
        while not all(id in stream.getvalue() for id in ids):
            assert time.monotonic() < end, stream.getvalue()
            time.sleep(0.01)
        found = {line.get("id"): line for line in map(json.loads, stream.getvalue().splitlines())}
        return [found[id] for id in ids]

    yield lines
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).propagate = True


@pytest.fixture(scope="package")
def llm() -> LLM:
    return LLM(NAME, max_num_seqs=8, num_kv_blocks=600)


@pytest.fixture(scope="package")
def twin() -> LLM:
    """The same model outside of any server, to say what is right."""
    return LLM(NAME)


@pytest.fixture(scope="package")
def shared_server(llm: LLM) -> Iterator[Running]:
    with running(llm) as found:
        yield found


@pytest.fixture
def server(shared_server: Running) -> Iterator[Running]:
    """A server that has to be empty again after each test."""
    yield shared_server
    shared_server.empty()


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, SECONDS))
