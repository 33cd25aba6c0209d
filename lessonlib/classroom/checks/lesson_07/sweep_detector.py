"""07.SweepDetector: who fills one template with word after word, as somebody does who copies a model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, WrongForm
from ...forms import TYPE, describe

NAME = "detector"

SAME_TEXT = "counts equal prompts"
VOLUME = "counts all prompts"
NO_STAR = "counts prompts without a new word"
TOO_LATE = "answers one prompt too late"
SHARED_WORDS = "all users share the words that are known"
SHARED_COUNTS = "adds up the prompts of all users"
LEARNS_FIRST = "learns the words before it looks for new ones"
LEARNS_ON_THE_WAY = "learns words in the middle of a prompt"
CASE = "takes upper and lower case for different words"
NEVER_LEARNS = "forgets every word"
FORGETS_ORDER = "ignores the order of the words"
ONCE = "says it once only"
STAYS = "never takes it back"


class Played:
    """A detector with at most one mistake."""

    def __init__(self, limit: int, mistake: str = ""):
        self.limit, self.mistake = limit, mistake
        self.known: dict[str, set[str]] = {}
        self.counts: dict[str, Counter[Any]] = {}
        self.caught: set[str] = set()

    def check(self, user: str, prompt: str) -> bool:
        m = self.mistake
        words = (prompt if m == CASE else prompt.lower()).split()
        known = self.known.setdefault("" if m == SHARED_WORDS else user, set())
        counts = self.counts.setdefault("" if m == SHARED_COUNTS else user, Counter())
        if m == LEARNS_FIRST:
            known.update(words)
        skeleton = []
        for word in words:
            skeleton.append(word if word in known else "*")
            if m == LEARNS_ON_THE_WAY:
                known.add(word)
        if m != NEVER_LEARNS:
            known.update(words)
        key: Any = tuple(sorted(skeleton) if m == FORGETS_ORDER else skeleton)
        if m == SAME_TEXT:
            key = prompt
        elif m == VOLUME:
            key = None
        elif "*" not in skeleton and m != NO_STAR:
            return m == STAYS and user in self.caught
        counts[key] += 1
        found = counts[key] > self.limit if m == TOO_LATE else counts[key] >= self.limit
        if found:
            self.caught.add(user)
        if m == ONCE:
            return counts[key] == self.limit
        return user in self.caught if m == STAYS else found


def answers(inputs: Inputs, mistake: str = "") -> list[bool]:
    """What each step returns."""
    played = Played(inputs["limit"], mistake)
    return [played.check(user, prompt) for _, user, prompt in inputs["steps"]]


def mistaken(name: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf([answers(inputs, name)])


def act(call: Call, made: Any, step: Sequence[Any]) -> bool:
    """One step: True or False. Raises WrongForm."""
    value = play_step(call, made, step)
    if not isinstance(value, bool):
        raise WrongForm(TYPE, f"check must return True or False; it returned {describe(value)}.")
    return value


MISCONCEPTIONS = tuple(
    Misconception(name, why, mistaken(name))
    for name, why in (
        (
            SAME_TEXT,
            "A thief never sends the same prompt twice: the second answer teaches nothing. What repeats is the "
            "*pattern*, with a new word in it each time.",
        ),
        (
            VOLUME,
            "Many prompts alone are no sign: somebody at work sends many too. Count those of one skeleton.",
        ),
        (
            NO_STAR,
            "A prompt in which no word is new has no `*` in its skeleton. It fills no pattern (a monitor asks the same "
            "thing every minute), and does not count.",
        ),
        (TOO_LATE, "With a limit of 3, the *third* prompt of a skeleton is the first suspicious one."),
        (
            SHARED_WORDS,
            "New is what *this* user has not used before. If the words of all users count as known, the thief hides "
            "behind everybody else's.",
        ),
        (SHARED_COUNTS, "Three users who ask one thing each are no thief. Count for each user apart."),
        (
            LEARNS_FIRST,
            "If the words of a prompt are remembered before its skeleton is made, no word is ever new. Look first, "
            "learn afterwards.",
        ),
        (
            LEARNS_ON_THE_WAY,
            "A word that stands twice in a prompt is new both times: what counts is what was used in *earlier* "
            "prompts.",
        ),
        (CASE, "`Define` and `define` are one word: make the prompt lower case first."),
        (
            NEVER_LEARNS,
            "The words of a prompt must be remembered afterwards. Otherwise every skeleton consists of stars only, and "
            "people who merely send prompts of equal length are taken for thieves.",
        ),
        (FORGETS_ORDER, "`define *` and `* define` are two patterns: the order of the words belongs to it."),
        (ONCE, "The fourth, the fifth … prompt of the pattern is suspicious as well."),
        (
            STAYS,
            "`check` judges this prompt. A user who has filled a pattern may go on to ordinary work.",
        ),
    )
)

WORDS = (
    "cat",
    "dog",
    "sun",
    "tree",
    "river",
    "stone",
    "bird",
    "cloud",
    "house",
    "road",
    "lamp",
    "chair",
    "moon",
    "fish",
    "boat",
    "glass",
    "door",
    "song",
)
TEMPLATES = ("define", "What is", "Translate", "tell me about", "sort", "Spell")
PLAIN = ("sort this list please", "please sort this list", "why does this list fail", "Sort this please")


def valid(inputs: Inputs) -> bool:
    if not 2 <= inputs["limit"] <= 9 or not inputs["steps"]:
        return False
    return all(len(s) == 3 and s[0] == "check" and s[1] and s[2].strip() for s in inputs["steps"])


def making(
    tells_apart: Sequence[str] = (),
    prompts: int = 7,
    users: Sequence[str] = ("ann",),
    limit: tuple[int, int] = (2, 3),
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scripts on which each of these mistakes changes an answer."""

    def make(rng: random.Random) -> Inputs | None:
        templates, words = rng.sample(TEMPLATES, 2), rng.sample(WORDS, 6)
        said, steps = list[str](), list[list[str]]()
        for _ in range(prompts):
            template, word = rng.choice(templates), rng.choice(words)
            forms = [f"{template} {word}"] * 5
            forms += [f"{word} {template}", f"{template} {word} {word}", f"{template.upper()} {word}"]
            forms += [rng.choice(PLAIN), *said[-1:]]
            said.append(rng.choice(forms))
            steps.append(["check", rng.choice(users), said[-1]])
        inputs: Inputs = {"limit": rng.randint(*limit), "steps": steps}
        right = answers(inputs)
        return inputs if all(answers(inputs, mistake) != right for mistake in tells_apart) else None

    return make


