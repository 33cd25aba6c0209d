"""Hidden twins of lesson 08's checks: wider inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_08 import DECODE, ENGINE, SPECULATE
from lessonlib.classroom.checks.lesson_08 import decode as writing
from lessonlib.classroom.checks.lesson_08 import engine as running
from lessonlib.classroom.checks.lesson_08 import engine_mistakes as mistakes
from lessonlib.classroom.checks.lesson_08 import speculate as drafting

from . import Hidden

decode = Hidden(
    DECODE,
    (
        writing.text_case(
            "Every token once.",
            make=writing.making([*writing.COSTS, writing.WITH_PROMPT, writing.FIRST_ROW]),
            count=8,
        ),
        writing.text_case(
            "The end token.",
            make=writing.making([writing.NO_EOS, writing.DROPS_EOS], early=True),
            count=6,
        ),
        writing.text_case("A single token.", ([5], 1, 0), ([3, 3, 3, 3, 3, 3, 3], 1, 1)),
    ),
    forbid=["lessonlib.engine.generate", "lessonlib.engine.llm"],
)

speculate = Hidden(
    SPECULATE,
    (
        drafting.draft_case("No drafts.", ([4], []), ([9, 1, 1], [])),
        drafting.draft_case(
            "All stand.",
            make=drafting.making([drafting.NO_OWN, drafting.RECOMPUTES, drafting.EACH, drafting.TOO_FAR]),
            count=4,
        ),
        *(
            drafting.draft_case(
                f"{stands} of the drafts stand.",
                make=drafting.making([drafting.KEEPS_WRONG, drafting.NO_REWIND, drafting.ONE_LAYER], stands),
                count=3,
            )
            for stands in (0, 1, 3)
        ),
        drafting.draft_case(
            "What the caches hold.",
            make=drafting.making([drafting.TOO_FAR, drafting.ONE_MORE, drafting.EACH], 2),
            count=3,
        ),
    ),
    forbid=["lessonlib.engine.speculative"],
)

Engine = Hidden(
    ENGINE,
    (
        running.engine_case(
            "Those who fit share a pass.",
            make=running.making(
                [mistakes.PASS_EACH, mistakes.TOO_MANY, mistakes.ONE_OVER, mistakes.NEWEST], (2, 4)
            ),
            count=4,
        ),
        running.engine_case(
            "No token is run twice.",
            make=running.making([mistakes.RECOMPUTES, mistakes.TWICE, mistakes.FIRST_ROW], (1, 4)),
            count=4,
        ),
        running.engine_case(
            "Free places go to the next ones, who begin anew.",
            make=running.making(
                [mistakes.STATIC, mistakes.STALE, mistakes.STALE_OLDEST, mistakes.NEVER_IN], (2, 4), (5, 8)
            ),
            count=6,
        ),
        running.engine_case(
            "Neighbours that end together.",
            make=running.making([mistakes.SKIPS, mistakes.SKIPS_PASS], (3, 5), (5, 8)),
            count=4,
        ),
        running.engine_case(
            "The end token.",
            make=running.making([mistakes.NO_EOS, mistakes.DROPS_EOS, mistakes.ONE_MORE], ends_early=True),
            count=5,
        ),
        running.engine_case(
            "Nobody there.", (3, 9, [["step"], ["step"], ["add", "a", [4, 4], 1], ["step"], ["step"]])
        ),
    ),
    forbid=["lessonlib.engine.batching", "lessonlib.engine.scheduler", "lessonlib.engine.llm"],
)
