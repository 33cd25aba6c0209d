"""The picture of paged memory: every event is what BlockPool and PagedCache did, and the memory holds what it shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import explorers
from lessonlib.engine import DenseCache, costs
from lessonlib.explorers.paging import BLOCK_SIZE, CONFIG, LONGEST, Recorder, blocks, record
from tests.engine.conftest import QUIET
from tests.engine.fakes import check_pool

PICTURE = "pictures/paged_blocks.js"


def check_event(event: dict[str, Any], size: int) -> None:
    """What is drawn follows from the block tables, and each token lies in memory where its table says."""
    for block, shown in enumerate(event["blocks"]):
        holders = [one["name"] for one in event["sequences"] if block in one["table"]]
        assert shown["holders"] == holders
        assert (shown["state"] in ("held", "shared")) == bool(holders)
        assert (shown["state"] == "shared") == (len(holders) > 1)
        assert (shown["turn"] is None) == bool(holders)
    turns = [block["turn"] for block in event["blocks"] if block["turn"] is not None]
    assert sorted(turns) == list(range(1, len(turns) + 1))
    filled = set()
    for one in event["sequences"]:
        words = one["text"].split()
        assert len(words) == one["tokens"]
        for position in range(one["computed"]):
            block = one["table"][position // size]
            assert event["blocks"][block]["words"][position % size] == words[position]
            filled.add((block, position % size))
    held = sum(bool(block["holders"]) for block in event["blocks"])
    assert event["paged"] == {"held": held * size, "filled": len(filled)}


def of_kind(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The event before, and the first one of this kind."""
    events = record()
    i = next(i for i, event in enumerate(events) if event["kind"] == kind)
    return events[i - 1], events[i]


def test_every_event_of_the_scenario_is_true():
    events = record()
    for event in events:
        check_event(event, BLOCK_SIZE)
    kinds = {event["kind"] for event in events}
    assert kinds == {"arrive", "share", "take", "run", "name", "fork", "copy", "evict", "wait", "finish"}
    assert all(len(event["sentence"]) <= 100 and event["sentence"].endswith(".") for event in events)
    assert record() == events


WORDS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=9).map(" ".join)
ACTION = st.tuples(st.sampled_from(["arrive", "say", "fork", "finish"]), st.integers(0, 5), WORDS)


@QUIET
@given(st.lists(ACTION, max_size=25), st.integers(1, 8), st.integers(1, 4))
def test_any_scenario_is_recorded_as_it_happens(actions, num_blocks, size):
    run = Recorder(num_blocks, size)
    for i, (what, which, text) in enumerate(actions):
        running = [name for name, one in run.live.items() if one.table]
        name = running[which % len(running)] if running else ""
        before = len(run.events)
        if what == "arrive" and run.pool.blocks_for(len(text.split())) <= num_blocks:
            run.arrive(f"S{i}", text)
            if not run.live[f"S{i}"].table:
                assert run.events[-1]["kind"] == "wait"
                del run.live[f"S{i}"]
        elif what == "say" and name:
            one = run.live[name]
            longer = run.pool.blocks_for(one.computed + len(text.split())) - len(one.table)
            if longer + 1 <= run.pool.free and one.computed + len(text.split()) <= LONGEST:
                run.say(name, text)
        elif what == "fork" and name:
            run.fork(name, f"S{i}")
        elif what == "finish" and name:
            run.finish(name)
        check_pool(run.pool, [one.table for one in run.live.values()])
        for event in run.events[before:]:
            check_event(event, size)


def test_a_shared_beginning_is_found_and_not_run_again():
    before, event = of_kind("share")
    shared = event["changed"]
    one = next(one for one in event["sequences"] if one["name"] == event["name"])
    assert one["table"] == shared and one["computed"] == len(shared) * BLOCK_SIZE
    assert event["paged"] == before["paged"], "sharing takes no memory"
    assert event["slabs"]["held"] == before["slabs"]["held"] + LONGEST


def test_copy_on_write_copies_the_content_and_changes_one_table():
    before, event = of_kind("copy")
    old, new = event["changed"]
    assert before["blocks"][old]["state"] == "shared" and before["blocks"][new]["state"] == "free"
    assert event["blocks"][old]["words"] == event["blocks"][new]["words"] != [""] * BLOCK_SIZE
    for one, was in zip(event["sequences"], before["sequences"], strict=True):
        mine = one["name"] == event["name"]
        assert one["table"] == [new if mine and block == old else block for block in was["table"]]


def test_what_was_used_longest_ago_is_evicted_and_no_longer_found():
    before, event = of_kind("evict")
    turns = [before["blocks"][block]["turn"] for block in event["changed"]]
    assert turns == list(range(1, len(turns) + 1))
    evicted = [block for block in event["changed"] if before["blocks"][block]["state"] == "kept"]
    assert evicted and blocks(evicted).split(" ", 1)[1] in event["sentence"].split("what ")[1]
    assert any("were evicted" in later["sentence"] for later in record() if later["kind"] == "arrive")


def test_slabs_are_those_of_the_dense_cache():
    for event in record():
        running = sum(bool(one["table"]) for one in event["sequences"])
        if running:
            cache = DenseCache(CONFIG, running, LONGEST)
            assert event["slabs"]["held"] == cache.nbytes // costs.kv_bytes_per_token(CONFIG, 4)
        assert event["slabs"]["filled"] == sum(one["computed"] for one in event["sequences"])


def test_the_words_are_the_same_in_python_and_javascript(node):
    for event in (1, 15, 27):
        widget = explorers.paged_blocks(event)
        text = node(PICTURE, "m.summaryText(input, input.defaults)", dict(widget.data))
        sentence = widget.data["events"][event - 1]["sentence"]
        assert widget.summary() == f"Event {event} of {len(widget.data['events'])}: {sentence} {text}"


def test_events_outside_are_brought_inside():
    last = len(record())
    assert explorers.paged_blocks(0).data["defaults"] == {"event": 1}
    assert explorers.paged_blocks(999).data["defaults"] == {"event": last}


@pytest.mark.parametrize("event", [1, 15, 27, 31])
def test_no_label_is_cut_off_on_paper(event: int):
    figure = explorers.paged_blocks(event).figure()
    renderer = figure.canvas.get_renderer()
    for label in [*figure.texts, *(label for ax in figure.axes for label in ax.texts)]:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, label.get_text()
