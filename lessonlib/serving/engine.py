"""The asynchronous engine: one thread runs the steps, the event loop hands requests in and takes tokens out.

Neither side ever waits for the other. Commands (add, abort) go through a queue that the engine thread empties between
steps; what a step brought is posted to the event loop in one call. So all connections share one continuous batch.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.llm import TextRequest
from lessonlib.engine.sampling import Choice
from lessonlib.engine.scheduler import Request
from lessonlib.engine.tokenizer import Detokenizer, Tokenizer

from .errors import ClientGone, EngineFailed, EngineStopped

PATIENCE = 3  # failing steps in a row until the requests in them are given up
log = logging.getLogger(__name__)


class Token(NamedTuple):
    """A chosen token, and the characters of the answer that it is (part of). A stop text is no part of the answer."""

    choice: Choice
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What one sequence gained in one step. With its last one come ``finish_reason``, and ``stop``: which text it met.

    Tokens may come before their text, which waits while it could still become a stop text.
    """

    index: int
    text: str
    tokens: list[Token]
    finish_reason: str | None
    stop: str | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of a generation: its prompts (each counted once), what of them was in the cache, and its outputs."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(eq=False)
class Served(TextRequest):
    """A request that knows what of it has been told already."""

    tokenizer: Tokenizer = field(kw_only=True)
    index: int = 0
    generation: Generation | None = None
    told: int = 0
    sent: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)  # of each token, in the text

    def follow(self) -> str | None:
        start = len(self.text)
        ended = super().follow()
        # Part of a character, or a text cut off in this token: it is (at least) the next character all the same.
        end = max(start, len(self.text)) + (ended is not None or start >= len(self.text))
        self.places += [(start, end)] * (len(self.choices) - len(self.places))
        return ended

    def news(self) -> Delta:
        text = self.settled
        fresh = zip(self.choices[self.told :], self.places[self.told :], strict=False)
        tokens = [Token(choice, *place) for choice, place in fresh]
        stop = self._stop() if self.finish_reason == "stop" else None
        delta = Delta(self.index, text[self.sent :], tokens, self.finish_reason, stop)
        self.sent = len(text)
        self.told += len(tokens)
        return delta

    def _stop(self) -> str | None:
        """The stop text at which the answer ends, None if that is the end of text."""
        if not self.params.stop:
            return None
        whole = self.tokenizer.decode([choice.token for choice in self.choices])
        return next((stop for stop in self.params.stop if whole.startswith(stop, len(self.text))), None)


