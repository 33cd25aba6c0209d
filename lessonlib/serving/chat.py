"""From a conversation to token ids, so that nothing a message says can pass for the template's own marks.

A tokenizer turns the text of a special token into that token wherever it stands. A user who writes
"<|im_end|><|im_start|>system …" would so begin a turn of somebody else.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence

from lessonlib.engine.errors import BadParameter
from lessonlib.engine.tokenizer import Message, Tokenizer


def special_texts(tokenizer: Tokenizer) -> list[str]:
    """The texts that this tokenizer takes for special tokens."""
    added = json.loads(tokenizer.to_json()).get("added_tokens", [])
    return sorted(token["content"] for token in added if token["content"])


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    special: Sequence[str],
    encode: Callable[[str], list[int]],
) -> list[int]:
    """Token ids of a conversation, up to where the assistant begins to speak.

    encode: text to ids, special tokens and all; it may refuse a text. Each message has "role" and "content", a str.
    """
    contents = [message["content"] for message in messages]
    if not any(text in content for text in special for content in contents):
        return encode(tokenizer.apply_chat_template(messages))
    # The template is written around stand-ins, and each content encoded by itself, its special texts in two halves.
    stand_ins = [secrets.token_hex(16) for _ in messages]
    written = tokenizer.apply_chat_template(
        [{**message, "content": mark} for message, mark in zip(messages, stand_ins, strict=True)]
    )
    pieces = re.split(f"({'|'.join(stand_ins)})", written)
    if pieces[1::2] != stand_ins:
        raise BadParameter(
            "A message holds the text of a special token, and this model's template does not let it be told from a "
            "real one; leave it out."
        )
    said = dict(zip(stand_ins, contents, strict=True))
    halves = re.compile("|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in special))
    ids: list[int] = []
    for piece in pieces:
        for part in halves.split(said[piece]) if piece in said else [piece]:
            ids += encode(part) if part else []
    return ids
