"""01.sample: one token for each row of a batch, by temperature, top-k and top-p."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ...cases import draws, rows_of, total_variation, values
from ...exercises import Case, Exercise, Inputs, Skip
from ...forms import token_tensor
from . import sample_mistakes as mistakes
from .sample_mistakes import CALLS, MISCONCEPTIONS, REPEAT, expected, spread

RARE = 0.03  # inputs whose possible tokens are rarer than this would need more draws
APART = 0.25  # a mistake shows on inputs where its distribution is at least this far away (total variation)


def prepare(inputs: Inputs) -> dict[str, Any]:
    import torch

    made: dict[str, Any] = {
        name: inputs[name] for name in ("temperature", "top_k", "top_p") if name in inputs
    }
    if inputs.get("_seed") is not None:
        made["generator"] = torch.Generator().manual_seed(inputs["_seed"])
    logits = torch.tensor(inputs["logits"], dtype=torch.float32)
    return {"logits": logits.repeat(inputs.get("_repeat", 1), 1), **made}


def trial(call: Any, inputs: Inputs) -> list[list[int]]:
    rows, vocab = inputs["logits"], len(inputs["logits"][0])
    token_tensor(
        call(inputs), len(rows), vocab
    )  # first as shown: a complaint about shapes then fits the input
    drawn: list[list[int]] = [[] for _ in rows]
    for turn in range(CALLS):
        seed = inputs.get("_seed")
        many = {**inputs, "_repeat": REPEAT, "_seed": None if seed is None else seed + 1 + turn}
        tokens = token_tensor(call(many), len(rows) * REPEAT, vocab)
        for row, more in zip(drawn, rows_of(tokens, len(rows)), strict=True):
            row += more
    return drawn


def same_seed_trial(call: Any, inputs: Inputs) -> dict[str, bool]:
    rows, vocab = len(inputs["logits"]), len(inputs["logits"][0])
    first, again, other = (
        token_tensor(call({**inputs, "_seed": seed}), rows, vocab)
        for seed in (inputs["_seed"], inputs["_seed"], 77)
    )
    return {"same seed, same tokens": first == again, "other seed, other tokens": first != other}


def show(inputs: Inputs) -> str:
    options = "".join(
        f", {name}={inputs[name]!r}" for name in ("temperature", "top_k", "top_p") if name in inputs
    )
    rows = inputs["logits"]
    if inputs.get("_twice"):
        again = "  # called twice with the same seed, then with another"
        return f"sample(torch.zeros({len(rows)}, {len(rows[0])}), {_generator(inputs)}){again}"
    logits = f"torch.tensor({rows!r})"
    if "_repeat" in inputs:
        logits += f".repeat({inputs['_repeat']}, 1)"
    return f"sample({logits}{options})"


def _generator(inputs: Inputs) -> str:
    return f"generator=torch.Generator().manual_seed({inputs['_seed']})"


def valid(inputs: Inputs) -> bool:
    """Whether the inputs are proper and a thousand draws can tell what they should."""
    rows = inputs["logits"]
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        return False
    if inputs.get("temperature", 1) < 0 or inputs.get("top_k", 0) < 0 or not 0 < inputs.get("top_p", 1) <= 1:
        return False
    distinct = all(len(set(row)) == len(row) for row in rows) or not {"top_k", "top_p"} & set(inputs)
    return distinct and all(
        min(row.values()) >= RARE and _clear_cut(x, inputs)
        for x, row in zip(rows, expected(inputs), strict=True)
    )


def _clear_cut(row: Sequence[float], inputs: Inputs) -> bool:
    """Whether top-p's sum stays clear of the threshold, so that rounding cannot decide."""
    p = inputs.get("top_p", 1.0)
    wider, tighter = ({**inputs, "top_p": min(1.0, max(0.001, p + d))} for d in (0.01, -0.01))
    return p == 1 or spread(row, wider).keys() == spread(row, tighter).keys()


