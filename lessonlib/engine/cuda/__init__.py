"""The engine's way to run on an NVIDIA GPU: Triton kernels and CUDA graphs around the same model.

Optional: nothing of it is imported, and the plain model runs, where there is no GPU or no Triton (which comes with
PyTorch for CUDA). Read in this order: plan, matmul, linear, attention, transformer.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from ..model import Transformer

if TYPE_CHECKING:
    from .transformer import CudaTransformer


def available(device: torch.device) -> bool:
    """Can the kernels run on this device?"""
    return device.type == "cuda" and torch.version.hip is None and find_spec("triton") is not None


def cuda_model(model: Transformer, max_batch: int = 256) -> CudaTransformer | Transformer:
    """The model behind fast kernels; the model itself where those cannot run (see ``available``).

    Its weights are merged in place, so that nothing is stored twice; it can still be used. max_batch: decode steps of
    up to so many requests are replayed as one CUDA graph.
    """
    if not available(model.device):
        return model
    from .transformer import CudaTransformer

    return CudaTransformer(model, max_batch)
