"""The training loop: AdamW, warmup-stable-decay, checkpoints that survive a kill, distillation for the draft."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lessonlib.engine import Transformer, load_model

from .data import Mixture
from .recipe import CONTEXT, FINAL_MIX, MIX, Recipe

REPORT_EVERY = 20  # steps between readings of the loss: reading it makes the device wait


@dataclass
class Progress:
    """Where a run stands. ``loss`` in nats a token, ``tokens_per_second`` since the last report."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float


@dataclass
class Log:
    """What the model card says of a run: where it ran, ``seconds`` of training in all, (step, loss) on the way."""

    hardware: str = ""
    torch: str = torch.__version__.split("+")[0]
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warmup, then constant, then linear to zero."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    cool = min(1.0, (recipe.steps - step) / (recipe.decay * recipe.steps))
    return recipe.learning_rate * min(warm, cool)


def train(
    recipe: Recipe,
    data: Path,
    folder: Path,
    device: str = "cpu",
    rows: int = 8,
    compile_model: bool = False,
    save_every: float = 120.0,
    report: Callable[[Progress], None] = lambda progress: None,
    teacher_folder: Path | None = None,
) -> tuple[Transformer, Log]:
    """Train to the end of the recipe, or go on from ``folder/checkpoint.pt`` where an earlier run was killed.

    data: folder written by ``prepare``. rows: sequences that fit in memory at once; larger batches are
    accumulated. save_every: seconds between checkpoints.
    """
    torch.manual_seed(recipe.seed)
    torch.set_float32_matmul_precision("high")
    place = torch.device(device)
    model = Transformer(recipe.config).to(place)
    optimizer = _optimizer(model, recipe, fused=place.type == "cuda")
    mixture = Mixture(data, place, recipe.seed)
    teacher = None
    if recipe.teacher:
        teacher = load_model(teacher_folder or recipe.teacher, "bfloat16", place)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    step, log = _resume(checkpoint, model, optimizer, place)
    log.hardware = _hardware(place)

    loss_of: Callable[..., Tensor] = _loss
    if compile_model:
        loss_of = torch.compile(_loss)
    total_rows = recipe.batch_tokens // CONTEXT
    rows = min(rows, total_rows)
    parts = total_rows // rows
    started = reported = saved = time.perf_counter()
    before = log.seconds
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        shares = FINAL_MIX if step >= (1 - recipe.decay) * recipe.steps else MIX
        loss = torch.zeros((), device=place)
        for part in range(parts):
            inputs, targets = mixture.batch(step * parts + part, rows, shares)
            piece = loss_of(model, teacher, recipe.distill, inputs, targets) / parts
            piece.backward()
            loss += piece.detach()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        now = time.perf_counter()
        if step % REPORT_EVERY == 0 or step == recipe.steps:
            value = loss.item()
            now = time.perf_counter()
            log.losses.append((step, round(value, 4)))
            done = (step - 1) % REPORT_EVERY + 1
            speed = done * recipe.batch_tokens / (now - reported)
            left = (recipe.steps - step) * recipe.batch_tokens / speed
            report(Progress(step, recipe.steps, value, learning_rate(recipe, step - 1), speed, left))
            reported = now
        log.seconds = before + now - started
        if now - saved > save_every or step == recipe.steps:
            _save(checkpoint, step, model, optimizer, log)
            saved = time.perf_counter()
    return model.eval().requires_grad_(False), log


def _loss(
    model: Transformer, teacher: Transformer | None, distill: float, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Cross-entropy in nats a token; with a teacher, mostly the cross-entropy against its whole distribution."""
    with torch.autocast(inputs.device.type, torch.bfloat16):
        logits = model(inputs).logits
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    if teacher is None:
        return loss
    with torch.no_grad():
        wanted = teacher(inputs).logits.softmax(-1)
    imitation = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
    return distill * imitation + (1 - distill) * loss


def _optimizer(model: Transformer, recipe: Recipe, fused: bool) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms have no reason to be small."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)


def _resume(
    path: Path, model: Transformer, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, Log]:
    if not path.is_file():
        return 0, Log()
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], Log(**state["log"])


def _hardware(device: torch.device) -> str:
    """What the training runs on, in words."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _save(path: Path, step: int, model: Transformer, optimizer: torch.optim.Optimizer, log: Log) -> None:
    """Written beside, then renamed: a kill at any moment leaves the old checkpoint or the new one."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "log": asdict(log),
    }
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