def making(
    tells_apart: Sequence[str],
    temperature: bool = False,
    top_k: bool = False,
    top_p: bool = False,
    least_rows: int = 1,
) -> Any:
    """A generator of inputs on which each of these mistakes would show."""

    def make(rng: random.Random) -> Inputs | None:
        vocab = rng.randint(4, 6)
        steps = range(-3, 7)
        rows = [
            rng.sample(steps, vocab) for _ in range(rng.randint(least_rows, 2))
        ]  # distinct: equal ones have no order
        inputs: Inputs = {"logits": [[step / 2 for step in row] for row in rows]}
        if temperature:
            inputs["temperature"] = rng.choice([0.5, 0.7, 1.5, 2.0, 3.0])
        if top_k:
            inputs["top_k"] = rng.randint(2, vocab - 1)
        if top_p:
            inputs["top_p"] = rng.randint(4, 19) / 20
        inputs["_seed"] = rng.randint(0, 10_000)
        if not valid(inputs) or not all(shows(mistake, inputs) for mistake in tells_apart):
            return None
        return inputs

    return make


def shows(mistake: str, inputs: Inputs) -> bool:
    """Whether this mistake gives a distribution clearly different from the right one in some row."""

    def apart(row: Sequence[float]) -> bool:
        return total_variation(spread(row, inputs), spread(row, inputs, mistake)) >= APART

    try:
        return any(apart(row) for row in inputs["logits"])
    except Skip:
        return True


def sampling_case(title: str, examples: Sequence[Inputs] = (), **case: Any) -> Case:
    seeded = [{"_seed": i, **inputs} for i, inputs in enumerate(examples)]
    return draws(title, expected, trial, examples=seeded, valid=valid, **case)


def generator_case(*examples: tuple[int, int, int], **case: Any) -> Case:
    """Examples are (rows, vocabulary, seed); ``make`` draws one. All tokens are equally likely."""

    def inputs(rows: int, vocab: int, seed: int) -> Inputs:
        return {"logits": [[0.0] * vocab] * rows, "_seed": seed, "_twice": True}

    make = case.pop("make", None)
    return values(
        "The `generator` decides: the same seed gives the same tokens, another seed gives others.",
        expected=lambda inputs: {"same seed, same tokens": True, "other seed, other tokens": True},
        trial=same_seed_trial,
        simulated=False,
        examples=[inputs(*example) for example in examples],
        make=make and (lambda rng: inputs(*make(rng))),
        # With fewer draws two seeds could agree by chance.
        valid=lambda inputs: len(inputs["logits"]) >= 32 and min(map(len, inputs["logits"])) >= 3,
        **case,
    )


