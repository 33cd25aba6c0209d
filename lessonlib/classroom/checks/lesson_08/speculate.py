"""08.speculate: lesson 05's greedy verification, in one pass behind caches that are rewound afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception
from .decode import ABOUT, following, ids

WANTED = "a list with the ids of the drafts that stand and the model's own token"

NO_OWN = "leaves out the model's own token"
KEEPS_WRONG = "keeps a rejected draft"
NO_REWIND = "leaves rejected drafts in the caches"
TOO_FAR = "takes back drafts that stand"
ONE_MORE = "keeps one token too many in the caches"
ONE_LAYER = "rewinds one layer only"
RECOMPUTES = "runs what the caches hold already"
EACH = "one pass for each draft"


def answer(inputs: Inputs, mistake: str = "") -> dict[str, Any]:
    """The tokens, what they cost, and what each layer's cache holds afterwards: {"tokens", "passes", "run", "held"}."""
    text, drafts = list(inputs["text"]), list(inputs["drafts"])
    own = [following([*text, *drafts[:i]]) for i in range(len(drafts) + 1)]
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    tokens = own[: stands + 1]
    passes, run = 1, 1 + len(drafts)
    kept = len(text) + stands  # the model's own token has not been run
    ran = [*text, *drafts]
    if mistake == NO_OWN:
        tokens = tokens[:-1]
    elif mistake == KEEPS_WRONG:
        tokens = drafts[: stands + 1] if stands < len(drafts) else tokens
    elif mistake == NO_REWIND:
        kept = len(ran)
    elif mistake == TOO_FAR:
        kept = len(text)
    elif mistake == ONE_MORE:
        kept = min(kept + 1, len(ran))
    elif mistake == RECOMPUTES:
        run += len(text) - 1
    elif mistake == EACH:
        passes = run = min(stands + 1, len(drafts) + 1)
    held = [ran[:kept], ran[:kept]]
    if mistake == ONE_LAYER:
        held[1] = ran
    return {"tokens": tokens, "passes": passes, "run": run, "held": held}


def played(call: Call, inputs: Inputs) -> dict[str, Any]:
    tokens = ids(call(inputs), WANTED)
    model, caches = call.arguments["model"], call.arguments["caches"]
    held = [[int(t) for t in cache.keys[: cache.length, 0].tolist()] for cache in caches]
    passes = model.forward_calls - 1 if len(inputs["text"]) > 1 else model.forward_calls
    return {"tokens": tokens, "passes": passes, "run": model.tokens - len(inputs["text"]) + 1, "held": held}


def prepare(inputs: Inputs) -> dict[str, Any]:
    from .runners import ToyRunner

    model = ToyRunner()
    caches = model.new_caches(64)
    if inputs["text"][1:]:
        model([(inputs["text"][:-1], caches)])
    return {"model": model, "caches": caches, "text": list(inputs["text"]), "drafts": list(inputs["drafts"])}


def show(inputs: Inputs) -> str:
    text, drafts = list(inputs["text"]), list(inputs["drafts"])
    lines = ["model = ToyRunner()", "caches = model.new_caches(64)"]
    lines += [f"model([({text[:-1]}, caches)])"] if text[1:] else []
    return "\n".join([*lines, f"speculate(model, caches, {text}, {drafts})"])


def valid(inputs: Inputs) -> bool:
    both = [*inputs["text"], *inputs["drafts"]]
    return bool(inputs["text"]) and all(0 <= t < 10 for t in both) and len(both) < 30


def making(tells_apart: Sequence[str], stands: int | None = None) -> Callable[[random.Random], Inputs | None]:
    """A generator of inputs on which each mistake changes the answer. stands: drafts that stand (None: all of them)."""

    def make(rng: random.Random) -> Inputs | None:
        text = [rng.randrange(10) for _ in range(rng.randint(2, 5))]
        drafts: list[int] = []
        for _ in range(rng.randint(1, 4) if stands is None else stands):
            drafts.append(following([*text, *drafts]))
        if stands is not None:
            drafts.append((following([*text, *drafts]) + rng.randint(1, 9)) % 10)
            drafts += [rng.randrange(10) for _ in range(rng.randint(0, 2))]
        inputs = {"text": text, "drafts": drafts}
        right = answer(inputs)
        return inputs if all(answer(inputs, mistake) != right for mistake in tells_apart) else None

    return make


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answer(inputs, name) for name in names)


