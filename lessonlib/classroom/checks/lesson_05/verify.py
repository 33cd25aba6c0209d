"""05.verify: greedy verification of drafts in one pass, with the model's own token behind them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import show as as_python
from ...cases import values
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, Observation, Skip, WrongForm
from ...forms import TYPE, describe, must_be
from ..lesson_01.generate_mistakes import next_token

NO_BONUS = "no bonus token"
NO_OWN = "leaves out the model's own token"
NO_DRAFTS = "returns nothing where there are no drafts"
KEEPS_WRONG = "keeps the rejected draft"
GOES_ON = "goes on behind the first wrong draft"
LATE = "reads the logits one position too late"
EARLY = "reads the logits one position too early"
LAST_ONLY = "runs the last token without the text before it"
ALL_OR_NOTHING = "one wrong draft throws the right ones away"
WITH_TEXT = "returns the text as well"
BONUS_TOO = "adds a bonus token after a rejection"
LAST_ROW = "takes its own token from the last position every time"
MANY_PASSES = "runs the model more than once"


def own_tokens(inputs: Inputs, text: Sequence[int] | None = None) -> list[int]:
    """What the model itself says behind the text and behind each draft: len(drafts) + 1 tokens."""
    text, drafts = inputs["text"] if text is None else text, inputs["drafts"]
    return [next_token([*text, *drafts[:i]], inputs) for i in range(len(drafts) + 1)]


def agreed(drafts: Sequence[int], own: Sequence[int]) -> int:
    """How many drafts stand in front of the first that differs."""
    pairs = zip(drafts, own, strict=False)
    return next((i for i, (draft, token) in enumerate(pairs) if draft != token), min(len(drafts), len(own)))


def right(inputs: Inputs) -> list[int]:
    own = own_tokens(inputs)
    return own[: agreed(inputs["drafts"], own) + 1]


def _keeps_wrong(inputs: Inputs) -> AnyOf:
    drafts, own = inputs["drafts"], own_tokens(inputs)
    i = agreed(drafts, own)
    return AnyOf(([*drafts[: i + 1], own[i]], drafts[: i + 1] if i < len(drafts) else right(inputs)))


def _goes_on(inputs: Inputs) -> AnyOf:
    drafts, own = inputs["drafts"], own_tokens(inputs)
    if not drafts:
        raise Skip
    matching = [draft for draft, token in zip(drafts, own, strict=False) if draft == token]
    count = len(matching)
    return AnyOf(
        (own, own[:-1], matching, [*matching, own[-1]], [*drafts[:count], own[count]], drafts[:count])
    )


def _late(inputs: Inputs) -> AnyOf:
    drafts, own = inputs["drafts"], own_tokens(inputs)[1:]
    i = agreed(drafts, own)
    return (
        AnyOf((own[: i + 1], [*drafts[:i], own[min(i, len(own) - 1)]], drafts[:i])) if own else AnyOf(([],))
    )


def _early(inputs: Inputs) -> AnyOf:
    text, drafts = inputs["text"], inputs["drafts"]
    if len(text) < 2:
        raise Skip  # the position before the first is the last one, to Python
    own = [next_token(text[:-1], inputs), *own_tokens(inputs)]
    i = agreed(drafts, own)
    return AnyOf((own[: i + 1], drafts[:i], [*drafts[:i], own[-1]]))


def _last_only(inputs: Inputs) -> list[int]:
    own = own_tokens(inputs, inputs["text"][-1:])
    return own[: agreed(inputs["drafts"], own) + 1]


def _all_or_nothing(inputs: Inputs) -> AnyOf:
    drafts, own = inputs["drafts"], own_tokens(inputs)
    return AnyOf((right(inputs),)) if agreed(drafts, own) == len(drafts) else AnyOf((own[:1], []))


def _bonus_too(inputs: Inputs) -> AnyOf:
    drafts, own = inputs["drafts"], own_tokens(inputs)
    i = agreed(drafts, own)
    if i == len(drafts):
        return AnyOf((own, [*own, own[-1]]))
    return AnyOf((own[: i + 2], [*own[: i + 1], own[-1]]))


def _many(_: Inputs, seen: Observation) -> bool:
    return isinstance(seen.value, dict) and seen.value["forward passes"] > 1


MISCONCEPTIONS = (
    Misconception(
        NO_BONUS,
        "All drafts stood, and that was all that came back. The same pass has also said what comes behind the last "
        "draft: that token is paid for. Take it.",
        lambda inputs: right(inputs)[: len(inputs["drafts"])],
    ),
    Misconception(
        NO_OWN,
        "Only drafts came back. Where the first draft is wrong nothing comes back at all, and a loop around this "
        "function never ends. The model's own token, in the place of the first wrong draft or behind the last right "
        "one, always belongs to the answer.",
        lambda inputs: right(inputs)[:-1],
    ),
    Misconception(
        NO_DRAFTS,
        "Nobody guessed, but the pass has still said what comes behind the text: that token is the answer.",
        lambda inputs: right(inputs) if inputs["drafts"] else [],
    ),
    Misconception(
        KEEPS_WRONG,
        "A draft that the model would not have written is in the answer. The model's own token stands *in its place*.",
        _keeps_wrong,
    ),
    Misconception(
        GOES_ON,
        "Behind a wrong draft the model has read a text that does not exist. What it says there is worth nothing, "
        "even if it happens to agree with a later draft. Stop at the first difference.",
        _goes_on,
    ),
    Misconception(
        LATE,
        "The logits at a position say what comes *behind* it. The first draft is judged by the logits at the last "
        "token of the text, index `len(text) - 1`, not by those at the draft itself.",
        _late,
        sees=lambda inputs, seen: bool(seen.error and "out of bounds" in seen.error.message),
    ),
    Misconception(
        EARLY,
        "The first draft was judged by what comes behind the last token but one, which is the last token of the text. "
        "Which position says what comes behind the *whole* text?",
        _early,
    ),
    Misconception(
        LAST_ONLY,
        "With a cache, the last token and the drafts would be enough: the rest would be in the cache. This model has "
        "none; what it does not get in this call, it does not know.",
        _last_only,
    ),
    Misconception(
        LAST_ROW,
        "The own token was read behind the last draft, although an earlier draft was wrong: that position has read "
        "the wrong one. Read it where the first wrong draft stands.",
        lambda inputs: [*right(inputs)[:-1], own_tokens(inputs)[-1]],
    ),
    Misconception(
        ALL_OR_NOTHING,
        "The drafts in front of the first wrong one are exactly what the model would have written. They stand.",
        _all_or_nothing,
    ),
    Misconception(
        BONUS_TOO,
        "After a rejection the answer ends with the model's own token. A bonus exists only if *all* drafts stood: "
        "otherwise the positions further on have read a wrong draft.",
        _bonus_too,
    ),
    Misconception(
        WITH_TEXT,
        "Only the new tokens are asked for, without the text before them.",
        lambda inputs: [*inputs["text"], *right(inputs)],
    ),
    Misconception(
        MANY_PASSES,
        "The tokens are right, but the model ran more than once. All the gain is in running text and drafts "
        "*together*: one call gives the logits of every position.",
        sees=_many,
    ),
)


def prepare(inputs: Inputs) -> dict[str, Any]:
    from ...toys import ToyModel

    a, b, c = inputs.get("_rule", (1, 1, 1))
    model = ToyModel(40, inputs.get("_vocab", 10), (a, b, c))
    return {"model": model, "text": list(inputs["text"]), "drafts": list(inputs["drafts"])}


def show(inputs: Inputs) -> str:
    options = ["context=40", *(f"{key[1:]}={inputs[key]!r}" for key in ("_vocab", "_rule") if key in inputs)]
    texts = ", ".join(as_python(inputs[name]) for name in ("text", "drafts"))
    return f"verify(ToyModel({', '.join(options)}), {texts})"


def read(value: Any, _: Inputs) -> list[int]:
    """A flat list of Python ints. Raises WrongForm."""
    wanted = "a list of ints, the new tokens"
    if not isinstance(value, (list, tuple)):
        raise must_be(wanted, value)
    for token in value:
        if isinstance(token, bool) or not isinstance(token, int):
            raise WrongForm(
                TYPE, f"It must return {wanted}; one of them is {describe(token)}: int(…) makes it plain."
            )
    return list(value)


def work_trial(call: Call, inputs: Inputs) -> dict[str, Any]:
    """The answer, and how often the model was run for it."""
    tokens = read(call(inputs), inputs)
    return {"answer": tokens, "forward passes": call.arguments["model"].forward_calls}


def valid(inputs: Inputs) -> bool:
    vocab = inputs.get("_vocab", 10)
    tokens = [*inputs["text"], *inputs["drafts"]]
    return bool(inputs["text"]) and len(tokens) <= 40 and all(0 <= token < vocab for token in tokens)


def making(stand: Callable[[random.Random, int], int], later: bool = False) -> Any:
    """A generator of rounds of up to 5 drafts, of which ``stand(rng, drafts)`` are right.

    later: a draft behind the first wrong one agrees with the model again.
    """

    def make(rng: random.Random) -> Inputs | None:
        vocab, count = rng.randint(7, 30), rng.randint(2, 5)
        drafts: list[int] = []
        inputs: Inputs = {
            "text": [rng.randrange(vocab) for _ in range(rng.randint(2, 6))],
            "drafts": drafts,
            "_vocab": vocab,
            "_rule": [rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 5)],
        }
        stands = stand(rng, count)
        for i in range(count):
            own = own_tokens(inputs)[-1]
            agrees = i < stands or (later and i > stands)
            drafts.append(own if agrees else (own + rng.randint(1, vocab - 1)) % vocab)
        wrongs = (_late, _early, lambda i: AnyOf((_last_only(i),)))
        told_apart = all(right(inputs) not in wrong(inputs) for wrong in wrongs)
        return inputs if told_apart and agreed(drafts, own_tokens(inputs)) == stands else None

    return make


def verify_case(title: str, *examples: tuple[list[int], list[int]], **case: Any) -> Case:
    inputs = [{"text": text, "drafts": drafts} for text, drafts in examples]
    settings: dict[str, Any] = {"expected": right, "read": read, "valid": valid, **case}
    return values(title, examples=inputs, **settings)


def work_case(*examples: tuple[list[int], list[int]], **case: Any) -> Case:
    return verify_case(
        "All of it takes one forward pass of the model, however many drafts there are.",
        *examples,
        expected=lambda inputs: {"answer": right(inputs), "forward passes": 1},
        trial=work_trial,
        **case,
    )


# After [1, 2] the default rule says 7, then 20 % 10 = 0, then 4, then 23 % 10 = 3.
CASES = (
    verify_case(
        "All drafts are right: they stand, and one token more comes for free.",
        ([1, 2], [7]),
        ([1, 2], [7, 0]),
        make=making(lambda rng, count: count),
        count=3,
    ),
    verify_case(
        "The first draft is wrong: one token comes back, the model's own.",
        ([1, 2], [5]),
        ([1, 2], [5, 0, 4]),
        make=making(lambda rng, count: 0),
        count=3,
    ),
    verify_case(
        "A draft in the middle is wrong: those before it stand, the model's own token takes its place.",
        ([1, 2], [7, 3, 4]),
        make=making(lambda rng, count: rng.randint(1, count - 1)),
        count=3,
    ),
    verify_case(
        "What comes behind the first wrong draft does not count, even where it agrees again.",
        make=making(lambda rng, count: rng.randint(0, count - 2), later=True),
        count=3,
    ),
    verify_case("Without drafts it is a plain step: one token.", ([1, 2], []), ([3], [])),
    work_case(([1, 2], [7, 0, 4]), ([1, 2], [5, 0, 4])),
)

VERIFY = Exercise(
    id="05.verify",
    title="Verify in one pass",
    signature="verify(model, text, drafts)",
    prepare=prepare,
    show=show,
    about=(
        "`ToyModel`'s next token: the sum of the tokens, plus how many there are, plus the last one again, of that "
        "the last digit. After `[1, 2]`: 3 + 2 + 2 = 7, and after `[1, 2, 7]`: 10 + 3 + 7, so 0. (A `rule` weighs "
        "the three; with a `vocab`, the remainder by it is meant instead of the last digit.) To try it yourself, `from "
        "lessonlib.classroom.toys import ToyModel` and paste the call into a cell."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Run the model once, on text and drafts as one row: `model(torch.tensor([text + drafts])).logits`. For a "
        "text of 2 and 3 drafts that is 5 positions. Which of them say something about a draft, and which one about "
        "what comes behind all of them?",
        "The logits at index `len(text) - 1` judge the first draft, each later position the next draft, and the last "
        "position judges none: it is the bonus. That makes `len(drafts) + 1` own tokens of the model, one `argmax` "
        "each.",
        "Walk along the drafts with the own tokens beside them. Equal: append and go on. Different: append the own "
        "token and return at once. Past the last draft: append the own token that is left.",
    ),
    analogue="""
A teacher reads a pupil's answer to *count up in threes from 3*: `6, 9, 13, 16`. She does not ask for one number at a
time; she writes her own next number under every place, all in one go, each from what the pupil wrote **before** it:

| behind | 3 | 6 | 9 | 13 | 16 |
|---|---|---|---|---|---|
| the pupil's next | 6 | 9 | 13 | 16 | |
| hers | 6 | 9 | **12** | 16 | 19 |

Two numbers stand. The third does not, and hers takes its place: `6, 9, 12`. The 16 agrees with hers again, but only
because she had to go on from the wrong 13. Had the pupil written `6, 9, 12, 15`, her last column would be a fifth
number, 18, for nothing.
""",
)
