"""Calibration: choose INT4 codes so that the layers' *outputs* stay close, on text like the model will see.

Rounding each weight to the nearest code treats all weights alike. GPTQ rounds one column of W after the other and
lets the columns not yet rounded make up for the error; which errors cancel is told by H = Xᵀ X, summed over the
layer's inputs X. Sources: Frantar et al. 2023 (GPTQ, arXiv:2210.17323 §3, algorithm 1); the order of the columns, most
active first, is from the authors' code; clipped ranges: Lin et al. 2024 (AWQ, arXiv:2306.00978 §4).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadParameter
from ..model import Transformer
from .int4 import Int4Linear, as_groups, fit_int4, round_int4

DAMPING = 0.05  # of H's mean diagonal, added to it: directions that the text never shows are not trusted
# Parts of a group's range that are tried: levels closer, extremes cut off.
SHRINKS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75)
BLOCK = 128  # columns whose errors are passed on together


def calibrate(model: Transformer, ids: Tensor, group_size: int = 64, symmetric: bool = False) -> None:
    """Replace the linear layers of all blocks by calibrated Int4Linear, in place.

    ids: int64 (rows, length), some thousands of tokens that no evaluation uses. The text passes through the model
    once, and each layer sees what its quantized predecessors make of it.

    Raises BadParameter, and then leaves the model as it was.
    """
    replaced: list[tuple[nn.Module, str, nn.Linear]] = []

    def before(layer: nn.Module, args: tuple[Any, ...]) -> None:
        for name, hessian in _hessians(layer, args).items():
            linear = layer.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            codes, scales, zeros = gptq(linear.weight, hessian, group_size, symmetric)
            zeros_kept = None if symmetric else zeros
            shape = tuple(linear.weight.shape)
            layer.set_submodule(name, Int4Linear.from_codes(codes, scales, zeros_kept, linear.bias, shape))
            replaced.append((layer, name, linear))

    hooks = [layer.register_forward_pre_hook(before) for layer in model.layers]
    try:
        with torch.no_grad():
            model(ids, last_only=True)
    except BaseException as error:
        for layer, name, linear in replaced:
            layer.set_submodule(name, linear)
        if isinstance(error, torch.linalg.LinAlgError):
            raise BadParameter(
                "The weights, or what they make of this text, are not finite; calibrate with others."
            ) from None
        raise
    finally:
        for hook in hooks:
            hook.remove()


def gptq(weight: Tensor, hessian: Tensor, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and zeros like ``quantize_int4``'s, for a weight (out, in) and H (in, in) of its inputs."""
    groups = as_groups(weight, group_size)
    padding = groups[0].numel() - weight.shape[1]
    hessian = F.pad(hessian.double(), (0, padding, 0, padding))
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean() + 1e-12)
    scale, zero = _clipped(groups, hessian.diagonal().float(), symmetric)
    order = hessian.diagonal().argsort(descending=True)
    # Row i of U says how an error in column i is best spread over the columns after it.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    spread = torch.linalg.cholesky(inverse, upper=True).float()
    codes = torch.empty_like(groups.flatten(1), dtype=torch.uint8)
    weight = groups.flatten(1)[:, order]
    columns = order.tolist()
    for start in range(0, len(columns), BLOCK):
        stop = min(start + BLOCK, len(columns))
        errors = torch.zeros_like(weight[:, start:stop])
        for i in range(start, stop):
            group = columns[i] // group_size
            column, (s, z) = weight[:, i], (scale[:, group, 0], zero[:, group, 0])
            code = codes[:, columns[i]] = round_int4(column, s, z)
            error = (column - _value(code, s, z)) / spread[i, i]
            weight[:, i:stop].addr_(error, spread[i, i:stop], alpha=-1)
            errors[:, i - start] = error
        weight[:, stop:].addmm_(errors, spread[start:stop, stop:], alpha=-1)
    return codes, scale.squeeze(-1), zero.squeeze(-1)


def _hessians(layer: nn.Module, args: tuple[Any, ...]) -> dict[str, Tensor]:
    """H of every linear layer's inputs, float32 (in, in), by name."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()
            found[name] = x.t() @ x

        return see

    linears = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears]
    layer.forward(*args)  # not layer(…), which would come back here
    for hook in hooks:
        hook.remove()
    return found


def _clipped(groups: Tensor, importance: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero with the smallest squared error, each column weighed by its importance (in,)."""
    importance = importance.view(groups.shape[1:])
    best: tuple[Tensor, ...] = ()
    for shrink in SHRINKS:
        scale, zero = fit_int4(groups * shrink, symmetric)
        values = _value(round_int4(groups, scale, zero), scale, zero)
        error = ((values - groups).square() * importance).sum(-1, keepdim=True)
        new = (error, scale, zero)
        best = (
            tuple(torch.where(error < best[0], n, b) for n, b in zip(new, best, strict=True)) if best else new
        )
    return best[1], best[2]


def _value(code: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return (code.float() - 8) * scale.float() + zero.float()
