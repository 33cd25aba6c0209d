"""The numbers that the kernels are told about a step, against loops that a reader can check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import Transformer
from lessonlib.engine.cuda import available, cuda_model
from lessonlib.engine.cuda.plan import bucket, cut, gather, spread
from lessonlib.engine.paged_cache import Span

from ..conftest import tiny_config

ROOT = Path(__file__).parents[3]


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[Span], int]:
    size = draw(st.sampled_from([1, 3, 16]))
    spans = []
    for _ in range(draw(st.integers(1, 6))):
        start, count = draw(st.integers(0, 60)), draw(st.integers(1, 50))
        blocks = -(-(start + count) // size) + draw(st.integers(0, 2))
        spans.append(
            Span(draw(st.lists(st.integers(0, 999), min_size=blocks, max_size=blocks)), start, count)
        )
    return spans, size


@given(steps())
def test_every_new_token_has_its_position_and_its_slot(step: tuple[list[Span], int]) -> None:
    spans, size = step
    positions, slots = spread(gather(spans), size)
    expected = [(table, p) for table, start, count in spans for p in range(start, start + count)]
    assert positions.tolist() == [p for _, p in expected]
    assert slots.tolist() == [table[p // size] * size + p % size for table, p in expected]


@given(steps(), st.integers(1, 40))
def test_pieces_cover_every_token_once_and_never_two_sequences(step, most: int) -> None:
    spans, _ = step
    packed = gather(spans)
    covered = []
    for first, position, count, offset in cut(packed, most).tolist():
        assert 1 <= count <= most
        covered += [(first + i, position + i, offset) for i in range(count)]
    expected, place, offset = [], 0, 0
    for table, start, count in spans:
        assert packed.tables[offset : offset + len(table)].tolist() == table
        expected += [(place + i, start + i, offset) for i in range(count)]
        place, offset = place + count, offset + len(table)
    assert sorted(covered) == expected


@pytest.mark.parametrize("most", [1, 7, 256, 300])
def test_buckets_hold_the_rows_and_are_few(most: int) -> None:
    sizes = [bucket(rows, most) for rows in range(1, most + 1)]
    assert all(rows <= size <= most for rows, size in enumerate(sizes, start=1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) <= 6 + most // 32 + 1


def test_without_a_gpu_the_plain_model_comes_back() -> None:
    model = Transformer(tiny_config())
    assert not available(torch.device("cpu"))
    assert cuda_model(model) is model


def test_nothing_is_imported_until_it_is_needed() -> None:
    """The engine, and this package's front door, on a machine where there is no Triton."""
    code = (
        "import sys; sys.modules['triton'] = None; "  # an import of it would fail
        "import lessonlib, lessonlib.engine.cuda, lessonlib.engine.cuda.plan; "
        "assert 'lessonlib.engine.cuda.matmul' not in sys.modules"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
