"""Hidden twins of lesson 03's checks: wider inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_03 import DEQUANTIZE_NF4, QUANTIZE_INT4, QUANTIZE_INT8
from lessonlib.classroom.checks.lesson_03 import dequantize_nf4 as nf4
from lessonlib.classroom.checks.lesson_03 import int4_mistakes as int4
from lessonlib.classroom.checks.lesson_03 import quantize_int4 as grouping
from lessonlib.classroom.checks.lesson_03 import quantize_int8 as int8

from . import Hidden

quantize_int8 = Hidden(
    QUANTIZE_INT8,
    (
        int8.int8_case(
            "One row.",
            make=int8.making(rows=(1, 1), columns=(1, 12), tells_apart=[int8.CUTS]),
            count=8,
        ),
        int8.int8_case(
            "Several rows.",
            make=int8.making(
                rows=(2, 6), columns=(2, 12), tells_apart=[int8.ONE_SCALE, int8.NO_ABS, int8.CUTS]
            ),
            count=10,
        ),
        int8.int8_case(
            "Square matrices.",
            make=int8.making(rows=(3, 3), columns=(3, 3), tells_apart=[int8.COLUMNS]),
            count=4,
        ),
        int8.int8_case(
            "A row of negative weights.", [[-1.27, -0.3]], [[-0.5, -12.7, -3.0], [2.54, 1.0, -2.0]]
        ),
        int8.int8_case(
            "A row of zeros.",
            make=lambda rng: {"weight": [[0.0] * 3, [1.27, rng.randint(-90, 90) / 100, 0.0]]},
            count=3,
        ),
    ),
    forbid=["lessonlib.engine.quantize.int8", "lessonlib.engine.quantize.linear"],
)

quantize_int4 = Hidden(
    QUANTIZE_INT4,
    (
        grouping.int4_case(
            "One group.",
            make=grouping.making(
                rows=(1, 1),
                groups=(1, 1),
                sizes=(4, 6, 8, 10),
                tells_apart=[int4.HIGH_FIRST, int4.HALVES, int4.NO_OFFSET, int4.CUTS],
            ),
            count=8,
        ),
        grouping.int4_case(
            "Several groups in a row.",
            make=grouping.making(
                groups=(2, 4),
                sizes=(4, 6, 8),
                tells_apart=[int4.WHOLE_ROW, int4.STRIDED, int4.NO_ABS, int4.CUTS],
            ),
            count=10,
        ),
        grouping.int4_case(
            "Several rows.",
            make=grouping.making(rows=(2, 4), tells_apart=[int4.ROWS_SHARE]),
            count=6,
        ),
        grouping.int4_case("A group of negative weights.", ([[-0.7, -0.4, 1.4, -0.4]], 2)),
        grouping.int4_case(
            "A group of zeros.",
            make=lambda rng: {"weight": [[0.7, rng.randint(-6, 6) / 10, 0.0, 0.0]], "group_size": 2},
            count=3,
        ),
    ),
    forbid=[
        "lessonlib.engine.quantize.int4",
        "lessonlib.engine.quantize.int4_layout",
        "lessonlib.engine.quantize.gguf_blocks",
    ],
)

dequantize_nf4 = Hidden(
    DEQUANTIZE_NF4,
    (
        nf4.nf4_case(
            "One block.",
            make=nf4.making(
                blocks=(1, 1),
                sizes=(4, 6, 8),
                tells_apart=[nf4.AS_NUMBER, nf4.LOW_FIRST, nf4.HALVES, nf4.NO_MAXIMUM, nf4.DIVIDES],
            ),
            count=8,
        ),
        nf4.nf4_case(
            "Several blocks.",
            make=nf4.making(
                blocks=(2, 6),
                sizes=(2, 4, 8, 16),
                tells_apart=[nf4.BLOCK_OF_BYTES, nf4.IN_TURN, nf4.FIRST_MAXIMUM],
            ),
            count=10,
        ),
        nf4.nf4_case(
            "Any table of sixteen levels.",
            make=nf4.making(own_levels=True, tells_apart=[nf4.AS_NUMBER]),
            count=5,
        ),
    ),
    forbid=["lessonlib.engine.quantize.nf4"],
)
