"""The load generator's arithmetic, and what it shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lessonlib.serving import bench_report
from lessonlib.serving.bench_report import SLO, Load, Record, Run, Stage, percentile, summarise
from tests.serving.benching import QUIET, URL, answered

TIMES = st.floats(0, 1e6, allow_nan=False)


@QUIET
@given(st.lists(TIMES, min_size=1, max_size=40), st.floats(0, 100), st.floats(0, 100), st.randoms())
def test_percentiles_are_numpy_s_and_stay_in_order(values, p, q, random):
    result = percentile(values, p)
    assert result == pytest.approx(np.percentile(values, p), rel=1e-9, abs=1e-9)
    assert min(values) <= result <= max(values)
    assert percentile(values, min(p, q)) <= percentile(values, max(p, q))
    shuffled = list(values)
    random.shuffle(shuffled)
    assert percentile(shuffled, p) == result


def test_the_times_of_one_request():
    record = Record(due=1.0, sent=1.5, first=2.0, last=4.0, end=4.5, chunks=3, output_tokens=5)
    assert (record.ttft, record.tpot, record.latency) == (1.0, 0.5, 3.5)
    assert replace(record, output_tokens=None).tpot == 1.0  # three chunks, taken for three tokens
    assert replace(record, output_tokens=1, chunks=1, last=2.0).tpot is None
    assert (
        replace(record, output_tokens=5, chunks=1, last=2.0).tpot is None
    )  # all at once: not infinitely fast
    assert replace(record, first=None, last=None, chunks=0, output_tokens=None).ttft == 3.5


def test_goodput_counts_those_that_meet_both_and_failures_as_missed():
    records = [answered(0.1, 0.01), answered(0.3, 0.01), answered(0.1, 0.03), Record(0, 0, error="HTTP 500")]
    records.append(Record(0, 0, error="interrupted"))
    stage = Stage(Load(rate=2), records, seconds=2.0)
    both = summarise(stage, SLO(ttft=0.2, tpot=0.02))
    assert (both.goodput_share, both.goodput) == (1 / 4, 1 / 2)
    assert summarise(stage, SLO(ttft=0.2)).goodput_share == 2 / 4
    assert summarise(stage, SLO(tpot=0.02)).goodput_share == 2 / 4
    assert summarise(stage, SLO(9, 9)).goodput_share == 3 / 4
    assert summarise(stage).goodput is summarise(stage).goodput_share is None
    assert (both.requests, both.completed, both.interrupted, both.errors) == (4, 3, 1, {"HTTP 500": 1})
    assert (both.requests_per_second, both.output_tokens, both.output_tokens_per_second) == (1.5, 33, 16.5)


@QUIET
@given(st.lists(st.tuples(TIMES, TIMES, st.booleans()), max_size=30), TIMES, TIMES)
def test_a_looser_objective_is_never_met_by_fewer(shapes, ttft, tpot):
    records = [answered(a, b) if fine else Record(0, 0, error="timeout") for a, b, fine in shapes]
    stage = Stage(Load(), records, seconds=3.0)
    strict, loose = summarise(stage, SLO(ttft, tpot)), summarise(stage, SLO(2 * ttft, None))
    assert (strict.goodput or 0) <= (loose.goodput or 0) <= loose.requests_per_second
    assert strict.completed + sum(strict.errors.values()) == strict.requests == len(records)


@pytest.mark.parametrize(
    ("counts", "source", "says"),
    [
        ([3, 4], "usage", "as the server counts"),
        ([None], "chunks", "no usage"),
        ([3, None], "both", "some requests"),
        ([], "none", ""),
    ],
)
def test_it_says_who_counted_the_tokens(counts, source, says):
    records = [replace(answered(0.1, 0.1), output_tokens=count) for count in counts]
    summary = summarise(Stage(Load(), records, 1.0))
    assert summary.tokens_from == source
    told = " ".join(bench_report.notes([summary]))
    assert (says in told) and ("Output tokens" in told) == bool(says)


# ---------------------------------------------------------------- what is shown


def runs() -> Run:
    stages = [
        Stage(Load(rate=rate), [answered(0.05 * rate * n, 0.01, due=n) for n in range(1, 21)], 20 / rate)
        for rate in (1.0, 2.5, 4.0)
    ]
    return Run({"base_url": URL}, "m", "2020-01-01T00:00:00+00:00", stages)


def test_the_picture_has_every_line_and_follows_the_figures():
    summaries = [summarise(stage, SLO(0.5, 0.02)) for stage in runs().stages]
    image = bench_report.plot(summaries, "png", SLO(0.5, 0.02))
    with Image.open(io.BytesIO(image)) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    for colour in (bench_report.BLUE, bench_report.VERMILLION, bench_report.GREEN):
        assert tuple(bytes.fromhex(colour[1:])) in colours
    changed = [replace(s, ttft={**s.ttft, "p99": 3.0}) for s in summaries]
    assert (
        bench_report.plot(changed, "png", SLO(0.5, 0.02))
        != image
        == bench_report.plot(summaries, "png", SLO(0.5, 0.02))
    )


@pytest.mark.parametrize(
    "stage", [Stage(Load(users=2)), Stage(Load(rate=1), [Record(0, 0, error="timeout")], 1.0)]
)
def test_a_stage_without_any_answer_can_be_shown(stage):
    summaries = [summarise(stage, SLO(1, 1))]
    assert bench_report.table(summaries).row_count == 15
    assert bench_report.plot(summaries, "svg", SLO(1, 1)).startswith(b"<?xml")
    assert json.loads(bench_report.to_json(Run({}, "m", "", [stage])))["stages"][0]["completed"] == 0
