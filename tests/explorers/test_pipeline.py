"""The pipeline runs the real engine: its tokens are generate()'s, its data is what really happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonlib import explorers
from lessonlib.engine import generate, load_model, load_tokenizer
from lessonlib.engine.errors import BadParameter, EmptyPrompt, PromptTooLong

PROMPT = "def f(x):\n    return"


class Browser:
    """What the page does: asks, and collects the answers."""

    def __init__(self, widget):
        self.widget, self.answers = widget, []
        widget.send = self.answers.append

    def ask(self, do: str, temperature: float = 0.0):
        self.widget._answer(None, {"do": do, "temperature": temperature}, [])
        return self.answers[-1]


def test_greedy_tokens_are_those_of_generate(tiny: Path):
    browser = Browser(explorers.pipeline(tiny, PROMPT))
    for _ in range(7):
        browser.ask("next")
    steps = browser.widget.data["steps"]
    prompt = load_tokenizer(tiny).encode(PROMPT)
    assert prompt + [step["chosen"][1] for step in steps] == generate(load_model(tiny), prompt, max_tokens=8)
    assert [(step["processed"], step["held"]) for step in steps] == [
        (len(prompt), 0),
        *((1, len(prompt) + i) for i in range(7)),
    ]
    for step in steps:
        assert step["chosen"][:2] == step["top"][0][:2]
        assert step["shape"] == [1, 512]


def test_the_cache_is_not_mentioned_before_there_is_something_in_it(tiny: Path):
    browser = Browser(explorers.pipeline(tiny, PROMPT))
    count = len(load_tokenizer(tiny).encode(PROMPT))
    assert browser.widget._stages()[0][0] == "1  Prompt"
    assert browser.widget._stages()[1][1] == f"{count} tokens to read"
    browser.ask("next")
    assert browser.widget._stages()[1][1] == f"1 token to read, {count} in the cache"


def test_the_text_is_what_the_tokenizer_decodes(tiny: Path):
    browser = Browser(explorers.pipeline(tiny, PROMPT))
    for _ in range(30):
        browser.ask("next", temperature=1.5)
    steps = browser.widget.data["steps"]
    written = "".join(step["added"] for step in steps)
    decoded = load_tokenizer(tiny).decode([step["chosen"][1] for step in steps])
    assert decoded.startswith(written) and set(decoded[len(written) :]) <= {"\ufffd"}


def test_reset_starts_the_same_story_again(tiny: Path):
    browser = Browser(explorers.pipeline(tiny, PROMPT, temperature=1.0, seed=5))
    for _ in range(5):
        browser.ask("next", temperature=1.0)
    first = [step["chosen"] for step in browser.widget.data["steps"]]
    answer = browser.ask("reset", temperature=1.0)
    assert len(answer["steps"]) == 1
    for _ in range(5):
        browser.ask("next", temperature=1.0)
    assert [step["chosen"] for step in browser.widget.data["steps"]] == first


def test_the_end_of_the_context_is_one_sentence(tiny: Path):
    browser = Browser(explorers.pipeline(tiny, "x " * 120))
    for _ in range(260):
        if "error" in browser.ask("next", temperature=1.5):
            break
    assert "press Reset" in browser.answers[-1]["error"]
    assert "steps" in browser.ask("reset")


def test_bad_calls_raise_the_engine_errors(tiny: Path):
    with pytest.raises(EmptyPrompt):
        explorers.pipeline(tiny, "")
    with pytest.raises(BadParameter, match="temperature"):
        explorers.pipeline(tiny, "a", temperature=-1)
    with pytest.raises(EmptyPrompt):
        explorers.next_token(tiny, tiny, "")
    with pytest.raises(PromptTooLong, match="up to 64 tokens"):
        explorers.next_token(tiny, tiny, "x " * 200)


def test_the_browser_says_what_becomes_of_the_token(node):
    said = node(
        "pictures/pipeline.js",
        'input.map(m.outcome).concat(m.textParts([{added: "a"}, {added: "b"}, {added: "c"}], 2))',
        [{"added": "x", "ends": False}, {"added": "", "ends": False}, {"added": "", "ends": True}],
    )
    assert said == [
        "is appended, and round it goes",
        "not a whole character yet",
        "the model ends its text here",
        "a",
        "b",
    ]
