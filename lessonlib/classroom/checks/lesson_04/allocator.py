"""04.BlockAllocator: KV memory in blocks: tables that grow, shared beginnings, and nobody's block given away."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ...cases import play_step, script, script_text
from ...exercises import Call, Case, Exercise, Inputs, WrongForm
from ...forms import TYPE, describe, must_be
from . import allocator_mistakes as mistakes
from .allocator_mistakes import MISCONCEPTIONS, Played, answers

NAME = "pool"


def act(call: Call, made: Any, step: Sequence[Any]) -> Any:
    """One step; a table as a list of ints. Raises WrongForm."""
    value = play_step(call, made, step)
    if step[0] == "release":
        return None
    if step[0] == "available":
        if isinstance(value, bool) or not isinstance(value, int):
            raise must_be("a whole number (int)", value)
        return value
    wanted = "a list of block numbers, the table of the request"
    if not isinstance(value, (list, tuple)):
        raise must_be(wanted, value)
    for block in value:
        if isinstance(block, bool) or not isinstance(block, int):
            raise WrongForm(TYPE, f"{step[0]} must return {wanted}; one of its items is {describe(block)}.")
    return list(value)


def write(name: str, step: Sequence[Any]) -> str:
    return f"{name}.{step[0]}({', '.join(map(repr, step[1:]))})"


def show(inputs: Inputs) -> str:
    making = f"BlockAllocator({inputs['num_blocks']}, {inputs['block_size']})"
    return script_text(NAME, making, inputs, write)


def valid(inputs: Inputs) -> bool:
    """Whether the steps make sense: known names are shared and released, and no more is shared than there is."""
    if not inputs["steps"] or not 1 <= inputs["num_blocks"] <= 40 or not 1 <= inputs["block_size"] <= 16:
        return False
    tokens: dict[str, int] = {}
    for step, answer in zip(inputs["steps"], _played(inputs), strict=False):
        kind = step[0] if step else ""
        shape = (kind, len(step))
        if shape == ("grow", 3):
            if not _is_name(step[1]) or not _count(step[2]):
                return False
            tokens[step[1]] = (
                max(tokens.get(step[1], 0), step[2]) if answer != mistakes.RAISES else tokens.get(step[1], 0)
            )
        elif shape == ("share", 4):
            new, old, n = step[1:]
            if not _is_name(new) or new in tokens or not _count(n) or n > tokens.get(old, 0):
                return False
            tokens[new] = n // inputs["block_size"] * inputs["block_size"]
        elif shape == ("release", 2):
            if tokens.pop(step[1], None) is None:
                return False
        elif shape != ("available", 1):
            return False
    return True


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _played(inputs: Inputs) -> list[Any]:
    """The right answers, as far as the steps make sense."""
    played, found = Played(inputs, ""), []
    for step in inputs["steps"]:
        try:
            found.append(played.play(step))
        except (LookupError, TypeError, AttributeError, ValueError):
            found.append(None)
    return found


def making(
    tells_apart: Sequence[str], methods: Sequence[str], blocks: tuple[int, int] = (6, 10)
) -> Callable[[random.Random], Inputs | None]:
    """A generator of scripts of these methods, in order, on which each of these mistakes changes an answer."""

    def make(rng: random.Random) -> Inputs | None:
        size = rng.randint(2, 5)
        inputs: Inputs = {"num_blocks": rng.randint(*blocks), "block_size": size, "steps": []}
        tokens: dict[str, int] = {}
        fresh = iter("abcdefghijkl")
        for method in methods:
            step: list[Any] = [method]
            if method == "grow":
                name = rng.choice([*tokens, ""]) or next(fresh)
                step += [name, tokens.get(name, 0) + rng.randint(1, 3 * size)]
            elif method in ("share", "release"):
                if not tokens:
                    return None
                old = rng.choice([*tokens])
                step += [next(fresh), old, rng.randint(1, tokens[old])] if method == "share" else [old]
            inputs["steps"].append(step)
            if answers(inputs)[-1] == mistakes.RAISES:
                continue
            if method == "grow":
                tokens[step[1]] = step[2]
            elif method == "share":
                tokens[step[1]] = max(1, step[3] // size * size)
            elif method == "release":
                del tokens[step[1]]
        if not valid(inputs):
            return None
        right = answers(inputs)
        return inputs if all(answers(inputs, mistake) != right for mistake in tells_apart) else None

    return make


def pool_case(title: str, *examples: tuple[int, int, Sequence[Any]], **case: Any) -> Case:
    inputs = [{"num_blocks": n, "block_size": size, "steps": list(steps)} for n, size, steps in examples]
    return script(
        title, answers, act, ["MemoryError"], name=NAME, write=write, examples=inputs, valid=valid, **case
    )


FREE = ["available"]
CASES = (
    pool_case(
        "A table has as many blocks as its tokens need, a begun one included.",
        (8, 4, [["grow", "a", 3]]),
        (8, 4, [["grow", "a", 8], FREE]),
        (8, 4, [["grow", "a", 5], FREE]),
    ),
    pool_case(
        "A table grows by what it lacks; each block belongs to one request.",
        (8, 4, [["grow", "a", 4], ["grow", "b", 6], ["grow", "a", 5], ["grow", "a", 6], FREE]),
        make=making(
            [mistakes.ROUNDS_DOWN, mistakes.BLOCK_MORE, mistakes.ALL_AGAIN, mistakes.OTHER_BLOCK],
            ["grow"] * 4,
        ),
        count=3,
    ),
    pool_case(
        "Too few free blocks: MemoryError, and nothing is taken.",
        (3, 4, [["grow", "a", 8], ["grow", "b", 9], FREE, ["grow", "b", 4]]),
        make=making([mistakes.PARTIAL, mistakes.NO_ERROR], [*["grow"] * 5, "available"], blocks=(4, 7)),
        count=2,
    ),
    pool_case(
        "A released request gives its blocks back.",
        (4, 4, [["grow", "a", 8], ["grow", "b", 4], ["release", "a"], FREE, ["grow", "c", 9]]),
        (4, 4, [["grow", "a", 8], ["release", "a"], ["grow", "a", 4]]),
        make=making(
            [mistakes.KEEPS, mistakes.OLDEST], ["grow", "grow", "release", "grow", "available", "grow"]
        ),
        count=2,
    ),
    pool_case(
        "A shared beginning uses the same blocks, and only full ones.",
        (8, 4, [["grow", "a", 10], ["share", "b", "a", 8], FREE, ["grow", "b", 12]]),
        (8, 4, [["grow", "a", 10], ["share", "b", "a", 6], ["grow", "b", 12], ["grow", "a", 14]]),
        (8, 4, [["grow", "a", 8], ["share", "b", "a", 8], ["grow", "b", 12], ["grow", "a", 12]]),
        make=making(
            [mistakes.SHARES_PARTLY, mistakes.COPIES, mistakes.SHARES_ALL],
            ["grow", "grow", "share", "grow", "grow"],
        ),
        count=3,
    ),
    pool_case(
        "A shared block is free when its last holder has left, not before.",
        (6, 4, [["grow", "a", 8], ["share", "b", "a", 8], ["release", "a"], FREE, ["grow", "c", 8]]),
        (6, 4, [["grow", "a", 8], ["share", "b", "a", 8], ["release", "a"], ["release", "b"], FREE]),
        make=making(
            [mistakes.NO_COUNT, mistakes.LEAKS],
            ["grow", "share", "grow", "release", "grow", "release", "available", "grow"],
        ),
        count=3,
    ),
)

BLOCK_ALLOCATOR = Exercise(
    id="04.BlockAllocator",
    title="An allocator of KV blocks",
    signature="BlockAllocator(num_blocks, block_size)",
    prepare=lambda inputs: {"num_blocks": inputs["num_blocks"], "block_size": inputs["block_size"]},
    show=show,
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "A block's whole story is one number, how many tables hold it: `self.holders[block]`. Free means 0. Which "
        "lines of which methods change it, and by how much?",
        "`grow`: how many blocks do `tokens` tokens need (round up), how many does the table have, how many are free? "
        "Compare, raise if it does not work out, and only then take: `self.holders[block] = 1`, `table.append(block)`.",
        "`share`: the first `tokens // block_size` entries of the old table, as a new list (`[:n]`), each counted "
        "once more. `release`: `self.tables.pop(name)` takes the table out; each of its blocks is counted once less. "
        "Nothing else is needed: a block at 0 is free by itself.",
    ),
    analogue="""
A library lends copies of leaflets. A leaflet that several people share is put back on the shelf by the last of them:

```python
class Library:
    def __init__(self, leaflets):
        self.readers = [0] * leaflets
        self.bags = {}

    def lend(self, name, many):
        shelf = [i for i, n in enumerate(self.readers) if n == 0]
        if many > len(shelf):
            raise LookupError("There are not so many on the shelf.")     # nobody has been given anything yet
        self.bags[name] = shelf[:many]
        for leaflet in self.bags[name]:
            self.readers[leaflet] += 1

    def read_along(self, friend, name):
        self.bags[friend] = list(self.bags[name])     # a bag of their own, the same leaflets
        for leaflet in self.bags[friend]:
            self.readers[leaflet] += 1

    def bring_back(self, name):
        for leaflet in self.bags.pop(name):
            self.readers[leaflet] -= 1
```
""",
)