def script_case(title: str, *examples: tuple[int, Sequence[tuple[str, str]]], **case: Any) -> Case:
    inputs = [
        {"limit": limit, "steps": [["check", user, prompt] for user, prompt in asked]}
        for limit, asked in examples
    ]
    return script(title, answers, act, name=NAME, examples=inputs, valid=valid, **case)


def by(user: str, *prompts: str) -> list[tuple[str, str]]:
    return [(user, prompt) for prompt in prompts]


CASES = (
    script_case(
        "A template filled with new words is noticed.",
        (3, by("ann", "define cat", "define dog", "define sun", "define tree", "define moon")),
        make=making([SAME_TEXT, LEARNS_FIRST, TOO_LATE, ONCE]),
        count=3,
    ),
    script_case(
        "The same question again is no sweep, nor is ordinary work.",
        (
            2,
            by(
                "ann", "sort this list", "sort this list", "sort this list", "why does sort fail", "this list"
            ),
        ),
        make=making([NO_STAR, VOLUME, STAYS]),
        count=3,
    ),
    script_case(
        "What is new is decided by earlier prompts, in any case of letters.",
        (2, by("ann", "Say cat cat", "say dog dog", "SAY sun sun", "say moon boat")),
        make=making([LEARNS_ON_THE_WAY, CASE, NEVER_LEARNS]),
        count=4,
    ),
    script_case("The order of the words belongs to the pattern.", make=making([FORGETS_ORDER], 8), count=2),
    script_case(
        "Users are kept apart.",
        make=making([SHARED_WORDS, SHARED_COUNTS], 8, ("ann", "bob")),
        count=4,
    ),
)

SWEEP_DETECTOR = Exercise(
    id="07.SweepDetector",
    title="Notice a sweep",
    signature="SweepDetector(limit)",
    prepare=lambda inputs: {"limit": inputs["limit"]},
    show=lambda inputs: script_text(NAME, f"SweepDetector({inputs['limit']})", inputs),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Two things have to be remembered for each user: the set of words used so far, and how often each skeleton "
        "came. Two dictionaries will do, with `self.known.setdefault(user, set())` and a count for each `(user, "
        "skeleton)`.",
        "`check` has four steps in this order: cut the prompt into words (`prompt.lower().split()`); make the "
        "skeleton, "
        '`"*"` for each word that is not known yet; add the words to the known ones; count.',
        'A tuple of words can be a key of a dictionary, a list cannot. If there is no `"*"` in the skeleton, return '
        "`False` without counting.",
    ),
    analogue="""
A ticket inspector notices whoever tries one name after another at the counter. She writes down the *form* of what is
said, with a dash for every name she has not heard from that person before:

| said | she notes |
|---|---|
| ticket for Ann | – – – (all of it is new) |
| ticket for Ben | ticket for – |
| ticket for Cem | ticket for – (twice) |
| ticket for Ben | ticket for Ben (nothing new: no note) |
| ticket for Dora | ticket for – (three times: look up) |

```python
notes[form] = notes.get(form, 0) + 1      # form is a tuple: ("ticket", "for", "–")
```

The first sentence is spent on learning how this person speaks. A second person at the counter gets a page of their own.
""",
)
