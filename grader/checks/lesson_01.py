"""Hidden twins of lesson 01's checks: wider inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_01 import COUNT_WORK, GENERATE, SAMPLE
from lessonlib.classroom.checks.lesson_01 import count_work as counting
from lessonlib.classroom.checks.lesson_01 import generate as looping
from lessonlib.classroom.checks.lesson_01 import generate_mistakes as loop_mistakes
from lessonlib.classroom.checks.lesson_01 import sample as sampling
from lessonlib.classroom.checks.lesson_01 import sample_mistakes as draw_mistakes

from . import Hidden

sample = Hidden(
    SAMPLE,
    (
        sampling.sampling_case(
            "Without options, tokens follow `softmax(logits)`.",
            make=sampling.making([draw_mistakes.ARGMAX]),
            count=4,
        ),
        sampling.generator_case(
            make=lambda rng: (40, rng.randint(3, 9), rng.randint(100, 10_000)),
            count=2,
        ),
        sampling.sampling_case(
            "The temperature divides the logits.",
            make=sampling.making([draw_mistakes.NO_TEMPERATURE, draw_mistakes.MULTIPLIES], temperature=True),
            count=4,
        ),
        sampling.sampling_case(
            "Temperature 0 takes the most likely token, the lowest id of several equal ones.",
            make=lambda rng: {
                "logits": [[float(rng.randint(-3, 3)) for _ in range(rng.randint(2, 9))]],
                "temperature": rng.choice([0, 0.0]),
                "_seed": rng.randint(0, 10_000),
            },
            count=6,
        ),
        sampling.sampling_case(
            "`top_k` keeps the k most likely tokens.",
            make=sampling.making([draw_mistakes.NO_TOP_K], top_k=True, least_rows=2),
            count=4,
        ),
        sampling.sampling_case(
            "`top_k` may be larger than the vocabulary.",
            make=lambda rng: {"logits": [[1.0, 2.0, 0.5]], "top_k": rng.randint(3, 50), "_seed": 1},
            count=2,
        ),
        sampling.sampling_case(
            "`top_p` keeps the smallest set of most likely tokens that reaches it.",
            make=sampling.making(
                [draw_mistakes.NO_TOP_P, draw_mistakes.DROPS, draw_mistakes.UNSORTED],
                top_p=True,
                least_rows=2,
            ),
            count=5,
        ),
        sampling.sampling_case(
            "`top_p` keeps at least one token.",
            make=lambda rng: {
                "logits": [[1.0, rng.randint(7, 12) / 2, 0.0]],
                "top_p": rng.randint(1, 20) / 100,
                "_seed": 2,
            },
            count=2,
        ),
        sampling.sampling_case(
            "The temperature comes before `top_p`.",
            make=sampling.making([draw_mistakes.TOP_P_FIRST], temperature=True, top_p=True),
            count=3,
        ),
        sampling.sampling_case(
            "`top_p` comes last and works on what `top_k` left.",
            make=sampling.making([draw_mistakes.COUNTS_REMOVED], temperature=True, top_k=True, top_p=True),
            count=3,
        ),
    ),
    forbid=["lessonlib.engine.sampling"],
)

generate = Hidden(
    GENERATE,
    (
        looping.loop_case(
            "One prompt, `max_tokens` new tokens.",
            make=looping.making([loop_mistakes.TOO_MANY, loop_mistakes.TOO_FEW], rows=(1, 1)),
            count=6,
        ),
        looping.loop_case(
            "A row ends with end-of-text.",
            make=looping.making([loop_mistakes.KEEPS_GROWING], rows=(1, 1)),
            count=6,
        ),
        looping.loop_case(
            "In a batch every row ends on its own.",
            make=looping.making(
                [loop_mistakes.KEEPS_GROWING, loop_mistakes.STOPS_ALL, loop_mistakes.FIRST_ROW], ragged=False
            ),
            count=6,
        ),
        looping.loop_case(
            "Prompts of different lengths.",
            make=looping.making([loop_mistakes.READS_PADDING, loop_mistakes.PADS_LEFT], rows=(2, 5)),
            count=8,
        ),
        looping.loop_case(
            "One prompt that fills the context.",
            make=looping.making(
                [loop_mistakes.CONTEXT_PLUS, loop_mistakes.NO_CONTEXT], rows=(1, 1), tight=True
            ),
            count=3,
        ),
        looping.loop_case(
            "Prompt and new tokens stay within the context.",
            make=looping.making(
                [loop_mistakes.CONTEXT_PLUS, loop_mistakes.CONTEXT_MINUS, loop_mistakes.CONTEXT_ALL],
                tight=True,
            ),
            count=6,
        ),
        looping.work_case(make=looping.making([loop_mistakes.KEEPS_GROWING], rows=(1, 1)), count=4),
    ),
    forbid=["lessonlib.engine.generate", "lessonlib.engine.batching", "lessonlib.engine.llm"],
)

count_work = Hidden(
    COUNT_WORK,
    (
        counting.counting_case("Without a cache.", make=counting.making(False, 2000, 2000), count=20),
        counting.counting_case("With a cache.", make=counting.making(True, 2000, 2000), count=20),
        counting.counting_case("One new token.", (17, 1, False), (17, 1, True)),
    ),
    forbid=["lessonlib.engine.costs"],
)
