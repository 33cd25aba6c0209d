"""Log-probabilities with the tokens they belong to, as text and as bytes.

A token of a byte-level vocabulary may be part of a character. Its text is then written "bytes:\\xe2\\x82", as OpenAI
does, and its bytes say what it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from lessonlib.engine.sampling import Choice
from lessonlib.engine.tokenizer import Tokenizer

from .engine import Token

# Stands for minus infinity, which JSON cannot say, and for a value that is not told: that of a chosen token which is
# not among the likeliest (see security.logit_surface). OpenAI's reference gives -9999.0 this meaning.
LOWEST = -9999.0


class Spelled(NamedTuple):
    """A token: its text, its bytes (None where the vocabulary does not tell), its log-probability."""

    text: str
    bytes: list[int] | None
    logprob: float


def spell(tokenizer: Tokenizer, token: int, logprob: float | None) -> Spelled:
    return Spelled(*_spelling(tokenizer, token), max(LOWEST, LOWEST if logprob is None else logprob))


@lru_cache(maxsize=2**16)  # an answer may name a token a thousand times, and to decode it takes 20 µs
def _spelling(tokenizer: Tokenizer, token: int) -> tuple[str, list[int] | None]:
    """Text and bytes of a token; the list is shared, not to be changed."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    raw: bytes | None = text.encode()
    if "\ufffd" in text:
        spelling = tokenizer.id_to_token(token)
        raw = bytes(_BYTES[c] for c in spelling) if all(c in _BYTES for c in spelling) else None
        if raw is not None:
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
    return text, None if raw is None else list(raw)


def spell_top(tokenizer: Tokenizer, choice: Choice) -> list[Spelled]:
    """The likeliest tokens in the place of a chosen one, best first."""
    return [spell(tokenizer, token, logprob) for token, logprob in (choice.top or {}).items()]


def as_chat(tokenizer: Tokenizer, tokens: list[Token]) -> dict[str, Any]:
    """The ``logprobs`` of OpenAI's chat format."""
    content = []
    for choice, *_ in tokens:
        own = spell(tokenizer, choice.token, choice.logprob)
        top = [_named(each) for each in spell_top(tokenizer, choice)]
        content.append({**_named(own), "top_logprobs": top})
    return {"content": content, "refusal": None}


def as_completion(tokenizer: Tokenizer, tokens: list[Token]) -> dict[str, Any]:
    """The ``logprobs`` of OpenAI's completions."""
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for choice, start, _ in tokens:
        own = spell(tokenizer, choice.token, choice.logprob)
        found["tokens"].append(own.text)
        found["token_logprobs"].append(own.logprob)
        top = {own.text: own.logprob, **{t.text: t.logprob for t in spell_top(tokenizer, choice)}}
        found["top_logprobs"].append(top if choice.top else None)
        found["text_offset"].append(start)
    return found


def _named(token: Spelled) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": token.bytes}


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(rest)}


_BYTES = _byte_alphabet()