def draft_case(title: str, *examples: tuple[list[int], list[int]], **case: Any) -> Case:
    inputs = [{"text": text, "drafts": drafts} for text, drafts in examples]
    return values(title, answer, trial=played, examples=inputs, valid=valid, **case)


CASES = (
    draft_case("Without drafts it is a plain step.", ([1, 2], [])),
    draft_case(
        "All drafts stand: they and one more token come out of a single pass.",
        ([1, 2], [7]),
        make=making([NO_OWN, RECOMPUTES, EACH, TOO_FAR]),
        count=3,
    ),
    draft_case(
        "The first draft is wrong: the model's own token, and the caches as if nothing had been drafted.",
        ([1, 2], [5, 3]),
        make=making([KEEPS_WRONG, NO_REWIND, ONE_LAYER, ONE_MORE], 0),
        count=3,
    ),
    draft_case(
        "Some stand: exactly those stay in the caches.",
        make=making([TOO_FAR, NO_REWIND, ONE_MORE, EACH], 1),
        count=2,
    ),
    draft_case(
        "Two stand, the third does not.",
        make=making([TOO_FAR, NO_REWIND, ONE_MORE, EACH], 2),
        count=2,
    ),
)

SPECULATE = Exercise(
    id="08.speculate",
    title="Drafts behind a cache",
    signature="speculate(model, caches, text, drafts)",
    prepare=prepare,
    show=show,
    about=f"{ABOUT} `held` is what each layer's cache holds when your function has returned.",
    cases=CASES,
    misconceptions=(
        Misconception(
            NO_OWN,
            "Behind the drafts that stand the pass has one more token to offer, the model's own: it is certain, so it "
            "belongs to the answer.",
            mistaken(NO_OWN),
        ),
        Misconception(
            KEEPS_WRONG,
            "Where a draft differs from what the model would write, the model's token takes its place.",
            mistaken(KEEPS_WRONG),
        ),
        Misconception(
            NO_REWIND,
            "Running a draft puts its keys and values into the caches. A rejected one has to be taken out again, or "
            "all later tokens look at it: `rewind`.",
            mistaken(NO_REWIND),
        ),
        Misconception(
            TOO_FAR,
            "Drafts that stand are part of the text, and the caches hold them already. Taking them out means running "
            "them again.",
            mistaken(TOO_FAR),
        ),
        Misconception(
            ONE_MORE,
            "The caches must hold the text and the drafts that stand, no more: the model's own token was *chosen*, and "
            "has not been run.",
            mistaken(ONE_MORE),
        ),
        Misconception(
            ONE_LAYER,
            "There is a cache for each layer, and all of them have taken in the drafts: rewind every one.",
            mistaken(ONE_LAYER),
        ),
        Misconception(
            RECOMPUTES,
            "The caches hold all of `text` but its last token. Run that one and the drafts behind it.",
            mistaken(RECOMPUTES),
        ),
        Misconception(
            EACH,
            "One pass for each draft saves nothing. Run the last token and *all* drafts as one part; the logits behind "
            "each of them come out together.",
            mistaken(EACH),
        ),
    ),
    hints=(
        "Which tokens have to be run? The caches lack the last token of `text`; its logits judge the first draft, the "
        "first draft's logits judge the second …",
        "The likeliest tokens of that one part, `argmax(-1)` of its logits, are one more than there are drafts. Count "
        "how many drafts equal the likeliest token at the same place, from the left, up to the first that does not.",
        "With `stands` drafts accepted, the answer is `own[: stands + 1]`. The caches should hold `text` and `stands` "
        "drafts: that many tokens is what every cache is rewound to.",
    ),
    analogue="""
You dictate, and the typist types ahead on a guess. Now and then you look at the page; whatever is typed behind the
first wrong word goes, and you say the right one:

```python
def look(page, said, guessed, meant):
    page.type(guessed)                                        # all of it, at once
    right = 0
    while right < len(guessed) and guessed[right] == meant(said, guessed[:right]):
        right += 1
    page.keep(len(said) + right)                              # every copy of the page!
    return [*guessed[:right], meant(said, guessed[:right])]   # your own word; it is not typed yet
```
""",
)
