"""Each kernel against the plain model's own arithmetic: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lessonlib.engine import ModelConfig
from lessonlib.engine.model import RMSNorm, rope_frequencies, rotate
from lessonlib.engine.paged_cache import PagedCache, Span
from lessonlib.engine.quantize import Int4Linear, Int8Linear

from ..conftest import tiny_config
from .place import DEVICE, EXAMPLES, GPU, error, needs_kernels

pytestmark = needs_kernels
BLOCKS = 200


class Owner(nn.Module):
    """Two linear layers side by side that a Projection can merge."""

    def __init__(self, columns: int, rows: int, bias: bool, dtype: torch.dtype):
        super().__init__()
        self.a, self.b = (nn.Linear(columns, rows, bias=bias, dtype=dtype, device=DEVICE) for _ in range(2))
        self.norm = RMSNorm(columns, 1e-5).to(DEVICE, dtype)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def quantized(self, kind: str, group_size: int, symmetric: bool) -> Owner:
        """INT8, or INT4 with that group size, or as it is."""
        for name in ("a", "b") if kind != "float" else ():
            linear = getattr(self, name)
            made = (
                Int8Linear.from_linear(linear)
                if kind == "int8"
                else Int4Linear.from_linear(linear, group_size=group_size, symmetric=symmetric)
            )
            setattr(self, name, made)
        return self


def merged(owner: Owner):
    from lessonlib.engine.cuda.linear import Projection, repack

    repack(owner)
    return Projection(owner, "a", "b")


DTYPES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3} if GPU else {torch.float32: 2e-6}


@EXAMPLES
@given(
    kind=st.sampled_from(["float", "int8", "int4"]),
    dtype=st.sampled_from(list(DTYPES)),
    columns=st.sampled_from([32, 96, 208, 1040, 4096] if GPU else [32, 208, 1040]),
    rows=st.sampled_from([8, 24, 64, 1000] if GPU else [8, 24]),
    group_size=st.sampled_from([32, 64, 128]),
    symmetric=st.booleans(),
    bias=st.booleans(),
    normed=st.booleans(),
    after=st.sampled_from(["", "residual", "gated"]),
    seed=st.integers(0, 99),
)
def test_a_vector_times_any_matrix(
    kind, dtype, columns, rows, group_size, symmetric, bias, normed, after, seed
) -> None:
    torch.manual_seed(seed)
    owner = Owner(columns, rows, bias, dtype).quantized(kind, group_size, symmetric)
    weight = torch.cat([_weight(owner.a), _weight(owner.b)]).double()
    biases = torch.cat([owner.a.bias, owner.b.bias]).double() if bias else None
    x = torch.randn(1, columns, dtype=dtype, device=DEVICE)
    residual = torch.randn(1, 2 * rows, dtype=dtype, device=DEVICE) if after == "residual" else None

    projection = merged(owner)
    projection.following = projection.weight if GPU else None  # asked for, and of no consequence
    y = projection(x, owner.norm if normed else None, residual, after == "gated")

    h = x.double()
    if normed:
        h = F.rms_norm(h, (columns,), owner.norm.weight.double(), owner.norm.eps)
    expected = F.linear(h, weight, biases)
    if after == "gated":
        gate, up = expected.chunk(2, -1)
        expected = F.silu(gate) * up
    if residual is not None:
        expected = expected + residual.double()
    assert y.dtype == dtype
    assert error(y, expected) < DTYPES[dtype]
    # The modules themselves are views into the merged weights, and still say the same.
    assert error(torch.cat([_weight(owner.a), _weight(owner.b)]), weight) < 3e-5


def _weight(module: nn.Module) -> Tensor:
    return module.weight if isinstance(module, nn.Linear) else module.dequantize()


@pytest.mark.parametrize("kind", ["float", "int8", "int4"])
@pytest.mark.parametrize("count", [2, 17, 64, 65])
def test_many_rows_agree_with_one(kind: str, count: int) -> None:
    torch.manual_seed(count)
    owner = Owner(208, 24, True, torch.bfloat16 if GPU else torch.float32).quantized(kind, 64, False)
    projection = merged(owner)
    x = torch.randn(count, 208, dtype=owner.norm.weight.dtype, device=DEVICE)
    for options in ({}, {"norm": owner.norm}, {"gated": True}):
        together = projection(x, **options)
        apart = torch.cat([projection(row[None], **options) for row in x[:20]])
        assert error(together[:20], apart) < 0.02


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8 + 16 / 256), ("int4", 4 + 32 / 128)])
def test_codes_are_stored_once_in_an_order_of_their_own(kind: str, bits: float) -> None:
    from lessonlib.engine.cuda.linear import PackedLinear, Projection

    owner = Owner(256, 64, False, torch.float32).quantized(kind, 128, False)
    expected = torch.cat([owner.a.dequantize(), owner.b.dequantize()])
    projection = merged(owner)
    assert isinstance(owner.a, PackedLinear) and isinstance(projection, Projection)
    assert owner.a.bits_per_weight == bits
    assert owner.a.words.data_ptr() == projection.weight.data_ptr()
    assert projection.weight.nbytes + projection.scales.nbytes == owner.a.nbytes + owner.b.nbytes
    assert error(torch.cat([owner.a.dequantize(), owner.b.dequantize()]), expected) < 3e-6
    ids = torch.tensor([[3, 0], [63, 3]], device=DEVICE)
    assert error(owner.a.lookup(ids), expected[ids]) < 3e-6


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    heads, kv_heads = draw(st.sampled_from([(4, 2), (6, 2), (3, 3), (8, 1), (32, 8)]))
    return tiny_config(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=draw(st.sampled_from([16, 24, 64, 128] if GPU else [16, 24])),
        sliding_window=draw(st.sampled_from([None, 1, 5, 40])),
        qk_norm=draw(st.booleans()),
        family="qwen3",
        max_position_embeddings=512,
    )


def some_spans(rng: random.Random, size: int, most: int, longest: int) -> list[Span]:
    """Sequences of many lengths over blocks that are anywhere, and each one's own."""
    free = list(range(BLOCKS))
    rng.shuffle(free)
    spans = []
    for _ in range(rng.randint(1, 6)):
        start, count = rng.choice([0, 1, rng.randint(0, longest)]), rng.randint(1, most)
        blocks = -(-(start + count) // size)
        if blocks <= len(free):
            spans.append(Span([free.pop() for _ in range(blocks)], start, count))
    return spans or [Span([free.pop()], 0, 1)]


def plain(config: ModelConfig, cache: PagedCache, layer: int, qkv: Tensor, norms: list[RMSNorm]) -> Tensor:
    """What the model and its cache do between the projections."""
    total = len(qkv)
    positions = cache.begin(1, total, None, qkv.device)
    turns = torch.outer(torch.arange(512.0), rope_frequencies(config)).repeat(1, 2).to(qkv.device)
    cos, sin = (t.to(qkv.dtype)[positions][:, None] for t in (turns.cos(), turns.sin()))
    heads = qkv.view(total, -1, config.head_dim)
    q, k, v = heads.split([config.num_attention_heads, *[config.num_key_value_heads] * 2], 1)
    if config.qk_norm:
        q, k = norms[0](q), norms[1](k)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    y = cache.attend(layer, rotate(q, cos, sin), rotate(k, cos, sin), v)
    return y[0].transpose(0, 1).reshape(total, -1)


@pytest.mark.parametrize("decoding", [True, False])
@EXAMPLES
@given(
    config=configs(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16] if GPU else [torch.float32]),
    size=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 9999),
)
def test_attention_through_random_block_tables(decoding: bool, config, dtype, size: int, seed: int) -> None:
    from lessonlib.engine.cuda.attention import Attention
    from lessonlib.engine.cuda.plan import cut, gather, spread

    rng = random.Random(seed)
    torch.manual_seed(seed)
    spans = some_spans(rng, size, 1 if decoding else 70, min(150, size * 40))
    mine, theirs = (PagedCache(config, BLOCKS, size, dtype, DEVICE) for _ in range(2))
    for ours, other in zip((mine.keys, mine.values), (theirs.keys, theirs.values), strict=True):
        other.copy_(ours.normal_())
    total = sum(span.count for span in spans)
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    qkv = torch.randn(total, heads * config.head_dim, device=DEVICE).to(dtype)
    norms = [RMSNorm(config.head_dim, config.rms_norm_eps).to(DEVICE, dtype) for _ in range(2)]
    for norm in norms:
        nn.init.normal_(norm.weight, mean=1.0, std=0.2)
    theirs.plan(spans)
    layer = rng.randrange(config.num_hidden_layers)
    expected = plain(config, theirs, layer, qkv, norms)

    angles = torch.outer(torch.arange(512.0), rope_frequencies(config)).to(DEVICE)
    attention = Attention(config, angles.cos().to(dtype), angles.sin().to(dtype), rows=8)
    packed = gather(spans)
    storage = mine.keys[layer], mine.values[layer]
    given_norms = tuple(norms) if config.qk_norm else (None, None)

    def sent(numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(DEVICE)

    if decoding:  # with rows that only fill the batch at the end
        idle = torch.full((2,), -1, dtype=torch.int32, device=DEVICE)
        filled = torch.cat([qkv, torch.full_like(qkv[:1], torch.nan).expand(2, -1)])
        where = [torch.cat([sent(numbers), idle]) for numbers in (packed.starts, packed.offsets)]
        for _ in range(2):  # twice: the first run must leave the counters as it found them
            y = attention.decode(layer, filled, given_norms, *storage, *where, sent(packed.tables), size)[
                :total
            ]
    else:
        positions, slots = spread(packed, size)
        pieces = sent(cut(packed, attention.piece))
        y = attention.attend(
            layer, qkv, given_norms, *storage, sent(positions), sent(slots), pieces, sent(packed.tables), size
        )
    tolerance = 1e-5 if dtype == torch.float32 else 0.015
    assert error(y, expected) < tolerance
    # Each new token was stored in its slot, and nothing else was touched.
    for ours, other in zip((mine.keys, mine.values), (theirs.keys, theirs.values), strict=True):
        assert error(ours, other) < tolerance / 2
        untouched = torch.ones(len(other[layer]), dtype=torch.bool)
        untouched[spread(packed, size)[1]] = False
        assert torch.equal(ours[layer].cpu()[untouched], other[layer].cpu()[untouched])