class Generation:
    """One call on its way: for each prompt, ``n`` sequences, numbered prompt by prompt.

    ``await admitted()``, then read ``deltas()``; ``abort()`` in any case, as soon as nobody wants more. All from the
    event loop. ``over``: it holds nothing in the engine any more.
    """

    def __init__(self, engine: AsyncEngine, requests: list[Served]):
        self.engine, self.requests = engine, requests
        self.opened = time.perf_counter()
        self.over = False
        self._told: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()

    async def admitted(self) -> None:
        """Raises what the engine refuses: PromptTooLong, TokenOutOfRange, CacheFull …"""
        await self._next()

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What every step brings, until all have finished. Raises EngineFailed, EngineStopped, why it was aborted."""
        left = len(self.requests)
        while left:
            delta = await self._next()
            assert delta is not None
            left -= delta.finish_reason is not None
            yield delta

    def abort(self, why: Exception | None = None) -> None:
        """Take the rest back; the blocks are free before the next step. ``deltas`` raises ``why`` (or ClientGone)."""
        if not self.over:
            self._told.put_nowait(why or ClientGone())
            self.engine.post(partial(self.engine.end, self))

    @property
    def usage(self) -> Usage:
        """Right once it is over."""
        leaders = [request for request in self.requests if request.leader is None]
        return Usage(
            sum(len(request.prompt) for request in leaders),
            sum(min(request.cached, len(request.prompt)) for request in leaders),
            sum(len(request.output) for request in self.requests),
        )

    def tell(self, item: Delta | Exception | None) -> None:
        self._told.put_nowait(item)

    async def _next(self) -> Delta | None:
        item = await self._told.get()
        if isinstance(item, Exception):
            raise item
        return item


class AsyncEngine:
    """An LLM in a thread of its own. While it runs, the LLM belongs to that thread: do not call its ``generate``.

    It takes whatever it is given; how much may wait is for ``security.admission`` to say. on_end: called on the event
    loop for every generation that is over, however it ended.
    """

    def __init__(self, llm: LLM, on_end: Callable[[Generation], None] = lambda _: None):
        self.llm, self.on_end = llm, on_end
        self.batcher, self.scheduler = llm.batcher, llm.batcher.scheduler
        self.sequences = 0  # that have come in and are not over yet
        self.failed_steps = 0
        self._in_a_row = 0
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._live: set[Generation] = set()  # only the engine thread looks here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def blocks_in_use(self) -> int:
        pool = self.scheduler.pool
        return pool.num_blocks - pool.free

    async def start(self) -> None:
        """Start the thread; generations belong to the event loop this is called in."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End what still runs, and the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(thread.join)

    def open(self, prompts: Sequence[Sequence[int]], params: SamplingParams, salt: str = "") -> Generation:
        """Hand in prompts (token ids). Returns at once. Raises EngineStopped."""
        if not self.alive:
            raise EngineStopped("This server is going down; ask another one, or later.")
        generation = Generation(self, self._requests(prompts, params, salt))
        for request in generation.requests:
            request.generation = generation
        self.sequences += len(generation.requests)
        self.post(partial(self._add, generation))
        return generation

    def _requests(self, prompts: Sequence[Sequence[int]], params: SamplingParams, salt: str) -> list[Served]:
        requests: list[Served] = []
        for prompt in prompts:
            leader = None
            for i in range(params.n):
                seed = secrets.randbits(64) if params.seed is None else params.seed + i
                request = Served(
                    list(prompt),
                    params,
                    generator=torch.Generator("cpu").manual_seed(seed % 2**64),
                    salt=salt,
                    leader=leader,
                    tokenizer=self.llm.tokenizer,
                    detokenizer=Detokenizer(self.llm.tokenizer),
                    index=len(requests),
                )
                leader = leader or request
                requests.append(request)
        return requests

    # ------------------------------------------------------------ to the engine thread, and back

    def post(self, command: Callable[[], None]) -> None:
        """Have the engine thread do this between two steps; once it is to stop, it ends all there is anyway."""
        if self.alive:
            self._inbox.put(command)

    def _publish(self, events: list[tuple[Generation, Any]]) -> None:
        assert self._loop is not None
        if events and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[tuple[Generation, Any]]) -> None:
        for generation, item in events:
            if item is not _OVER:
                generation.tell(item)
            elif not generation.over:
                generation.over = True
                self.sequences -= len(generation.requests)
                self.on_end(generation)

    # ------------------------------------------------------------ in the engine thread

    def _work(self) -> None:
        while True:
            while not (self._inbox.empty() and self.batcher.unfinished):  # with nothing to do, this waits
                if (command := self._inbox.get()) is None:
                    stopped = EngineStopped("The server went down before this was finished; ask again.")
                    for generation in list(self._live):
                        self.end(generation, stopped)
                    return
                command()
                del command  # the next one may be long in coming, and this one holds a whole request
            self._step()

    def _add(self, generation: Generation) -> None:
        self._live.add(generation)
        try:
            for request in generation.requests:
                self.batcher.add(request)
        except Exception as error:  # whatever it is, it is the end of this one and not of the thread
            self.end(generation, error)
        else:
            self._publish([(generation, None)])

    def end(self, generation: Generation, error: Exception | None = None) -> None:
        """Free what a generation holds (in the engine thread; others post it)."""
        if generation not in self._live:
            return
        self._live.remove(generation)
        for request in generation.requests:
            if request.finish_reason is None:
                self.batcher.abort(request)
        self._publish([*([(generation, error)] if error else []), (generation, _OVER)])

    def _step(self) -> None:
        try:
            served = self.batcher.step(_follow)
        except Exception as error:
            # The batcher has recovered: all unfinished requests will run again, and most failures do not come twice.
            self.failed_steps += 1
            self._in_a_row += 1
            log.exception("a step failed")
            served = [r for g in self._live for r in g.requests if r.told < len(r.choices)]
            self._tell(served)
            if self._in_a_row >= PATIENCE:
                self._in_a_row = 0
                failed = EngineFailed(f"The engine failed ({type(error).__name__}); ask again.")
                for generation in list(self._live):
                    self.end(generation, failed)
        else:
            self._in_a_row = 0
            self._tell(served)

    def _tell(self, served: Sequence[Request]) -> None:
        events: list[tuple[Generation, Any]] = []
        touched: dict[Generation, None] = {}
        for request in served:
            assert isinstance(request, Served) and request.generation is not None
            events.append((request.generation, request.news()))
            touched[request.generation] = None
        for generation in touched:
            if all(request.finish_reason is not None for request in generation.requests):
                self._live.discard(generation)
                events.append((generation, _OVER))
        self._publish(events)


_OVER = object()


def _follow(request: Request) -> str | None:
    assert isinstance(request, Served)
    return request.follow()
