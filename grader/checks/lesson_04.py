"""Hidden twins of lesson 04's checks: wider inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_04 import BLOCK_ALLOCATOR, CONTINUOUS_BATCHER, LATENCIES, PAD_LEFT
from lessonlib.classroom.checks.lesson_04 import allocator as lending
from lessonlib.classroom.checks.lesson_04 import allocator_mistakes as block_mistakes
from lessonlib.classroom.checks.lesson_04 import batcher as batching
from lessonlib.classroom.checks.lesson_04 import batcher_mistakes as batch_mistakes
from lessonlib.classroom.checks.lesson_04 import latencies as reading
from lessonlib.classroom.checks.lesson_04 import pad_left as padding

from . import Hidden

pad_left = Hidden(
    PAD_LEFT,
    (
        padding.padding_case("ids.", "ids", make=padding.making("ids", [padding.RIGHT], (2, 5), 8), count=5),
        padding.padding_case(
            "positions.",
            "positions",
            make=padding.making("positions", [padding.COLUMNS, padding.NEGATIVE], (2, 5), 8),
            count=6,
        ),
        padding.padding_case(
            "mask.",
            "mask",
            make=padding.making(
                "mask",
                [padding.SEES_PADDING, padding.SEES_LATER, padding.SEES_NOTHING, padding.QUERIES],
                (2, 4),
            ),
            count=6,
        ),
        padding.padding_case(
            "A real token with the padding's id.",
            "mask",
            make=padding.making("mask", [padding.BY_ID], (2, 4)),
            count=4,
        ),
    ),
    forbid=["lessonlib.engine.batching"],
)

latencies = Hidden(
    LATENCIES,
    (
        reading.log_case(
            "One request.",
            make=reading.making(
                [reading.DIVIDES_BY_N, reading.FROM_ARRIVAL, reading.WHOLE], requests=(1, 1), most=9
            ),
            count=4,
        ),
        reading.log_case(
            "Several requests.",
            make=reading.making(
                [
                    reading.POOLED,
                    reading.FROM_START,
                    reading.FROM_ZERO,
                    reading.MEAN,
                    reading.NEAREST,
                    reading.FROM_ABOVE,
                ],
                requests=(3, 8),
                most=9,
            ),
            count=8,
        ),
        reading.log_case(
            "A single token.",
            make=reading.making([reading.SINGLE_ZERO], requests=(2, 5), single=True),
            count=4,
        ),
    ),
    forbid=["lessonlib.engine.simulator", "lessonlib.serving.bench", "lessonlib.serving.bench_report"],
)

ContinuousBatcher = Hidden(
    CONTINUOUS_BATCHER,
    (
        batching.batch_case(
            "Those who fit share a pass.",
            make=batching.making(
                [batch_mistakes.PASS_EACH, batch_mistakes.TOO_MANY, batch_mistakes.NEWEST],
                (2, 4),
                late=False,
            ),
            count=4,
        ),
        batching.batch_case(
            "Rows of different lengths.",
            make=batching.making([batch_mistakes.READS_PADDING, batch_mistakes.NOT_APPENDED], (2, 4)),
            count=4,
        ),
        batching.batch_case(
            "Free places go to the next ones.",
            make=batching.making(
                [
                    batch_mistakes.STATIC,
                    batch_mistakes.STAYS_FREE,
                    batch_mistakes.ENDS_ALL,
                    batch_mistakes.ONE_IN,
                ],
                (2, 4),
                (5, 8),
            ),
            count=6,
        ),
        batching.batch_case(
            "Neighbours that end together.",
            make=batching.making([batch_mistakes.SKIPS, batch_mistakes.SKIPS_PASS], (3, 5), (5, 8)),
            count=4,
        ),
        batching.batch_case(
            "The end token.",
            make=batching.making([batch_mistakes.NO_EOS, batch_mistakes.DROPS_EOS], (2, 4), ends_early=True),
            count=5,
        ),
        batching.batch_case(
            "Nobody there.",
            (3, 9, [["step"], ["step"], ["add", "a", [4, 4], 1], ["step"], ["step"]]),
        ),
    ),
    forbid=["lessonlib.engine.batching", "lessonlib.engine.scheduler"],
)

BlockAllocator = Hidden(
    BLOCK_ALLOCATOR,
    (
        lending.pool_case(
            "Growing.",
            make=lending.making(
                [
                    block_mistakes.ROUNDS_DOWN,
                    block_mistakes.BLOCK_MORE,
                    block_mistakes.ALL_AGAIN,
                    block_mistakes.OTHER_BLOCK,
                ],
                [*["grow"] * 6, "available"],
                (10, 30),
            ),
            count=5,
        ),
        lending.pool_case(
            "Too few blocks.",
            make=lending.making(
                [block_mistakes.PARTIAL, block_mistakes.NO_ERROR], [*["grow"] * 6, "available"], (4, 8)
            ),
            count=4,
        ),
        lending.pool_case(
            "Releasing.",
            make=lending.making(
                [block_mistakes.KEEPS, block_mistakes.OLDEST],
                ["grow", "grow", "grow", "release", "grow", "release", "available", "grow", "grow"],
                (8, 16),
            ),
            count=4,
        ),
        lending.pool_case(
            "A name that comes back.",
            (5, 2, [["grow", "a", 5], ["release", "a"], ["grow", "b", 3], ["grow", "a", 3], ["available"]]),
        ),
        lending.pool_case(
            "Sharing.",
            (12, 3, [["grow", "a", 6], ["share", "b", "a", 6], ["grow", "b", 9], ["grow", "a", 9]]),
            make=lending.making(
                [
                    block_mistakes.SHARES_PARTLY,
                    block_mistakes.COPIES,
                    block_mistakes.SHARES_ALL,
                    block_mistakes.ALIAS,
                ],
                ["grow", "grow", "share", "grow", "share", "grow", "grow", "available"],
                (10, 24),
            ),
            count=6,
        ),
        lending.pool_case(
            "The last holder.",
            make=lending.making(
                [block_mistakes.NO_COUNT, block_mistakes.LEAKS],
                [
                    "grow",
                    "share",
                    "share",
                    "release",
                    "grow",
                    "release",
                    "available",
                    "grow",
                    "release",
                    "grow",
                ],
                (6, 14),
            ),
            count=6,
        ),
    ),
    forbid=["lessonlib.engine.blocks", "lessonlib.engine.paged_cache"],
)
