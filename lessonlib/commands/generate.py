"""`lesson generate`: continue a prompt with a model, in the terminal."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lessonlib.commands import ENGINE

if TYPE_CHECKING:
    from lessonlib import LLM, SamplingParams

PANEL = ENGINE
EXAMPLE = 'lesson generate pico "def read_json(path):" --max-tokens 40 --temperature 0'


def generate(
    model: Annotated[str, typer.Argument(help="A shipped model (pico), a folder, or org/name from the hub.")],
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from standard input.")],
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep this many of the likeliest tokens; 0 keeps all.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    stream: Annotated[bool, typer.Option(help="Print the text as it is made.")] = True,
    chat: Annotated[
        bool, typer.Option(help="Ask the prompt as a question in the model's chat format.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Number format: float32, bfloat16 or float16.")] = "float32",
    quantization: Annotated[
        str | None, typer.Option(help="Store the weights in fewer bits: int8, int4, nf4, q8_0, q4_0.")
    ] = None,
    speculative_model: Annotated[
        str | None, typer.Option(help="Draft tokens with this model (pico-draft), or with ngram.")
    ] = None,
    compiled: Annotated[bool, typer.Option(help="Run through C++ compiled on this machine.")] = False,
) -> None:
    """Continue PROMPT with MODEL.

    The prompt is echoed dimly, the model's text follows; what it took is printed at the end.
    """
    from rich.console import Console

    from lessonlib import LLM, SamplingParams

    if prompt == "-":
        prompt = sys.stdin.read()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    params = SamplingParams(
        temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens, seed=seed
    )
    llm = LLM(
        model,
        dtype=dtype,
        quantization=quantization,
        speculative_model=speculative_model,
        compiled=compiled,
    )
    start = time.perf_counter()
    pieces = _streamed(llm, prompt, params, chat) if stream else _at_once(llm, prompt, params, chat)

    first = next(pieces, "")  # a bad prompt is refused here, before anything is printed
    out = Console(highlight=False, soft_wrap=True)
    out.print(prompt, style="dim", markup=False, end="\n\n" if chat else "")
    text = first
    _put(first)
    for piece in pieces:
        text += piece
        _put(piece)
    print(flush=True)
    seconds = time.perf_counter() - start
    tokens = len(llm.tokenizer.encode(text, add_special_tokens=False))
    note = f"{tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s"
    if temperature > 0:
        note += f"; repeat it with --seed {seed}"
    Console(stderr=True, highlight=False, soft_wrap=True).print(note, style="dim")


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _streamed(llm: LLM, prompt: str, params: SamplingParams, chat: bool) -> Iterator[str]:
    if not chat:
        return llm.stream(prompt, params)
    template = llm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}])
    return llm.stream(llm.tokenizer.encode(template, add_special_tokens=False), params)


def _at_once(llm: LLM, prompt: str, params: SamplingParams, chat: bool) -> Iterator[str]:
    done = llm.chat([{"role": "user", "content": prompt}], params) if chat else llm.generate([prompt], params)
    yield done[0].outputs[0].text
