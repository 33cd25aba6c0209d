"""Every format as a layer: what it stores, what it multiplies, and which way the product takes."""

from __future__ import annotations

import copy
import io
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lessonlib.engine import costs
from lessonlib.engine.quantize import linear as linear_module
from lessonlib.engine.quantize.linear import CHUNK, QuantizedEmbedding, workspace

from ..conftest import QUIET
from .conftest import FORMATS, assert_product, make, some_weight


@pytest.mark.parametrize("name", FORMATS)
@QUIET
@given(
    out=st.integers(2, 200),
    groups=st.integers(1, 6),
    rows=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    with_bias=st.booleans(),
)
def test_a_layer_computes_what_its_reference_says(name, out, groups, rows, dtype, with_bias):
    bias = torch.randn(out) if with_bias else None
    layer = make(name, some_weight(out, 32 * groups), bias)
    x = torch.randn(rows, 32 * groups, generator=torch.Generator().manual_seed(rows)).to(dtype)
    y = layer(x)
    assert (y.shape, y.dtype) == ((rows, out), dtype)
    assert_product(layer, x, y)


@pytest.mark.parametrize("name", FORMATS)
def test_both_ways_give_the_same(name):
    """The fused kernel and the dense one, each at both ends of the range of rows."""
    layer = make(name, some_weight(320, 128))
    for rows in (0, 1, 3, 64):
        x = torch.randn(rows, 128).bfloat16()
        assert_product(layer, x, layer.dense(x))
        if layer.has_kernel:
            assert_product(layer, x, layer.fused(x))


@pytest.mark.parametrize("name", FORMATS)
def test_the_number_of_rows_chooses_the_way(name, monkeypatch):
    layer = make(name, some_weight(128, 128))
    taken = []
    for way in ("fused", "dense"):
        original = getattr(layer, way)
        monkeypatch.setattr(layer, way, lambda x, way=way, o=original: (taken.append(way), o(x))[1])
    few = layer.FEW if layer.has_kernel else 0
    for shape in [(1, 128), (few, 1, 128), (few + 1, 128), (2, few + 1, 128)]:
        layer(torch.randn(shape)) if shape[0] else taken.append("fused")
    assert taken == (["fused"] * 2 if few else ["dense", "fused"]) + ["dense"] * 2


@pytest.mark.parametrize("name", FORMATS)
def test_a_matrix_larger_than_the_workspace_is_multiplied_in_chunks(name, monkeypatch):
    layer = make(name, some_weight(300, 96))
    x = torch.randn(70, 96).bfloat16()
    whole = layer.dense(x)
    monkeypatch.setattr(linear_module, "CHUNK", 96 * 64)
    starts = []
    rows = layer.rows
    monkeypatch.setattr(
        layer, "rows", lambda start, stop, dtype: (starts.append(start), rows(start, stop, dtype))[1]
    )
    assert torch.equal(layer.dense(x), whole)
    assert starts == [0, 64, 128, 192, 256]


@pytest.mark.parametrize("name", FORMATS)
def test_quantizing_twice_changes_nothing_more(name):
    layer = make(name, some_weight(128, 256))
    once = layer.dequantize()
    assert once.shape == (128, 256)
    assert once.dtype == torch.float32
    again = make(name, once).dequantize()
    assert (again - once).abs().max() <= 0.005 * once.abs().max()  # the scale itself is rounded


@pytest.mark.parametrize("name", FORMATS)
def test_more_levels_or_smaller_groups_are_closer_to_the_truth(name):
    weight = torch.randn(128, 256, generator=torch.Generator().manual_seed(3)) * 0.05
    error = ((make(name, weight).dequantize() - weight).norm() / weight.norm()).item()
    expected = {
        "int8": 0.007,
        "int4 g32": 0.079,
        "int4 g64": 0.090,
        "int4 g128": 0.099,
        "int4 g32 symmetric": 0.087,
    }
    expected |= {
        "int4 g128 symmetric": 0.106,
        "nf4": 0.092,
        "nf4 double": 0.092,
        "q8_0": 0.0054,
        "q4_0": 0.086,
    }
    assert error == pytest.approx(
        expected[name], rel=0.05
    )  # figures of a normal distribution, not of a machine


