"""Where the kernels can run here: on a GPU, in Triton's interpreter (slow, on a CPU), or nowhere.

TRITON_INTERPRET=1 python -m pytest tests/engine/cuda      # with triton installed beside PyTorch for CPUs
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings

GPU = torch.cuda.is_available() and find_spec("triton") is not None
INTERPRETER = not GPU and os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
DEVICE = "cuda" if GPU else "cpu"

# A skip under CI=true too, unlike other system parts: a course machine need not have a GPU.
needs_gpu = pytest.mark.skipif(not GPU, reason="This test needs an NVIDIA GPU: run it where there is one.")
needs_kernels = pytest.mark.skipif(
    not (GPU or INTERPRETER),
    reason="This test needs an NVIDIA GPU, or Triton with TRITON_INTERPRET=1: run it where there is one.",
)
EXAMPLES = settings(
    max_examples=int(os.environ.get("EXAMPLES", 40 if GPU else 6)), deadline=None, database=None
)


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """‖ours - theirs‖ / ‖theirs‖; NaN where there is one."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float((ours - theirs).norm() / theirs.norm())
