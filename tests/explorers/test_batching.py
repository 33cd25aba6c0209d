"""The batching picture says the same in Python, in the browser and on paper; what it cannot show it refuses."""

from __future__ import annotations

import pytest

from lessonlib import explorers
from lessonlib.engine.errors import BadParameter
from lessonlib.explorers import traces
from lessonlib.explorers.pictures.batching import duration

PICTURE = "pictures/batching.js"
SIM = "shared/batching_sim.js"
FINDINGS = {
    "long": "Continuous batching is done after",
    "equal": "Here static batching is as good",
    "prompt": "A long prompt lets the others wait",
    "rush": "The KV cache is too small",
    "recorded": "Continuous batching is done after",
}


def told_by_the_browser(node, data, state, expression: str):
    cost = data["steps"] if state["clock"] == "steps" else data["devices"][state["device"]]["cost"]
    given = {"state": state, "data": {**data, "cost": cost}}
    runs = node(SIM, "m.simulate(input.state.requests, input.state, input.data)", given)
    return node(PICTURE, expression, {"runs": runs, "state": state})


def test_there_is_a_finding_for_every_situation():
    assert set(FINDINGS) == set(traces.PRESETS)


@pytest.mark.parametrize("preset", FINDINGS)
@pytest.mark.parametrize("clock", ["ms", "steps"])
def test_the_sentence_is_the_same_in_python_and_javascript(node, preset: str, clock: str):
    widget = explorers.batching(preset, clock=clock)
    state = widget.data["defaults"]
    title = told_by_the_browser(
        node,
        widget.data,
        state,
        "m.finding(input.runs, input.state, input.state.clock === 'steps')",
    )
    assert widget.summary().startswith(title + " ")
    if clock == "ms":
        assert title.startswith(FINDINGS[preset])
    assert len(title) <= 108, "three lines at 400 px, two at 560, one at 1100"


@pytest.mark.parametrize("device", traces.DEVICES)
def test_the_words_fit_into_their_lines(node, device: str):
    for preset in FINDINGS:
        widget = explorers.batching(preset, device=device)
        state = widget.data["defaults"]
        words = told_by_the_browser(node, widget.data, state, "m.summaryText(input.runs, false)")
        assert len(words) < 140, words


def test_times_are_rounded_alike(node):
    seconds = [0, 0.00448, 0.00995, 0.0099501, 0.0125, 0.9994, 0.9995, 1.005, 9.994, 9.996, 12.25, 12345.678]
    steps = [1, 1.04, 1.5, 2.25, 41, 1234]
    expected = [duration(value, False) for value in seconds] + [duration(value, True) for value in steps]
    told = node(
        "shared/batching_draw.js",
        "[...input[0].map((t) => m.duration(t, false)), ...input[1].map((t) => m.duration(t, true))]",
        [seconds, steps],
    )
    assert told == expected


def test_situations_lie_within_the_controls_and_their_story_holds():
    for preset in traces.PRESETS:
        explorers.batching(preset)  # refuses what the sliders cannot show
    runs = {name: explorers.batching(name)._runs() for name in FINDINGS}
    assert runs["equal"]["static"].duration == pytest.approx(runs["equal"]["continuous"].duration, rel=0.02)
    assert runs["prompt"]["continuous"].pause > 5 * runs["prompt"]["chunked"].pause
    assert all(run.preemptions for policy, run in runs["rush"].items() if policy != "static")
    assert max(runs["rush"]["static"].blocks) > traces.PRESETS["rush"].blocks
    for name in ("long", "recorded"):
        assert runs[name]["static"].duration > 1.3 * runs[name]["continuous"].duration


def test_your_own_requests_and_settings():
    widget = explorers.batching(
        requests=[(0, 40, 5), (2, 8, 1)],
        max_num_seqs=1,
        max_num_batched_tokens=64,
        num_blocks=4,
        clock="steps",
    )
    start = widget.data["defaults"]
    assert start["preset"] == "own"
    assert start["requests"] == [
        {"arrival": 0, "prompt": 40, "output": 5},
        {"arrival": 2, "prompt": 8, "output": 1},
    ]
    assert (start["slots"], start["chunk"], start["blocks"]) == (1, 64, 4)
    assert "after 6 steps" in widget.summary() and "2 requests on 1 slot." in widget.summary()
    assert explorers.batching().data["defaults"]["preset"] == "long"


@pytest.mark.parametrize(
    "asked",
    [
        {"preset": "quiet"},
        {"clock": "hours"},
        {"device": "abacus"},
        {"requests": []},
        {"requests": [(0, 1, 1)] * 13},
        {"requests": [(-1, 1, 1)]},
        {"requests": [(0, 0, 1)]},
        {"requests": [(0, 1, 65)]},
        {"max_num_seqs": 7},
        {"max_num_batched_tokens": 2048},
        {"num_blocks": 1.5},
    ],
    ids=str,
)
def test_what_the_picture_cannot_show_is_refused_in_one_sentence(asked):
    with pytest.raises(BadParameter) as refused:
        explorers.batching(**asked)
    assert "choose" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("preset", FINDINGS)
def test_no_label_is_cut_off_on_paper(preset: str):
    figure = explorers.batching(preset).figure()
    renderer = figure.canvas.get_renderer()
    for text in [
        *figure.texts,
        *(label for ax in figure.axes for label in [*ax.texts, *ax.get_yticklabels()]),
    ]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text.get_text()
