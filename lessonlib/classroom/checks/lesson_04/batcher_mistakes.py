"""What a continuous batcher answers step by step, done right and with each known mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation

NEVER_IN = "lets nobody in before the pass"
STAYS_FREE = "a freed place stays empty until the next step"
PASS_EACH = "one forward pass for each request"
SKIPS = "changes the list while it goes through it"
STATIC = "waits until the whole batch is done"
TOO_MANY = "lets in more than fit"
ONE_IN = "lets in one request a step"
NEWEST = "the newest overtakes those who wait"
READS_PADDING = "reads the logits of the padding"
NO_EOS = "goes on after the end token"
DROPS_EOS = "leaves out the end token"
ONE_MORE = "one token too many"
ONE_FEWER = "one token too few"
ENDS_ALL = "one finished request ends them all"
EMPTY_PASS = "runs the model for nobody"
NOT_APPENDED = "forgets to append the new token"

# Different ways to the same mistake.
NEVER_IN_AT_ALL, SKIPS_PASS, SKIPS_PASS_EACH, ONE_OVER, FULL_ONLY = "2", "3", "4", "5", "6"


@dataclass
class Asked:
    """A request on its way: its tokens so far, and how many more it may get."""

    name: str
    ids: list[int]
    left: int
    done: bool = False


def next_token(ids: Sequence[int], vocab: int) -> int:
    """``ToyModel``'s rule (1, 1, 1) for the last of these tokens."""
    return (sum(ids) + len(ids) + ids[-1]) % vocab


