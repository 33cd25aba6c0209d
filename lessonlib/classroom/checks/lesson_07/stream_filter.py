"""07.StreamFilter: a secret must not be shown, in whatever pieces it comes, and nothing else may be held up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import describe, must_be

NAME = "stream"
MARK = "[REDACTED]"

EACH_PIECE = "filters each piece by itself"
HOLDS_ALL = "holds everything back until the end"
HOLDS_LENGTH = "always holds back as many characters as the secret has"
LOSES_REST = "loses what was held back"
FIRST_ONLY = "removes the secret only once"
SHORTEST = "holds back too little"
FALSE_START = "forgets that a secret can begin inside of a false start"
MARKS_ALL = "marks what only might become the secret"
AGAIN = "shows the held text twice"
NO_MARK = "leaves no mark"
HOLDS_ON = "goes on holding what cannot become the secret any more"


def kept(text: str, secret: str) -> int:
    """Length of the longest end of ``text`` with which ``secret`` could begin."""
    return next(n for n in range(min(len(secret) - 1, len(text)), -1, -1) if text.endswith(secret[:n]))


class Played:
    """A filter with at most one mistake."""

    def __init__(self, secret: str, mistake: str = ""):
        self.secret, self.mistake, self.rest, self.found = secret, mistake, "", False

    def push(self, piece: str) -> str:
        m, secret = self.mistake, self.secret
        if m == EACH_PIECE:
            return piece.replace(secret, MARK)
        if m == FALSE_START:
            return self.letter_by_letter(piece)
        before, text = self.rest, self.rest + piece
        if m == HOLDS_ALL:
            self.rest = text
            return ""
        shown = ""
        while (at := text.find(secret)) >= 0 and not (m == FIRST_ONLY and self.found):
            shown += text[:at] + ("" if m == NO_MARK else MARK)
            text, self.found = text[at + len(secret) :], True
        held = kept(text, secret)
        if m == FIRST_ONLY and self.found:
            held = 0
        elif m == HOLDS_LENGTH:
            held = min(len(text), len(secret) - 1)
        elif m == SHORTEST:
            held = next(
                (n for n in range(1, min(len(secret), len(text) + 1)) if text.endswith(secret[:n])), 0
            )
        elif m == HOLDS_ON and before and text == before + piece and held < len(text):
            held = len(text) if len(text) < len(secret) else held
        cut = len(text) - held
        self.rest = text[cut:]
        if m == MARKS_ALL and held:
            self.rest = ""
            return shown + text[:cut] + MARK
        return shown + (text if m == AGAIN else text[:cut])

    def letter_by_letter(self, piece: str) -> str:
        """A machine that starts over behind a letter that does not fit."""
        shown = ""
        for letter in piece:
            self.rest += letter
            if self.rest == self.secret:
                shown, self.rest = shown + MARK, ""
            elif not self.secret.startswith(self.rest):
                shown, self.rest = shown + self.rest, ""
        return shown

    def finish(self) -> str:
        rest, self.rest = self.rest, ""
        if self.mistake == LOSES_REST:
            return ""
        return rest.replace(self.secret, MARK) if self.mistake == HOLDS_ALL else rest


def answers(inputs: Inputs, mistake: str = "") -> list[str]:
    """What each step returns."""
    played = Played(inputs["secret"], mistake)
    return [getattr(played, method)(*arguments) for method, *arguments in inputs["steps"]]


def mistaken(name: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf([answers(inputs, name)])


def act(call: Call, made: Any, step: Sequence[Any]) -> str:
    """One step: the text that may be shown. Raises WrongForm."""
    value = play_step(call, made, step)
    if not isinstance(value, str):
        if value is None:
            raise must_be(f"the text that may be shown (str) from {step[0]}", value)
        raise WrongForm(
            "returns the wrong type", f"{step[0]} must return a str; it returned {describe(value)}."
        )
    return value


MISCONCEPTIONS = tuple(
    Misconception(name, why, mistaken(name))
    for name, why in (
        (
            EACH_PIECE,
            "A model sends its text a token at a time, and the secret comes in several: no piece holds the whole of "
            "it, and together they show it. What might be its beginning must wait for the next piece.",
        ),
        (
            HOLDS_ALL,
            "Nothing is shown before the end: right, but no stream any more. Show at once what cannot belong to the "
            "secret.",
        ),
        (
            HOLDS_LENGTH,
            "Enough is held back, and too much: the end of the text waits although the secret cannot begin there. "
            "Compare that end with the beginning of the secret.",
        ),
        (
            LOSES_REST,
            "What is still held back when the text is over was no secret: `finish` must give it out.",
        ),
        (FIRST_ONLY, "The secret may come again, in the same piece even."),
        (
            SHORTEST,
            "Several ends of the text may look like the beginning of the secret: a short one and a longer one. Hold "
            "back the *longest*, otherwise its first letters are shown, and the secret slips through.",
        ),
        (
            FALSE_START,
            "When a letter does not fit, the secret may have begun a little later: after `aa`, another `a` does not "
            "fit `aab`, and yet the last two are its beginning again.",
        ),
        (
            MARKS_ALL,
            "An end that *might* become the secret is not the secret. Wait: it may go on in an innocent way, and then "
            "belongs to the text.",
        ),
        (AGAIN, "What is held back must not be shown at the same time: later it is shown again."),
        (NO_MARK, f"In the secret's place there must be `{MARK}`."),
        (
            HOLDS_ON,
            "As soon as the next letters show that it is not the secret, what waited for them must be shown.",
        ),
    )
)


def valid(inputs: Inputs) -> bool:
    """Whether the secret is one, and ``finish`` comes once, at the end."""
    steps = inputs["steps"]
    if len(inputs["secret"]) < 2 or not steps or list(steps[-1]) != ["finish"]:
        return False
    return all(len(step) == 2 and step[0] == "push" for step in steps[:-1])


def making(
    tells_apart: Sequence[str] = (), secrets: Sequence[str] = ("key-77", "s3cret", "abcd"), longest: int = 4
) -> Callable[[random.Random], Inputs | None]:
    """A generator of texts, cut anywhere, on which each of these mistakes changes an answer."""

    def make(rng: random.Random) -> Inputs | None:
        secret = rng.choice(secrets)
        text = ""
        for _ in range(rng.randint(2, 5)):
            start = secret[: rng.randint(1, len(secret) - 1)]
            text += rng.choice(
                [secret, start, start, "is ", "x", secret[0], "a " if secret[0] != "a" else "o "]
            )
        if rng.random() < 0.8 and secret not in text:
            text += secret
        steps: list[list[str]] = []
        while text:
            size = rng.randint(0 if rng.random() < 0.1 else 1, longest)
            steps.append(["push", text[:size]])
            text = text[size:]
        inputs: Inputs = {"secret": secret, "steps": [*steps, ["finish"]]}
        right = answers(inputs)
        told = all(answers(inputs, mistake) != right for mistake in tells_apart)
        return inputs if told and valid(inputs) and len(steps) <= 12 else None

    return make


def stream_case(title: str, *examples: tuple[str, Sequence[str]], **case: Any) -> Case:
    inputs = [{"secret": s, "steps": [*(["push", piece] for piece in p), ["finish"]]} for s, p in examples]
    return script(title, answers, act, name=NAME, examples=inputs, valid=valid, **case)


LOOPS = ("aab", "abab", "xxy", "1121", "noni")  # which begin again inside of themselves
CASES = (
    stream_case(
        "The secret in one piece, and text without it at once.",
        ("key-77", ["the key", " is key-77", ", and key-77 is", " it"]),
        ("key-77", ["The answer is 4", "2."]),
    ),
    stream_case(
        "The secret in several pieces.",
        ("key-77", ["it is ke", "y-", "77", "."]),
        make=making([EACH_PIECE, MARKS_ALL, AGAIN, NO_MARK, HOLDS_ALL, HOLDS_LENGTH]),
        count=4,
    ),
    stream_case(
        "What looked like its beginning and was not.",
        ("key-77", ["a key", "-", "board"]),
        make=making([HOLDS_ON, LOSES_REST]),
        count=3,
    ),
    stream_case("More than once.", make=making([FIRST_ONLY], longest=9), count=3),
    stream_case(
        "A secret that can begin inside of itself.",
        ("aab", ["a", "a", "a", "b"]),
        make=making([FALSE_START], LOOPS),
        count=3,
    ),
    stream_case("The longest end that may become the secret.", make=making([SHORTEST], LOOPS), count=3),
)

STREAM_FILTER = Exercise(
    id="07.StreamFilter",
    title="Keep a secret out of a stream",
    signature="StreamFilter(secret)",
    prepare=lambda inputs: {"secret": inputs["secret"]},
    show=lambda inputs: script_text(NAME, f"StreamFilter({inputs['secret']!r})", inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Keep the text that is held back in `self.held`. In `push`, put the new piece behind it and look at the whole; "
        "take out every complete secret first (`text.find(secret)`, or `text.split(secret)`).",
        "What is left has no complete secret in it. How much of its *end* could be the beginning of one? Try the "
        "lengths from `len(secret) - 1` down to 0 with `text.endswith(secret[:n])`; the first that fits is the "
        "longest.",
        "Hold back so many characters, return all before them. Careful with n = 0: `text[:-0]` is empty, so cut at "
        "`len(text) - n`. `finish` returns what is held.",
    ),
    analogue="""
A proof-reader gets a text on a paper strip, a scrap at a time, and must blacken every "cocoa". She passes on at once
what is certain.

| scrap | she holds | why | passed on |
|---|---|---|---|
| `a co` | `co` | may become cocoa | `a ` |
| `co` | `coco` | still may | nothing |
| `co` | `coco` | `cococo`: the first two letters cannot be its beginning any more, the last four can | `co` |
| `a!` | | `cocoa` is complete, `!` is free | ■`!` |

```python
strip = "cococo"
for n in range(4, -1, -1):               # the longest first
    if strip.endswith("cocoa"[:n]):
        break                            # n is 4
```
""",
)
