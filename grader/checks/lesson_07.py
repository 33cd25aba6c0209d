"""Hidden twins of lesson 07's checks: other scores, scripts, models and streams, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_07 import (
    CHOOSE_THRESHOLD,
    HIDDEN_SIZE,
    STREAM_FILTER,
    SWEEP_DETECTOR,
    TOKEN_LIMITER,
)
from lessonlib.classroom.checks.lesson_07 import choose_threshold as lines
from lessonlib.classroom.checks.lesson_07 import hidden_size as stealing
from lessonlib.classroom.checks.lesson_07 import stream_filter as streams
from lessonlib.classroom.checks.lesson_07 import sweep_detector as sweeps
from lessonlib.classroom.checks.lesson_07 import token_limiter as limits

from . import Hidden

choose_threshold = Hidden(
    CHOOSE_THRESHOLD,
    (
        lines.line_case(
            "The lowest line.",
            ([0.2, 0.8, 0.3, 0.8, 0.1, 0.2, 0.5, 0.4], [0.85, 0.95, 0.1], 0.125),
            make=lines.making(
                [
                    *[lines.STRICTEST, lines.COUNT, lines.OVER_ALL, lines.OF_FLAGGED],
                    *[lines.HALF, lines.PRECISION, lines.MISSED, lines.UNDER],
                ]
            ),
            count=6,
        ),
        lines.line_case("Equal scores.", make=lines.making([lines.ABOVE, lines.PLACE]), count=6),
        lines.line_case(
            "An attack's score.", make=lines.making([lines.BENIGN_ONLY, lines.ACCURACY]), count=5
        ),
        lines.line_case(
            "A limit.", make=lines.making([lines.ROUNDS_UP], budgets=(0.3, 0.2, 0.03, 0.1)), count=5
        ),
        lines.line_case("Nothing fits.", make=lines.making([lines.NEVER], budgets=(0.0, 0.125)), count=4),
    ),
    forbid=["lessonlib.security.evaluate"],
)

TokenLimiter = Hidden(
    TOKEN_LIMITER,
    (
        limits.limit_case(
            "Tokens count.",
            make=limits.making([limits.REQUESTS, limits.NOT_FULL, limits.WHOLE_MINUTE, limits.MOMENT], 5),
            count=5,
        ),
        limits.limit_case(
            "60 seconds of its own.",
            make=limits.making([limits.FIXED, limits.FROM_FIRST, limits.FOR_EVER], 9),
            count=5,
        ),
        limits.limit_case(
            "To the second.", make=limits.making([limits.SECOND_MORE, limits.SECOND_LESS], 9), count=5
        ),
        limits.limit_case("Refused.", make=limits.making([limits.REFUSED_COSTS], 8), count=4),
        limits.limit_case(
            "Until enough is over.",
            (700, [["admit", "cy", 700, 3], ["admit", "cy", 701, 3], ["admit", "cy", 1, 3]]),
            make=limits.making([limits.OLDEST_ONLY, limits.ALL_OVER], 8),
            count=5,
        ),
        limits.limit_case("Users.", make=limits.making([limits.ONE_BUDGET], 9, "abc"), count=4),
        limits.limit_case(
            "Given back.",
            make=limits.making(
                [limits.NO_SETTLE, limits.GIVES_ALL, limits.GIVES_USED], 8, "abc", settles=0.6
            ),
            count=6,
        ),
    ),
    forbid=["lessonlib.security.rate_limiter", "lessonlib.security.redis_limiter"],
)

hidden_size = Hidden(
    HIDDEN_SIZE,
    (
        stealing.size_case(
            "Just enough prompts.",
            make=stealing.making(
                [stealing.FIRST_ROW, stealing.NO_REFERENCE, stealing.DIFFERENCE], more=(2, 2)
            ),
            count=3,
        ),
        stealing.size_case(
            "The cliff.",
            make=stealing.making(
                [
                    *[stealing.NO_REFERENCE, stealing.ALL_VALUES, stealing.PLACE],
                    *[stealing.DIFFERENCE, stealing.SQUARED, stealing.FIRST_ROW],
                ],
                most=12,
            ),
            count=8,
        ),
        stealing.size_case(
            "No cliff.", make=stealing.making([stealing.ALWAYS], found=False, most=12), count=5
        ),
        stealing.size_case("Larger.", make=stealing.making([stealing.NO_REFERENCE], most=40), count=4),
    ),
    forbid=["lessonlib.security.attacks"],
)

SweepDetector = Hidden(
    SWEEP_DETECTOR,
    (
        sweeps.script_case(
            "A sweep.",
            make=sweeps.making(
                [sweeps.SAME_TEXT, sweeps.LEARNS_FIRST, sweeps.TOO_LATE, sweeps.ONCE], 9, limit=(2, 4)
            ),
            count=5,
        ),
        sweeps.script_case(
            "No sweep.", make=sweeps.making([sweeps.NO_STAR, sweeps.VOLUME, sweeps.STAYS], 9), count=5
        ),
        sweeps.script_case(
            "New words.",
            make=sweeps.making([sweeps.LEARNS_ON_THE_WAY, sweeps.CASE, sweeps.NEVER_LEARNS], 9),
            count=6,
        ),
        sweeps.script_case("Order.", make=sweeps.making([sweeps.FORGETS_ORDER], 9), count=4),
        sweeps.script_case(
            "Users.",
            make=sweeps.making([sweeps.SHARED_WORDS, sweeps.SHARED_COUNTS], 10, ("ann", "bob", "cy")),
            count=5,
        ),
    ),
    forbid=["lessonlib.security.extraction"],
)

_SECRETS = ("tiger", "k9-k9-k8", "pw:314", "canary")
StreamFilter = Hidden(
    STREAM_FILTER,
    (
        streams.stream_case(
            "In pieces.",
            make=streams.making(
                [
                    *[streams.EACH_PIECE, streams.MARKS_ALL, streams.AGAIN],
                    *[streams.NO_MARK, streams.HOLDS_ALL, streams.HOLDS_LENGTH],
                ],
                _SECRETS,
            ),
            count=6,
        ),
        streams.stream_case(
            "False alarms.", make=streams.making([streams.HOLDS_ON, streams.LOSES_REST], _SECRETS), count=5
        ),
        streams.stream_case("Again.", make=streams.making([streams.FIRST_ONLY], _SECRETS, 9), count=4),
        streams.stream_case(
            "Inside of itself.", make=streams.making([streams.FALSE_START], ("ooz", "1214", "aaab")), count=5
        ),
        streams.stream_case(
            "The longest.", make=streams.making([streams.SHORTEST], ("nonsense", "aaab", "abac")), count=5
        ),
    ),
    forbid=["lessonlib.security.streaming", "lessonlib.security.output_filter"],
)
