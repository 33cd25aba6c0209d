"""01.count_work: how many tokens go through the model, with and without a cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Case, Exercise, Inputs, Misconception
from ...forms import whole_number

LAST_TOO = "runs the last token too"
NO_PROMPT = "forgets the prompt"
ONCE_EACH = "counts every token once, even without a cache"
NO_CACHE = "the cache changes nothing"
ONLY_PROMPT = "forgets that the text grows"
APPENDED = "counts each step after its token was appended"
FINAL_LENGTH = "charges every step with the final length"
SQUARE = "squares the length instead of adding up the steps"
SWAPPED = "with and without a cache are swapped"


def right(prompt: int, new: int, use_cache: bool) -> int:
    """Tokens processed, step by step: the whole text so far, or with a cache only what is new."""
    if not new:
        return 0
    return sum(1 if use_cache and step else prompt + step for step in range(new))


def expected(inputs: Inputs) -> int:
    return right(inputs["prompt"], inputs["new"], inputs["use_cache"])


def _either(
    uncached: Callable[[int, int], tuple[float, ...]], cached: Callable[[int, int], tuple[float, ...]]
) -> Callable[[Inputs], AnyOf]:
    """What a mistake gives, from (prompt, new), for the two values of use_cache."""
    return lambda inputs: AnyOf(
        (cached if inputs["use_cache"] else uncached)(inputs["prompt"], inputs["new"])
    )


MISCONCEPTIONS = (
    Misconception(
        SWAPPED,
        "The numbers are right, but the other way round: the *cache* is what saves the work.",
        lambda inputs: right(inputs["prompt"], inputs["new"], not inputs["use_cache"]),
    ),
    Misconception(
        LAST_TOO,
        "The token chosen last is never run: nothing is asked of the model after it. N new tokens need N "
        "passes, and the first of them runs the prompt alone.",
        _either(
            lambda p, n: (n * p + n * (n + 1) // 2, (n + 1) * p + n * (n + 1) // 2), lambda p, n: (p + n,)
        ),
    ),
    Misconception(
        APPENDED,
        "The model runs first, and only then is the new token appended: the first step runs the prompt alone. "
        "Prompt 3, new 3 are steps of 3, 4 and 5 tokens, not of 4, 5 and 6.",
        _either(lambda p, n: (n * p + n * (n + 1) // 2,), lambda p, n: (p + n - 1,)),
    ),
    Misconception(
        ONCE_EACH,
        "Without a cache nothing is kept: each step runs the *whole* text again. Write down the steps of "
        "prompt 3, new 3: they are 3, 4 and 5 tokens.",
        _either(lambda p, n: (p + n - 1, p + n), lambda p, n: (p + n - 1,)),
    ),
    Misconception(
        NO_CACHE,
        "`use_cache` makes a difference: what the cache holds is not run again, so each step after the "
        "first runs a single token.",
        lambda inputs: right(inputs["prompt"], inputs["new"], use_cache=False),
    ),
    Misconception(
        NO_PROMPT,
        "The prompt has to go through the model as well: at least once with a cache, in every step without.",
        _either(lambda p, n: (n * (n - 1) // 2, n * (n + 1) // 2), lambda p, n: (n - 1, n)),
    ),
    Misconception(
        ONLY_PROMPT,
        "Every step adds one token, so without a cache each step is one token longer than the one before.",
        _either(lambda p, n: (n * p,), lambda p, n: (p + n - 1, n * p, p)),
    ),
    Misconception(
        FINAL_LENGTH,
        "Only the last step is that long. The first runs the prompt alone, and each later one a token more.",
        _either(lambda p, n: (n * (p + n), n * (p + n - 1)), lambda p, n: (p + n - 1,)),
    ),
    Misconception(
        SQUARE,
        "The total grows *like* a square, but it is a sum: add up the length of the text at every step.",
        _either(
            lambda p, n: ((p + n) ** 2, n**2, (p + n) ** 2 // 2, (p + n) ** 2 / 2, n**2 // 2, p + n**2),
            lambda p, n: (p + n - 1,),
        ),
    ),
)


@cache
def measured(prompt: int, new: int, use_cache: bool) -> int:
    """The engine's own count on a tiny model with random weights."""
    import torch

    from ....engine import ModelConfig, Transformer, costs, generate

    with torch.random.fork_rng(devices=[]):
        model = Transformer(
            ModelConfig(
                vocab_size=16,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=8,
                max_position_embeddings=64,
            )
        )
    with costs.count(model) as work:
        generate(model, [1] * prompt, max_tokens=new, use_cache=use_cache)
    return work.tokens


def show(inputs: Inputs) -> str:
    return f"count_work({inputs['prompt']}, {inputs['new']}, use_cache={inputs['use_cache']})"


def valid(inputs: Inputs) -> bool:
    return inputs["prompt"] >= 1 and inputs["new"] >= 1


def making(use_cache: bool, prompts: int = 100, new: int = 100) -> Callable[[random.Random], Inputs]:
    return lambda rng: {
        "prompt": rng.randint(1, prompts),
        "new": rng.randint(2, new),
        "use_cache": use_cache,
    }


def counting_case(title: str, *examples: tuple[int, int, bool], **case: Any) -> Case:
    inputs = [{"prompt": p, "new": n, "use_cache": cached} for p, n, cached in examples]
    settings: dict[str, Any] = {"expected": expected, "valid": valid, **case}
    return values(title, read=lambda value, _: whole_number(value), examples=inputs, **settings)


CASES = (
    counting_case("One new token needs one pass over the prompt, cache or not.", (5, 1, False), (5, 1, True)),
    counting_case(
        "Without a cache every step runs the whole text so far.", (3, 3, False), make=making(False), count=6
    ),
    counting_case(
        "With a cache the prompt is run once, then one token a step.",
        (3, 3, True),
        make=making(True),
        count=6,
    ),
    counting_case(
        "The engine's own counter, on a real (tiny) model, says the same.",
        (7, 5, False),
        (7, 5, True),
        expected=lambda inputs: measured(inputs["prompt"], inputs["new"], inputs["use_cache"]),
    ),
)

COUNT_WORK = Exercise(
    id="01.count_work",
    title="Count the work",
    signature="count_work(prompt, new, use_cache)",
    prepare=lambda inputs: dict(inputs),
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Take a prompt of 3 tokens and 3 new ones, and write one line for each forward pass: which tokens "
        "go in? How many passes are there?",
        "Without a cache the lines are 3, 4 and 5 tokens long. With a cache the first line is the same, and "
        "each later one holds only the token that is new.",
        "A loop over the steps is a perfectly good answer: `for step in range(new)`, adding up what that "
        "step runs. Watch what step 0 runs, and that the very last token is chosen but never run.",
    ),
    analogue="""
You learn a poem of 4 lines by heart, and every day a new line is added to it. How many lines do you read in 3
days?

| | starts over every day | has kept what was read |
|---|---|---|
| day 1 | 4 | 4 |
| day 2 | 5 | 1 |
| day 3 | 6 | 1 |
| together | **15** | **6** |

The line that is written on the evening of day 3 is in neither sum: nobody has read it yet. Over 100 days the
two sums are 5,350 and 103: one grows like a square, the other like a line. """,
)
