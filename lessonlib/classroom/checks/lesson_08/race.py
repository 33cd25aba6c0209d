"""The race of lesson 08: the same eight requests for every engine, on pico, judged by answers, order and counters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from lessonlib.engine import LLM, SamplingParams, costs, generate, load_model, load_tokenizer

from ...leaderboard import Work, enter
from .runners import PicoRunner, Runner

BOARD = "08.engine"
SLOTS = 4
NO_EOS = -1  # the race asks for exact lengths, so no token ends a text
MAX_STEPS = 2000
COMMON = '''class Account:
    """A bank account with a balance and a history of what happened."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self.history = []

    def deposit(self, amount):
        self.balance += amount
        self.history.append(amount)

'''
ENDINGS = {
    "A": ("    def withdraw(self, amount):\n", 24),
    "B": ("    def __repr__(self):\n        return", 12),
    "C": ("    def __len__(self):\n", 8),
    "D": ("    def clear(self):\n", 32),
    "E": ("    def transfer(self, other, amount):\n", 28),
    "F": ("    @property\n    def is_empty(self):\n", 10),
    "G": ("    def __init__(self, name, balance=0):\n", 30),
    "H": ("    def last(self):\n        return", 16),
}


class Disqualified(Exception):
    """An engine broke a rule; one sentence."""


class Race:
    """Eight requests that come at once, four slots, exact lengths, greedy.

    >>> race = Race()
    >>> race.run(Engine)           # the Work of an engine: Engine(model, slots, eos_id), add, step
    """

    def __init__(self, name: str = "pico"):
        self.name = name
        self.model, self.tokenizer = load_model(name), load_tokenizer(name)
        self.requests = {
            who: (self.tokenizer.encode(COMMON + ending), most) for who, (ending, most) in ENDINGS.items()
        }

    @cached_property
    def answers(self) -> dict[str, list[int]]:
        """What each request must get: the engine's own loop, one text after the other."""
        return {who: self._alone(prompt, most, True) for who, (prompt, most) in self.requests.items()}

    def _alone(self, prompt: list[int], most: int, use_cache: bool) -> list[int]:
        params = SamplingParams(temperature=0, ignore_eos=True)
        return generate(self.model, prompt, most, use_cache, params)[len(prompt) :]

    def reference(self, use_cache: bool) -> Work:
        """One text after the other, with a cache or without."""
        with costs.count(self.model) as work:
            found = {
                who: self._alone(prompt, most, use_cache) for who, (prompt, most) in self.requests.items()
            }
        return self._judged(found, work)

    def course_engine(self, **settings: Any) -> Work:
        """The course's own engine with these settings of ``LLM``."""
        llm = LLM(self.name, max_num_seqs=SLOTS, **settings)
        params = [
            SamplingParams(temperature=0, ignore_eos=True, max_tokens=most)
            for _, most in self.requests.values()
        ]
        with costs.count(llm.model) as work:
            outputs = llm.generate([prompt for prompt, _ in self.requests.values()], params)
        return self._judged(
            {who: out.outputs[0].token_ids for who, out in zip(self.requests, outputs, strict=True)}, work
        )

    def _judged(self, found: dict[str, list[int]], work: costs.Work) -> Work:
        if found != self.answers:
            raise Disqualified("The answers are not those of the plain loop.")
        return Work(work.forward_calls, work.tokens, sum(map(len, found.values())))

    def run(self, make: Callable[[Runner, int, int], Any]) -> Work:
        """Run an engine and count. Raises Disqualified where an answer, the order or a counter is wrong."""
        runner = PicoRunner(self.model)
        engine = make(runner, SLOTS, NO_EOS)
        for who, (prompt, most) in self.requests.items():
            engine.add(who, list(prompt), most)
        found: dict[str, list[int]] = {who: [] for who in self.requests}
        served = 0
        for _ in range(MAX_STEPS):
            before = runner.forward_calls
            new = engine.step()
            if runner.forward_calls > before + 1:
                raise Disqualified(f"One step made {runner.forward_calls - before} passes; one is allowed.")
            if runner.widest > SLOTS:
                raise Disqualified(f"A pass had {runner.widest} parts; there are {SLOTS} slots.")
            if not new:
                break
            newcomers = [who for who in self.requests if who in new and not found[who]]
            if newcomers != list(self.requests)[served : served + len(newcomers)]:
                raise Disqualified("A request was served before one that came earlier.")
            served += len(newcomers)
            for who, tokens in new.items():
                found[who] += tokens
                if len(found[who]) > self.requests[who][1]:
                    raise Disqualified(f"Request {who} got more than its {self.requests[who][1]} tokens.")
        for who, tokens in found.items():
            if tokens != self.answers[who]:
                at = next(
                    (i for i, (a, b) in enumerate(zip(tokens, self.answers[who], strict=False)) if a != b),
                    None,
                )
                where = f"from new token {at + 1} on" if at is not None else f"it got {len(tokens)} tokens"
                raise Disqualified(f"Request {who} did not get the plain loop's answer ({where}).")
        return Work(runner.forward_calls, runner.tokens, sum(map(len, found.values())))

    def enter(self, name: str, make: Callable[[Runner, int, int], Any]) -> None:
        """Run an engine and put it on the leaderboard, or say why not."""
        try:
            work = self.run(make)
        except NotImplementedError:
            print(f"{name}: not written yet, so nothing was entered.")
        except Disqualified as rule:
            print(f"{name}: not entered. {rule}")
        except Exception as error:  # whatever a student's engine may stop with
            print(f"{name}: not entered, it stopped with {type(error).__name__}: {error}")
        else:
            entry = enter(BOARD, name, work)
            print(f"{entry.title}: {work.per_token:.1f} work per token")
