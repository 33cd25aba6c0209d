"""02.KVCache: the memory taken once, then append, rewind and reset without copying anything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ...cases import script, script_text
from ...exercises import AnyOf, Call, Case, Exercise, Inputs, Misconception, Observation, WrongForm
from ...forms import METHOD, SHAPE, describe, memory_of, must_be

NAME = "cache"
RAISES = "raises ValueError"

STARTS_OVER = "every append writes at the beginning"
ONLY_NEW = "returns only the new tokens"
WHOLE_SLAB = "returns the empty places as well"
KEYS_TWICE = "returns the keys for the values"
NO_LIMIT = "does not notice that it is full"
VANISHES = "the token for which there is no room vanishes"  # one way of NO_LIMIT
REWIND_NOTHING = "rewind does nothing"
REWIND_DROPS = "rewind drops that many tokens instead of keeping them"
REWIND_MORE = "rewind keeps one token too many"
FORWARDS = "rewinds forwards"
STALE = "reset leaves the old tokens"
WIPES = "reset wipes the tokens but keeps their number"  # another way of STALE
COPIES = "copies everything at every append"

Held = list[int]


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns: the tokens that keys and values show, RAISES, or None."""
    held: Held = []
    found: list[Any] = []
    for step in inputs["steps"]:
        if step[0] == "append":
            answer, held = _append(held, list(step[1]), inputs, mistake)
            found.append(answer)
        elif step[0] == "rewind":
            answer, held = _rewind(held, step[1], inputs, mistake)
            found.append(answer)
        else:
            held = {STALE: held, WIPES: [0] * len(held)}.get(mistake, [])
            found.append(None)
    return found


def _append(held: Held, new: Held, inputs: Inputs, mistake: str) -> tuple[Any, Held]:
    if len(held) + len(new) > inputs["size"] and mistake not in (NO_LIMIT, VANISHES):
        return RAISES, held
    first, before = not held, held
    held = held + new
    if mistake == STARTS_OVER:
        held = [*new, *before[len(new) :], *[0] * min(len(before), len(new))]
    if mistake == VANISHES:
        held = held[: inputs["size"]]
    shown = new if mistake == ONLY_NEW else held
    if mistake == WHOLE_SLAB:
        shown = held + [0] * (inputs["size"] - len(held))
    values = shown if mistake == KEYS_TWICE else [-token for token in shown]
    answer: dict[str, Any] = {"keys": shown, "values": values}
    if inputs.get("_watched"):
        answer["copied"] = mistake == COPIES and not first
    return answer, held


def _rewind(held: Held, length: int, inputs: Inputs, mistake: str) -> tuple[Any, Held]:
    if length > len(held):
        return (None, held) if mistake in (FORWARDS, REWIND_NOTHING) else (RAISES, held)
    if mistake == REWIND_NOTHING:
        return None, held
    if mistake == REWIND_DROPS:
        return None, held[: len(held) - length]
    return None, held[: length + (mistake == REWIND_MORE)]


def act(call: Call, made: Any, step: Sequence[Any]) -> Any:
    """One step; the answer of append as {"keys": tokens, "values": tokens}."""
    from .toys import kv

    method = getattr(made, step[0], None)
    if not callable(method):
        raise WrongForm(METHOD, f"The exercise asks for a method {step[0]}(…); there is none.")
    if step[0] != "append":
        call.then(method, *step[1:])
        return None
    return read(call.then(method, *kv(step[1])))


def watched(call: Call, inputs: Inputs) -> list[Any]:
    """All steps, and with each append whether the keys have moved to other memory since the first one."""
    from .toys import kv

    made = call(inputs)
    found: list[Any] = []
    alive: list[Any] = []
    first = None
    for step in inputs["steps"]:
        if step[0] != "append":
            found.append(act(call, made, step))
            continue
        value = call.then(made.append, *kv(step[1]))
        shown, memory = read(value), memory_of(value[0])
        alive.append(value)  # so that no other table can lie at the same address
        first = first or memory
        found.append({**shown, "copied": memory != first})
    return found


def read(value: Any) -> dict[str, Any]:
    """Keys and values, (held, 2) each, as the token numbers they were made of. Raises WrongForm."""
    import torch

    wanted = "two torch.Tensors, keys and values, each of shape (held, dim)"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise must_be(wanted, value)
    for table in value:
        if not isinstance(table, torch.Tensor):
            raise must_be(wanted, table)
        if table.dim() != 2 or table.shape[1] != 2:
            raise WrongForm(
                SHAPE, f"append must return {wanted}; here dim is 2, and one of them is {describe(table)}."
            )
    keys, values = ([int(x) for x in table[:, 0].tolist()] for table in value)
    return {"keys": keys, "values": values}


