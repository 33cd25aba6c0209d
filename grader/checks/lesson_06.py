"""Hidden twins of lesson 06's checks: more inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_06 import BREAK_EVEN, LOAD_CURVE, READ_STREAM
from lessonlib.classroom.checks.lesson_06 import break_even as prices
from lessonlib.classroom.checks.lesson_06 import load_curve as curves
from lessonlib.classroom.checks.lesson_06 import read_stream as streams
from lessonlib.classroom.checks.lesson_06 import stream_mistakes as mistakes

from . import Hidden

break_even = Hidden(
    BREAK_EVEN,
    (
        prices.price_case(
            "Without prompts.",
            make=prices.making([prices.ONE_HOUR, prices.PER_TOKEN, prices.IDLE_IS_FREE], ratios=(0,)),
            count=8,
        ),
        prices.price_case(
            "With prompts.",
            make=prices.making([prices.NO_PROMPTS, prices.ONE_FOR_ONE, prices.OTHER_PRICE, prices.TOTAL]),
            count=12,
        ),
        prices.price_case(
            "A server that cannot make so many.",
            make=prices.making([prices.NO_LIMIT], reachable=False),
            count=8,
        ),
        prices.price_case("Close to the limit.", make=prices.making([prices.HOUR_LIMIT]), count=8),
    ),
    forbid=["lessonlib.explorers.pictures.deployment"],
)

read_stream = Hidden(
    READ_STREAM,
    (
        streams.stream_case(
            "Whole events, one at a time.",
            make=streams.making(
                [mistakes.DIVIDES_BY_N, mistakes.LAST_PIECE, mistakes.UNTIL_END, mistakes.FROM_SENT],
                _role=False,
            ),
            count=4,
        ),
        streams.stream_case(
            "A first event without text, pieces of several tokens.",
            make=streams.making([mistakes.FIRST_BYTES]),
            count=6,
        ),
        streams.stream_case(
            "An empty text with the reason for the end, as some servers send it.",
            make=streams.making([mistakes.UNTIL_END], _empty_end=True),
            count=2,
        ),
        streams.stream_case(
            "[DONE] inside a text.",
            {"pieces": [[70, "# "], [95, "not [DONE] yet"], [130, "\n"]], "tokens": 7},
        ),
        streams.stream_case(
            "One token, and no text.",
            {"pieces": [[50, "x"]], "tokens": 1},
            {"pieces": [], "tokens": 1},
        ),
        streams.stream_case("Spaces belong to the text.", make=streams.making([mistakes.STRIPS]), count=4),
        streams.stream_case(
            "Several events in one chunk.",
            make=streams.making([mistakes.ONE_EACH], least=4, _together=True),
            count=4,
        ),
        streams.stream_case(
            "Chunks that end in the middle of a line.",
            make=streams.making([mistakes.CUT], _cut="line"),
            count=5,
        ),
        streams.stream_case(
            "Chunks that end in the middle of a letter.", make=streams.making(_cut="letter"), count=5
        ),
        streams.stream_case("Comments.", make=streams.making(_comments=True), count=2),
        streams.stream_case("No space after data:", make=streams.making(_space=False), count=2),
        streams.stream_case("Another line end.", make=streams.making(_ends="\r\n"), count=2),
    ),
    forbid=["lessonlib.serving.bench"],
)

load_curve = Hidden(
    LOAD_CURVE,
    (
        curves.log_case(
            "One load.",
            make=curves.making(
                [curves.SINGLE_SPEEDS, curves.FROM_ZERO, curves.REQUESTS, curves.PER_MS], loads=1
            ),
            count=4,
        ),
        curves.log_case(
            "Side by side.",
            make=curves.making([curves.SUM_OF_TIMES, curves.SINGLE_SPEEDS, curves.MEDIAN], loads=2),
            count=4,
        ),
        curves.log_case(
            "The knee.", make=curves.making([curves.MOST, curves.QUICKEST, curves.PLACE], loads=4), count=6
        ),
        curves.log_case(
            "Refused requests.", make=curves.making([curves.REFUSED_TOO], loads=3, refusals=True), count=5
        ),
        curves.log_case("Any order.", make=curves.making([curves.UNSORTED], loads=3, shuffled=True), count=4),
    ),
    forbid=["lessonlib.serving.bench", "lessonlib.serving.bench_report"],
)
