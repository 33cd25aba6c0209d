"""What of an answer may be seen: its text through the output filter, its tokens as far as they show no more than it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from lessonlib.engine import SamplingParams
from lessonlib.engine.sampling import Choice
from lessonlib.security.logit_surface import LogitSurfacePolicy
from lessonlib.security.output_filter import OutputFilter
from lessonlib.security.streaming import StreamingOutputFilter

from .engine import Delta, Token

Surface = Callable[[Choice], Choice]


@dataclass
class _Sequence:
    """A filter, the text given to it and shown by it so far, and the tokens that wait until that is decided."""

    filter: StreamingOutputFilter
    given: int = 0
    shown: int = 0
    waiting: list[Token] = field(default_factory=list)
    over: bool = False


class Screen:
    """Turns the deltas of the engine into those that may go out, sequence by sequence.

    A token goes out, with its log-probabilities and those of its rivals, once all of its text was shown as it is:
    never if it has a part in what was redacted, or comes after a text that was cut off (finish_reason "filtered").
    Its place is then that in the text as it was shown. Tokens nobody asked to see never go out beside a filter.
    """

    def __init__(self, output: OutputFilter | None, surface: Surface | None):
        self._output, self._surface = output, surface
        self._sequences: dict[int, _Sequence] = {}

    def __call__(self, delta: Delta) -> Delta | None:
        """None: there is nothing more of this sequence to be told."""
        if self._output is not None:
            sequence = self._sequences.setdefault(delta.index, _Sequence(self._output.stream()))
            if sequence.over:
                return None
            delta = self._filter(sequence, delta)
        if self._surface is not None:
            tokens = [token._replace(choice=self._surface(token.choice)) for token in delta.tokens]
            delta = replace(delta, tokens=tokens)
        return delta

    @property
    def findings(self) -> Counter[str]:
        """By kind, those beyond the most that a filter keeps left out."""
        return Counter(found.kind for each in self._sequences.values() for found in each.filter.findings)

    def _filter(self, sequence: _Sequence, delta: Delta) -> Delta:
        final, filter = delta.finish_reason is not None, sequence.filter
        text = filter.push(delta.text) + (filter.finish() if final else "")
        sequence.given += len(delta.text)
        sequence.shown += len(text)
        sequence.waiting += delta.tokens if self._surface is not None else []
        sequence.over = final or filter.blocked
        if filter.blocked:
            return replace(
                delta, text=text, tokens=self._decided(sequence), finish_reason="filtered", stop=None
            )
        return replace(delta, text=text, tokens=self._decided(sequence))

    def _decided(self, sequence: _Sequence) -> list[Token]:
        """Take out of the waiting tokens those that are decided; of these, those that may go out."""
        filter = sequence.filter
        if filter.mode == "log":
            tokens, sequence.waiting = sequence.waiting, []
            return tokens
        decided = sequence.given - filter.held
        count = sum(
            token.end <= decided for token in sequence.waiting
        )  # they are in the order of their places
        ready, sequence.waiting = sequence.waiting[:count], sequence.waiting[count:]
        findings = filter.findings if ready else []
        if filter.total > len(findings):  # more than it keeps: nobody knows what the others hide
            return []
        starts = [found.start for found in findings]
        out = []
        for token in ready:
            before = bisect_right(starts, token.end - 1)  # findings that begin before the token ends
            if filter.blocked and before:
                break
            if before and findings[before - 1].end > token.start:
                continue
            shift = sum(_mark(found.kind) - (found.end - found.start) for found in findings[:before])
            out.append(Token(token.choice, token.start + shift, token.end + shift))
        return out


def _mark(kind: str) -> int:
    return len(f"[REDACTED:{kind}]")


WHOLE_ROW = 2**31 - 1  # log-probabilities: more than any vocabulary has


def surface(policy: LogitSurfacePolicy, params: SamplingParams) -> tuple[SamplingParams, Surface | None]:
    """How to run a request that wants log-probabilities, and what to make of what the engine then reports.

    The engine reports values before the bias, and the policy chooses among its ``top_k``. A policy that is off wants
    them after the bias, as the APIs of 2023 did: then the engine reports the whole row, and the bias is added to it.
    """
    wanted = params.logprobs
    if wanted is None:
        return params, None
    if policy.before_bias or not params.logit_bias:
        return replace(params, logprobs=policy.top_k), lambda choice: policy.limit(choice, wanted)

    def after_bias(choice: Choice) -> Choice:
        assert choice.top is not None
        row = torch.empty(len(choice.top))
        row[list(choice.top)] = torch.tensor(list(choice.top.values()))
        return policy.report(choice.token, row, params.logit_bias, wanted)

    return replace(params, logprobs=WHOLE_ROW), after_bias
