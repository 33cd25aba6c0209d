"""``lesson train``: the whole recipe of the shipped models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROMPTS = ("def read_json(path):", "class Stack:\n    def __init__(self):", "import os\n\ndef walk(")


def train(
    model: Annotated[str, typer.Argument(help="pico, pico-draft (needs pico), or all.")] = "all",
    folder: Annotated[Path, typer.Option(help="Corpus, checkpoints and results.")] = Path("build/zoo"),
    install: Annotated[bool, typer.Option(help="Put the result where LLM('pico') finds it.")] = False,
    prepare_only: Annotated[bool, typer.Option(help="Stop when the corpus is ready.")] = False,
    tokens: Annotated[
        int | None, typer.Option(help="Train on this many tokens instead of the recipe's.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Sequences in memory at once.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Collect the corpus, train the tokenizer and the models, evaluate them, write the model folders.

    Killed runs go on where they stopped. Example: lesson train pico --install
    """
    import torch

    from lessonlib.zoo.data import prepare
    from lessonlib.zoo.recipe import RECIPES

    if model not in (*RECIPES, "all"):
        raise typer.BadParameter(f"{model!r} is no recipe; choose {', '.join(RECIPES)} or all.")
    typer.echo("Preparing the corpus (some minutes the first time) …")
    manifest = prepare(folder)
    typer.echo(f"{manifest['documents']:,} files, tokens: {manifest['tokens']}")
    if prepare_only:
        return
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in RECIPES if model == "all" else [model]:
        _train_one(name, folder, manifest, tokens, rows, device, install)


def _train_one(
    name: str,
    folder: Path,
    manifest: dict,
    tokens: int | None,
    rows: int | None,
    device: str,
    install: bool,
) -> None:
    import shutil
    from dataclasses import replace

    import torch

    from lessonlib.engine import load_tokenizer, save_model
    from lessonlib.engine.checkpoint import ZOO
    from lessonlib.zoo.card import write_card
    from lessonlib.zoo.recipe import RECIPES
    from lessonlib.zoo.training import train as run

    recipe = RECIPES[name] if tokens is None else replace(RECIPES[name], tokens=tokens)
    gpu = device == "cuda"
    with _bar(recipe.steps, name) as report:
        teacher = folder / recipe.teacher if recipe.teacher else None
        model, log = run(
            recipe,
            folder,
            folder / f"{name}-run",
            device,
            rows=rows or (64 if gpu else 4),
            compile_model=gpu,
            report=report,
            teacher_folder=teacher if teacher and teacher.is_dir() else None,
        )
    output = folder / name
    shutil.copytree(folder / "tokenizer", output, dirs_exist_ok=True)
    model = model.to(torch.bfloat16)
    save_model(model, output)
    figures, written = _evaluate(model.float(), load_tokenizer(output), folder, recipe.teacher)
    for figure, value in figures.items():
        typer.echo(f"{figure}: {value}")
    typer.echo("\n\n".join(written))
    write_card(output, recipe, log, manifest, figures, written, f"lesson train {name}")
    if install:
        shutil.copytree(output, ZOO / name, dirs_exist_ok=True)


def _evaluate(model, tokenizer, folder: Path, teacher: str | None) -> tuple[dict[str, str], list[str]]:
    from lessonlib.engine import load_model
    from lessonlib.zoo.data import held_out
    from lessonlib.zoo.evaluation import bits_per_byte, greedy_agreement, samples, xz_bits_per_byte

    texts = [text for _, text in held_out(folder)]
    figures = {
        "bits per byte, held-out code": f"**{bits_per_byte(model, tokenizer, texts):.3f}**",
        "the same for `xz -9`": f"{xz_bits_per_byte(texts):.2f}",
    }
    if teacher:
        target = load_model(folder / teacher if (folder / teacher).is_dir() else teacher, device=model.device)
        agreement = greedy_agreement(model, target, tokenizer, texts)
        figures[f"greedy agreement with {teacher}, held-out code"] = f"**{agreement:.1%}**"
    return figures, samples(model, tokenizer, PROMPTS)


class _bar:
    """A tqdm bar with loss, tokens a second and the time left; plain lines when nobody watches."""

    def __init__(self, steps: int, name: str):
        from tqdm import tqdm

        self.bar = tqdm(total=steps, desc=name, unit="step", smoothing=0.05, mininterval=1.0)

    def __enter__(self):
        return self.report

    def report(self, progress) -> None:
        self.bar.update(progress.step - self.bar.n)
        speed = f"{progress.tokens_per_second / 1e3:,.0f}k tok/s"
        self.bar.set_postfix_str(
            f"loss {progress.loss:.3f}, {speed}, {progress.seconds_left / 60:.1f} min left"
        )

    def __exit__(self, *_) -> None:
        self.bar.close()
