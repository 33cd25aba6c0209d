"""08.decode: one text, written with caches: the prompt in one pass, then one token a pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import values
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import TYPE, describe, must_be

WANTED = "a list with the ids of the new tokens"
ABOUT = (
    "The toy model: the next token is the sum of all tokens that the caches hold, plus how many they are, plus "
    "the last one again, of that the last digit. (`from lessonlib.classroom.checks.lesson_08.runners import "
    "ToyRunner`.) On the card, `passes` is how often the model was called, and `run` how many tokens went into "
    "it."
)

RECOMPUTES = "runs everything again at every step"
TWICE = "puts tokens into the cache that it holds already"
ONE_BY_ONE = "runs the prompt token by token"
RUNS_LAST = "runs the last token for nothing"
NO_EOS = "goes on after the end token"
DROPS_EOS = "leaves out the end token"
WITH_PROMPT = "returns the prompt as well"
FIRST_ROW = "reads the logits behind the first token of the prompt"


def following(held: Sequence[int]) -> int:
    """``ToyRunner``'s next token behind these."""
    return (sum(held) + len(held) + held[-1]) % 10


def answer(inputs: Inputs, mistake: str = "") -> dict[str, Any]:
    """The new tokens, and what they cost: {"tokens", "passes", "run"}."""
    prompt, most, eos = list(inputs["prompt"]), inputs["max_tokens"], inputs["eos_id"]
    held: list[int] = []
    text = list(prompt)
    new: list[int] = []
    passes = run = 0
    while True:
        todo = text[len(held) :]
        if mistake == RECOMPUTES:
            held, todo = [], text
        elif mistake == TWICE:
            todo = text
        passes += len(todo) if mistake == ONE_BY_ONE else 1
        run += len(todo)
        first = mistake == FIRST_ROW and not new
        token = following([*held, *(todo[:1] if first else todo)])
        held = [*held, *todo]
        text.append(token)
        new.append(token)
        if len(new) == most or (token == eos and mistake != NO_EOS):
            break
    if mistake == RUNS_LAST:
        passes, run = passes + 1, run + 1
    if mistake == DROPS_EOS and new[-1] == eos:
        new = new[:-1]
    return {"tokens": prompt + new if mistake == WITH_PROMPT else new, "passes": passes, "run": run}


def played(call: Call, inputs: Inputs) -> dict[str, Any]:
    """One call, with the counters of the model it was given."""
    tokens = ids(call(inputs), WANTED)
    model = call.arguments["model"]
    return {"tokens": tokens, "passes": model.forward_calls, "run": model.tokens}


def ids(value: Any, wanted: str) -> list[int]:
    """A list of whole numbers, as plain ints. Raises WrongForm."""
    if not isinstance(value, (list, tuple)):
        raise must_be(wanted, value)
    for token in value:
        shape = getattr(token, "shape", None)
        whole = isinstance(token, int) if shape is None else tuple(shape) == ()
        if isinstance(token, bool) or not whole:
            raise WrongForm(TYPE, f"It must be {wanted}; one of them is {describe(token)}.")
    return [int(token) for token in value]


def prepare(inputs: Inputs) -> dict[str, Any]:
    from .runners import ToyRunner

    return {"model": ToyRunner(), **{name: inputs[name] for name in ("prompt", "max_tokens", "eos_id")}}


def show(inputs: Inputs) -> str:
    return f"decode(ToyRunner(), {list(inputs['prompt'])}, {inputs['max_tokens']}, eos_id={inputs['eos_id']})"


def valid(inputs: Inputs) -> bool:
    prompt = inputs["prompt"]
    return bool(
        prompt
        and all(0 <= t < 10 for t in prompt)
        and 1 <= inputs["max_tokens"] <= 12
        and 0 <= inputs["eos_id"] < 10
    )


def making(tells_apart: Sequence[str], early: bool = False) -> Callable[[random.Random], Inputs | None]:
    """A generator of inputs on which each of these mistakes changes the answer. early: the end token comes."""

    def make(rng: random.Random) -> Inputs | None:
        prompt = [rng.randrange(10) for _ in range(rng.randint(2, 6))]
        inputs: Inputs = {"prompt": prompt, "max_tokens": rng.randint(2, 7), "eos_id": rng.randrange(10)}
        right = answer(inputs)
        ended = len(right["tokens"]) < inputs["max_tokens"]
        apart = all(answer(inputs, mistake) != right for mistake in tells_apart)
        return inputs if apart and ended == early else None

    return make


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answer(inputs, name) for name in names)


