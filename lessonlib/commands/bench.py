"""`lesson bench serve`: how a server bears load, ours or any other that speaks OpenAI's wire format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lessonlib.commands import ENGINE

if TYPE_CHECKING:
    from lessonlib.serving.bench_report import SLO, Load, Run, Stage

PANEL = ENGINE
EXAMPLE = "lesson bench serve --base-url http://127.0.0.1:8000/v1 --rate 1,2,4 --slo-ttft 200"
PICTURES = (".png", ".svg", ".pdf")


class Subject(StrEnum):
    serve = "serve"


class Kind(StrEnum):
    code = "code"
    words = "words"


def bench(
    subject: Annotated[Subject, typer.Argument(help="What to measure: serve, a running server.")],
    base_url: Annotated[str, typer.Option(help="Its address.")] = "http://127.0.0.1:8000/v1",
    model: Annotated[str, typer.Option(help="Otherwise the first that the server names.")] = "",
    api_key: Annotated[str, typer.Option(envvar="LESSON_API_KEY", help="Sent as a bearer token.")] = "",
    rate: Annotated[
        str, typer.Option(help="Open loop: requests a second, arriving at random; one stage for each: 1,2,4.")
    ] = "",
    concurrency: Annotated[
        str, typer.Option(help="Closed loop: requests at a time; one stage for each (otherwise 1,2,4,8).")
    ] = "",
    requests: Annotated[int, typer.Option(min=1, max=100_000, help="Of a stage, at most.")] = 100,
    duration: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds in which a stage sends, at most.")
    ] = 60,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for one request.")] = 60,
    chat: Annotated[bool, typer.Option("--chat", help="Ask /chat/completions, not /completions.")] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="One prompt a line (.jsonl: strings), used in turn; repeats meet prefix caches."),
    ] = None,
    kind: Annotated[
        Kind, typer.Option(help="Otherwise prompts are made up: of code or of words.")
    ] = Kind.code,
    words: Annotated[str, typer.Option(help="Length of made-up prompts, drawn between these.")] = "16-64",
    max_tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Of an answer.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: the likeliest.")] = 0.0,
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos", help="Always max-tokens tokens, where the server can (ours, vLLM, llama.cpp)."
        ),
    ] = False,
    slo_ttft: Annotated[
        float | None, typer.Option(min=0, help="Goodput: ms to the first token, at most.")
    ] = None,
    slo_tpot: Annotated[
        float | None, typer.Option(min=0, help="Goodput: ms for each further token, at most.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same prompts and arrivals.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write all figures and samples to this .json file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and throughput: .png, .svg or .pdf.")
    ] = None,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Load a server on another machine, with its owner's consent."),
    ] = False,
) -> None:
    """Put a running server under load; show latency, throughput and goodput.

    The server may be `lesson serve`, vLLM, llama.cpp's or another like them. Ctrl-C shows what was measured so far.
    """
    import asyncio
    import itertools
    from importlib.util import find_spec

    from lessonlib.course import CourseError

    if find_spec("httpx") is None:
        raise CourseError("lesson bench needs httpx; install it (pip install httpx) and try again.")
    from lessonlib.serving import bench as load
    from lessonlib.serving.bench_report import SLO

    url = load.check_address(base_url, allow_remote)
    stages = _loads(rate, concurrency, requests)
    made_up = load.generated_prompts(kind, _range(words), seed)
    texts = itertools.cycle(load.read_prompts(prompts)) if prompts else made_up
    if plot and plot.suffix not in PICTURES:
        raise load.BenchError(f"{plot} is no picture; end its name in {', '.join(PICTURES)}.")
    load.check_files(output, plot)  # now, not after all the measuring
    slo = None if slo_ttft is slo_tpot is None else SLO(_seconds(slo_ttft), _seconds(slo_tpot))
    settings = load.Settings(
        url, model, api_key, chat, max_tokens, temperature, ignore_eos, requests, duration, timeout, seed
    )
    with _Bars(requests) as bars:
        run = asyncio.run(load.measure(settings, stages, texts, watch=bars.advance))
    _report(run, slo, output, plot)
    raise typer.Exit(130 if run.interrupted else 0)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _loads(rate: str, concurrency: str, requests: int) -> list[Load]:
    from lessonlib.serving.bench import BenchError
    from lessonlib.serving.bench_report import Load

    if rate and concurrency:
        raise BenchError("--rate and --concurrency are two kinds of load; give one of them.")
    try:
        if rate:
            rates = [float(number) for number in rate.split(",")]
            if not all(0 < number <= 10_000 for number in rates):
                raise ValueError
            return [Load(rate=number) for number in rates]
        given = (
            concurrency.split(",") if concurrency else [users for users in (1, 2, 4, 8) if users <= requests]
        )
        users = [int(number) for number in given]
        if not all(0 < number <= 10_000 for number in users):
            raise ValueError
    except ValueError:
        asked = f"--rate {rate}" if rate else f"--concurrency {concurrency}"
        raise BenchError(f"{asked} is not understood; write positive numbers like 1,2,4.") from None
    if max(users) > requests:
        raise BenchError(
            f"{max(users)} requests at a time need at least as many; raise --requests {requests}."
        )
    return [Load(users=number) for number in users]


def _range(words: str) -> tuple[int, int]:
    from lessonlib.serving.bench import BenchError

    low, _, high = words.partition("-")
    try:
        shortest, longest = int(low), int(high or low)
    except ValueError:
        shortest = longest = 0
    if not 1 <= shortest <= longest <= 100_000:
        raise BenchError(f"--words {words} is no range; write it as 16-64.")
    return shortest, longest


class _Bars:
    """A progress bar for each stage, on standard error."""

    def __init__(self, requests: int):
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self.progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.requests = requests
        self.tasks: dict[int, int] = {}

    def __enter__(self) -> _Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, stage: Stage) -> None:
        if id(stage) not in self.tasks:
            self.tasks[id(stage)] = self.progress.add_task(str(stage.load), total=self.requests)
        self.progress.advance(self.tasks[id(stage)])  # type: ignore[arg-type]


def _report(run: Run, slo: SLO | None, output: Path | None, plot: Path | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from lessonlib import files
    from lessonlib.serving import bench_report as report
    from lessonlib.serving.bench import BenchError

    summaries = [report.summarise(stage, slo) for stage in run.stages]
    out = Console(highlight=False, soft_wrap=True)
    out.print(Text(f"{run.model} at {run.settings['base_url']}", style="bold"))
    out.print(report.table(summaries))
    for note in report.notes(summaries):
        out.print(Text(note))  # what a server said is text, not markup
    path = None
    try:
        if output:
            files.create(path := output, report.to_json(run, slo).encode())
        if plot:
            files.create(path := plot, report.plot(summaries, plot.suffix[1:], slo))
    except OSError as error:
        raise BenchError(f"{path} could not be written ({error.strerror}); the figures are above.") from None
