"""The browser's dollars are Python's, and both are what the bills would say."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import explorers
from lessonlib.engine.errors import BadParameter
from lessonlib.explorers.pictures.deployment import (
    AMOUNTS,
    EXAMPLES,
    NAMES,
    break_even,
    capacity,
    cost,
    machines,
    measured,
    money,
    power,
    short,
    title_text,
)

from ..engine.conftest import QUIET

PICTURE = "pictures/deployment.js"
NOWHERE = Path("no", "such", "folder")


def some_settings(count: int) -> list[dict[str, float]]:
    """The examples, each number made up to thirty times smaller or larger."""
    dice = random.Random(5)
    return [
        {name: value * 30 ** dice.uniform(-1, 1) for name, value in EXAMPLES.items()} for _ in range(count)
    ]


settings = st.fixed_dictionaries(
    {name: st.floats(value / 30, value * 30) for name, value in EXAMPLES.items()}
)
amounts = st.floats(1e4, 1e10)


def test_a_bill_worked_out_by_hand():
    at = EXAMPLES | {
        "api_in": 0.5,
        "api_out": 1.5,
        "prompt_ratio": 3,
        "server_hour": 3.6,
        "server_speed": 1000,
        "computer_price": 730,
        "computer_years": 2,
        "computer_speed": 10,
        "computer_watts": 36,
        "electricity": 0.5,
    }
    assert cost("api", at, 12_345) == pytest.approx(1.5 + 3 * 0.5)
    # 86.4 M tokens a day for 86.40 dollars, when it is always busy; a tenth of the work costs ten times as much.
    assert cost("server", at, 86_400_000) == pytest.approx(1.0)
    assert cost("server", at, 8_640_000) == pytest.approx(10.0)
    # 1 dollar a day, and 100,000 seconds at 36 W: a kilowatt-hour.
    assert power(at) == pytest.approx(0.5)
    assert cost("computer", at, 864_000) == pytest.approx(1 / 0.864 + 0.5)
    assert machines(10, 864_000) == 1 and machines(10, 864_001) == 2
    assert cost("computer", at, 1_728_000) == pytest.approx(cost("computer", at, 864_000))
    assert break_even("server", at) == pytest.approx(86.4 / 3 * 1e6)
    assert break_even("computer", at) == pytest.approx(1 / 2.5 * 1e6)


@given(at=settings, tokens=amounts)
@QUIET
def test_more_work_on_one_machine_is_cheaper_by_the_token(at: dict[str, float], tokens: float):
    assert cost("api", at, tokens) == cost("api", at, 2 * tokens)
    for who in ("server", "computer"):
        speed = at[f"{who}_speed"]
        if machines(speed, 2 * tokens) == 1:
            assert cost(who, at, 2 * tokens) < cost(who, at, tokens)
        # However many machines: never cheaper than one that is always busy.
        assert cost(who, at, tokens) >= cost(who, at, capacity(speed)) * (1 - 1e-9)


@given(at=settings, who=st.sampled_from(["server", "computer"]))
@QUIET
def test_the_break_even_is_where_the_costs_meet(at: dict[str, float], who: str):
    even, full = break_even(who, at), capacity(at[f"{who}_speed"])
    if even is None:
        assert cost(who, at, full) >= cost("api", at, full) * (1 - 1e-9)
    else:
        assert even <= full
        assert cost(who, at, even * (1 - 1e-6)) == pytest.approx(cost("api", at, even), rel=1e-4)
        assert cost(who, at, even / 2) > cost("api", at, even / 2)


def test_the_browser_sends_the_same_bill(node):
    cases = [(at, tokens) for at in some_settings(60) for tokens in AMOUNTS[::5]]
    found = node(
        PICTURE,
        """input.map(([at, tokens]) => [
            ["api", "server", "computer"].map((who) => m.cost(who, at, tokens)),
            ["server", "computer"].map((who) => m.breakEven(who, at)),
            m.machines(at.server_speed, tokens),
            m.titleText(at, {tokens, rule: "anywhere"}),
        ])""",
        cases,
    )
    for (at, tokens), (costs, evens, count, title) in zip(cases, found, strict=True):
        assert costs == pytest.approx([cost(who, at, tokens) for who in NAMES])
        assert evens == [
            None if even is None else pytest.approx(even)
            for even in (break_even("server", at), break_even("computer", at))
        ]
        assert count == machines(at["server_speed"], tokens)
        assert title == title_text(at, tokens)
    assert {title.split(" is cheapest")[0].rsplit("a day ", 1)[1] for *_, title in found} == set(
        NAMES.values()
    )
    assert any("Even a server" in title for *_, title in found)


def test_money_and_amounts_are_written_alike(node):
    values = [0, 0.00123, 0.05, 0.1, 0.184, 0.999, 1, 1.005, 12.3, 99.99, 100, 1234.5, 1e6]
    assert node(PICTURE, "input.map(m.money)", values) == [money(value) for value in values]
    assert [money(value) for value in (0, 0.0029, 0.1, 1.5, 2160)] == [
        "$0",
        "$0.0029",
        "$0.10",
        "$1.50",
        "$2,160",
    ]
    assert node("shared/numbers.js", "input.map(m.short)", AMOUNTS) == [short(amount) for amount in AMOUNTS]


def test_a_rule_about_the_texts_takes_options_out(node):
    at = EXAMPLES | {"computer_speed": 0.5}  # a slow computer is the dearest
    assert max(NAMES, key=lambda who: cost(who, at, 1e9)) == "computer"
    rules = ["anywhere", "ours", "here"]
    found = node(
        PICTURE,
        """input.rules.map((rule) => [
            m.cheapest(input.at, 1e6, rule).who,
            m.titleText(input.at, {tokens: 1e6, rule}),
            m.cheapestRuns(input.at, rule, 1e4, 1e10).map(([from, to, option]) => [from, to, option.who]),
        ])""",
        {"at": at, "rules": rules},
    )
    allowed = dict(
        zip(rules, (["api", "server", "computer"], ["server", "computer"], ["computer"]), strict=True)
    )
    for rule, (who, title, runs) in zip(rules, found, strict=True):
        assert who == min(allowed[rule], key=lambda who: cost(who, at, 1e6))
        assert {option for *_, option in runs} <= set(allowed[rule])
        assert runs[0][0] == pytest.approx(1e4) and runs[-1][1] == pytest.approx(1e10)
        assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))
        assert ("what your rule allows" in title) == (rule == "ours")
    assert "24 computers" in found[2][1]


def test_the_comparison_answers_to_the_controls(node):
    def rows(tokens: float, **changed: float) -> dict[str, list[str]]:
        given = {"at": EXAMPLES | changed, "tokens": tokens}
        return {name: cells for name, *cells in node(PICTURE, "m.comparison(input.at, input)", given)}

    small, large = rows(1e6), rows(1e9)
    for name in ("Cost of 30 days", "Machines of yours", "How busy they are"):
        assert small[name] != large[name]
    private = "Privacy: tokens a day that leave the user's machine"
    assert small[private] == ["3 M", "3 M", "none"]
    assert rows(1e6, prompt_ratio=9)[private] == ["10 M", "10 M", "none"]
    slow = rows(1e6, api_ms=120, server_ms=7)["Latency: the network adds at least"]
    assert slow == ["120 ms", "7 ms", "0 ms"]
    assert all(len(cells) == 3 for cells in small.values())


def test_speeds_come_from_the_benchmarks(tmp_path: Path):
    gpu = {
        "machine": "NVIDIA X1, something",
        "when": "2031-02-03",
        "requests": 9,
        "mixed_tokens": [500, 1000],
        "decode": {"bf16": {"seconds_batch_32": [0.02, 0.01, 0.04]}, "int4": {"bytes": 4e9}},
        "mixed": {"ours": {"seconds": [4.0, 2.0, 5.0]}},
    }
    cpu = {
        "when": "2031-02-04",
        "machine": {"cores": 6},
        "memory_gb_per_s": {"read": 80.0},
        "rows": [
            {"engine": "llama.cpp", "variant": "f16", "tokens_per_s": 1.0},
            {"engine": "llama.cpp", "variant": "q4_0", "tokens_per_s": 33.0},
        ],
    }
    (tmp_path / "cuda.json").write_text(json.dumps(gpu))
    assert measured(tmp_path) == {"server": [], "computer": []}
    (tmp_path / "decode.json").write_text(json.dumps({"smollm2-360m": cpu}))
    found = measured(tmp_path)
    assert [each["speed"] for each in found["server"]] == [1600, 250]
    assert [each["speed"] for each in found["computer"]] == [20, 33]
    assert "X1, 2031-02-03" in found["server"][0]["words"] and "at most" in found["computer"][0]["words"]

    widget = explorers.deployment(results=tmp_path, computer_speed=5)
    start = widget.data["defaults"]
    assert (start["server_speed"], start["server_preset"]) == (1600, "0")
    assert (start["computer_speed"], start["computer_preset"]) == (5, "own")


def test_without_benchmarks_the_examples_stand():
    start = explorers.deployment(results=NOWHERE).data["defaults"]
    assert start["server_speed"] == EXAMPLES["server_speed"] and start["server_preset"] == "own"


def test_the_prices_are_called_examples():
    widget = explorers.deployment(results=NOWHERE)
    assert f"examples of {widget.data['seen']}" in widget.summary()
    words = [label.get_text() for label in widget.figure().texts]
    assert any("EXAMPLE prices" in text for text in words)


@pytest.mark.parametrize("tokens", [1e4, 1e7, 1e10])
def test_no_label_is_cut_off_on_paper(tokens: float):
    figure = explorers.deployment(tokens=tokens, results=NOWHERE).figure()
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        for label in ax.texts:
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, label.get_text()


def test_bad_calls_say_what_to_do():
    with pytest.raises(BadParameter, match="it knows api_in"):
        explorers.deployment(gpu_price=1)
    with pytest.raises(BadParameter, match="server_speed=0 makes no sense; give a number above 0"):
        explorers.deployment(server_speed=0)
    with pytest.raises(BadParameter, match="api_in=-1 makes no sense; give a number 0 or more"):
        explorers.deployment(api_in=-1)
    with pytest.raises(BadParameter, match="tokens=0"):
        explorers.deployment(tokens=0)
