"""Who asks in order to copy the model: sweeps of a vocabulary, prompts of one mould, and sheer volume of answers.

Somebody who copies a model asks much, and systematically: one template filled with word after word, random words
(Krishna et al. 2020, arXiv:1910.12366), one prompt sampled again and again. Three signs, each a count that fades:

- *Prompts of one skeleton.* Replace every word that this user has not used before by "*", and a sweep becomes the same
  prompt many times over, be it "Define *" or "*": what differs between two prompts of a sweep is by its nature what was
  never asked before. People who work on a prompt send near-duplicates too, but few an hour.
- *Too many new words.* Whoever writes texts repeats words (Heaps' law); whoever draws them from a list hardly does.
- *Volume*: different answers, and their length.

Skeletons are compared by MinHash (Broder 1997): of the 32 numbers of a sketch two prompts share as large a part as of
their words and pairs of words. One word of ten changed leaves 24 of 32 equal, with a standard deviation of 3, and two
strangers share 1 (standard library docstrings). A SimHash (Charikar 2002) needs a quarter of the bytes, and is half as
sharp: 10 of 64 bits change, against 31, with deviations of 3 and 4.

A repeated answer to a repeated prompt teaches nothing, and does not count: a monitor is no thief.

Advisory. It cannot tell an honest program that fills a template from a dishonest one, and does not see who goes slowly,
who spreads over many accounts, or whose prompts look like anybody's until their volume shows. ``evaluation/extraction``
measures all of these.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from lessonlib.engine.config import is_whole
from lessonlib.engine.errors import BadParameter

# Numbers are one word; where no spaces are written (kana, Han, Hangul, Thai), each character is.
WORD = re.compile(r"\d+|[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+")
ENDS = 1000  # characters looked at, at either end of a prompt: templates have their text before or behind the slot
WORDS = 48  # and of these, words at either end

ENOUGH = 1000  # words, before one can say that few are repeated
SKETCH = 32  # numbers in a sketch
SKETCHES = 16  # kept a user
ALIKE = 0.6  # share of equal numbers from which two sketches are one
BITS = 8192  # of a Bloom filter; two a user, the younger one is filled while the older one still counts
HASHES = 4
CAPACITY = 1400  # entries after which half of the bits are set

_random = np.random.default_rng(1997)
FACTORS = _random.integers(1, 2**63, SKETCH, dtype=np.uint64) * 2 + 1
SHIFTS = _random.integers(0, 2**63, SKETCH, dtype=np.uint64)
STAR = np.uint64(0x9E3779B97F4A7C15)


class Verdict(TypedDict):
    """``reason``: one sentence, without a word of the prompts; empty when nothing is suspicious."""

    suspicious: bool
    reason: str


class _Seen:
    """Has this been here before? Remembers the last 1,400 to 2,800 things in 2 KiB; one in ten is mistaken for one."""

    __slots__ = ("count", "new", "old")

    def __init__(self) -> None:
        self.new, self.old, self.count = bytearray(BITS // 8), bytearray(BITS // 8), 0

    def holds(self, digest: bytes) -> bool:
        places = self._places(digest)
        return any(all(bits[p >> 3] >> (p & 7) & 1 for p in places) for bits in (self.new, self.old))

    def add(self, digest: bytes) -> None:
        if self.count >= CAPACITY:
            self.old, self.new, self.count = self.new, bytearray(BITS // 8), 0
        for p in self._places(digest):
            self.new[p >> 3] |= 1 << (p & 7)
        self.count += 1

    @staticmethod
    def _places(digest: bytes) -> list[int]:
        return [int.from_bytes(digest[2 * i : 2 * i + 2], "big") % BITS for i in range(HASHES)]


class _User:
    """What is remembered of one user: 4 kB, whatever they ask."""

    __slots__ = ("answers", "characters", "counts", "fills", "fresh", "last", "seen", "sketches", "words")

    def __init__(self, now: float):
        self.seen = _Seen()
        self.sketches = np.zeros((SKETCHES, SKETCH), np.uint16)
        self.counts = array("f", bytes(4 * SKETCHES))  # of prompts like this sketch, fading
        self.fills = array("f", bytes(4 * SKETCHES))  # those of them with a word never used before
        self.answers = self.characters = 0.0
        self.words = self.fresh = 0.0  # different ones of each prompt, and those of them never used before
        self.last = now

    def fade(self, factor: float) -> None:
        self.counts = array("f", [factor * count for count in self.counts])
        self.fills = array("f", [factor * count for count in self.fills])
        for name in ("answers", "characters", "words", "fresh"):
            setattr(self, name, factor * getattr(self, name))


class ExtractionDetector:
    """Watches the questions and answers of each user.

    sweep, near_duplicates: prompts of one skeleton, with new words in each, or without. fresh: part of the words that
    are new, of ``ENOUGH`` words or more. answers, characters: different answers, and their length, whatever was asked.
    All counts halve every ``half_life`` seconds: one an hour for ever adds up to 1.44. max_users: those seen least
    recently are forgotten. Thread-safe.
    """

    def __init__(
        self,
        sweep: int = 100,
        near_duplicates: int = 150,
        fresh: float = 0.7,
        answers: int = 600,
        characters: int = 1_000_000,
        half_life: float = 3600.0,
        max_users: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ):
        for name in ("sweep", "near_duplicates", "answers", "characters", "max_users"):
            if not is_whole(value := locals()[name], 1):
                raise BadParameter(f"{name}={value!r} has no meaning; it must be 1 or more, and whole.")
        for name, value in (("half_life", half_life), ("fresh", fresh)):
            if not value > 0:
                raise BadParameter(f"{name}={value!r} has no meaning; it must be above 0.")
        self.sweep, self.near_duplicates = sweep, near_duplicates
        self.fresh, self.answers, self.characters = fresh, answers, characters
        self.half_life, self.max_users, self._clock = half_life, max_users, clock
        self._users: OrderedDict[bytes, _User] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, user_id: str, prompt: str, *responses: str) -> Verdict:
        """Take in one exchange, and judge the user by all there were. user_id: from the API key, never the body.

        responses: those of one request (its ``n``). Each is an answer, but the prompt was written only once.
        """
        texts = (("user_id", user_id), ("prompt", prompt), *(("response", each) for each in responses))
        for name, value in texts:
            if not isinstance(value, str):
                raise BadParameter(f"{name} must be a text, not a {type(value).__name__}.")
        words = [_digest(word) for word in _words(prompt)]
        with self._lock:
            user = self._user(_digest(user_id))
            answers = user.answers
            for response in responses:
                exchange = _digest(f"{len(prompt)} {prompt}{response}")
                if not user.seen.holds(exchange):
                    user.seen.add(exchange)
                    user.answers += 1
                    user.characters += len(response)
            if user.answers == answers:
                return self._judge(user)
            new = {word for word in words if not user.seen.holds(word)}
            best = _place(user, _sketch(words, new))
            user.counts[best] += 1
            user.fills[best] += bool(new)
            user.words += len(set(words))
            user.fresh += len(new)
            for word in sorted(new):
                user.seen.add(word)
            return self._judge(user)

    def _user(self, name: bytes) -> _User:
        now = self._clock()
        user = self._users.pop(name, None) or _User(now)
        self._users[name] = user  # at the end: the last to be forgotten
        if len(self._users) > self.max_users:
            self._users.popitem(last=False)
        user.fade(0.5 ** (max(0.0, now - user.last) / self.half_life))
        user.last = now
        return user

    def _judge(self, user: _User) -> Verdict:
        filled, alike = max(user.fills), max(user.counts)
        unheard = 100 * user.fresh / user.words if user.words >= ENOUGH else 0.0
        for found, limit, what in (
            (filled, self.sweep, "prompts filled one pattern with words not used before, as a sweep does"),
            (alike, self.near_duplicates, "prompts were near-duplicates of each other"),
            (
                unheard,
                100 * self.fresh,
                "per cent of the words in the prompts were not used before, as in a word list",
            ),
            (user.answers, self.answers, "different answers were given"),
            (user.characters, self.characters, "characters of different answers were given"),
        ):
            if found >= limit:
                reason = (
                    f"Of late (half-life {self.half_life:g} s), {found:.0f} {what}; the limit is {limit:g}."
                )
                return {"suspicious": True, "reason": reason}
        return {"suspicious": False, "reason": ""}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _words(prompt: str) -> list[str]:
    """The words a skeleton is made of, from both ends of the prompt; every number is "0"."""
    if len(prompt) > 2 * ENDS:
        prompt = f"{prompt[:ENDS]} {prompt[-ENDS:]}"
    words = ["0" if word[0].isdigit() else word.lower() for word in WORD.findall(prompt)]
    return words if len(words) <= 2 * WORDS else words[:WORDS] + words[-WORDS:]


def _sketch(words: list[bytes], new: set[bytes]) -> NDArray[np.uint16]:
    """MinHash of the skeleton's words and pairs of neighbours, (SKETCH,)."""
    single = np.array([STAR if w in new else int.from_bytes(w[8:], "big") for w in words] or [0], np.uint64)
    with np.errstate(over="ignore"):
        pairs = single[:-1] * FACTORS[0] + single[1:]
        both = np.concatenate([single, pairs])
        return ((both[:, None] * FACTORS + SHIFTS).min(0) >> np.uint64(32) & np.uint64(0xFFFF)).astype(
            np.uint16
        )


def _place(user: _User, sketch: NDArray[np.uint16]) -> int:
    """The place of the sketch most like this one; when none is, it takes that of the rarest."""
    same = (user.sketches == sketch).mean(1) * (np.array(user.counts) > 0)
    best = int(same.argmax())
    if same[best] < ALIKE:
        best = min(range(SKETCHES), key=lambda place: user.counts[place])
        user.sketches[best] = sketch
        user.counts[best] = user.fills[best] = 0.0
    return best
