"""Which files may not be trained on: those whose own text names terms that are not permissive.

A package under a permissive licence may still hold a file that came from elsewhere, and says so.
"""

from __future__ import annotations

import re

_GAP = r"[\s#*]+"  # a notice goes on over the comment mark of the next line
# One pattern each, beginning with plain letters: re finds those quickly in 200 MB.
COPYLEFT = [
    re.compile(pattern)
    for pattern in (
        "GPL(?!-compatible)",
        rf"GNU{_GAP}(?i:(\w+{_GAP}){{0,2}}General{_GAP}Public)",
        rf"Mozilla{_GAP}Public",
        rf"Eclipse{_GAP}Public",
        rf"European{_GAP}Union{_GAP}Public",
        rf"Common{_GAP}Development{_GAP}and{_GAP}Distribution",
        rf"Creative{_GAP}Commons{_GAP}(?i:Attribution)",
        rf"Server{_GAP}Side{_GAP}Public",
        r"MPL[- ]?v?[12]\b",
        "EUPL",
        "CDDL-",
        "CC[- ]BY",
    )
]
# "Licensed under the Such-and-such License": any name that is not one of the permissive ones is refused.
NAMED = re.compile(
    rf"icensed{_GAP}under{_GAP}(?:the{_GAP}terms{_GAP}of{_GAP})?(?:the{_GAP})?"
    rf"((?:[\w.'-]+{_GAP}){{1,4}}?)(?i:licen[sc]e)"
)
PERMISSIVE = re.compile(r"\b(Apache|BSD|MIT|PSFL?|Python|ISC|zlib|Unlicense|CC0)", re.IGNORECASE)


def is_permissive(text: str) -> bool:
    """False if a file's text carries, or only names, terms that are not permissive: in doubt it is left out."""
    if any(terms.search(text) for terms in COPYLEFT):
        return False
    return all(PERMISSIVE.search(notice[1]) for notice in NAMED.finditer(text))