def overflows(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and "cache has room for" in seen.error.message and inputs["max_tokens"] > 1)


def text_case(title: str, *examples: tuple[list[int], int, int], **case: Any) -> Case:
    inputs = [{"prompt": p, "max_tokens": n, "eos_id": eos} for p, n, eos in examples]
    return values(title, answer, trial=played, examples=inputs, valid=valid, **case)


COSTS = [RECOMPUTES, ONE_BY_ONE, RUNS_LAST, TWICE]
CASES = (
    text_case(
        "A single new token: the prompt is run, in one pass, and nothing else.",
        ([1, 2, 3], 1, 9),
        ([4, 4], 1, 9),
    ),
    text_case(
        "Each further token costs one pass of one token.",
        ([1, 2, 3], 3, 9),
        make=making([*COSTS, WITH_PROMPT, FIRST_ROW]),
        count=4,
    ),
    text_case(
        "The end token ends the text, and belongs to it.",
        ([2, 1], 5, 6),
        make=making([NO_EOS, DROPS_EOS], early=True),
        count=4,
    ),
)

DECODE = Exercise(
    id="08.decode",
    title="One text with a cache",
    signature="decode(model, prompt, max_tokens, eos_id)",
    prepare=prepare,
    show=show,
    about=ABOUT,
    cases=CASES,
    misconceptions=(
        Misconception(
            RECOMPUTES,
            "The tokens are right, but all of the text goes through the model again at every step. Make the caches "
            "*once*; from the second pass on, run the newest token only.",
            mistaken(RECOMPUTES),
        ),
        Misconception(
            TWICE,
            "The caches hold the text already. What you run is put *behind* it, so a token that is run twice is there "
            "twice.",
            mistaken(TWICE),
            sees=overflows,
        ),
        Misconception(
            ONE_BY_ONE,
            "All tokens of the prompt are known: give them to the model in *one* part. A pass reads all weights, "
            "however many tokens are in it.",
            mistaken(ONE_BY_ONE),
        ),
        Misconception(
            RUNS_LAST,
            "Once the last token is chosen, nothing comes after it, so nobody needs its logits: stop before you run "
            "it.",
            mistaken(RUNS_LAST),
        ),
        Misconception(NO_EOS, "Stop when the model chooses `eos_id`.", mistaken(NO_EOS)),
        Misconception(DROPS_EOS, "The end token is the last token of the answer.", mistaken(DROPS_EOS)),
        Misconception(WITH_PROMPT, "Return the *new* tokens only.", mistaken(WITH_PROMPT)),
        Misconception(
            FIRST_ROW,
            "There is a row of logits for each token you ran. What comes after the whole text stands in the last one, "
            "`logits[-1]`.",
            mistaken(FIRST_ROW),
        ),
    ),
    hints=(
        "Two things change from pass to pass: which tokens are run, and the list of new ones. Begin with "
        "`todo = prompt`. What is `todo` after the first pass?",
        "`model([(todo, caches)])` takes a *list* of parts and returns a *list*, so the logits of your only part are "
        "`model([(todo, caches)])[0]`, and `int(logits[-1].argmax())` is the new token. Then `todo = [token]`.",
        "Loop: run `todo`, choose, append to `new`. If the token is `eos_id` or `new` is long enough, return `new` "
        "*before* running anything else. How much room do the caches need? The last token is never run.",
    ),
    analogue="""
Somebody reads you a story over the telephone, and you tell what comes next. You keep notes, so you hear the beginning
once, and from then on only what is new:

```python
def retell(listener, beginning, most):
    notes = listener.open_notebook()
    heard, told = beginning, []
    while True:
        sentence = listener.listen(heard, notes)     # everything before is in the notes
        told.append(sentence)
        if sentence == "The end." or len(told) == most:
            return told                              # nobody has to hear the last one
        heard = [sentence]
```
""",
)
