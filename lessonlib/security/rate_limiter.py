"""How much a user may ask for in a minute: requests and tokens, decided in one step.

A sliding window over slices. Each admission is added to the user's newest slice, or begins a new one when that is
SLICE old, and a whole slice counts until its *last* admission is WINDOW old. So no 60-second window, wherever it
begins, ever holds more than the limit. The price is paid by users who are always at the limit: a slice that is held
together costs them at most SLICE, so they get their minute's worth every 63 s. (A token bucket that can save up a
minute admits 119 at "60 per minute": 60 at once, and 59 while it refills.)

Identity comes from the API key, never from the body: whoever may choose a ``user_id`` chooses a fresh budget.

A window counts what was admitted in it. Tokens are counted at the moment they are asked for, though a long answer is
generated later.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral
from typing import Any

WINDOW = 60_000  # ms
SLICE = 3_000  # ms; at most 21 slices of a user count at a time
LARGEST = 2**32 - 1  # what a counter holds; times are kept modulo this + 1 (49 days)


class LimitReason(StrEnum):
    """Why a request was refused; the values are fit for a metric's label."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    TOO_LARGE = "larger_than_the_limit"
    TOO_MANY_USERS = "too_many_users"


@dataclass(slots=True)
class Decision:
    """True if admitted. ``retry_after``: seconds until this very request would be, 0.0 if it was; None: never.

    message: one sentence for the user when refused.
    """

    allowed: bool
    retry_after: float | None = 0.0
    reason: LimitReason | None = None
    message: str = ""

    def __bool__(self) -> bool:
        return self.allowed

    def refuse(self, reason: LimitReason, retry_after: float | None, message: str) -> None:
        self.allowed = False
        self.retry_after, self.reason, self.message = retry_after, reason, message


@dataclass(slots=True)
class Reservation(Decision):
    """A decision that holds ``tokens`` of the budget until ``settle`` says what was really used."""

    user_id: str = ""
    tokens: int = 0
    at: int = 0  # ms
    open: bool = False  # held, and not settled yet


class Limiter:
    """What both limiters share: the two limits, and what can be said without looking at the user's past."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int):
        self.requests_per_minute = whole("requests_per_minute", requests_per_minute, 1, LARGEST)
        self.tokens_per_minute = whole("tokens_per_minute", tokens_per_minute, 1, LARGEST)
        self._settling = threading.Lock()

    def check(self, user_id: str, tokens: int = 0) -> Decision:
        """Admit one request of so many tokens, or say when to come back. Refused requests cost nothing.

        Raises ValueError when tokens is no whole number of 0 or more, or user_id no text of 1 to 256 characters.
        """
        decision = Decision(True)
        self._admit(decision, user_id, tokens)
        return decision

    def reserve(self, user_id: str, tokens: int) -> Reservation:
        """Like ``check``, for the most a request can use: prompt + max_tokens × n. Later, ``settle`` it.

        What is never settled stays counted, and ends with its minute like everything else.
        """
        held = Reservation(True, user_id=user_id, tokens=tokens)
        held.at = self._admit(held, user_id, tokens)
        held.open = held.allowed
        return held

    def settle(self, reservation: Reservation, used: int) -> None:
        """Give back what was reserved and not used, to the moment it was reserved at; the request stays counted.

        More used than reserved is charged now, even beyond the limit. A second call changes nothing, nor does one for
        a refused reservation: it may stand in a ``finally``.
        """
        used = whole("used", used)
        with self._settling:
            held, reservation.open = reservation.open, False
        if held and used != reservation.tokens:
            self._change(reservation, min(used - reservation.tokens, LARGEST))

    def _admit(self, decision: Decision, user_id: str, tokens: int) -> int:
        """Fill in the decision. Returns the moment of it, in ms."""
        if type(tokens) is not int or tokens < 0:
            tokens = whole("tokens", tokens)
        if not isinstance(user_id, str) or not 0 < len(user_id) <= 256:
            raise ValueError(
                "user_id must be a text of 1 to 256 characters: the name of the API key's owner."
            )
        if tokens > self.tokens_per_minute:
            decision.refuse(
                LimitReason.TOO_LARGE,
                None,
                f"This request is larger than the whole limit of {self.tokens_per_minute} tokens a minute and can "
                "never be admitted; ask for fewer tokens.",
            )
            return 0
        return self._decide(decision, user_id, tokens)

    def _decide(self, decision: Decision, user_id: str, tokens: int) -> int:
        """Admit or refuse, and charge, in one step that nothing can come between."""
        raise NotImplementedError

    def _change(self, reservation: Reservation, tokens: int) -> None:
        """Charge so many tokens more, or take them back."""
        raise NotImplementedError

    def _exceeded(self, decision: Decision, reason: LimitReason, wait: int) -> None:
        """Refused, and for how many ms."""
        told = {
            LimitReason.REQUESTS: f"The limit of {self.requests_per_minute} requests a minute is reached",
            LimitReason.TOKENS: f"The limit of {self.tokens_per_minute} tokens a minute leaves too few for this "
            "request",
            LimitReason.TOO_MANY_USERS: "The server has as many users as it can count",
        }[reason]
        decision.refuse(reason, wait / 1000, f"{told}; try again in {wait / 1000:.3f} s.")


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """The value as an int. Raises ValueError (one sentence, without the value: it may have 10,000 digits)."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    raise ValueError(
        f"{name} must be a whole number, {least} or more{f', up to {most}' if most is not None else ''}."
    )


