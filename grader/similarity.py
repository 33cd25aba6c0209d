"""Finds solutions of one exercise that say the same in other words: names, comments and layout do not count.

A program is a row of tokens (Python's ``tokenize``; nothing is run or parsed) in which every name of the author's own
is the same. What was handed out, or stands in the reference solution, is taken away; the rest is compared as runs of
three tokens, by the longest common subsequence (RapidFuzz). A high number is a reason to look, not a verdict.

Measured on the planted alternatives of `grader/mutants` (tests/grader/test_similarity.py): different solutions of one
exercise come to 0.26 at most, copies with other names, comments and layout to 1.0.
"""

from __future__ import annotations

import builtins
import io
import keyword
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

THRESHOLD = 0.6  # far above what different solutions have in common, low enough for a copy that was worked on
SHORTEST = 40  # tokens of one's own; with fewer, likeness is chance
BASE = 12  # tokens in a row that also stand in what was handed out
RUN = 3  # tokens in a row that are compared as one
LIMIT = 20_000  # characters of a solution that are read
LONGEST = 3_000  # tokens that are compared
_KEPT = {*keyword.kwlist, *dir(builtins)}
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_F_BEGINS, _F_ENDS = (getattr(tokenize, f"FSTRING_{part}", -1) for part in ("START", "END"))  # Python 3.12


@dataclass(frozen=True)
class Pair:
    """Two students' solutions of one exercise. similarity: 0 to 1. tokens: compared, of the first and the second."""

    exercise: str
    first: str
    second: str
    similarity: float
    tokens: tuple[int, int]


def similar(exercise: str, sources: Mapping[str, str], base: Iterable[str]) -> list[Pair]:
    """The pairs at THRESHOLD or above, the most similar first.

    sources: each student's solution. base: programs that everybody may use, such as the stub and the reference.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    known = frozenset(run for program in base for run in _runs(tokens(program), BASE))
    found = {student: own(source, known) for student, source in sorted(sources.items())}
    students = [student for student, mine in found.items() if len(mine) >= SHORTEST]
    if len(students) < 2:
        return []
    letters: dict[tuple[str, ...], str] = {}  # one character for each run: RapidFuzz is fastest with text
    texts = [
        "".join(
            letters.setdefault(run, chr(0x10000 + len(letters) % 0xF0000)) for run in _runs(found[s], RUN)
        )
        for s in students
    ]
    pairs = []
    for n, text in enumerate(texts[:-1]):
        scores = cdist(
            [text], texts[n + 1 :], scorer=Indel.normalized_similarity, score_cutoff=THRESHOLD, workers=1
        )[0]
        for other in scores.nonzero()[0]:
            a, b = students[n], students[n + 1 + int(other)]
            pairs.append(Pair(exercise, a, b, float(scores[other]), (len(found[a]), len(found[b]))))
    return sorted(pairs, key=lambda pair: (-pair.similarity, -min(pair.tokens), pair.first, pair.second))


def own(source: str, known: frozenset[tuple[str, ...]]) -> list[str]:
    """The tokens of a program that are in no run of BASE tokens that is known already."""
    found = tokens(source)
    shared = {
        place
        for start, run in enumerate(_runs(found, BASE))
        if run in known
        for place in range(start, start + BASE)
    }
    return [token for place, token in enumerate(found) if place not in shared]


def tokens(source: str) -> list[str]:
    """A program without comments, layout and docstrings, in which all names of its author's are alike.

    Of what Python cannot read, the tokens up to there.
    """
    return list(islice(_tokens(source), LONGEST))


def _tokens(source: str) -> Iterator[str]:
    before = last = ""  # the two tokens in front, as written
    opens, depth = True, 0  # at the beginning of a statement; inside so many f-strings
    reader = io.StringIO(source[:LIMIT]).readline
    try:
        for token in tokenize.generate_tokens(reader):
            text = token.string
            if token.type in _LAYOUT:
                continue
            if token.type == tokenize.ERRORTOKEN and text[:1] in "'\"":
                return  # a text without end: what follows would be read again and again
            if token.type == tokenize.NEWLINE or text == ";":
                opens = True
                continue
            depth += (token.type == _F_BEGINS) - (token.type == _F_ENDS)
            is_text = token.type in (tokenize.STRING, _F_ENDS)
            if depth == 0 and not (is_text and opens):
                attribute = last == "." and before != "self"
                is_name = token.type == tokenize.NAME and text not in _KEPT and text != "self"
                yield "text" if is_text else "name" if is_name and not attribute else text
            opens = False
            before, last = last, text
    except (tokenize.TokenError, SyntaxError):
        return


def _runs(row: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(row[n : n + length]) for n in range(len(row) - length + 1)]
