"""The filter on a stream: the same result however a text is cut, nothing shown too early, nothing held too long."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.engine.errors import BadParameter
from lessonlib.security import shapes
from lessonlib.security.evaluation.ordinary_answers import FAMILIES, modules
from lessonlib.security.evaluation.output import DISGUISES, KINDS_MADE, PROMPT, held_back
from lessonlib.security.evaluation.output_samples import contexts, sample
from lessonlib.security.output_filter import OutputFilter
from lessonlib.security.rules import compiled
from lessonlib.security.streaming import BLOCK, MAX_FINDINGS, MODES, StreamingOutputFilter

from ..engine.conftest import QUIET, is_one_sentence

THOROUGH = settings(QUIET, max_examples=250)
TOKEN = "zephyr-lantern-quokka-31"
POLICIES = {mode: OutputFilter(mode, system_prompt=PROMPT, secrets=[TOKEN]) for mode in MODES}
JOINTS = [
    "",
    " ",
    "\n",
    "\\n",
    '"',
    "'",
    " = ",
    ": ",
    "=",
    "|",
    "@",
    ".",
    "-",
    "_",
    "/",
    "+1 ",
    "\0",
    "é",
    "Ａ",
    "\ud800",
    "中",
    "\u200b",
]


@st.composite
def texts(draw) -> str:
    """Secrets, halves of secrets, pieces of the prompt and ordinary answers, stuck together anyhow."""
    random = Random(draw(st.integers(0, 2**32)))
    parts = []
    for _ in range(draw(st.integers(1, 7))):
        what = draw(st.sampled_from(["secret", "secret", "prompt", "ordinary", "name", "noise"]))
        if what == "secret":
            part = sample(random.choice(KINDS_MADE), random).written
        elif what == "prompt":
            start, length = random.randrange(len(PROMPT)), random.randrange(90)
            part = random.choice([*DISGUISES.values()])(
                random.choice([PROMPT[start : start + length], TOKEN])
            )
        elif what == "ordinary":
            part = random.choice([*FAMILIES.values()])(random)[:300]
        elif what == "name":
            part = random.choice(
                ["password", "api_key", "the secret is ", "AWS secret key", "phone", "heroku: "]
            )
        else:
            part = "".join(random.choices("aB1-_. @:/=+\\\n" + "\ud800é", k=random.randrange(30)))
        if random.random() < 0.3:
            part = part[: random.randrange(len(part) + 1)]
        parts += [part, random.choice(JOINTS)]
    return "".join(parts)


def pushed(stream: StreamingOutputFilter, pieces: list[str]) -> list[str]:
    shown = []
    for piece in pieces:
        shown.append(stream.push(piece))
        assert stream.held <= stream.max_held
    return [*shown, stream.finish()]


def outcome(result):
    return result.findings, result.total, result.blocked


@THOROUGH
@given(texts(), st.sampled_from(MODES), st.integers(0, 2**32), st.sampled_from([1, 2, 5, 17, 80, 600]))
def test_any_chunking_of_any_text_gives_what_the_whole_text_gives(text, mode, seed, longest):
    whole, random = POLICIES[mode].filter(text), Random(seed)
    pieces, rest = [], text
    while rest:
        size = random.randint(0, longest)
        pieces.append(rest[:size])
        rest = rest[size:]
    stream = POLICIES[mode].stream()
    shown = pushed(stream, pieces)
    assert "".join(shown) == whole
    assert outcome(stream) == outcome(whole)


@pytest.mark.parametrize("kind", KINDS_MADE)
def test_every_kind_of_secret_is_held_at_every_cut(kind):
    policy, random = OutputFilter(), Random(kind)
    answers = [answer for _, answer in contexts(sample(kind, random))]
    for answer in answers:
        assert "".join(pushed(policy.stream(), list(answer))) == policy.filter(answer)
    answer = answers[0][:700]
    whole = policy.filter(answer)
    for cut in range(len(answer) + 1):
        stream = policy.stream()
        first = stream.push(answer[:cut])
        assert first == whole[: len(first)]
        assert first + stream.push(answer[cut:]) + stream.finish() == whole


def test_pieces_longer_than_a_block_are_cut_without_a_trace():
    policy, random = OutputFilter(system_prompt=PROMPT), Random(5)
    filler = "".join(text for _, text in modules("held out"))
    for offset in (0, 1, 7, 30, 200):  # the edge of the block falls before, into and behind the secrets
        secrets_ = "".join(
            f" {sample(kind, random).written} " for kind in ("jwt", "private_key", "github_token", "iban")
        )
        text = filler[: BLOCK - offset] + secrets_ + " ".join(PROMPT) + filler[: 2 * BLOCK]
        whole = policy.filter(text)
        assert len(whole.findings) >= 5
        stream = policy.stream()
        assert "".join(pushed(stream, [text[i : i + 997] for i in range(0, len(text), 997)])) == whole
        assert outcome(stream) == outcome(whole)


def test_what_is_shown_is_the_original_outside_the_findings():
    policy, random = OutputFilter(), Random(8)
    for _ in range(30):
        text = " ".join(sample(random.choice(KINDS_MADE), random).written for _ in range(4))
        result = policy.filter(text)
        expected, at = "", 0
        for finding in result.findings:
            assert at <= finding.start < finding.end
            expected += f"{text[at : finding.start]}[REDACTED:{finding.kind}]"
            at = finding.end
        assert result == expected + text[at:]


def test_ordinary_text_is_held_back_for_a_word_or_two_only():
    text = "".join(text for _, text in modules("held out"))[:30_000]
    alone, guarded = held_back(OutputFilter(), text), held_back(OutputFilter(system_prompt=PROMPT), text)
    assert sum(alone) / len(alone) < 6 and max(alone) < 80
    assert sum(guarded) / len(guarded) < 16 and max(guarded) < 120


def test_a_secret_that_never_ends_is_swallowed_without_being_kept():
    stream, random = OutputFilter().stream(), Random(1)
    head = sample("private_key", random).written[:200]
    assert stream.push(f"key: {head}") == "key: [REDACTED:private_key]"
    for _ in range(100):
        assert stream.push("A" * 100) == ""
        assert len(stream._text) <= stream.max_held + 100
    shown = stream.push("A" * 20_000 + "! The rest.") + stream.finish()
    assert (
        shown.endswith("! The rest.") and "A" * 3000 in shown
    )  # no key is longer than the limit of its tail


def test_memory_does_not_grow_with_the_text():
    stream = OutputFilter(system_prompt=PROMPT).stream()
    for i in range(3 * MAX_FINDINGS):
        stream.push(f"Write to ada{i}@maple-bakery.com, or not. ")
        assert len(stream._text) <= stream.max_held + 200 and len(stream._view) == len(stream._text)
        assert len(stream._waiting) < 200 and len(stream._canaries._places) < 200
    stream.push("x" * 1_000_000)
    assert len(stream._text) <= BLOCK + stream.max_held
    stream.finish()
    assert len(stream.findings) == MAX_FINDINGS and stream.total == 3 * MAX_FINDINGS


def test_block_shows_what_came_before_and_nothing_after():
    stream = OutputFilter("block").stream()
    shown = pushed(stream, list("Write to ada@maple-bakery.com or grace@maple-bakery.com, bye."))
    assert "".join(shown) == "Write to [BLOCKED:email]"
    assert stream.blocked and stream.total == 2


def test_log_shows_everything_at_once():
    stream = OutputFilter("log").stream()
    pieces = ["Write to ada@map", "le-bakery.com", "."]
    assert [stream.push(piece) for piece in pieces] == pieces and stream.held == 0
    assert stream.finish() == "" and [f.kind for f in stream.findings] == ["email"] and not stream.blocked


def test_a_finished_stream_takes_no_more():
    stream = StreamingOutputFilter()
    assert stream.push("Hi") + stream.finish() == "Hi"
    assert stream.finish() == ""
    with pytest.raises(BadParameter) as told:
        stream.push("more")
    assert is_one_sentence(str(told.value))


# ---------------------------------------------------------------- the beginnings of a shape


@st.composite
def small_shapes(draw, depth: int = 3) -> shapes.Shape:
    if depth == 0 or draw(st.booleans()):
        if draw(st.booleans()):
            return shapes.text(draw(st.text("ab", min_size=1, max_size=2)), draw(st.booleans()))
        least = draw(st.integers(0, 2))
        return shapes.some(
            draw(st.sampled_from(["a", "ab", "^a"])), least, draw(st.integers(max(1, least), 2))
        )
    parts = draw(st.lists(small_shapes(depth - 1), min_size=1, max_size=2))
    how = draw(st.sampled_from(["seq", "one_of", "maybe", "times", "secret"]))
    if how == "times":
        return shapes.times(parts[0], draw(st.integers(0, 1)), draw(st.integers(1, 2)))
    return getattr(shapes, how)(*parts)


@THOROUGH
@given(small_shapes())
def test_beginnings_are_exactly_the_beginnings_of_matches(shape):
    longest = min(shape.longest, 6)
    words = ["".join(w) for n in range(longest + 1) for w in itertools.product("abA", repeat=n)]
    whole, beginning = compiled(shape.regex), compiled(shape.beginning)
    matches = [word for word in words if whole.fullmatch(word.encode())]
    begun = {word[:n] for word in matches for n in range(len(word) + 1)}
    found = {word for word in words if beginning.fullmatch(word.encode())}
    assert begun <= found
    if shape.longest <= longest:  # otherwise a beginning may belong to a match too long to be listed
        assert found == begun | ({""} if matches or found == {""} else set())
        assert not any(whole.fullmatch(bytes(word)) for word in itertools.product(b"ab", repeat=longest + 1))
