"""Load for any server that speaks OpenAI's wire format, and what every request met.

Open loop: requests arrive as a Poisson process of a given rate, whether the server keeps up or not. Closed loop: so
many users, each of whom asks again once the last answer is there, so that a slow server slows its own load down.

In the open loop every latency counts from the *scheduled* arrival, not from when the request left. A generator that
starts its clock late leaves out the very waiting that a stalled server causes: "coordinated omission" (Gil Tene, "How
NOT to Measure Latency", 2015, and the README of his wrk2; open against closed: Schroeder et al. 2006, NSDI, §2).

Bounded: a stage ends after so many requests or seconds, a request after ``timeout``. Loopback only, unless allowed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import httpx

from lessonlib.course import CourseError

from .bench_report import Load, Record, Run, Stage

WORDS = """
above answer bridge careful circle colour count distance early engine field follow garden glass green harbour island
keep ladder large letter light little market measure model morning never number ocean order paper pattern people queue
quiet record river second signal slow station story table token under value water window word yellow
""".split()  # noqa: SIM905
LINES = (
    "def {0}_{1}({2}, {1}=None):\n    ",
    "for {0} in range(len({1})):\n        ",
    "if {0} is None or {0} < {1}:\n        return {2}\n    ",
    "{0} = {1}.get({2!r}, {3})\n    ",
    "{0}.append({1} + {2} * {3})\n    ",
    "return [{0} for {0} in {1} if {0} != {2!r}]\n\n\n",
)
MAX_EVENT = 2**20  # bytes of one server-sent event
SAID = ("content", "reasoning_content", "reasoning", "tool_calls")  # where a chat's chunk may hold output
KINDS = (
    (TimeoutError, "timeout"),
    (httpx.ConnectError, "no connection"),
    (httpx.DecodingError, "malformed"),
    (httpx.RequestError, "disconnect"),
)
GRACE = 1.0  # seconds for a server to close its stream after [DONE]


class BenchError(CourseError):
    """A run that cannot begin; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Settings:
    """What is asked of whom. requests, seconds: of one stage, at most; timeout: of one request, in seconds."""

    base_url: str
    model: str = ""  # the first that the server names
    api_key: str = field(default="", repr=False)
    chat: bool = False
    max_tokens: int = 64
    temperature: float = 0.0
    ignore_eos: bool = False
    requests: int = 100
    seconds: float = 60.0
    timeout: float = 60.0
    seed: int = 0


def check_address(base_url: str, allow_remote: bool = False) -> str:
    """The address with /v1 where it has no path. Raises BenchError unless all that its host resolves to is loopback."""
    try:
        url = httpx.URL(base_url.strip())
        fine = url.scheme in ("http", "https") and url.host and not url.userinfo
        if not fine or not 0 <= (url.port or 0) < 2**16:
            raise httpx.InvalidURL("")
        found = socket.getaddrinfo(url.host, url.port or 80, type=socket.SOCK_STREAM)
    except httpx.InvalidURL:
        raise BenchError(
            f"{base_url!r} is no address of a server; write it as http://127.0.0.1:8000/v1 (a key goes into --api-key)."
        ) from None
    except (OSError, UnicodeError):
        raise BenchError(f"The host of {base_url} is not known here; check its spelling.") from None
    addresses = [ip_address(entry[4][0]) for entry in found]
    remote = [a for a in addresses if not (getattr(a, "ipv4_mapped", None) or a).is_loopback]
    if remote and not allow_remote:
        raise BenchError(
            f"{url.host} is {remote[0]}, which is not this machine; "
            "add --allow-remote if its owner agrees to the load, or use 127.0.0.1."
        )
    path = url.path.rstrip("/") or "/v1"
    return str(url.copy_with(path=path, query=None, fragment=None))


def arrival_times(rate: float, requests: int, seconds: float, seed: int = 0) -> list[float]:
    """A Poisson process: gaps are exponential with mean 1 / rate; at most ``requests``, all before ``seconds``.

    The same seed at twice the rate gives the same pattern in half the time, so that rates can be compared.
    """
    random = Random(seed)
    gaps = (random.expovariate(1.0) / rate for _ in range(requests))
    return list(itertools.takewhile(lambda time: time < seconds, itertools.accumulate(gaps)))


def generated_prompts(kind: str, words: tuple[int, int], seed: int = 0) -> Iterator[str]:
    """Endless prompts of "words" or "code", each different, so that no prefix cache flatters the server.

    words: shortest and longest, in words between spaces; the length is drawn evenly from there.
    """
    random = Random(f"{kind} {seed}")
    while True:
        size = random.randint(*words)
        text = " ".join(random.choices(WORDS, k=size))
        if kind == "code":  # more lines than needed: each has two words or more
            names = (random.sample(WORDS, 3) for _ in range(size))
            text = "".join(random.choice(LINES).format(*three, random.randrange(100)) for three in names)
        yield re.match(rf"(?:\s*\S+){{{size}}}", text).group()  # type: ignore[union-attr]


