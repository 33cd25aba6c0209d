"""What the engine of lesson 08 answers step by step, done right and with each known mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation
from .decode import following

RECOMPUTES = "runs everything again at every step"
TWICE = "puts tokens into the cache that it holds already"
STALE = "hands on caches with somebody else's tokens in them"
SHARES = "requests share caches"
PASS_EACH = "one forward pass for each request"
STATIC = "waits until the whole batch is done"
TOO_MANY = "lets in more than fit"
NEWEST = "the newest overtakes those who wait"
NEVER_IN = "lets nobody in before the pass"
SKIPS = "changes the list while it goes through it"
FIRST_ROW = "reads the logits behind the first token of the prompt"
NO_EOS = "goes on after the end token"
DROPS_EOS = "leaves out the end token"
ONE_MORE = "one token too many"
EMPTY_PASS = "runs the model for nobody"

# Different ways to the same mistake.
STALE_OLDEST, ONE_OVER, SKIPS_PASS = "2", "3", "4"


@dataclass
class Asked:
    """A request on its way: its text, what its caches hold, and how many tokens more it may get."""

    name: str
    text: list[int]
    left: int
    held: list[int] = field(default_factory=list)
    began: bool = False
    done: bool = False

    @property
    def unrun(self) -> list[int]:
        """The prompt at first, then the newest token."""
        return self.text[-1:] if self.began else list(self.text)


class Played:
    """An engine over the toy model, with at most one mistake."""

    def __init__(self, inputs: Inputs, mistake: str):
        self.slots, self.eos, self.mistake = inputs["slots"], inputs["eos_id"], mistake
        self.waiting: list[Asked] = []
        self.running: list[Asked] = []
        self.left_behind: list[list[int]] = []  # what the caches of those who are gone still hold

    def play(self, step: Sequence[Any]) -> dict[str, Any] | None:
        if step[0] == "step":
            return self.step()
        name, prompt, most = step[1:]
        self.waiting.append(Asked(name, list(prompt), most + (self.mistake == ONE_MORE)))
        return None

    def step(self) -> dict[str, Any]:
        if self.mistake != NEVER_IN and not (self.mistake == STATIC and self.running):
            self._admit()
        ran: list[Asked] = []
        run = 0
        for request in self.running:
            if self.mistake == SKIPS_PASS and ran and ran[-1].done and self._next_to(ran[-1], request):
                continue
            run += self._advance(request)
            ran.append(request)
        tokens = {r.name: [r.text[-1]] for r in ran}
        if self.mistake == DROPS_EOS:
            tokens = {r.name: [] if r.text[-1] == self.eos else [r.text[-1]] for r in ran}
        passes = (
            len(ran)
            if self.mistake in (PASS_EACH, SKIPS_PASS)
            else int(bool(ran) or self.mistake == EMPTY_PASS)
        )
        self._retire()
        return {"tokens": tokens, "passes": passes, "run": run}

    def _next_to(self, before: Asked, request: Asked) -> bool:
        return self.running.index(request) == self.running.index(before) + 1

    def _advance(self, request: Asked) -> int:
        """Give a request its next token; returns how many tokens were run for it."""
        todo = request.unrun
        if self.mistake == RECOMPUTES:
            request.held, todo = [], list(request.text)
        elif self.mistake == TWICE:
            todo = list(request.text)
        first = self.mistake == FIRST_ROW and not request.began
        token = following([*request.held, *(todo[:1] if first else todo)])
        request.held = [*request.held, *todo]
        request.text.append(token)
        request.began = True
        request.left -= 1
        request.done = request.left == 0 or (token == self.eos and self.mistake != NO_EOS)
        return len(todo)

    def _retire(self) -> None:
        kept: list[Asked] = []
        jumped = False
        for request in self.running:
            if request.done and not jumped:
                self.left_behind.append(request.held)
                jumped = self.mistake == SKIPS  # after a removal the loop jumps over the neighbour
            else:
                kept.append(request)
                jumped = False
        ended = len(self.running) - len(kept)
        self.running = kept
        if self.mistake == NEVER_IN and ended:
            self._admit()

    def _admit(self) -> None:
        room = self.slots - len(self.running) + (self.mistake == ONE_OVER)
        if self.mistake == TOO_MANY:
            room = len(self.waiting)
        for _ in range(min(room, len(self.waiting))):
            request = self.waiting.pop(-1 if self.mistake == NEWEST else 0)
            if self.mistake in (STALE, STALE_OLDEST) and self.left_behind:
                request.held = self.left_behind.pop(0 if self.mistake == STALE_OLDEST else -1)
            self.running.append(request)


def answers(inputs: Inputs, mistake: str = "") -> list[Any]:
    """What each step returns: None for an ``add``; for a ``step`` the tokens, the passes, and the tokens run."""
    played = Played(inputs, mistake)
    return [played.play(step) for step in inputs["steps"]]


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf(answers(inputs, name) for name in names)


def ran_for_nobody(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and "no parts at all" in seen.error.message)


def shared(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and "share a cache" in seen.error.message)


def overflows(inputs: Inputs, seen: Observation) -> bool:
    return bool(seen.error and "cache has room for" in seen.error.message)


def outstays(inputs: Inputs, seen: Observation) -> bool:
    """Whether somebody ran out of room who should have been gone, and would have been jumped over."""
    return overflows(inputs, seen) and answers(inputs, SKIPS) != answers(inputs)


MISCONCEPTIONS = (
    Misconception(
        RECOMPUTES,
        "The tokens are right, but look at `run`: texts go through the model again that it has seen. A request keeps "
        "its caches for as long as it runs, and after the prompt only its newest token is run.",
        mistaken(RECOMPUTES),
    ),
    Misconception(
        TWICE,
        "What you run is put *behind* what the caches hold. After the prompt, run the newest token only.",
        mistaken(TWICE),
        sees=overflows,
    ),
    Misconception(
        STALE,
        "The caches of a request that is gone still hold its tokens, and the next request looks at them. Make new "
        "ones, or `rewind(0)` them all.",
        mistaken(STALE, STALE_OLDEST),
    ),
    Misconception(
        SHARES,
        "Keys and values of two texts in one cache: each would look at the other. Make caches for every request when "
        "it is let in, not once for the engine.",
        sees=shared,
    ),
    Misconception(
        PASS_EACH,
        "Collect the parts of all running requests in one list and call the model *once*: a pass reads all weights, "
        "however many parts are in it.",
        mistaken(PASS_EACH),
    ),
    Misconception(
        STATIC,
        "That is static batching: places are free, and requests wait for the slowest all the same (lesson 04).",
        mistaken(STATIC),
    ),
    Misconception(
        TOO_MANY, "At most `slots` requests share a pass; the others wait.", mistaken(TOO_MANY, ONE_OVER)
    ),
    Misconception(
        NEWEST, "First come, first served: `pop(0)` takes the one that has waited longest.", mistaken(NEWEST)
    ),
    Misconception(
        NEVER_IN,
        "The queue is full and nobody runs: let requests in *before* the pass, not only when another one ends.",
        mistaken(NEVER_IN),
    ),
    Misconception(
        SKIPS,
        "Whoever is removed from the list that a loop goes through makes it jump over the neighbour (lesson 04). "
        "Finish the loop, then build a new list of those that stay.",
        mistaken(SKIPS, SKIPS_PASS),
        sees=outstays,
    ),
    Misconception(
        FIRST_ROW,
        "There is a row of logits for each token of a part. What comes after the whole text stands in the last one.",
        mistaken(FIRST_ROW),
    ),
    Misconception(
        NO_EOS,
        "A request is done when the model chooses the end token, even if more were allowed.",
        mistaken(NO_EOS),
    ),
    Misconception(
        DROPS_EOS,
        "The end token belongs to the answer: report it, then retire the request.",
        mistaken(DROPS_EOS),
    ),
    Misconception(
        ONE_MORE, "`max_tokens` counts the new tokens: ask *after* the new one is there.", mistaken(ONE_MORE)
    ),
    Misconception(
        EMPTY_PASS,
        "With nobody in, return an empty dict before the model is called.",
        mistaken(EMPTY_PASS),
        sees=ran_for_nobody,
    ),
)
