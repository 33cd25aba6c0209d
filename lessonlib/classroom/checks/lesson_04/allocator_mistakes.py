"""What an allocator of blocks answers step by step, done right and with each known mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception

RAISES = "raises MemoryError"

ROUNDS_DOWN = "rounds down"
BLOCK_MORE = "takes a block too many"
ALL_AGAIN = "takes blocks for all tokens again"
PARTIAL = "takes some blocks before it notices"
NO_ERROR = "does not notice that the blocks are used up"
OTHER_BLOCK = "takes another free block than the lowest"
SHARES_PARTLY = "shares a block that is not full"
SHARES_ALL = "shares the whole table"
COPIES = "takes new blocks instead of sharing"
ALIAS = "two requests have the same list"
NO_COUNT = "gives away a block that another request holds"
LEAKS = "shared blocks never become free"
KEEPS = "release frees nothing"
KEEPS_TABLE = "a released request still has its table"

SHARES_TOO_FEW = "shares a block too few"
OLDEST = "takes the block that has been free longest"  # one way of OTHER_BLOCK


class Played:
    """An allocator with at most one mistake."""

    def __init__(self, inputs: Inputs, mistake: str):
        self.size, self.mistake = inputs["block_size"], mistake
        self.holders = [0] * inputs["num_blocks"]
        self.order = list(range(inputs["num_blocks"]))  # free blocks in the order of their release
        self.tables: dict[str, list[int]] = {}

    def play(self, step: Sequence[Any]) -> Any:
        method, *arguments = step
        try:
            return getattr(self, method)(*arguments)
        except MemoryError:
            return RAISES
        except KeyError:  # a mistake refused this name before, wrongly
            return "raises KeyError"

    def available(self) -> int:
        return self.holders.count(0)

    def grow(self, name: str, tokens: int) -> list[int]:
        table = self.tables.setdefault(name, [])
        if self.mistake == ROUNDS_DOWN:
            wanted = tokens // self.size
        elif self.mistake == BLOCK_MORE:
            wanted = tokens // self.size + 1
        else:
            wanted = -(-tokens // self.size)
        missing = wanted if self.mistake == ALL_AGAIN else max(0, wanted - len(table))
        if missing > self.available() and self.mistake not in (PARTIAL, NO_ERROR):
            raise MemoryError
        for _ in range(missing):
            if not self.available():
                if self.mistake == NO_ERROR:
                    break
                raise MemoryError
            table.append(self._take())
        return list(table)

    def share(self, new: str, old: str, tokens: int) -> list[int]:
        full = tokens // self.size
        if self.mistake == COPIES:
            if full > self.available():
                raise MemoryError
            self.tables[new] = [self._take() for _ in range(full)]
            return list(self.tables[new])
        if self.mistake == SHARES_PARTLY:
            full = -(-tokens // self.size)
        elif self.mistake == SHARES_TOO_FEW:
            full = max(0, full - 1)
        elif self.mistake in (SHARES_ALL, ALIAS):
            full = len(self.tables[old])
        table = self.tables[old] if self.mistake == ALIAS else self.tables[old][:full]
        self.tables[new] = table
        if self.mistake != NO_COUNT:
            for block in table:
                self.holders[block] += 1
        return list(table)

    def release(self, name: str) -> None:
        table = self.tables[name] if self.mistake == KEEPS_TABLE else self.tables.pop(name)
        if self.mistake == KEEPS:
            return
        for block in table:
            if self.mistake == LEAKS and self.holders[block] > 1:
                continue
            self.holders[block] = max(0, self.holders[block] - 1)
            if not self.holders[block]:
                self.order.append(block)

    def _take(self) -> int:
        free = [b for b, holders in enumerate(self.holders) if not holders]
        block = free[0]
        if self.mistake == OTHER_BLOCK:
            block = free[-1]
        elif self.mistake == OLDEST:
            block = next(b for b in self.order if b in free)
            self.order.remove(block)
        self.holders[block] = 1
        return block


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns: a table, RAISES, a number of free blocks, or None."""
    played = Played(inputs, mistake)
    return [played.play(step) for step in inputs["steps"]]


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


MISCONCEPTIONS = (
    Misconception(
        ROUNDS_DOWN,
        "Five tokens do not fit into one block of four: a block that is begun is needed as a whole. Round up: "
        "`-(-tokens // block_size)`.",
        mistaken(ROUNDS_DOWN),
    ),
    Misconception(
        BLOCK_MORE,
        "`tokens // block_size + 1` is one too many whenever the last block is exactly full.",
        mistaken(BLOCK_MORE),
    ),
    Misconception(
        ALL_AGAIN,
        "`tokens` is how long the request is by now, all together. Take only the blocks that its table lacks.",
        mistaken(ALL_AGAIN),
    ),
    Misconception(
        PARTIAL,
        "When there are too few free blocks, none may be taken: count first, then take. Otherwise a refused request "
        "keeps blocks that others need.",
        mistaken(PARTIAL),
    ),
    Misconception(
        NO_ERROR,
        "There are too few free blocks, and the caller has to know: `raise MemoryError(...)`.",
        mistaken(NO_ERROR),
    ),
    Misconception(
        OTHER_BLOCK,
        "Any free block would do, really. So that a checker can follow, the exercise asks for the one with the lowest "
        "number.",
        mistaken(OTHER_BLOCK, OLDEST),
    ),
    Misconception(
        SHARES_PARTLY,
        "Only *full* blocks can be shared: into one that is not full both requests would write their next token, at "
        "the same place. `tokens // block_size` blocks are full.",
        mistaken(SHARES_PARTLY),
    ),
    Misconception(
        SHARES_TOO_FEW,
        "If the last shared block is exactly full, it can be shared as well.",
        mistaken(SHARES_TOO_FEW),
    ),
    Misconception(
        SHARES_ALL,
        "The two have only the first `tokens` tokens in common. What comes after them belongs to the old request "
        "alone.",
        mistaken(SHARES_ALL),
    ),
    Misconception(
        COPIES,
        "Sharing means that the new table holds the *same* block numbers: no memory is used for the common beginning.",
        mistaken(COPIES),
    ),
    Misconception(
        ALIAS,
        "After `a = b` there is one list with two names: what is appended to one table appears in the other. Take a "
        "slice, `table[:n]`, which is a new list.",
        mistaken(ALIAS),
    ),
    Misconception(
        NO_COUNT,
        "A block is free only when its *last* holder gives it back. Count up when a block is shared, count down when a "
        "request is released.",
        mistaken(NO_COUNT),
    ),
    Misconception(
        LEAKS,
        "Every release takes one holder away, from shared blocks too. Otherwise the last one to leave cannot free "
        "them.",
        mistaken(LEAKS),
    ),
    Misconception(KEEPS, "After `release` its blocks must be free for others.", mistaken(KEEPS)),
    Misconception(
        KEEPS_TABLE,
        "A name may come back as a new request: it must begin with an empty table, or it would use blocks that "
        "belong to others by now.",
        mistaken(KEEPS_TABLE),
    ),
)  # fmt: skip
