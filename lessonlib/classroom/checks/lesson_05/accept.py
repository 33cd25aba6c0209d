"""05.accept: which drawn drafts stand, and what is drawn in their place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import draws, total_variation, values
from ...exercises import Call, Case, Exercise, Inputs, Skip, WrongForm
from ...forms import RANGE
from . import accept_mistakes as mistakes
from .accept_mistakes import MISCONCEPTIONS, expected, spread
from .verify import read as list_of_tokens

DRAWS = 800  # of each input
APART = 0.22  # a mistake shows on inputs where its distribution is at least this far away (total variation)


def prepare(inputs: Inputs) -> dict[str, Any]:
    import torch

    made: dict[str, Any] = {name: torch.tensor(inputs[name], dtype=torch.float32) for name in ("q", "p")}
    made["q"] = made["q"].reshape(-1, made["p"].shape[-1])
    if inputs.get("_seed") is not None:
        made["generator"] = torch.Generator().manual_seed(inputs["_seed"])
    return {"drafts": list(inputs["drafts"]), **made}


def read(value: Any, inputs: Inputs) -> tuple[int, ...]:
    vocab = len(inputs["p"][0])
    for token in (tokens := list_of_tokens(value, inputs)):
        if not 0 <= token < vocab:
            raise WrongForm(
                RANGE, f"It returned token {token}, but the vocabulary has only ids 0 to {vocab - 1}."
            )
    return tuple(tokens)


def trial(call: Call, inputs: Inputs) -> list[list[tuple[int, ...]]]:
    """Many answers to these drafts."""
    return [[read(value, inputs) for value in call.repeat(inputs, DRAWS)]]


def drawn_trial(call: Call, inputs: Inputs) -> list[list[tuple[int, ...]]]:
    """First tokens of many answers, for drafts that come as often as q says."""
    found: list[tuple[int, ...]] = []
    for draft, share in enumerate(inputs["q"][0]):
        if share:
            asked = {**inputs, "drafts": [draft], "_seed": inputs["_seed"] + draft}
            found += [read(value, inputs)[:1] for value in call.repeat(asked, round(DRAWS * share))]
    return [found]


def same_seed_trial(call: Call, inputs: Inputs) -> dict[str, bool]:
    first, again, other = (
        [read(value, inputs) for value in call.repeat({**inputs, "_seed": seed}, 60)]
        for seed in (inputs["_seed"], inputs["_seed"], inputs["_seed"] + 77)
    )
    return {"same seed, same answers": first == again, "other seed, other answers": first != other}


def show(inputs: Inputs) -> str:
    tensors = ", ".join(f"torch.tensor({inputs[name]!r})" for name in ("q", "p"))
    if not inputs["q"]:
        tensors = f"torch.zeros(0, {len(inputs['p'][0])}), torch.tensor({inputs['p']!r})"
    more = ", generator=torch.Generator().manual_seed(0)" if inputs.get("_twice") else ""
    note = "  # many times with one seed, again with the same, then with another" if more else ""
    return f"accept({inputs['drafts']!r}, {tensors}{more}){note}"


def valid(inputs: Inputs) -> bool:
    """Whether these are distributions, and drafts that q can have made."""
    drafts, p, q = inputs["drafts"], inputs["p"], inputs["q"]
    rows = [*p, *q]
    return (
        len(p) == len(q) + 1
        and len(q) == (1 if inputs.get("_drawn") else len(drafts))
        and len({*map(len, rows)}) == 1
        and len(rows[0]) >= 2
        and all(min(row) >= 0 and abs(sum(row) - 1) < 1e-6 for row in rows)
        and all(0 <= draft < len(row) and row[draft] > 0 for draft, row in zip(drafts, q, strict=False))
    )


def row(rng: random.Random, vocab: int, least: int) -> list[float]:
    """A distribution in twentieths, with at least this many for each token."""
    free = 20 - least * vocab
    cuts = sorted(rng.randint(0, free) for _ in range(vocab - 1))
    return [(b - a + least) / 20 for a, b in zip([0, *cuts], [*cuts, free], strict=True)]


def making(
    tells_apart: Sequence[str], drafts: tuple[int, int] = (1, 2), drawn: bool = False
) -> Callable[[random.Random], Inputs | None]:
    """A generator of rounds on which each of these mistakes would show. drawn: the test draws the drafts from q."""

    def make(rng: random.Random) -> Inputs | None:
        vocab, count = rng.randint(3, 4), 1 if drawn else rng.randint(*drafts)
        q = [row(rng, vocab, least=1) for _ in range(count)]
        inputs: Inputs = {
            "drafts": [rng.choices(range(vocab), weights)[0] for weights in q],
            "q": q,
            "p": [row(rng, vocab, least=0) for _ in range(count + 1)],
            "_seed": rng.randint(0, 10_000),
        }
        if drawn:
            inputs["_drawn"] = True
        good = valid(inputs) and not any(tied(*rows) for rows in zip(inputs["p"], q, strict=False))
        return inputs if good and all(shows(name, inputs) for name in tells_apart) else None

    return make


def tied(p: Sequence[float], q: Sequence[float]) -> bool:
    """Whether two tokens share the most of the residual, so that rounding decides which one is the likeliest."""
    *_, second, first = sorted(a - b for a, b in zip(p, q, strict=True))
    return first - second < 1e-6


def shows(mistake: str, inputs: Inputs) -> bool:
    """Whether this mistake gives answers clearly different from the right ones."""
    try:
        return total_variation(spread(inputs), spread(inputs, mistake)) >= APART
    except Skip:
        return True


def accept_case(title: str, *examples: Inputs, **case: Any) -> Case:
    seeded = [{"_seed": i, **inputs} for i, inputs in enumerate(examples)]
    settings: dict[str, Any] = {"trial": trial, "valid": valid, **case}
    return draws(title, expected, examples=seeded, label=label, **settings)


def label(answer: Any) -> str:
    return f"returns {list(answer)}"


def drawn_case(*examples: Inputs, **case: Any) -> Case:
    return accept_case(
        "Drafts drawn from q: the first token of the answer follows p, as if there had been no drafts.",
        *({"drafts": [], "_drawn": True, **inputs} for inputs in examples),
        trial=drawn_trial,
        **case,
    )


def generator_case(**case: Any) -> Case:
    inputs = {"drafts": [0], "q": [[0.6, 0.2, 0.2]], "p": [[0.2, 0.4, 0.4], [0.3, 0.3, 0.4]]}
    return values(
        "The `generator` decides: the same seed gives the same answers, another seed gives others.",
        expected=lambda inputs: {"same seed, same answers": True, "other seed, other answers": True},
        trial=same_seed_trial,
        simulated=False,
        examples=[{**inputs, "_seed": 0, "_twice": True}],
        **case,
    )


Q, P, LAST = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]
CASES = (
    accept_case(
        "p has more of a draft than q, or as much: it stands, and the bonus token is drawn from the last row of p.",
        {"drafts": [2], "q": [Q], "p": [P, LAST]},
        {"drafts": [1], "q": [Q], "p": [P, LAST]},
    ),
    accept_case(
        "p has less of a draft: it stands with probability p / q, or a token of which p has more takes its place.",
        {"drafts": [0], "q": [Q], "p": [P, LAST]},
        make=making(
            [mistakes.FROM_P, mistakes.ALWAYS, mistakes.THRESHOLD, mistakes.INVERTED, mistakes.ABSOLUTE],
            drafts=(1, 1),
        ),
        count=1,
    ),
    drawn_case(
        {"q": [Q], "p": [P, LAST]}, make=making([mistakes.FROM_P, mistakes.ALWAYS], drawn=True), count=1
    ),
    accept_case(
        "Several drafts: each is judged by its own row and its own luck, up to the first that does not stand.",
        {"drafts": [0, 2], "q": [Q, [0.1, 0.1, 0.8]], "p": [P, [0.5, 0.3, 0.2], LAST]},
        make=making([mistakes.FIRST_ROW, mistakes.GOES_ON, mistakes.ONE_NUMBER], drafts=(2, 2)),
        count=2,
    ),
    accept_case("Without drafts: one token from p.", {"drafts": [], "q": [], "p": [P]}),
    generator_case(),
)

ACCEPT = Exercise(
    id="05.accept",
    title="Accept or replace",
    signature="accept(drafts, q, p, generator=None)",
    prepare=prepare,
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Do a single draft first. `torch.rand(1, generator=generator)` gives a number from 0 to 1: the draft stands "
        "if it is below `p[0, draft] / q[0, draft]`. (A ratio above 1 then always stands; nothing more is needed.)",
        "A rejected draft ends the answer. What is drawn in its place has the weights `(p[i] - q[i]).clamp_min(0)`; "
        "`torch.multinomial` takes weights that do not sum to 1, too. Then return at once.",
        "Behind the loop, where all drafts stood, draw from `p[-1]`. With no drafts the loop does nothing, and that "
        "line is the whole answer. Remember `int(…)` around what multinomial gives, and the generator in both places.",
    ),
    analogue="""
A bakery wants half of its rolls plain, half with seeds. Its supplier sends 80 % plain. How does it get 50 : 50,
throwing away as few as possible, if each roll is looked at when it comes?

| | sent (q) | wanted (p) | keep with | kept, of all |
|---|---|---|---|---|
| plain | 0.8 | 0.5 | 0.5 / 0.8 = 0.625 | 0.5 |
| seeds | 0.2 | 0.5 | 1 (there are too few anyway) | 0.2 |

0.3 of all are thrown away, and for each of these the bakery bakes one itself. Which kind? Plain has its 0.5 already,
seeds lack 0.5 - 0.2 = 0.3: so *always one with seeds*. (Baking 50 : 50 would end at 65 % plain: 0.5 + 0.15.)
""",
)
