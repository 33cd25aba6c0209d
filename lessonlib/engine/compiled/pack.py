"""A model's weights in the order in which the kernels read them, and the structures that point to them.

The layout is told in ``kernels.cpp``. Nothing is rounded again: quantized codes and scales are only moved.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadParameter
from ..model import Transformer, rope_frequencies
from ..quantize.int4 import Int4Linear
from ..quantize.int8 import Int8Linear
from ..quantize.linear import QuantizedEmbedding

FLOAT32, BFLOAT16, INT8, INT4 = range(4)
PIECE = 1 << 25  # bytes of memory taken at a time
PANEL = 16  # output rows that lie side by side
NUMBERS = (1, 2, 4, 4)  # of a row, in 4 bytes: of each kind
NO_WINDOW = 1 << 30
MOST_HEAD_DIM, MOST_GROUP = 256, 64  # what attention's buffers hold


class Matrix(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("kind", "rows", "columns", "zeros")),
        *((name, c_void_p) for name in ("codes", "affine", "scales", "bias")),
    )


class Layer(Structure):
    _fields_ = (
        *((name, Matrix) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("norm", "mlp_norm", "q_norm", "k_norm")),
        ("window", c_int64),
    )


class Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim")),
        ("eps", c_double),
        ("layer", POINTER(Layer)),
        *((name, Matrix) for name in ("embedding", "head")),
        *((name, c_void_p) for name in ("norm", "cos", "sin")),
    )


class Cache(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("bfloat16", "block_size", "layer", "block", "slot", "head")),
        *((name, c_void_p) for name in ("keys", "values")),
    )


class Pass(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("tokens", "spans", "wanted", "threads")),
        *((name, c_void_p) for name in ("ids", "starts", "counts", "tables", "widths", "at", "logits")),
    )


class Weights(NamedTuple):
    """One linear layer: codes (out, in), scales and zeros (out,) or (out, groups) or None, bias (out,) or None."""

    kind: int
    codes: Tensor
    scales: Tensor | None = None
    zeros: Tensor | None = None
    bias: Tensor | None = None


def read(module: nn.Module) -> Weights:
    """The weights of a linear layer or an embedding. Raises BadParameter for a format without a kernel."""
    if isinstance(module, QuantizedEmbedding):
        module = module.linear
    bias = getattr(module, "bias", None)
    if isinstance(module, Int8Linear):
        return Weights(INT8, module.codes, module.scales.float(), None, bias)
    if isinstance(module, Int4Linear):
        repeats = module.group_size // 32
        scales = module.scales.repeat_interleave(repeats, 1)
        zeros = None if module.symmetric else module.zeros.repeat_interleave(repeats, 1)
        return Weights(INT4, module.unpack(), scales, zeros, bias)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.dtype in (torch.float32, torch.bfloat16):
        return Weights(FLOAT32 if weight.dtype == torch.float32 else BFLOAT16, weight.detach(), bias=bias)
    raise BadParameter(
        "The compiled path knows weights in float32, bfloat16, int8 and int4; leave compiled=False for "
        f"{type(module).__name__ if weight is None else weight.dtype}."
    )


class Packer:
    """Makes structures, and keeps alive what they point to (``held``).

    Everything lies in few large pieces of memory: NumPy asks the system for huge pages there, which a pass that reads
    all of it is a quarter faster with.
    """

    def __init__(self) -> None:
        self.held: list[Any] = []
        self._free = torch.empty(0, dtype=torch.uint8)

    def hold(self, tensor: Tensor) -> int:
        """The address of a copy of the tensor's numbers, a multiple of 64."""
        size = -(-tensor.nbytes // 64) * 64
        if size > len(self._free):
            self._free = torch.from_numpy(np.empty(max(size, PIECE) + 64, np.uint8))
            self.held.append(self._free)
            self._free = self._free[-self._free.data_ptr() % 64 :]
        place, self._free = self._free[: tensor.nbytes], self._free[size:]
        place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
        return place.data_ptr()

    def floats(self, x: Tensor) -> int:
        return self.hold(x.detach().float())

    def matrix(self, *modules: nn.Module, interleaved: bool = False) -> Matrix:
        """Linear layers with the same input, one below the other; or panel by panel in turns."""
        parts = [read(module) for module in modules]
        kind, columns = parts[0].kind, parts[0].codes.shape[1]
        if any(part.kind != kind or (part.zeros is None) != (parts[0].zeros is None) for part in parts):
            raise BadParameter(
                "The compiled path needs q, k and v in one format, and gate and up too; quantize them alike."
            )
        orders, first = [], 0
        for part in parts:
            order = torch.arange(first, first + len(part.codes))
            orders.append(F.pad(order, (0, -len(order) % PANEL), value=-1) if interleaved else order)
            first += len(part.codes)
        if interleaved:
            order = torch.stack([order.view(-1, PANEL) for order in orders], dim=1).flatten()
        else:
            order = torch.cat(orders)
            order = F.pad(order, (0, -len(order) % PANEL), value=-1)

        def rows(name: str) -> Tensor | None:
            """That attribute of all parts in this order, with zeros where there is no row."""
            found = [getattr(part, name) for part in parts]
            if all(x is None for x in found):
                return None
            like = next(x for x in found if x is not None)
            whole = [
                x if x is not None else like.new_zeros(len(p.codes), *like.shape[1:])
                for x, p in zip(found, parts, strict=True)
            ]
            return torch.cat([*whole, like.new_zeros(1, *like.shape[1:])])[order]

        codes, scales, zeros, bias = rows("codes"), rows("scales"), rows("zeros"), rows("bias")
        assert codes is not None
        matrix = Matrix(kind, len(order) if interleaved else first, columns, int(zeros is not None))
        matrix.codes = self.hold(panels(codes, kind))
        if kind == INT8 and scales is not None:
            matrix.scales = self.floats(scales)
        if kind == INT4 and scales is not None:
            # What a code's offset of 8 adds to a sum is at hand there, and -zeros / 8 of it is what zeros add.
            affine = torch.stack([scales] if zeros is None else [scales, -zeros.float() / 8], dim=-1)
            affine = affine.bfloat16()[:, : -(-columns // 32)]
            matrix.affine = self.hold(affine.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1))
        if bias is not None:
            matrix.bias = self.floats(bias)
        return matrix


def panels(codes: Tensor, kind: int) -> Tensor:
    """codes (out, in), out a multiple of 16 -> (out / 16, groups, 8 or 4, 16 rows, 4 bytes), as kernels.cpp tells."""
    number = NUMBERS[kind]
    codes = F.pad(codes, (0, -codes.shape[1] % (8 * number)))
    if kind == INT8:
        codes = codes.view(torch.uint8) ^ 128  # code + 128: the instruction wants one side unsigned
    codes = codes.view(len(codes) // PANEL, PANEL, -1, 8, number).permute(0, 2, 3, 1, 4)
    return codes[:, :, :4] | codes[:, :, 4:] << 4 if kind == INT4 else codes


def pack_model(model: Transformer) -> tuple[Model, list[Any]]:
    """The structure that the kernels take, and what must live as long as it does."""
    config, packer = model.config, Packer()
    if model.device.type != "cpu":
        raise BadParameter(
            f"The compiled path is for a CPU, but this model is on {model.device}; leave compiled=False."
        )
    group = config.num_attention_heads // config.num_key_value_heads
    if config.head_dim > MOST_HEAD_DIM or group > MOST_GROUP:
        raise BadParameter(
            f"The compiled path knows heads of up to {MOST_HEAD_DIM} numbers and {MOST_GROUP} of them to a KV head; "
            "leave compiled=False for this model."
        )
    layers = (Layer * config.num_hidden_layers)()
    layer: Any
    for i, layer in enumerate(model.layers):
        attention, mlp, packed = layer.self_attn, layer.mlp, layers[i]
        packed.qkv = packer.matrix(attention.q_proj, attention.k_proj, attention.v_proj)
        packed.out = packer.matrix(attention.o_proj)
        packed.gate_up = packer.matrix(mlp.gate_proj, mlp.up_proj, interleaved=True)
        packed.down = packer.matrix(mlp.down_proj)
        packed.norm = packer.floats(layer.input_layernorm.weight)
        packed.mlp_norm = packer.floats(layer.post_attention_layernorm.weight)
        if config.qk_norm:
            packed.q_norm = packer.floats(attention.q_norm.weight)
            packed.k_norm = packer.floats(attention.k_norm.weight)
        window = config.window(i)
        packed.window = NO_WINDOW if window is None else window
    head = packer.matrix(model.lm_head)
    tied = model.lm_head is getattr(model.embed_tokens, "linear", None) or (
        getattr(model.lm_head, "weight", None) is getattr(model.embed_tokens, "weight", model)
    )
    embedding = head if tied else packer.matrix(model.embed_tokens)
    angles = torch.outer(torch.arange(config.max_position_embeddings).float(), rope_frequencies(config))
    packer.held.append(layers)
    found = Model(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.rms_norm_eps,
        ctypes.cast(layers, POINTER(Layer)),
        embedding,
        head,
        packer.floats(model.norm.weight),
        packer.floats(angles.cos()),
        packer.floats(angles.sin()),
    )
    return found, packer.held
