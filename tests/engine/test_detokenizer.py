"""Detokenizer: whatever the ids, the pieces add up to the decoded text, as early and as cheaply as that can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import Tokenizer, load_tokenizer
from lessonlib.engine.tokenizer import Detokenizer

from .conftest import QUIET

TOKENIZER = load_tokenizer("pico-draft")
# Ids that are one byte of a longer character.
BYTES = [
    i
    for i in range(TOKENIZER.vocab_size)
    if TOKENIZER.decode([i]) == "\ufffd" and len(TOKENIZER.id_to_token(i)) == 1
]
SPECIAL = TOKENIZER.encode("<|im_end|>")[0]


class Counting:
    """Decodes as the tokenizer does, and counts the ids."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.decoded = tokenizer, 0

    def decode(self, ids: list[int]) -> str:
        self.decoded += len(ids)
        return self.tokenizer.decode(ids)


def test_the_work_for_a_text_is_linear():
    ids = TOKENIZER.encode("def f(x):\n    return x + 1\n" * 20)
    counting = Counting(TOKENIZER)
    detokenizer = Detokenizer(counting)  # type: ignore[arg-type]
    assert "".join(detokenizer.add(i) for i in ids) == TOKENIZER.decode(ids)
    assert counting.decoded < 5 * len(ids)


@QUIET
@given(st.data())
def test_any_bytes_at_all_stream_to_their_decoded_text(data):
    """Pieces of characters in any order, with special tokens and whole characters between them."""
    cuts = [TOKENIZER.encode(text) for text in ("👩", "é漢", "\ufffd")]
    others = [[SPECIAL], TOKENIZER.encode("a"), *cuts, *([i] for cut in cuts for i in cut)]
    parts = st.one_of(st.sampled_from(BYTES).map(lambda i: [i]), st.sampled_from(others))
    ids = [i for part in data.draw(st.lists(parts, min_size=1, max_size=30)) for i in part]
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [detokenizer.add(token, place == len(ids) - 1) for place, token in enumerate(ids)]
    assert "".join(pieces) == TOKENIZER.decode(ids)
    assert detokenizer.count == len(ids)


@pytest.mark.parametrize(
    "cycle",
    [BYTES[:1], BYTES[-1:], [BYTES[-1], SPECIAL], [BYTES[0], BYTES[-1], SPECIAL, SPECIAL, SPECIAL]],
    ids=str,
)
def test_bytes_that_become_no_character_are_shown_as_they_come(cycle):
    ids = (cycle * 500)[:500]
    counting, text = Counting(TOKENIZER), ""
    detokenizer = Detokenizer(counting)  # type: ignore[arg-type]
    for place, token in enumerate(ids, start=1):
        text += detokenizer.add(token)
        whole = TOKENIZER.decode(ids[:place])
        assert whole.startswith(text) and len(whole) - len(text) <= 3
    assert counting.decoded < 25 * len(ids)