CASES = (
    sampling_case(
        "With no options, tokens follow `softmax(logits)`, each row its own.",
        [
            {"logits": [[2.0, 1.0, 0.0]]},
            {"logits": [[0.0, 2.0, 1.0], [2.0, -1.0, 1.0]]},
            {"logits": [[1.0, 0.0]], "_seed": None},
        ],
        make=making([mistakes.ARGMAX]),
        count=2,
    ),
    generator_case((32, 4, 0)),
    sampling_case(
        "A temperature below 1 makes the favourite likelier, one above 1 evens the tokens out.",
        [
            {"logits": [[2.0, 1.0, 0.0]], "temperature": 0.5},
            {"logits": [[2.0, 1.0, 0.0]], "temperature": 2.0},
        ],
        make=making([mistakes.NO_TEMPERATURE, mistakes.MULTIPLIES], temperature=True),
        count=2,
    ),
    sampling_case(
        "Temperature 0 always takes the most likely token, and of several equal ones the lowest id.",
        [
            {"logits": [[1.0, 3.0, 2.0]], "temperature": 0},
            {"logits": [[0.0, 2.0, 2.0], [5.0, 0.0, 1.0]], "temperature": 0.0},
            {"logits": [[1.0, 0.0, 3.0]], "temperature": 0, "top_k": 2, "top_p": 0.5},
        ],
    ),
    sampling_case(
        "`top_k` keeps the k most likely tokens; 0 keeps all, and so does a k larger than the vocabulary.",
        [
            {"logits": [[1.0, 3.0, 2.0, 0.0]], "top_k": 2},
            {"logits": [[1.0, 3.0, 2.0, 0.0]], "top_k": 1},
            {"logits": [[1.0, 2.0, 0.0]], "top_k": 0},
            {"logits": [[1.0, 2.0, 0.0]], "top_k": 10},
            {"logits": [[1.0, 3.0, 2.0, 0.0], [3.5, 1.0, 0.5, 2.5]], "top_k": 2},
        ],
        make=making([mistakes.NO_TOP_K], top_k=True),
        count=2,
    ),
    sampling_case(
        "`top_p` keeps the smallest set of most likely tokens whose probability reaches p, at least one "
        "token.",
        [
            {"logits": [[1.0, 0.0, 2.0, -1.0]], "top_p": 0.8},
            {"logits": [[1.0, 3.0, 0.0]], "top_p": 0.1},
            {"logits": [[1.0, 2.0, 0.0]], "top_p": 1.0},
            {"logits": [[1.0, 0.0, 2.0, -1.0], [0.0, 1.0, 0.5, 1.5]], "top_p": 0.8},
        ],
        make=making([mistakes.NO_TOP_P, mistakes.DROPS, mistakes.UNSORTED], top_p=True),
        count=2,
    ),
    sampling_case(
        "The temperature comes before `top_p`: it changes which tokens reach p.",
        [{"logits": [[2.0, 1.0, 0.0]], "temperature": 2.0, "top_p": 0.6}],
        make=making([mistakes.TOP_P_FIRST], temperature=True, top_p=True),
        count=2,
    ),
    sampling_case(
        "`top_p` comes last and works on what `top_k` left.",
        [{"logits": [[2.0, 0.0, 1.5, 1.0]], "top_k": 2, "top_p": 0.6}],
        make=making([mistakes.COUNTS_REMOVED], temperature=True, top_k=True, top_p=True),
        count=2,
    ),
)

SAMPLE = Exercise(
    id="01.sample",
    title="Draw the next token",
    signature="sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None)",
    prepare=prepare,
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Do temperature 0 first and return: it is `argmax` over the last dimension. Everything after that "
        "line can assume a temperature above 0. Then get `softmax` and `torch.multinomial` right with no "
        "options at all.",
        "Removing a token means making its logit `-inf`, so that softmax gives it exactly 0. For top-k you "
        "need the k-th largest logit of each row; `torch.topk` finds it. Mind a k that is larger than the "
        "vocabulary.",
        "For top-p sort each row from the most likely token down, and ask of each token how much "
        "probability was gathered *before* it: the running sum minus its own. Tokens for which that is "
        "already `top_p` or more go. Then bring the decision back from sorted order to token ids: `scatter` "
        "or `gather` does it.",
    ),
    analogue="""
Take an ice-cream van with five flavours and what was sold yesterday. Let it carry only the best-selling
flavours that together make up 70 % of the sales:

```python
sold = {"mint": 10, "lemon": 45, "plum": 5, "cocoa": 30, "fig": 10}
gathered, kept = 0, []
for flavour in sorted(sold, key=sold.get, reverse=True):   # best-selling first
    if gathered >= 70:         # what came before it is enough already
        break
    kept.append(flavour)       # lemon (before it: 0), cocoa (before it: 45)
    gathered += sold[flavour]
# 45 + 30 = 75 reaches 70; lemon alone would not
random.choices(kept, [sold[f] for f in kept])   # lemon 60 %, cocoa 40 %
```

The question is asked *before* a flavour is added: the one that crosses 70 comes along, and the van is never
empty.
""",
)