def test_true_bits_a_weight():
    """By hand for 128 × 256 weights. Codes, and 16 bits for each scale and each zero."""
    bits = {name: make(name, some_weight(128, 256)).bits_per_weight for name in FORMATS}
    assert bits["int8"] == 8 + 16 / 256
    assert (bits["int4 g32"], bits["int4 g64"], bits["int4 g128"]) == (5.0, 4.5, 4.25)
    assert (bits["int4 g32 symmetric"], bits["int4 g128 symmetric"]) == (4.5, 4.125)
    assert bits["nf4"] == 4.5
    assert bits["nf4 double"] == pytest.approx(4.125 + 32 * 2 / 256 / 128, abs=1e-3)
    assert (bits["q8_0"], bits["q4_0"]) == (8.5, 4.5)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_stored_but_what_is_counted(name):
    """A pickled layer is as large as its bytes say: no second copy hides anywhere."""
    layer = make(name, some_weight(256, 512), torch.randn(256))
    assert costs.stored_bytes(layer) == layer.nbytes + 4 * 256
    layer(torch.randn(1, 512)), layer(torch.randn(100, 512))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    assert layer.nbytes <= buffer.tell() - 4 * 256 < layer.nbytes + 5000
    held = sum(t.nbytes for t in vars(layer).values() if isinstance(t, torch.Tensor))
    assert held == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_cast_changes_what_is_computed_and_not_what_is_stored(name):
    layer = make(name, some_weight(64, 64))
    stored, before = layer.nbytes, layer.dequantize()
    for cast in (layer.bfloat16(), layer.half(), layer.double(), copy.deepcopy(layer).float()):
        assert cast.nbytes == stored
        assert torch.equal(cast.dequantize(), before)


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_survives_saving_and_loading(name):
    layer, other = make(name, some_weight(64, 64, seed=1)), make(name, some_weight(64, 64, seed=2))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.dequantize(), layer.dequantize())


def test_an_embedding_reads_the_matrix_it_is_given():
    for name in FORMATS:
        layer = make(name, some_weight(50, 64))
        embedding = QuantizedEmbedding(layer, torch.bfloat16)
        ids = torch.tensor([[3, 49, 3], [0, 25, 1]])
        assert torch.equal(embedding(ids), layer.dequantize()[ids].bfloat16())
        assert embedding.to(torch.float32)(ids).dtype == torch.float32
        assert embedding.linear is layer


def test_a_linear_layer_s_bias_comes_along():
    plain = nn.Linear(64, 32)
    quantized = FORMATS["int8"][0].from_linear(plain)
    x = torch.randn(3, 5, 64)
    assert torch.allclose(quantized(x), plain(x), atol=0.05)
    assert quantized(x).shape == (3, 5, 32)
    assert not quantized(x).requires_grad


def test_the_workspace_is_one_piece_of_memory_that_grows():
    cpu = torch.device("cpu")
    with torch.inference_mode():
        small = workspace((10, 10), torch.bfloat16, cpu)
        assert workspace((100,), torch.float32, cpu).data_ptr() == small.data_ptr()
        large = workspace((CHUNK,), torch.float32, cpu)
    again = workspace((2, CHUNK), torch.bfloat16, cpu).zero_()  # made in inference mode, of use outside
    assert again.data_ptr() == large.data_ptr() != small.data_ptr()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(workspace((1,), torch.float32, cpu).data_ptr()))
    thread.start()
    thread.join()
    assert seen != [again.data_ptr()]
    assert workspace((CHUNK + 1,), torch.float32, cpu).data_ptr() != large.data_ptr()  # too much to keep
    assert workspace((CHUNK,), torch.float32, cpu).data_ptr() == large.data_ptr()


def test_float16_does_not_overflow_where_the_hardware_has_no_bfloat16(monkeypatch):
    """Codes go up to 127, and are summed before their scale: far beyond the largest float16."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    linear_module.compute_dtype.cache_clear()
    try:
        layer = make("int8", some_weight(64, 4096).abs())
        x = (torch.rand(layer.FEW + 1, 4096) * 8).half()
        y = layer(x)
        assert y.dtype == torch.float16
        assert (y.float() - layer.reference(x.float())).abs().max() < 1e-2 * y.float().abs().max()
    finally:
        linear_module.compute_dtype.cache_clear()