# A user is one flat array: when the newest slice began, requests and tokens in the window, and then for each slice,
# oldest first, its last moment, its requests and its tokens. Moments are ms modulo 2**32.
BEGAN, REQUESTS, TOKENS, SLICES, SIZE = 0, 1, 2, 3, 3


class RateLimiter(Limiter):
    """Limits per user in the memory of one process; any number of threads.

    >>> limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=100_000)
    >>> if not (decision := limiter.check("alice", tokens=1200)):
    ...     print(decision.message)

    max_users: users remembered, below 600 bytes each with names of up to 64 characters. The least recently admitted
    is forgotten first, and only once nothing of theirs counts any more: forgetting changes no decision, so nobody wins
    a fresh budget by pushing somebody out. When all of max_users were admitted within the last minute, newcomers are
    refused; keys are handed out by the operator, who can raise max_users. clock: gives seconds; when it goes back,
    time stands still until it has caught up, which may refuse but never admits too much.
    """

    def __init__(
        self,
        requests_per_minute: int = 60,
        tokens_per_minute: int = 100_000,
        max_users: int = 100_000,
        clock: Callable[[], float] | None = None,
    ):
        super().__init__(requests_per_minute, tokens_per_minute)
        self.max_users = whole("max_users", max_users, 1)
        self._clock = clock or time.monotonic
        self._latest = round(self._clock() * 1_000_000)  # µs
        self._users: OrderedDict[str, array[int]] = OrderedDict()  # least recently admitted first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Users remembered."""
        return len(self._users)

    def _decide(self, decision: Decision, user_id: str, tokens: int) -> int:
        with self._lock:
            now, moment = self._now()
            user = self._find(user_id, now)
            if user is None:
                if wait := self._make_room(now):
                    self._exceeded(decision, LimitReason.TOO_MANY_USERS, wait)
                    return moment
            else:
                requests = user[REQUESTS] + 1 - self.requests_per_minute
                excess = user[TOKENS] + tokens - self.tokens_per_minute
                if requests > 0 or excess > 0:
                    reason = LimitReason.REQUESTS if requests > 0 else LimitReason.TOKENS
                    self._exceeded(decision, reason, _wait(user, now, requests, excess))
                    return moment
            self._charge(user_id, user, moment, 1, tokens)
            return moment

    def _change(self, reservation: Reservation, tokens: int) -> None:
        with self._lock:
            now, moment = self._now()
            user = self._find(reservation.user_id, now)
            if tokens > 0:
                if user is None and self._make_room(now):
                    return  # a reservation of long ago: too late to count, and no room for it
                most = LARGEST - (user[TOKENS] if user else 0)
                self._charge(reservation.user_id, user, moment, 0, min(tokens, most))
            elif user is not None and (now - reservation.at) & LARGEST <= WINDOW:
                for at in range(SLICES, len(user), SIZE):
                    if (user[at] - reservation.at) & LARGEST <= WINDOW:  # the first that ends no earlier
                        change = max(tokens, -user[at + 2])
                        user[at + 2] += change
                        user[TOKENS] += change
                        break

    def _now(self) -> tuple[int, int]:
        """For comparing: the ms that is over, plus 1. For writing down: the ms that is not over yet.

        Rounded apart, so that a moment is over 60 s later and not a microsecond before.
        """
        self._latest = max(self._latest, round(self._clock() * 1_000_000))
        return self._latest // 1000 + 1, -(-self._latest // 1000) & LARGEST

    def _find(self, user_id: str, now: int) -> array[int] | None:
        """The user without the slices that are over; None when nothing is left."""
        user = self._users.get(user_id)
        if user is None or (now - user[SLICES]) & LARGEST <= WINDOW:
            return user
        end = SLICES
        while end < len(user) and (now - user[end]) & LARGEST > WINDOW:
            user[REQUESTS] -= user[end + 1]
            user[TOKENS] -= user[end + 2]
            end += SIZE
        if end == len(user):
            del self._users[user_id]
            return None
        del user[SLICES:end]
        return user

    def _charge(self, user_id: str, user: array[int] | None, moment: int, requests: int, tokens: int) -> None:
        if user is None:
            self._users[user_id] = array("I", (moment, requests, tokens, moment, requests, tokens))
            return
        if (moment - user[BEGAN]) & LARGEST < SLICE:
            user[-SIZE] = moment
            user[1 - SIZE] += requests
            user[2 - SIZE] += tokens
        else:  # a sum, because appending takes memory in advance
            user = self._users[user_id] = user + array("I", (moment, requests, tokens))
            user[BEGAN] = moment
        user[REQUESTS] += requests
        user[TOKENS] += tokens
        self._users.move_to_end(user_id)

    def _make_room(self, now: int) -> int:
        """Forget up to two users of whom nothing counts; 0 if there is room now, else the ms until there will be."""
        for _ in range(2):
            if not self._users:
                break
            oldest = next(iter(self._users))
            last = self._users[oldest][-SIZE]
            if (now - last) & LARGEST <= WINDOW:
                if len(self._users) >= self.max_users:
                    return (last + WINDOW - now + 1) & LARGEST
                break
            del self._users[oldest]
        return 0


def _wait(user: array[int], now: int, requests: int, tokens: int) -> int:
    """ms until so many requests and tokens fewer are counted. There are as many: larger ones were refused before."""
    end = SLICES - SIZE
    while requests > 0 or tokens > 0:
        end += SIZE
        requests -= user[end + 1]
        tokens -= user[end + 2]
    return (user[end] + WINDOW - now + 1) & LARGEST