def read_prompts(path: Path) -> list[str]:
    """One prompt a line: as it stands, or in a .jsonl file a JSON string or an object with "prompt".

    Raises BenchError when the file cannot be read or holds something else.
    """
    number = 0
    prompts: list[str] = []
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            number += 1
            if line.strip():
                entry = json.loads(line) if path.suffix == ".jsonl" else line
                prompts.append(entry["prompt"] if isinstance(entry, dict) else entry)
                prompts[-1].encode()  # text, and no half of a surrogate pair
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}); check --prompts.") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{path} is not a text in UTF-8 (byte {error.start}); save it as one.") from None
    except (ValueError, LookupError, AttributeError, RecursionError):
        raise BenchError(
            f'{path}, line {number}: no prompt; write a string or {{"prompt": "…"}} in UTF-8.'
        ) from None
    if not prompts:
        raise BenchError(f"{path} holds no prompt; write one a line.")
    return prompts


def check_files(output: Path | None, plot: Path | None) -> None:
    """Raises BenchError unless each is a new file of its own: now, and not after all the measuring."""
    if output and plot and output.resolve() == plot.resolve():
        raise BenchError(f"{plot} cannot be both --output and --plot; name two files.")
    for path in filter(None, (output, plot)):
        if path.exists() or not path.parent.is_dir():
            problem = "is there already" if path.exists() else "has no folder to be in"
            raise BenchError(f"{path} {problem}; name another file.")


class EventStream:
    """Server-sent events out of bytes, however these are cut (WHATWG HTML §9.2.6).

    Not httpx's aiter_lines: that also splits at characters like U+2028, which JSON may hold as they are.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that is complete. Raises ValueError beyond MAX_EVENT bytes."""
        *lines, self._rest = re.split(rb"\r\n|\n|\r(?!\Z)", self._rest + chunk)
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
        if len(self._rest) + sum(map(len, self._data)) > MAX_EVENT:
            raise ValueError(f"an event of more than {MAX_EVENT:,} bytes")


class _Failed(Exception):
    """Kind of failure, and a detail."""


def _no_tls(url: str) -> BenchError:
    return BenchError(
        f"No trusted https is spoken at {url}; write http:// (as for lesson serve), or check its certificate."
    )


