"""06.read_stream: the text, the time to first token and the time per output token, out of a stream's bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Skip, WrongForm
from ...forms import TYPE, describe, must_be
from . import stream_mistakes as mistakes
from .stream_mistakes import MISCONCEPTIONS, right
from .wire import chunks

KEYS = ("text", "ttft", "tpot")


def read(value: Any, _: Inputs) -> dict[str, Any]:
    """Text and times, plain. Raises WrongForm."""
    wanted = 'a dict {"text": …, "ttft": …, "tpot": …}'
    if not isinstance(value, dict):
        raise must_be(wanted, value)
    if {*value} != {*KEYS}:
        raise WrongForm(TYPE, f"It must return {wanted}; the keys that came are {[*value]}.")
    if not isinstance(value["text"], str):
        raise WrongForm(TYPE, f"text must be a str; it is {describe(value['text'])}.")
    plain: dict[str, Any] = {"text": value["text"]}
    for key in ("ttft", "tpot"):
        number = value[key]
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise WrongForm(TYPE, f"{key} must be a number, or None; it is {describe(number)}.")
        plain[key] = None if number is None else float(number)
    return plain


def expected(inputs: Inputs) -> dict[str, Any]:
    return read(right(inputs), inputs)


def show(inputs: Inputs) -> str:
    """The call, a line for each chunk."""
    lines = "".join(f"    ({time}, {data!r}),\n" for time, data in chunks(inputs))
    return f"read_stream([\n{lines}])"


def valid(inputs: Inputs) -> bool:
    """Whether a server could send this, and each number is beyond doubt."""
    pieces, tokens = inputs["pieces"], inputs["tokens"]
    if any(len(piece) != 2 or not piece[1] for piece in pieces):
        return False
    times = [time for time, _ in pieces]
    if times != sorted(times) or (times and times[0] < 6) or tokens < max(1, len(pieces)):
        return False
    gaps = {b - a for a, b in pairwise(times)}
    if any(0 < gap < 6 for gap in gaps) or (tokens > 1 and pieces and times[0] == times[-1]):
        return False
    wide = any(ord(letter) > 127 for _, said in pieces for letter in said)
    return (inputs.get("_cut") != "letter" or wide) and (
        not inputs.get("_together") or mistakes.together(inputs)
    )


WORDS = ("def", " add", "(a", ", b", "):", "\n", "   ", " return", " a", " +", " b", " total", "\n\n")
WIDE = (" café", "né", " €", " naïve", " ≥", " 😀")


def making(
    tells_apart: Sequence[str] = (), least: int = 2, **style: Any
) -> Callable[[random.Random], Inputs | None]:
    """A generator of streams in this style, on which each of these mistakes changes the answer."""
    told = {m.name: m.gives for m in MISCONCEPTIONS if m.gives}

    def make(rng: random.Random) -> Inputs | None:
        clock, pieces = rng.randint(20, 300), list[list[Any]]()
        for _ in range(rng.randint(least, 5)):
            pieces.append(
                [clock, rng.choice(WIDE if style.get("_cut") == "letter" and not pieces else WORDS)]
            )
            clock += 0 if style.get("_together") and rng.random() < 0.5 else rng.randint(6, 60)
        inputs: Inputs = {"pieces": pieces, "tokens": len(pieces) + rng.randint(0, 4), **style}
        return inputs if valid(inputs) and all(differs(told[m], inputs) for m in tells_apart) else None

    return make


def differs(gives: Callable[[Inputs], Any], inputs: Inputs) -> bool:
    """Whether a mistake shows on these inputs."""
    try:
        given = gives(inputs)
    except Skip:
        return False
    ways = given if isinstance(given, AnyOf) else (given,)
    return all(read(way, inputs) != expected(inputs) for way in ways)


def stream_case(title: str, *examples: Inputs, **case: Any) -> Case:
    return values(title, expected=expected, read=read, tolerance=1e-9, examples=examples, valid=valid, **case)


TEXT = [[40, "def"], [60, " add"], [90, "("]]
CASES = (
    stream_case(
        "Whole events, one at a time: the text, when it began, and the mean gap.",
        {"pieces": TEXT, "tokens": 3, "_role": False},
        make=making(
            [mistakes.DIVIDES_BY_N, mistakes.LAST_PIECE, mistakes.UNTIL_END, mistakes.FROM_SENT], _role=False
        ),
        count=2,
    ),
    stream_case(
        "The first event may hold no text, the last one neither, and a piece may hold several tokens.",
        {"pieces": TEXT, "tokens": 9},
        {"pieces": TEXT, "tokens": 9, "_empty_end": True},
        make=making([mistakes.FIRST_BYTES]),
        count=4,
    ),
    stream_case(
        "An answer of one token has no gap, and one without text has no first token.",
        {"pieces": [[35, "pass"]], "tokens": 1},
        {"pieces": [], "tokens": 1},
    ),
    stream_case(
        "Spaces and line ends belong to the text.",
        {"pieces": [[30, "\n   "], [50, " return"], [70, " a "]], "tokens": 4},
        make=making([mistakes.STRIPS]),
        count=2,
    ),
    stream_case(
        "Several events may arrive in one chunk.",
        {"pieces": [[40, "def"], [40, " add"], [80, "("], [80, "a"]], "tokens": 5, "_together": True},
        make=making([mistakes.ONE_EACH], least=4, _together=True),
        count=2,
    ),
    stream_case(
        "A chunk may end in the middle of a line.",
        {"pieces": TEXT, "tokens": 3, "_cut": "line"},
        make=making([mistakes.CUT], _cut="line"),
        count=3,
    ),
    stream_case(
        "A chunk may end in the middle of a letter.",
        {"pieces": [[40, "# café"], [70, " né"]], "tokens": 6, "_cut": "letter"},
        make=making(_cut="letter"),
        count=2,
    ),
    stream_case(
        "Comments keep a connection alive, the space after `data:` is optional, and lines may end in `\\r\\n`.",
        {"pieces": TEXT, "tokens": 3, "_comments": True},
        {"pieces": TEXT, "tokens": 3, "_space": False},
        {"pieces": TEXT, "tokens": 3, "_ends": "\r\n"},
    ),
    stream_case(
        "A text may say `[DONE]` without being the end.",
        {"pieces": [[40, "print('"], [60, "[DONE]"], [90, "')"]], "tokens": 5},
    ),
)

READ_STREAM = Exercise(
    id="06.read_stream",
    title="Read a stream and time it",
    signature="read_stream(chunks)",
    prepare=lambda inputs: {"chunks": chunks(inputs)},
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        'Begin with lines. Keep a `rest = b""`; for each chunk, `*lines, rest = (rest + data).split(b"\\n")`: the '
        "last part "
        "is the beginning of a line that is not over yet. Try it with a chunk that ends in the middle of one.",
        'Of each line: strip it, go on to the next unless it begins with `b"data:"`, take that off, stop at '
        "`[DONE]`, and "
        "only then `json.loads`. An event may have a `usage`, a choice, both or neither: look before you take.",
        "Keep four things while you read: the text so far, the time of the first chunk that completed a text, the "
        "time of the last one, and the number of tokens. Compute at the very end; with fewer than two tokens the TPOT "
        "is `None`.",
    ),
    analogue="""
A stock ticker writes prices on a paper strip; you get the strip in scraps, torn anywhere, with the minute at which
you got each. A price ends with a semicolon, and a star is no price. When did the *first price* arrive, and the last?

```python
scraps = [(9, "*;1"), (10, "02;10"), (12, "7;"), (15, "*;")]
rest, prices, first, last = "", [], None, None
for minute, scrap in scraps:
    *whole, rest = (rest + scrap).split(";")     # what stands behind the last semicolon waits
    for price in whole:
        if price != "*":
            prices.append(int(price))
            first = minute if first is None else first
            last = minute
# prices [102, 107], first 10, last 12
```

The scrap of minute 9 began the 102, but only in minute 10 could it be read. The star of minute 15 is not the last
price. """,
)
