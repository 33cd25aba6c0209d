"""Words found in letters that were written together: the fewest letters left over, then the fewest words."""

from __future__ import annotations

from .words import WITH_ENDINGS

LONGEST = max(map(len, WITH_ENDINGS))


def segment(letters: str) -> str:
    """``ignoreallrules`` with spaces between its words; letters that belong to no known word stay together."""
    lower = letters.lower()
    # best[i]: (cost, where the last piece of the best split of the first i letters begins, is it a word?)
    best: list[tuple[int, int, bool]] = [(0, 0, True)]
    for end in range(1, len(lower) + 1):
        cost, _, _ = best[end - 1]
        choice = (cost + 10, end - 1, False)
        for start in range(max(0, end - LONGEST), end):
            if best[start][0] + 3 < choice[0] and lower[start:end] in WITH_ENDINGS:
                choice = (best[start][0] + 3, start, True)
        best.append(choice)
    pieces: list[tuple[str, bool]] = []
    end = len(lower)
    while end:
        _, start, known = best[end]
        pieces.append((letters[start:end], known))
        end = start
    out = ""
    before = True
    for piece, known in reversed(pieces):
        out += (" " if out and (known or before) else "") + piece
        before = known
    return out