def write(name: str, step: Sequence[Any]) -> str:
    if step[0] == "append":
        return f"{name}.append(*kv({list(step[1])}))"
    return f"{name}.{step[0]}({', '.join(map(repr, step[1:]))})"


def complained(inputs: Inputs, seen: Observation) -> bool:
    """Whether a full cache ended in PyTorch's own error."""
    return bool(
        seen.error and seen.error.type in ("RuntimeError", "IndexError") and RAISES in answers(inputs)
    )


def mistaken(*names: str) -> Any:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


MISCONCEPTIONS = (
    Misconception(
        STARTS_OVER,
        "New tokens go *behind* those held: to the places `length`, `length + 1` … Where does yours write?",
        mistaken(STARTS_OVER),
    ),
    Misconception(
        ONLY_NEW,
        "Attention needs the keys and values of all tokens so far: return the first `length` places, not only "
        "the new ones.",
        mistaken(ONLY_NEW),
    ),
    Misconception(
        WHOLE_SLAB,
        "Behind the held tokens the memory is reserved but empty. Return the first `length` places.",
        mistaken(WHOLE_SLAB),
    ),
    Misconception(KEYS_TWICE, "Both tables that came back are the keys.", mistaken(KEYS_TWICE)),
    Misconception(
        NO_LIMIT,
        "`size` tokens fit and not one more. Ask yourself *before* you write, and `raise ValueError(...)`. "
        "Otherwise a slice past the end takes nothing without a word, or PyTorch complains of sizes that the "
        "caller has never heard of.",
        mistaken(NO_LIMIT, VANISHES),
        sees=complained,
    ),
    Misconception(
        REWIND_NOTHING,
        "`rewind(n)` takes back everything from place n on; here the tokens are still there.",
        mistaken(REWIND_NOTHING),
    ),
    Misconception(
        REWIND_DROPS,
        "`rewind(n)` says how many tokens *stay*, not how many go.",
        mistaken(REWIND_DROPS),
    ),
    Misconception(
        REWIND_MORE,
        "After `rewind(n)` exactly n tokens are held, those at places 0 to n - 1.",
        mistaken(REWIND_MORE),
    ),
    Misconception(
        FORWARDS,
        "One can only go back: behind the held tokens nothing was ever written. A larger n is a ValueError.",
        mistaken(FORWARDS),
    ),
    Misconception(
        STALE,
        "After `reset` nothing is held: the next tokens go to place 0, and only they come back.",
        mistaken(STALE, WIPES),
    ),
    Misconception(
        COPIES,
        "The tokens are right, but they lie somewhere else after each `append`: all that was held has been "
        "copied. Take the memory once, in `__init__`, and write into it. A slice of it, unlike `torch.cat` "
        "and `.clone()`, copies nothing.",
        mistaken(COPIES),
    ),
)


def valid(inputs: Inputs) -> bool:
    """Whether every step can be played, and a refused step is worth asking about."""
    plain = all(
        step
        and ((step[0] == "reset" and len(step) == 1) or (step[0] in ("append", "rewind") and len(step) == 2))
        for step in inputs["steps"]
    )
    if not inputs["steps"] or not plain or not 1 <= inputs["size"] <= 100:
        return False
    for step in inputs["steps"]:
        if step[0] == "append" and not (
            isinstance(step[1], list) and step[1] and all(0 < t < 100 for t in step[1])
        ):
            return False
        if step[0] == "rewind" and not (isinstance(step[1], int) and step[1] >= 0):
            return False
    return True


def making(tells_apart: Sequence[str], methods: Sequence[str], watched: bool = False) -> Any:
    """A generator of scripts of these methods, in order, on which each of these mistakes changes an answer."""

    def make(rng: random.Random) -> Inputs | None:
        size, token = rng.randint(4, 9), iter(range(1, 100))
        steps: list[Any] = []
        held = 0
        for method in methods:
            if method == "append":
                steps.append(["append", [next(token) for _ in range(rng.randint(1, 3))]])
                held += len(steps[-1][1]) if held + len(steps[-1][1]) <= size else 0
            elif method == "rewind":
                steps.append(["rewind", rng.randint(int(watched), held)])
                held = steps[-1][1]
            else:
                steps.append([method])
                held = 0
        inputs: Inputs = {"size": size, "steps": steps, **({"_watched": True} if watched else {})}
        right = answers(inputs)
        if watched and RAISES in right:
            return None
        return inputs if all(answers(inputs, m) != right for m in tells_apart) else None

    return make


