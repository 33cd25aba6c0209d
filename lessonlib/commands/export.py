"""`lesson export`: a model as other engines read it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lessonlib.commands import ENGINE
from lessonlib.export import FORMATS

PANEL = ENGINE
EXAMPLE = "lesson export pico --to gguf --quantization q8_0"


class Target(StrEnum):
    gguf = "gguf"
    hf = "hf"


OFFERED = "; ".join(f"{target}: {', '.join(kinds)}" for target, kinds in FORMATS.items())


def export(
    model: Annotated[str, typer.Argument(help="A shipped model (pico), a folder, or org/name from the hub.")],
    to: Annotated[
        Target, typer.Option(help="gguf: one file for llama.cpp. hf: a folder for transformers and vLLM.")
    ],
    quantization: Annotated[
        str | None, typer.Option(help=f"Format of the weights (otherwise as they are stored). {OFFERED}.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file or folder to write (otherwise named after the model, here).")
    ] = None,
) -> None:
    """Write MODEL with its tokenizer and chat template so that another engine can run it.

    Nothing that exists is overwritten.
    """
    from rich.console import Console

    from lessonlib.engine.checkpoint import resolve
    from lessonlib.engine.errors import BadParameter

    name = resolve(model).resolve().name if "/" not in model else model.rsplit("/", 1)[-1]
    kind = quantization and quantization.lower()
    stem = f"{name}-{kind}" if kind else name
    path = (output or Path(f"{stem}.gguf" if to == "gguf" else f"{stem}-hf")).expanduser()
    if path.exists() and (path.is_file() or to == "gguf"):
        raise BadParameter(f"{path} is there already; remove it, or name another --output.")
    with Console(stderr=True).status(f"Writing {path} …"):
        if to == "gguf":
            from lessonlib.export.gguf import export_gguf as write
        else:
            from lessonlib.export.huggingface import export_folder as write
        done = write(model, path, kind)
    typer.echo(f"{done.path}: {done.nbytes / 1e6:.1f} MB, {done.quantization}")
    for note in done.notes:
        typer.secho(f"Note: {note}", fg="yellow")
    typer.echo(f"Try it: {_next(to, done.path)}")


def _next(to: str, path: Path) -> str:
    return f"llama-cli -m {path}" if to == "gguf" else f"vllm serve {path}"
