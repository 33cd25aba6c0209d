"""OutputFilter: keeps secrets, personal data and the system prompt out of what a model says.

It looks for what can be recognised: some sixty kinds of secrets by their format, checksum or the name they are given;
payment cards, bank accounts, e-mail addresses and phone numbers; and, when told, one's own system prompt and secrets in
a dozen encodings.

What it cannot find, and a model that is told to leak will use:
- secrets it was not told about that have no format and no name beside them, weak passwords ("hunter2"), UUIDs as keys;
- known formats that are spaced out, encoded, spelled in words or split over several answers (tell it your own secrets
  with ``secrets=``: those it finds spaced out, backwards, in base64, hex and rot13 as well);
- personal data without a format: names, postal addresses, dates of birth, national identity numbers;
- e-mail addresses in a line that names an author or a copyright before them: licences want those kept;
- phone numbers written nationally outside North America, unless a word such as "phone" stands before them.

The last line of defence, not the first: what must never leave should not be in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from lessonlib.engine.errors import BadParameter

from .canary import Canaries
from .rules import book
from .secrets_patterns import KINDS, RULES
from .streaming import MODES, Finding, StreamingOutputFilter


class Filtered(str):
    """The text that may be shown. findings, total and blocked are as in StreamingOutputFilter."""

    findings: list[Finding]
    total: int
    blocked: bool

    @classmethod
    def of(cls, text: str, stream: StreamingOutputFilter) -> Self:
        self = cls(text)
        self.findings, self.total, self.blocked = stream.findings, stream.total, stream.blocked
        return self


class OutputFilter:
    """A policy for answers, to be used for any number of them.

    >>> OutputFilter().filter("Write to ada@lovelace.org").findings
    [Finding(kind='email', start=9, end=25)]

    mode: "redact", "block" or "log"; see StreamingOutputFilter. system_prompt, secrets: what must not be given away,
    see Canaries. keeps_prompt: was there a system prompt? kinds: which of KINDS to look for, all by default.
    Raises BadParameter for an unknown mode or kind, and for secrets too short to be told from chance.
    """

    def __init__(
        self,
        mode: str = "redact",
        system_prompt: str = "",
        secrets: Iterable[str] = (),
        kinds: Iterable[str] | None = None,
    ):
        if mode not in MODES:
            raise BadParameter(f"Mode {mode!r} is not known; choose 'redact', 'block' or 'log'.")
        wanted = set(KINDS if kinds is None else kinds)
        if not wanted:
            raise BadParameter(
                "There is no kind to look for; name some of KINDS, or leave kinds out for all of them."
            )
        if unknown := wanted - set(KINDS):
            raise BadParameter(f"Nothing called {min(unknown)!r} can be looked for; choose from KINDS.")
        self.mode = mode
        self.keeps_prompt = bool(system_prompt)
        self._canaries = Canaries(system_prompt, secrets)
        self._rules = book(tuple(rule for rule in RULES if rule.kind in wanted))

    def filter(self, text: str) -> Filtered:
        """A whole answer, in time linear in its length."""
        stream = self.stream()
        return Filtered.of(stream.push(text) + stream.finish(), stream)

    def stream(self) -> StreamingOutputFilter:
        """A filter for one answer that comes in pieces; the same policy, the same result."""
        return StreamingOutputFilter(self.mode, self._canaries, self._rules)