class Played:
    """A batcher over the toy model, with at most one mistake."""

    def __init__(self, inputs: Inputs, mistake: str):
        self.size, self.eos, self.vocab = inputs["size"], inputs["eos_id"], inputs.get("_vocab", 10)
        self.mistake = mistake
        self.waiting: list[Asked] = []
        self.running: list[Asked] = []
        self.chosen: dict[str, int] = {}

    def play(self, step: Sequence[Any]) -> dict[str, Any] | None:
        if step[0] == "step":
            return self.step()
        self.add(*step[1:])
        return None

    def add(self, name: str, prompt: Sequence[int], max_tokens: int) -> None:
        extra = {ONE_MORE: 1, ONE_FEWER: -1}.get(self.mistake, 0)
        self.waiting.append(Asked(name, list(prompt), max_tokens + extra))

    def step(self) -> dict[str, Any]:
        if self.mistake not in (NEVER_IN, NEVER_IN_AT_ALL):
            self._admit()
        tokens, passes = self._run()
        ended = [r for r in self.running if r.done]
        kept = [r for r in self.running if not r.done]
        if self.mistake == SKIPS:  # after a removal the loop jumps over the neighbour
            kept = [
                r
                for before, r in zip([None, *self.running], self.running, strict=False)
                if not r.done or self._jumped(before)
            ]
        if self.mistake == ENDS_ALL and ended:
            kept = []
        self.running = kept
        may = not self.running if self.mistake == STATIC else self.mistake != STAYS_FREE
        if may and (self.mistake != NEVER_IN_AT_ALL or ended):
            self._admit(len(ended) if self.mistake == NEVER_IN_AT_ALL else None)
        return {"tokens": tokens, "passes": passes, "batch": sorted(r.name for r in self.running)}

    def _jumped(self, before: Asked | None) -> bool:
        """Whether the one before it in the list was taken out, so that nobody looked at this one."""
        if before is None or not before.done:
            return False
        i = self.running.index(before)
        return not (i and self._jumped(self.running[i - 1]))

    def _run(self) -> tuple[dict[str, int], int]:
        ran: list[Asked] = []
        longest = max((len(r.ids) for r in self.running), default=0)
        for before, r in zip([None, *self.running], self.running, strict=False):
            jumps = self.mistake in (SKIPS_PASS, SKIPS_PASS_EACH) and before in ran
            if not (jumps and before is not None and before.done):
                ran.append(r)
                self._advance(r, longest)
        each = self.mistake in (PASS_EACH, SKIPS_PASS_EACH)
        passes = len(ran) if each else int(bool(ran) or self.mistake == EMPTY_PASS)
        hidden = {r.name for r in ran if r.done and self.mistake == DROPS_EOS and r.ids[-1] == self.eos}
        return {r.name: self.chosen[r.name] for r in ran if r.name not in hidden}, passes

    def _advance(self, r: Asked, longest: int) -> None:
        seen = r.ids + [0] * (longest - len(r.ids)) if self.mistake == READS_PADDING else r.ids
        token = next_token(seen, self.vocab)
        self.chosen[r.name] = token
        r.left -= 1
        if self.mistake != NOT_APPENDED:
            r.ids = [*r.ids, token]
        r.done = r.left <= 0 or (token == self.eos and self.mistake != NO_EOS)

    def _admit(self, most: int | None = None) -> None:
        if self.mistake == STATIC and self.running:
            return
        room = self.size - len(self.running)
        if self.mistake == TOO_MANY:
            room = len(self.waiting)
        elif self.mistake == ONE_OVER:
            room += 1
        elif self.mistake == ONE_IN:
            room = min(room, 1)
        elif self.mistake == FULL_ONLY and room > len(self.waiting):
            room = 0
        for _ in range(min(room if most is None else min(room, most), len(self.waiting))):
            self.running.append(self.waiting.pop(-1 if self.mistake == NEWEST else 0))


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns: None for an ``add``, for a ``step`` the tokens, the passes and who is in the batch."""
    played = Played(inputs, mistake)
    return [played.play(step) for step in inputs["steps"]]


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


def ran_for_nobody(inputs: Inputs, seen: Observation) -> bool:
    """Whether it broke, and would have been right to do nothing at some step."""
    idle = any(answer and not answer["tokens"] for answer in answers(inputs))
    return bool(seen.error and seen.error.kind == "raised" and idle)


MISCONCEPTIONS = (
    Misconception(
        NEVER_IN,
        "The queue is full and the batch is empty: somebody has to be let in *before* the forward pass, or the first "
        "step does nothing. If only the end of a request lets others in, nobody ever begins.",
        mistaken(NEVER_IN, NEVER_IN_AT_ALL),
    ),
    Misconception(
        STAYS_FREE,
        "When a request is done, its place is free at once: let the next one in before the step ends.",
        mistaken(STAYS_FREE),
    ),
    Misconception(
        PASS_EACH,
        "Reading the weights is what a pass costs. Put all requests of the batch into *one* call of the model; a pass "
        "each is no batching at all.",
        mistaken(PASS_EACH),
    ),
    Misconception(
        SKIPS,
        "`for r in running: … running.remove(r)` moves the rest one place to the left, and the loop jumps over the "
        "neighbour. Go through the list first, then build a new one of those that stay.",
        mistaken(SKIPS, SKIPS_PASS, SKIPS_PASS_EACH),
    ),
    Misconception(
        STATIC,
        "That is static batching: places are free, and requests wait for the slowest all the same.",
        mistaken(STATIC, FULL_ONLY),
    ),
    Misconception(TOO_MANY, "At most `size` requests are in the batch.", mistaken(TOO_MANY, ONE_OVER)),
    Misconception(
        ONE_IN, "All free places can be filled in the same step: `while`, not `if`.", mistaken(ONE_IN)
    ),
    Misconception(
        NEWEST,
        "First come, first served: `pop(0)` takes the one that has waited longest, `pop()` the newest.",
        mistaken(NEWEST),
    ),
    Misconception(
        READS_PADDING,
        "Rows of different lengths: the next token of a row stands at its own last place, `len(ids) - 1`, not at `-1` "
        "(lesson 01).",
        mistaken(READS_PADDING),
    ),
    Misconception(
        NO_EOS,
        "A request is done when the model chooses the end token, even if more tokens were allowed.",
        mistaken(NO_EOS),
    ),
    Misconception(
        DROPS_EOS,
        "The end token belongs to the answer: report it like any other, then retire the request.",
        mistaken(DROPS_EOS),
    ),
    Misconception(
        ONE_MORE,
        "`max_tokens` counts the new tokens. Check *after* the new one is there.",
        mistaken(ONE_MORE),
    ),
    Misconception(ONE_FEWER, "A request with `max_tokens=2` gets two new tokens.", mistaken(ONE_FEWER)),
    Misconception(
        ENDS_ALL,
        "Every request ends for itself; the others stay in the batch.",
        mistaken(ENDS_ALL),
    ),
    Misconception(
        EMPTY_PASS,
        "With an empty batch there is nothing to run: return an empty dict before the model is called.",
        mistaken(EMPTY_PASS),
        sees=ran_for_nobody,
    ),
    Misconception(
        NOT_APPENDED,
        "The new token is part of the text from now on: the next pass has to see it.",
        mistaken(NOT_APPENDED),
    ),
)
