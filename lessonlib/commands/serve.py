"""`lesson serve`: the engine over HTTP, for OpenAI's, Anthropic's and Ollama's clients."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lessonlib.commands import ENGINE

if TYPE_CHECKING:
    from lessonlib.security.admission import AdmissionLimits
    from lessonlib.serving.guards import Guards

PANEL = ENGINE
EXAMPLE = "lesson serve pico --port 8000 --quantization int8 --validate flag"


LONGEST = 10**9 - 1  # seconds; security.admission takes fewer than 10^9
MOST = 2**32 - 1  # security.rate_limiter's LARGEST, which is not imported for a --help
_guard = partial(typer.Option, rich_help_panel="Guards")


class Validate(StrEnum):
    OFF = "off"
    LOG = "log"
    FLAG = "flag"
    BLOCK = "block"


class Filter(StrEnum):
    OFF = "off"
    LOG = "log"
    REDACT = "redact"
    BLOCK = "block"


class Extraction(StrEnum):
    OFF = "off"
    LOG = "log"
    BLOCK = "block"


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
        int | None, _guard(min=1, max=MOST, help="Requests that each API key may send a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        _guard(min=1, max=MOST, help="Tokens, of prompts and answers, that each API key gets a minute."),
    ] = None,
    max_concurrent: Annotated[
        int | None,
        _guard(
            min=1,
            help="Requests each API key may have under way; beyond, 429. 64, or any number without keys.",
        ),
    ] = None,
    deadline: Annotated[
        float, _guard(min=0, max=LONGEST, help="Seconds until an unfinished answer is given up; 0: never.")
    ] = 300.0,
    kv_percent: Annotated[
        int, _guard(min=0, help="Per cent of the KV cache that one request may need; 0: any.")
    ] = 100,
    share_prefixes: Annotated[
        bool, _guard(help="Let all callers share one prefix cache: faster, and it tells them of each other.")
    ] = False,
    raw_logprobs: Annotated[
        bool, _guard(help="Report log-probabilities after logit_bias and unrounded: the model can be copied.")
    ] = False,
    validate: Annotated[
        Validate, _guard(help="What comes of inputs that look like prompt injection; none is perfect.")
    ] = Validate.OFF,
    system_prompt: Annotated[
        Path | None, _guard(exists=True, dir_okay=False, help="Put this text file before every conversation.")
    ] = None,
    filter_output: Annotated[
        Filter | None,
        _guard(
            help="What comes of secrets, personal data and the system prompt in answers. Redacted where there is a "
            "system prompt, otherwise off."
        ),
    ] = None,
    extraction: Annotated[
        Extraction, _guard(help="What comes of callers who ask as if to copy the model.")
    ] = Extraction.LOG,
    guards: Annotated[
        bool,
        _guard(
            help="With --no-guards, whatever else is said (but --max-waiting): the bare server of lesson 07."
        ),
    ] = True,
    drain: Annotated[int, typer.Option(min=0, help="Seconds that requests get to finish at the end.")] = 30,
    logs: Annotated[bool, typer.Option(help="Log every request to standard error, as JSON.")] = True,
) -> None:
    """Serve MODEL over HTTP, in the wire formats of OpenAI, Anthropic and Ollama.

    All connections share one continuous batch. Stop with Ctrl-C: requests under way are finished first.
    """
    from lessonlib.course import CourseError

    try:
        from lessonlib.serving.auth import Keys
        from lessonlib.serving.server import Server, bind
    except ImportError as error:
        raise CourseError(
            f"lesson serve needs {error.name}, which is not installed; run: pip install 'llm-inference-course[serve]'."
        ) from None

    # typer splits the variable at its spaces: nothing of it would be no key, and each word of a phrase one.
    words = os.environ.get("LESSON_API_KEY", "unset").split()
    if len(words) != 1 and words == (api_key or []):
        raise CourseError(
            "LESSON_API_KEY is empty or has spaces; give it one key without any, or unset it to let anybody in."
        )
    try:
        said = "" if system_prompt is None else system_prompt.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise CourseError(f"{system_prompt} is not a text in UTF-8; save it as one.") from None
    if system_prompt is not None and not said:
        raise CourseError(
            f"{system_prompt} is empty; write the system prompt into it, or leave the option out."
        )
    keys = Keys(api_key or ())
    bound = bind(host, port)  # before what takes a while

    from lessonlib import LLM
    from lessonlib.security.admission import AdmissionLimits
    from lessonlib.serving.app import create_app
    from lessonlib.serving.engine import AsyncEngine
    from lessonlib.serving.guards import Guards
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
    weights = (quantization or {"bfloat16": "BF16", "float16": "F16"}.get(dtype, "F32")).upper()
    if guards:
        chosen = _guards(
            AdmissionLimits(
                queue=max_waiting,
                tenant_requests=max_concurrent or (64 if keys else None),
                deadline=deadline or None,
                kv_percent=kv_percent or None,
            ),
            (requests_per_minute, tokens_per_minute),
            share_prefixes,
            raw_logprobs,
            validate,
            filter_output or (Filter.REDACT if said else Filter.OFF),
            said,
            extraction,
        )
    else:
        chosen = Guards.off(queue=max_waiting)
    app = create_app(AsyncEngine(llm), name, keys=keys, guards=chosen, weights=weights, system_prompt=said)
    if logs:
        to_stream()
    Server(app, bound, drain_seconds=drain, ready=lambda url: _announce(url, name, bool(keys), host)).run()
    typer.echo("The server has stopped.")


def _guards(
    limits: AdmissionLimits,
    per_minute: tuple[int | None, int | None],
    share_prefixes: bool,
    raw_logprobs: bool,
    validate: Validate,
    output: Filter,
    system_prompt: str,
    extraction: Extraction,
) -> Guards:
    from lessonlib.security import ExtractionDetector, InputValidator, OutputFilter, RateLimiter
    from lessonlib.security.logit_surface import LogitSurfacePolicy
    from lessonlib.security.rate_limiter import LARGEST
    from lessonlib.security.tenants import TenantSalt
    from lessonlib.serving.guards import Guards

    requests, tokens = per_minute
    return Guards(
        limits,
        limiter=RateLimiter(requests or LARGEST, tokens or LARGEST) if requests or tokens else None,
        salts=None if share_prefixes else TenantSalt(),
        validator=None if validate is Validate.OFF else InputValidator(validate.value),
        output=None if output is Filter.OFF else OutputFilter(output.value, system_prompt),
        surface=LogitSurfacePolicy.off() if raw_logprobs else LogitSurfacePolicy(),
        detector=None if extraction is Extraction.OFF else ExtractionDetector(),
        detector_blocks=extraction is Extraction.BLOCK,
    )


def _announce(url: str, name: str, needs_key: bool, host: str) -> None:
    key = 'os.environ["LESSON_API_KEY"]' if needs_key else '"none"'
    headers = ' -H "Authorization: Bearer $LESSON_API_KEY"' if needs_key else ""
    typer.secho(f"\n  {url}\n", bold=True)
    typer.echo(
        f"""OpenAI     curl {url}/v1/completions{headers} -d '{{"model": "{name}", "prompt": "def fib(n):"}}'
           OpenAI(base_url="{url}/v1", api_key={key}).chat.completions.create(model="{name}", …)
Anthropic  Anthropic(base_url="{url}", api_key={key}).messages.create(model="{name}", max_tokens=64, …)
Ollama     curl {url}/api/generate{headers} -d '{{"model": "{name}", "prompt": "Reverse a list."}}'
Also       {url}/health  {url}/metrics  {url}/openapi.json
"""
    )
    if not needs_key and host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo("Anybody who reaches this machine can use it: give it an --api-key.")
    typer.echo("Stop with Ctrl-C.")
