"""Calibration: GPTQ loses less than rounding, on a matrix and on pico's perplexity."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lessonlib.engine import load_model, load_tokenizer
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.quantize import QuantizedLinear, quantize_model
from lessonlib.engine.quantize.calibrate import gptq
from lessonlib.engine.quantize.int4 import Int4Linear

from ..conftest import random_model, refuses, some_ids, tiny_config
from .conftest import some_weight

LIBRARY = Path(sysconfig.get_path("stdlib"))
CALIBRATION = ("argparse.py", "logging/__init__.py", "ast.py", "socket.py", "tarfile.py", "inspect.py")
HELD_OUT = ("heapq.py", "shlex.py", "base64.py", "weakref.py", "fileinput.py")  # of zoo/held_out.txt


def correlated(rows: int, columns: int) -> torch.Tensor:
    """Inputs as layers have them: columns that go together, some far more active than others."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns, columns, generator=generator) * torch.logspace(0, -1.5, columns)[:, None]
    return torch.randn(rows, columns, generator=generator) @ mixing


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("columns", "size"), [(128, 64), (160, 32), (160, 128)])
def test_outputs_are_closer_than_with_rounding(columns, size, symmetric):
    weight, x = some_weight(96, columns), correlated(2000, columns)
    codes, scales, zeros = gptq(weight, x.t() @ x, size, symmetric)
    assert codes.max() <= 15
    calibrated = Int4Linear.from_codes(codes, scales, None if symmetric else zeros, None, (96, columns))
    rounded = Int4Linear.from_weight(weight, group_size=size, symmetric=symmetric)
    errors = [(x @ (layer.dequantize() - weight).t()).norm() for layer in (calibrated, rounded)]
    assert errors[0] < 0.6 * errors[1]
    assert calibrated.nbytes == rounded.nbytes


def test_inputs_without_any_pattern_leave_nothing_to_gain_but_the_clipping():
    """H = 1: no column can make up for another, so each weight gets its nearest code of the clipped range."""
    weight = some_weight(32, 64)
    codes, scales, zeros = gptq(weight, torch.eye(64), 32, symmetric=False)
    scale, zero = (t.float().repeat_interleave(32, 1) for t in (scales, zeros))
    assert torch.equal(codes, ((weight - zero) / scale + 8).round().clamp(0, 15).to(torch.uint8))
    plain_error = (Int4Linear.from_weight(weight, group_size=32).dequantize() - weight).norm()
    assert ((codes.float() - 8) * scale + zero - weight).norm() <= plain_error


def test_inputs_that_are_never_active_do_no_harm():
    weight, x = some_weight(64, 128), correlated(500, 128)
    x[:, 40:80] = 0
    codes, scales, zeros = gptq(weight, x.t() @ x, 64, symmetric=False)
    assert scales.isfinite().all() and zeros.isfinite().all()
    error = x @ (Int4Linear.from_codes(codes, scales, zeros, None, (64, 128)).dequantize() - weight).t()
    assert error.norm() < 0.1 * (x @ weight.t()).norm()
    assert all(t.isfinite().all() for t in gptq(weight, torch.zeros(128, 128), 64, symmetric=False)[1:])


def test_a_calibrated_model_is_as_small_and_complete_as_any():
    model, plain = (random_model(tiny_config(attention_bias=True)) for _ in range(2))
    biases = model.layers[1].self_attn.q_proj.bias.clone()
    quantize_model(model, "int4", calibration=some_ids(64, batch=4), group_size=32, symmetric=True)
    quantize_model(plain, "int4", group_size=32, symmetric=True)
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
    assert torch.equal(model.layers[1].self_attn.q_proj.bias, biases)
    for ours, theirs in zip(model.modules(), plain.modules(), strict=True):
        if isinstance(ours, QuantizedLinear):
            assert (type(ours), ours.nbytes) == (type(theirs), theirs.nbytes)
    assert not any(layer._forward_pre_hooks for layer in model.layers)


@torch.inference_mode()
def test_pico_loses_less():
    """Calibrated on modules that pico was trained on, measured on modules that nobody has seen.

    In perplexity, and in KL(plain ‖ quantized): how far all probabilities move, not only that of the token that came,
    which makes it the steadier of the two on a short text.
    """
    tokenizer = load_tokenizer("pico")
    held_out = [
        tokenizer.encode((LIBRARY / name).read_text(encoding="utf-8")[1000:3500]) for name in HELD_OUT
    ]
    texts = [(LIBRARY / name).read_text(encoding="utf-8") for name in CALIBRATION]
    ids = torch.tensor([tokenizer.encode(text)[500:756] for text in texts])
    rounded, calibrated = (quantize_model(load_model("pico"), "int4", calibration=c) for c in (None, ids))
    nats, divergence = torch.zeros(3), torch.zeros(3)
    for text in held_out:
        now, following = torch.tensor([text[:-1]]), torch.tensor(text[1:])
        plain = load_model("pico")(now).logits[0].log_softmax(-1)
        for i, model in enumerate((None, rounded, calibrated)):
            other = plain if model is None else model(now).logits[0].log_softmax(-1)
            nats[i] += F.nll_loss(other, following, reduction="sum")
            divergence[i] += (plain.exp() * (plain - other)).sum()
    perplexity = (nats / sum(len(text) - 1 for text in held_out)).exp()
    assert divergence[2] < 0.8 * divergence[1]
    assert perplexity[0] < perplexity[2] < perplexity[1]


def test_what_it_refuses():
    model = random_model(tiny_config())
    with refuses(BadParameter, match="Only int4 can be calibrated, not nf4"):
        quantize_model(model, "nf4", calibration=some_ids(8))
    with refuses(BadParameter, match="group_size=48"):
        quantize_model(model, "int4", calibration=some_ids(8), group_size=48)
    assert isinstance(model.layers[0].mlp.up_proj, nn.Linear)
