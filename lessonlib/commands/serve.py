"""`lesson serve`: the engine over HTTP, for OpenAI's, Anthropic's and Ollama's clients."""

from __future__ import annotations

from typing import Annotated

import typer

from lessonlib.commands import ENGINE

PANEL = ENGINE
EXAMPLE = "lesson serve pico --port 8000 --quantization int8"


def serve(
    model: Annotated[str, typer.Argument(help="A shipped model (pico), a folder, or org/name from the hub.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 takes any free one.")
    ] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="LESSON_API_KEY", help="Let in only who has this key (key, or name:key); repeatable."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Number format: float32, bfloat16 or float16.")] = "float32",
    quantization: Annotated[
        str | None, typer.Option(help="Store the weights in fewer bits: int8, int4, nf4, q8_0, q4_0.")
    ] = None,
    kv_cache_dtype: Annotated[
        str | None, typer.Option(help="Store keys and values in fewer bits: int8 or int4.")
    ] = None,
    speculative_model: Annotated[
        str | None, typer.Option(help="Draft tokens with this model (pico-draft), or with ngram.")
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Sequences that run at a time.")] = 32,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one step at most.")] = 2048,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Sequences that may queue; beyond, 429 is the answer.")
    ] = 256,
    num_kv_blocks: Annotated[
        int | None, typer.Option(min=1, help="Blocks of the KV cache (otherwise 1 GiB of them).")
    ] = None,
    compiled: Annotated[bool, typer.Option(help="Run through C++ compiled on this machine.")] = False,
    device: Annotated[str, typer.Option(help="Where to run: cpu or cuda.")] = "cpu",
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests that each API key may send a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens, of prompts and answers, that each API key gets a minute."),
    ] = None,
    drain: Annotated[int, typer.Option(min=0, help="Seconds that requests get to finish at the end.")] = 30,
    logs: Annotated[bool, typer.Option(help="Log every request to standard error, as JSON.")] = True,
) -> None:
    """Serve MODEL over HTTP, in the wire formats of OpenAI, Anthropic and Ollama.

    All connections share one continuous batch. Stop with Ctrl-C: requests under way are finished first.
    """
    from pathlib import Path

    from lessonlib.course import CourseError

    try:
        from lessonlib.serving.server import Server, bind
    except ImportError as error:
        raise CourseError(
            f"lesson serve needs {error.name}, which is not installed; run: pip install 'llm-inference-course[serve]'."
        ) from None

    bound = bind(host, port)  # first, because what follows takes a while

    from lessonlib import LLM
    from lessonlib.serving.app import create_app
    from lessonlib.serving.auth import Keys
    from lessonlib.serving.engine import AsyncEngine
    from lessonlib.serving.logs import to_stream

    llm = LLM(
        model,
        dtype=dtype,
        quantization=quantization,
        kv_cache_dtype=kv_cache_dtype,
        speculative_model=speculative_model,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_kv_blocks=num_kv_blocks,
        compiled=compiled,
        device=device,
    )
    name = Path(model).resolve().name if Path(model).is_dir() else model
    keys = Keys(api_key or ())
    weights = (quantization or {"bfloat16": "BF16", "float16": "F16"}.get(dtype, "F32")).upper()
    limiter = None
    if requests_per_minute or tokens_per_minute:
        from lessonlib.security.rate_limiter import LARGEST, RateLimiter

        limiter = RateLimiter(requests_per_minute or LARGEST, tokens_per_minute or LARGEST)
    app = create_app(AsyncEngine(llm, max_waiting), name, keys=keys, weights=weights, limiter=limiter)
    if logs:
        to_stream()
    Server(app, bound, drain_seconds=drain, ready=lambda url: _announce(url, name, bool(keys), host)).run()
    typer.echo("The server has stopped.")


def _announce(url: str, name: str, needs_key: bool, host: str) -> None:
    key = "$LESSON_API_KEY" if needs_key else "none"
    headers = f" -H 'Authorization: Bearer {key}'".replace("'", '"') if needs_key else ""
    typer.secho(f"\n  {url}\n", bold=True)
    typer.echo(
        f"""OpenAI     curl {url}/v1/completions{headers} -d '{{"model": "{name}", "prompt": "def fib(n):"}}'
           OpenAI(base_url="{url}/v1", api_key="{key}").chat.completions.create(model="{name}", …)
Anthropic  Anthropic(base_url="{url}", api_key="{key}").messages.create(model="{name}", max_tokens=64, …)
Ollama     curl {url}/api/generate{headers} -d '{{"model": "{name}", "prompt": "Reverse a list."}}'
Also       {url}/health  {url}/metrics  {url}/openapi.json
"""
    )
    if not needs_key and host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo("Anybody who reaches this machine can use it: give it an --api-key.")
    typer.echo("Stop with Ctrl-C.")
