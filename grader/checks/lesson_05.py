"""Hidden twins of lesson 05's checks: other rounds, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_05 import ACCEPT, CHOOSE_K, ESTIMATE, VERIFY
from lessonlib.classroom.checks.lesson_05 import accept as accepting
from lessonlib.classroom.checks.lesson_05 import accept_mistakes as mistakes
from lessonlib.classroom.checks.lesson_05 import choose_k as choosing
from lessonlib.classroom.checks.lesson_05 import estimate as estimating
from lessonlib.classroom.checks.lesson_05 import verify as verifying

from . import Hidden

verify = Hidden(
    VERIFY,
    (
        verifying.verify_case("All drafts stand.", make=verifying.making(lambda rng, n: n), count=6),
        verifying.verify_case("The first draft is wrong.", make=verifying.making(lambda rng, n: 0), count=6),
        verifying.verify_case(
            "A draft in the middle is wrong.",
            make=verifying.making(lambda rng, n: rng.randint(1, n - 1)),
            count=8,
        ),
        verifying.verify_case(
            "Later drafts agree again.",
            make=verifying.making(lambda rng, n: rng.randint(0, n - 2), later=True),
            count=8,
        ),
        verifying.verify_case("No drafts.", ([4, 0, 2], []), ([9], [])),
        verifying.work_case(make=verifying.making(lambda rng, n: rng.randint(0, n)), count=6),
    ),
    forbid=["lessonlib.engine.speculative"],
)

accept = Hidden(
    ACCEPT,
    (
        accepting.accept_case(
            "One draft.",
            make=accepting.making(
                [
                    mistakes.FROM_P,
                    mistakes.ALWAYS,
                    mistakes.THRESHOLD,
                    mistakes.INVERTED,
                    mistakes.ABSOLUTE,
                    mistakes.LIKELIEST,
                ],
                drafts=(1, 1),
            ),
            count=3,
        ),
        accepting.accept_case(
            "One draft that often stands.",
            make=accepting.making([mistakes.NO_BONUS, mistakes.P_ONLY, mistakes.BONUS_ROW], drafts=(1, 1)),
            count=2,
        ),
        accepting.drawn_case(
            make=accepting.making([mistakes.FROM_P, mistakes.ALWAYS, mistakes.P_ONLY], drawn=True), count=2
        ),
        accepting.accept_case(
            "Several drafts.",
            make=accepting.making(
                [mistakes.FIRST_ROW, mistakes.GOES_ON, mistakes.BONUS_ROW, mistakes.BONUS_TOO], drafts=(2, 3)
            ),
            count=3,
        ),
        accepting.accept_case(
            "Several drafts, each with its own luck.",
            make=accepting.making([mistakes.ONE_NUMBER], drafts=(2, 3)),
            count=2,
        ),
        accepting.accept_case("No drafts.", make=accepting.making([], drafts=(0, 0)), count=2),
        accepting.generator_case(),
    ),
    forbid=["lessonlib.engine.speculative", "lessonlib.engine.acceptance"],
)

estimate = Hidden(
    ESTIMATE,
    (
        estimating.estimate_case("Tokens and speed-up.", make=estimating.making(), count=12),
        estimating.estimate_case("Checking costs too.", make=estimating.making(verify=True), count=12),
        estimating.estimate_case("Every draft stands.", make=estimating.making(sure=True), count=4),
        estimating.estimate_case(
            "None stands, none is made, or they are free.", (0.0, 5, 0.1), (0.7, 0, 0.3), (0.3, 4, 0.0)
        ),
    ),
    forbid=["lessonlib.engine.acceptance", "lessonlib.explorers.pictures.speculative"],
)

choose_k = Hidden(
    CHOOSE_K,
    (
        choosing.choose_case(
            "Drafts cost something.",
            make=choosing.making(
                choosing.MOST_TOKENS, choosing.NO_DRAFT_COST, choosing.NO_VERIFY_COST, choosing.ONE_DRAFT
            ),
            count=8,
        ),
        choosing.choose_case(
            "Only judged drafts count.",
            make=choosing.making(choosing.NEVER_JUDGED, choosing.MEAN_OF_RATES, choosing.WITH_OWN),
            count=8,
        ),
        choosing.choose_case(
            "All drafts of some rounds stand, and more than one pays.",
            make=choosing.making(choosing.ALWAYS_REJECTED, choosing.FIRST_GAIN),
            count=6,
        ),
        choosing.choose_case("None pays.", make=choosing.making(choosing.AT_LEAST_ONE), count=6),
        choosing.choose_case("The limit pays.", make=choosing.making(choosing.BELOW_LIMIT), count=6),
        choosing.choose_case(
            "Long logs.", make=choosing.making(choosing.NEVER_JUDGED, rounds=(40, 80)), count=4
        ),
    ),
    forbid=["lessonlib.engine.acceptance", "lessonlib.explorers.pictures.speculative"],
)
