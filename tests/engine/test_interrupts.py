"""Exceptions and Ctrl-C in the middle of a step: nothing is lost but the time to run some tokens again."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from random import Random

import pytest

from lessonlib.engine.batching import ContinuousBatcher, StaticBatcher
from lessonlib.engine.llm import TextRequest
from lessonlib.engine.scheduler import Request
from lessonlib.engine.tokenizer import Detokenizer

from .fakes import Recall, any_engine, any_group, batcher, check_pool, check_queues, expected, params


class Trouble(Exception):
    pass


class Breaks:
    """Counts calls of anything and fails in one of them, before or after the work."""

    def __init__(self, work, at: int, error: type[BaseException], late: bool):
        self.work, self.left, self.error, self.late = work, at, error, late

    def __call__(self, *arguments, **named):
        self.left -= 1
        if self.left == 0 and not self.late:
            raise self.error
        result = self.work(*arguments, **named)
        if self.left == 0:
            raise self.error
        return result


@pytest.mark.parametrize("where", ["model", "copy", "on_token", "attend", "complete", "grow"])
@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_an_exception_in_the_middle_of_a_step_costs_nothing_but_time(where, error):
    happened = 0
    for seed in range(15):
        random = Random(seed)
        engine = any_engine(random)
        requests: list[Request] = []
        for _ in range(4):
            for request in any_group(random, engine, requests):
                engine.add(request)
                requests.append(request)
        breaks = Breaks(lambda *_: None, random.randint(1, 12), error, random.random() < 0.5)
        owner, name = {
            "model": (engine, "model"),
            "copy": (engine.cache, "copy"),
            "attend": (engine.cache, "attend"),
            "complete": (engine.scheduler, "complete"),
            "grow": (engine.scheduler.pool, "grow"),
        }.get(where, (None, ""))
        model = engine.model
        if owner is not None:
            breaks.work = getattr(owner, name)
            breaks.config, breaks.device = model.config, model.device
            setattr(owner, name, breaks)
        for _ in range(2000):
            try:
                engine.step(breaks if where == "on_token" else None)
            except error:
                happened += 1
                check_queues(engine.scheduler)
            if not engine.unfinished:
                break
        engine.model = model
        check_pool(engine.scheduler.pool)
        assert [request.output for request in requests] == [expected(engine, request) for request in requests]
    assert happened >= (1 if where == "copy" else 10)


def run_with_interrupt(engine, at: int | None) -> list[tuple[str, int]]:
    """To the end, with a Ctrl-C at the ``at``-th line of the engine's own bookkeeping; returns the lines until then."""
    files = ("scheduler.py", "blocks.py", "batching.py", "paged_cache.py", "llm.py", "tokenizer.py")
    lines: list[tuple[str, int]] = []
    happened = False

    def trace(frame, event, _):
        code = frame.f_code
        if not code.co_filename.endswith(files) or code.co_name in ("recover", "step"):
            return trace if code.co_name == "step" else None
        if event == "line":
            lines.append((code.co_filename, frame.f_lineno))
            if len(lines) == at:
                raise KeyboardInterrupt
        return trace

    while engine.unfinished:
        previous = sys.gettrace()
        sys.settrace(None if happened else trace)
        try:
            engine.step(TextRequest.follow)
        except KeyboardInterrupt:
            happened = True
        finally:
            sys.settrace(previous)
        check_queues(engine.scheduler)
    engine.tell_again(TextRequest.follow)  # in case it was the very last token
    assert happened == (at is not None)
    return lines


class Bytes:
    """A tokenizer whose tokens are pieces of characters too."""

    def decode(self, ids) -> str:
        pieces = [b"\xf0", b"a", b"b ", b"\x9f", b"\xc3", b"e", b"\xa9"]
        return b"".join(pieces[i] for i in ids).decode(errors="replace")


def crowded() -> tuple[ContinuousBatcher, list[TextRequest]]:
    """A run in which everything happens: chunks, shared beginnings, copies on write, preemption, stop texts."""
    engine = batcher(Recall(), num_blocks=7, block_size=2, max_num_seqs=4, max_num_batched_tokens=5)

    def request(prompt, max_tokens: int, leader: Request | None = None, **settings) -> TextRequest:
        detokenizer = Detokenizer(Bytes())  # type: ignore[arg-type]
        return TextRequest(prompt, params(max_tokens, **settings), leader=leader, detokenizer=detokenizer)

    leader = request([1, 2, 3], 6)
    requests = [leader, request([1, 2, 3], 4, leader), request([1, 2, 5, 6], 5)]
    requests += [request([1, 2, 4], 8), request([1, 2], 8, stop="\ufffdé")]
    for request in requests:
        engine.add(request)
    return engine, requests


def test_an_interrupt_between_any_two_lines_of_a_step():
    """In a process of its own: others' threads, signals and greenlets do not go together with a trace function."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(interrupt_everywhere).result(timeout=200)


def interrupt_everywhere() -> None:
    random = Random(0)
    engine, requests = crowded()
    lines = run_with_interrupt(engine, None)
    assert engine.scheduler.preemptions and requests[1].cached and requests[3].cached
    right = [(request.output, request.text, request.finish_reason) for request in requests]
    for request in requests[:-1]:
        assert request.output == expected(engine, request)
        assert request.text == Bytes().decode(request.output)
    assert requests[-1].finish_reason == "stop" and len(requests[-1].output) < 8
    where: dict[tuple[str, int], list[int]] = {}
    for at, line in enumerate(lines, start=1):
        where.setdefault(line, []).append(at)
    assert len(where) > 100
    for line, places in where.items():
        # A text is short, and what it costs to lose a line of its work may not show at every token.
        for at in places if line[0].endswith(("llm.py", "tokenizer.py")) else [random.choice(places)]:
            engine, requests = crowded()
            run_with_interrupt(engine, at)
            check_pool(engine.scheduler.pool)
            told = [(request.output, request.text, request.finish_reason) for request in requests]
            assert told == right, (line, at)
            assert all(len(request.times) == len(request.output) for request in requests)


def test_a_static_batch_goes_on_after_an_exception():
    for at in range(1, 8):
        engine = StaticBatcher(Recall(), batch_size=2)
        requests = [Request([1, 2, number], params(3 + number)) for number in range(3)]
        for request in requests:
            engine.add(request)
        model = engine.model
        engine.model = breaks = Breaks(model, at, KeyboardInterrupt, late=at % 2 == 0)
        breaks.config, breaks.dtype, breaks.device = model.config, model.dtype, model.device
        for _ in range(50):
            with suppress(KeyboardInterrupt):
                engine.step()
        assert not engine.unfinished
        assert [r.output for r in requests] == [model.alone(r.prompt, r.params.max_tokens) for r in requests]