class _Client:
    """Sends requests, and writes down what they meet."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient, clock: Callable[[], float]):
        self.settings, self.http, self.clock = settings, http, clock
        self.model = settings.model
        self.options: dict[str, Any] = {"stream_options": {"include_usage": True}}
        if settings.ignore_eos:
            self.options["ignore_eos"] = True

    async def prepare(self, prompt: str) -> None:
        """Find a model, and ask once: does it answer at all, and does it know stream_options?"""
        url = self.settings.base_url
        try:
            if not self.model:
                async with asyncio.timeout(self.settings.timeout):
                    answer = await self.http.get("models")
                    answer.raise_for_status()
                    self.model = answer.json()["data"][0]["id"]
        except (httpx.TransportError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            if "[SSL" in why:
                raise _no_tls(url) from None
            raise BenchError(f"No server answers at {url} ({why}); start one (lesson serve pico).") from None
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            status = f"HTTP {answer.status_code}"
            raise BenchError(
                f"{url}/models names no model ({status}); check --base-url and --api-key, or give --model."
            ) from None
        record = await self.ask(prompt, Record(0, 0), 0)
        if record.error in ("HTTP 400", "HTTP 422"):
            del self.options["stream_options"]
            record = await self.ask(prompt, Record(0, 0), 0)
        if "[SSL" in record.detail:
            raise _no_tls(url)
        if record.error:
            why = ": ".join(filter(None, (record.error, record.detail.rstrip("."))))
            raise BenchError(f"The first request to {url} failed ({why}); nothing was measured.")

    async def ask(self, prompt: str, record: Record, origin: float) -> Record:
        """Send one request. Whatever happens to it is in the record; only a cancellation is raised."""
        wanted = self.settings
        path = "chat/completions" if wanted.chat else "completions"
        said = {"messages": [{"role": "user", "content": prompt}]} if wanted.chat else {"prompt": prompt}
        size = {"max_tokens": wanted.max_tokens, "temperature": wanted.temperature}
        body = {"model": self.model, "stream": True, **said, **size, **self.options}
        try:
            async with (
                asyncio.timeout(wanted.timeout) as timer,
                self.http.stream("POST", path, json=body) as response,
            ):
                await self._read(response, record, origin, timer)
        except asyncio.CancelledError:
            if record.end is None:
                record.fail("interrupted")
            raise
        except _Failed as error:
            record.fail(*error.args)
        except (TimeoutError, httpx.RequestError) as error:
            if record.end is None:  # else all had been said
                record.fail(next(kind for group, kind in KINDS if isinstance(error, group)), str(error))
        return record

    async def _read(
        self, response: httpx.Response, record: Record, origin: float, timer: asyncio.Timeout
    ) -> None:
        if response.status_code != 200:
            wait = response.headers.get("retry-after", "")
            record.retry_after = float(wait) if re.fullmatch("[0-9]{1,9}", wait) else 0.0
            asked = f" (Retry-After: {wait})" if wait else ""
            raise _Failed(f"HTTP {response.status_code}", await _message(response) + asked)
        events, done = EventStream(), False
        async for chunk in response.aiter_bytes():
            now = self.clock() - origin
            try:
                for data in events.feed(chunk):
                    if data == b"[DONE]":
                        done = True
                        timer.reschedule(asyncio.get_running_loop().time() + GRACE)
                    elif not done:
                        _take(record, json.loads(data), now)
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
                raise _Failed("malformed", f"{type(error).__name__}: {error}") from None
        if record.end is None:
            # With or without [DONE]: some servers drop one answer for the next and end its stream in good order.
            raise _Failed("cut off", "the stream ended without a finish_reason")


def _take(record: Record, event: Any, now: float) -> None:
    """One event of a stream of completions or chat completions."""
    if event.get("error") or event.get("object") == "error":
        raise _Failed("error in the stream", json.dumps(event.get("error") or event, ensure_ascii=False))
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        if choice.get("text") or any(map(delta.get, SAID)):
            record.chunks += 1
            record.first = now if record.first is None else record.first
            record.last = now
        if choice.get("finish_reason"):
            record.end = now
    usage = event.get("usage") or {}
    for mine, theirs in (("output_tokens", "completion_tokens"), ("prompt_tokens", "prompt_tokens")):
        count = usage.get(theirs)
        if type(count) is int and count > 0:
            setattr(record, mine, count)


async def _message(response: httpx.Response) -> str:
    """What a refusal says, as far as its first bytes tell."""
    start = b""
    async for chunk in response.aiter_bytes():
        start += chunk
        if len(start) > 4096:
            break
    try:
        said = json.loads(start)["error"]
        return str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, LookupError, TypeError, RecursionError):
        return start[:200].decode(errors="replace")


async def measure(
    settings: Settings,
    loads: Sequence[Load],
    prompts: Iterator[str],
    *,
    watch: Callable[[Stage], None] = lambda stage: None,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Run each load in turn. Cancelled (Ctrl-C) during a stage, it returns what was measured so far.

    prompts: endless; one is spent on a first request that is not measured. watch: called when a request has ended.
    Raises BenchError when that first request fails.
    """
    key = settings.api_key
    if not (key.isascii() and key.isprintable()):
        raise BenchError("The API key has characters that no header can hold; copy it again.")
    async with httpx.AsyncClient(
        base_url=settings.base_url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=None,  # ours is for the whole request
        # Shorter than servers wait (5 s), or both sides would let go at once and it would look like their failure.
        limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
        trust_env=False,  # no proxy in between
        transport=transport,
    ) as http:
        client = _Client(settings, http, clock)
        await client.prepare(next(prompts))
        shown = {name: value for name, value in asdict(settings).items() if name != "api_key"}
        run = Run(shown, client.model, datetime.now(UTC).isoformat(timespec="seconds"))
        for load in loads:
            stage = Stage(load)
            run.stages.append(stage)
            await _run(client, stage, prompts, watch)
            if stage.interrupted:
                break
    return run


async def _run(client: _Client, stage: Stage, prompts: Iterator[str], watch: Callable[[Stage], None]) -> None:
    settings, load, origin = client.settings, stage.load, client.clock()

    def now() -> float:
        return client.clock() - origin

    async def one(due: float | None = None) -> Record:
        sent = now()
        record = Record(sent if due is None else due, sent)
        stage.records.append(record)
        await client.ask(next(prompts), record, origin)
        watch(stage)
        return record

    async def user() -> None:
        pause = 0.0
        while now() + pause < settings.seconds and next(turns, None) is not None:
            await asyncio.sleep(pause)  # as a refusal asked: an open loop would not wait, a user does
            pause = (await one()).retry_after

    turns = iter(range(settings.requests))
    try:
        async with asyncio.TaskGroup() as group:
            if load.rate is None:
                for _ in range(load.users):
                    group.create_task(user())
            else:
                for due in arrival_times(load.rate, settings.requests, settings.seconds, settings.seed):
                    await asyncio.sleep(due - now())
                    group.create_task(one(due))
    except asyncio.CancelledError:
        stage.interrupted = True
    stage.seconds = now()
