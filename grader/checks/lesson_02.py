"""Hidden twins of lesson 02's checks: wider inputs, drawn when the grader runs."""

from __future__ import annotations

from lessonlib.classroom.checks.lesson_02 import (
    CACHED_ATTENTION,
    FIND_BUG,
    KV_BYTES,
    KV_CACHE,
    VISIBLE,
)
from lessonlib.classroom.checks.lesson_02 import attention_mistakes as mistakes
from lessonlib.classroom.checks.lesson_02 import cached_attention as attending
from lessonlib.classroom.checks.lesson_02 import find_bug as searching
from lessonlib.classroom.checks.lesson_02 import kv_bytes as weighing
from lessonlib.classroom.checks.lesson_02 import slots as keeping
from lessonlib.classroom.checks.lesson_02 import visible as seeing

from . import Hidden

visible = Hidden(
    VISIBLE,
    (
        seeing.mask_case("Nothing held.", make=lambda rng: {"held": 0, "new": rng.randint(1, 9)}, count=4),
        seeing.mask_case("One new token.", make=lambda rng: {"held": rng.randint(1, 60), "new": 1}, count=4),
        seeing.mask_case("Several new tokens.", make=seeing.making(60, 30), count=12),
    ),
    forbid=["lessonlib.engine.kv_cache", "lessonlib.engine.paged_cache"],
)

CachedAttention = Hidden(
    CACHED_ATTENTION,
    (
        attending.attention_case(
            "A prompt in one call.",
            make=attending.making([mistakes.NO_MASK, mistakes.NO_TURN, mistakes.ZERO_MASK], [(3, 9)]),
            count=4,
        ),
        attending.attention_case(
            "One token at a time.",
            make=attending.making(
                [mistakes.NO_OFFSET, mistakes.FORGETS, mistakes.PLAIN_KEYS, mistakes.TURNS_AGAIN],
                [(2, 6), (1, 1), (1, 1), (1, 1)],
            ),
            count=4,
        ),
        attending.attention_case(
            "Several new tokens after others.",
            make=attending.making(
                [mistakes.CORNER, mistakes.NO_MASK, mistakes.COUNTS_CALLS], [(2, 6), (2, 5), (1, 3)]
            ),
            count=5,
        ),
        attending.attention_case(
            "After reset a new text begins.",
            make=attending.making([mistakes.STALE], [(2, 5), (1, 5), (1, 2)], "reset"),
            count=4,
        ),
        attending.attention_case(
            "`use_cache=False` leaves what is kept alone.",
            make=attending.making(
                [mistakes.OVERWRITES, mistakes.ADDS, mistakes.READS], [(2, 5), (1, 2), (1, 2)], "without"
            ),
            count=5,
        ),
    ),
    forbid=["lessonlib.engine.kv_cache", "lessonlib.engine.paged_cache"],
)

find_bug = Hidden(
    FIND_BUG,
    tuple(
        searching.bug_case(title, *kinds)
        for title, kinds in (
            ("Right caches.", ("right", "right, in a slab")),
            ("Wrong positions.", ("from 0", "one behind")),
            ("Wrong dimension.", ("longer vectors", "one more batch")),
            ("Reset that leaves something.", ("reset leaves the last", "reset does nothing")),
            ("Positions that count calls.", ("counts calls",)),
            ("Another stale cache.", ("reset leaves the first",)),
        )
    ),
    forbid=["lessonlib.engine.kv_cache", "lessonlib.engine.paged_cache"],
)

KVCache = Hidden(
    KV_CACHE,
    (
        keeping.cache_case(
            "Growing.",
            make=keeping.making([keeping.ONLY_NEW, keeping.STARTS_OVER, keeping.WHOLE_SLAB], ["append"] * 3),
            count=4,
        ),
        keeping.cache_case("No room.", make=keeping.making([keeping.NO_LIMIT], ["append"] * 6), count=5),
        keeping.cache_case(
            "Rewinding.",
            make=keeping.making(
                [keeping.REWIND_NOTHING, keeping.REWIND_DROPS, keeping.REWIND_MORE],
                ["append", "append", "rewind", "append", "rewind", "append"],
            ),
            count=5,
        ),
        keeping.cache_case(
            "One cannot rewind to tokens that are not there.",
            make=lambda rng: {
                "size": 9,
                "steps": [["append", [4, 6]], ["rewind", rng.randint(0, 1)], ["rewind", rng.randint(2, 9)]],
            },
            count=3,
        ),
        keeping.cache_case(
            "After reset nothing is held.",
            make=keeping.making([keeping.STALE], ["append", "reset", "append", "append", "reset", "append"]),
            count=4,
        ),
        keeping.cache_case(
            "Nothing held is copied.",
            make=keeping.making([], ["append", "append", "rewind", "append"], watched=True),
            count=3,
            trial=keeping.watched,
        ),
    ),
    forbid=["lessonlib.engine.kv_cache", "lessonlib.engine.paged_cache"],
)

kv_bytes = Hidden(
    KV_BYTES,
    (
        weighing.bytes_case("A model of 16 bits.", ("Llama-2-7B", 777, 16), ("Llama-2-70B", 4096, 16)),
        weighing.bytes_case(
            "Shared KV heads and other formats.",
            make=weighing.making([weighing.QUERY_HEADS, weighing.ALWAYS_16]),
            count=8,
        ),
        weighing.bytes_case(
            "No entry for KV heads.",
            make=weighing.making(lacking=("head_dim", "num_key_value_heads")),
            count=4,
        ),
        weighing.bytes_case(
            "Heads wider than their share.", make=weighing.making([weighing.DIVIDES], lacking=()), count=4
        ),
    ),
    forbid=["lessonlib.engine.costs"],
)