def cache_case(title: str, *examples: tuple[int, Sequence[Any]], **case: Any) -> Case:
    more = {"_watched": True} if "trial" in case else {}
    inputs = [{"size": size, "steps": list(steps), **more} for size, steps in examples]
    return script(
        title,
        answers,
        act,
        errors=["ValueError"],
        name=NAME,
        write=write,
        examples=inputs,
        valid=valid,
        **case,
    )


CASES = (
    cache_case(
        "`append` returns all keys and values held so far.",
        (4, [["append", [5]]]),
        (4, [["append", [5, 7]], ["append", [3]]]),
        make=making([ONLY_NEW, STARTS_OVER, WHOLE_SLAB], ["append"] * 3),
        count=2,
    ),
    cache_case(
        "A token for which there is no room is a ValueError; what is held stays.",
        (2, [["append", [5, 7]], ["append", [3]]]),
        (3, [["append", [5, 7]], ["append", [3, 8]], ["append", [9]]]),
        make=making([NO_LIMIT], ["append"] * 5),
        count=2,
    ),
    cache_case(
        "`rewind(n)` keeps the first n tokens.",
        (4, [["append", [5, 7, 3]], ["rewind", 1], ["append", [8]]]),
        (4, [["append", [5, 7]], ["rewind", 2], ["append", [8]]]),
        make=making([REWIND_NOTHING, REWIND_DROPS, REWIND_MORE], ["append", "append", "rewind", "append"]),
        count=3,
    ),
    cache_case(
        "One cannot rewind to tokens that are not there.",
        (4, [["append", [5]], ["rewind", 2]]),
        (4, [["append", [5, 7, 3]], ["rewind", 1], ["rewind", 2]]),
    ),
    cache_case(
        "After `reset` nothing is held.",
        (4, [["append", [5, 7]], ["reset"], ["append", [3]]]),
        (3, [["append", [5, 7]], ["reset"], ["append", [3, 8, 9]]]),
        make=making([STALE], ["append", "append", "reset", "append"]),
        count=2,
    ),
    cache_case(
        "The memory is taken once: growing and going back copies nothing that is held.",
        (4, [["append", [5]], ["append", [7]], ["append", [3]]]),
        (4, [["append", [5, 7]], ["rewind", 1], ["append", [3, 8]]]),
        trial=watched,
    ),
)

KV_CACHE = Exercise(
    id="02.KVCache",
    title="A cache in one piece of memory",
    signature="KVCache(size, dim)",
    prepare=lambda inputs: {"size": inputs["size"], "dim": 2},
    show=lambda inputs: script_text(NAME, f"KVCache({inputs['size']}, 2)", inputs, write),
    about=(
        "`kv([5, 7])` makes keys and values one can read: `[[5, 5], [7, 7]]` and `[[-5, -5], [-7, -7]]`. The "
        "card shows the numbers of the tokens only, and where it asks so, whether the keys lie in other "
        "memory than at first."
    ),
    cases=CASES,
    misconceptions=MISCONCEPTIONS,
    hints=(
        "Three things belong to `self`: a table for the keys, `torch.zeros(size, dim)`, one for the values, "
        "and how many of their rows are in use. `append` of n tokens writes to n rows. Which ones?",
        "Rows `length` to `length + n` (the last not included): `self.keys[start:end] = k`. Check first that "
        "`end` is not larger than `size`. Then set the new length and return `self.keys[:end]` and "
        "`self.values[:end]`.",
        "`rewind(n)` changes one number and nothing else: what lies behind it is simply never shown again and "
        "later written over. It only has to refuse an n that is larger than the length. `reset` is a rewind "
        "to 0.",
    ),
    analogue="""
A whiteboard of fixed size, one line for each thing to do. Nobody copies the board to add a line, and nobody wipes
it to take one back; there is a magnet that says *up to here*:

```python
class Whiteboard:
    def __init__(self, lines):
        self.board, self.magnet = [""] * lines, 0

    def write(self, text):
        if self.magnet == len(self.board):
            raise ValueError("The whiteboard is full.")     # before anything is changed
        self.board[self.magnet] = text
        self.magnet += 1

    def back_to(self, line):
        if line > self.magnet:
            raise ValueError("That line was never written.")
        self.magnet = line                                   # the old words stay, but nobody reads them
```

A Python list needs none of this, because it grows by itself. Tensors do not: `torch.cat` makes a new one.
""",
)
