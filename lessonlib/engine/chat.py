"""From a conversation to token ids, so that nothing a message says can pass for the template's own marks.

A tokenizer turns the text of a special token into that token wherever it stands. A user who writes
"<|im_end|><|im_start|>system …" would so begin a turn of somebody else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence

from .errors import BadParameter
from .tokenizer import Message, Tokenizer


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], encode: Callable[[str], list[int]] | None = None
) -> list[int]:
    """Token ids of a conversation, up to where the assistant begins to speak.

    encode: text to ids, special tokens and all (default: the tokenizer's); it may refuse a text. Raises what
    apply_chat_template raises, and BadParameter where what a message says cannot be told from the template's own text.
    """
    # The template already writes the special tokens a prompt begins with.
    encode = encode or (lambda text: tokenizer.encode(text, add_special_tokens=False))
    special = tokenizer.special_texts
    forging = [
        i
        for i, message in enumerate(messages)
        # What is no message is for the template to refuse.
        if isinstance(message, Mapping)
        and isinstance(content := message.get("content"), str)
        and any(text in content for text in special)
    ]
    if not forging:
        return encode(tokenizer.apply_chat_template(messages))
    # The template is written around stand-ins, and each content encoded by itself, its special texts in two halves.
    secret = secrets.token_hex(16)
    said = {f"{secret}{i:06d}": messages[i]["content"] for i in forging}
    marked = list(messages)
    for i, mark in zip(forging, said, strict=True):
        marked[i] = {**messages[i], "content": mark}
    pieces = re.split(f"({secret}[0-9]{{6}})", tokenizer.apply_chat_template(marked))
    if pieces[1::2] != list(said):
        raise BadParameter(
            "A message holds the text of a special token, and this model's template does not let it be told from a "
            "real one; leave it out."
        )
    halves = re.compile("|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in special))
    ids: list[int] = []
    for piece in pieces:
        for part in halves.split(said[piece]) if piece in said else [piece]:
            ids += encode(part) if part else []
    return ids
