"""Tokenizer: text <-> token ids, a thin face over the ``tokenizers`` library."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from .checkpoint import read_json, resolve
from .errors import BadParameter, BrokenCheckpoint, TokenizerMismatch, TokenOutOfRange
from .prompts import as_ids

Message = dict[str, Any]
UNFINISHED = 3  # bytes, and so ids at most, of a character that lacks its last one


class Tokenizer:
    """Text to ids and back, from the ``tokenizer.json`` and ``tokenizer_config.json`` of a model folder."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BrokenCheckpoint(f"{folder.name} has no tokenizer.json; fetch the model folder again.")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception:  # the library raises plain Exception for anything it cannot parse
            raise BrokenCheckpoint(f"{path.name} of {folder.name} cannot be read; fetch it again.") from None
        settings = folder / "tokenizer_config.json"
        self.settings: dict[str, Any] = read_json(settings) if settings.is_file() else {}
        template = folder / "chat_template.jinja"
        self.chat_template: str | None = (
            template.read_text() if template.is_file() else self.settings.get("chat_template")
        )
        self.eos_token_id = self._special("eos_token")
        self.bos_token_id = self._special("bos_token")

    @property
    def vocab_size(self) -> int:
        """Number of distinct ids this tokenizer can produce, special tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def largest_id(self) -> int:
        """The largest id this tokenizer can produce: ids may have gaps."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @cached_property
    def special_texts(self) -> list[str]:
        """The texts that are taken for special tokens, wherever they stand."""
        added = json.loads(self.to_json()).get("added_tokens", [])
        return sorted(token["content"] for token in added if token["content"])

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. ``add_special_tokens`` prepends what the model expects (pico: nothing)."""
        try:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:  # no str, or a str with lone surrogates, which no byte sequence can stand for
            raise BadParameter(
                f"{reprlib.repr(text)} is no text that UTF-8 can write; give a proper str."
            ) from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids. Bytes that form no character yet come out as U+FFFD."""
        try:
            return self._tokenizer.decode(as_ids(ids), skip_special_tokens=skip_special_tokens)
        except OverflowError:
            raise TokenOutOfRange(
                "Token ids count from 0, so none of them can be negative or huge."
            ) from None

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself, printable: what the model really sees between one id and the next."""
        return [self.decode([i], skip_special_tokens=False) for i in ids]

    def id_to_token(self, token: int) -> str:
        """The vocabulary's own spelling of an id (byte-level BPE writes a space as "Ġ"); "" if there is none."""
        return self._tokenizer.id_to_token(token) or ""

    def to_json(self) -> str:
        """The content of ``tokenizer.json``."""
        return self._tokenizer.to_str()

    def apply_chat_template(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt a chat becomes.

        Raises BadParameter for messages without role and content, TokenizerMismatch when the model was not made
        for chatting, or not for this chat.
        """
        if self.chat_template is None:
            raise TokenizerMismatch(
                "This model has no chat template; use generate with a plain prompt instead."
            )
        for message in messages:
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise BadParameter(
                    'A chat is a list of messages like {"role": "user", "content": "…"}, '
                    f"not {reprlib.repr(message)}."
                )
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # a template is data from strangers

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = raise_exception
        given = {
            "messages": list(messages),
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._text_of("bos_token") or "",
            "eos_token": self._text_of("eos_token") or "",
            "tools": None,
            "documents": None,
        }
        try:
            return environment.from_string(self.chat_template).render(given)
        except (TemplateError, TypeError) as error:
            reason = " ".join(str(error).split())[:120].rstrip(".")
            raise TokenizerMismatch(
                f"The model's chat template cannot write this chat ({reason}); change the messages."
            ) from None

    def _text_of(self, name: str) -> str | None:
        """A special token's text; it may be stored alone or with its settings."""
        token = self.settings.get(name)
        return token.get("content") if isinstance(token, dict) else token

    def _special(self, name: str) -> int | None:
        token = self._text_of(name)
        return None if token is None else self._tokenizer.token_to_id(token)


class Detokenizer:
    """Turns a growing list of ids into text as it comes, never emitting half a character.

    Work per token is constant: only the last few ids are decoded again. ``count``: ids taken in so far.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.count = 0
        self._ids: list[int] = []  # decoded together, since a token's text can depend on its left
        self._settled = 0  # of these ids, all of whose text is emitted
        self._emitted = 0  # characters of their text that are emitted

    def add(self, token: int, final: bool = False) -> str:
        """The text that this token completes; "" while a character is still in pieces (unless ``final``)."""
        self.count += 1
        self._ids.append(token)
        text = self.tokenizer.decode(self._ids)
        if text.endswith("\ufffd") and not final:
            return self._broken(text) if len(self._ids) - self._settled > UNFINISHED else ""
        new = text[self._emitted :]
        self._ids = self._ids[self._settled :]
        self._settled, self._emitted = len(self._ids), len(self.tokenizer.decode(self._ids))
        return new

    def _broken(self, text: str) -> str:
        """No character is that long: only the last U+FFFD can still become one, and only the last few ids matter."""
        new, self._emitted = text[self._emitted : -1], len(text) - 1
        # Special tokens have no text, and may stand between the pieces of a character.
        ids = [i for i in self._ids if self.tokenizer.decode([i])][-UNFINISHED - 1 :]
        rest = self.tokenizer.decode(ids)
        if rest.endswith("\ufffd"):
            self._ids, self._settled, self._emitted = ids, 0, len(rest) - 1
        return new


def load_tokenizer(name: str | Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a model by name or folder.

    Raises TokenizerMismatch when it can produce ids that a model with ``vocab_size`` does not know.
    """
    tokenizer = Tokenizer(resolve(name))
    if vocab_size is not None and tokenizer.largest_id >= vocab_size:
        raise TokenizerMismatch(
            f"The tokenizer of {name} has ids up to {tokenizer.largest_id} but the model knows only {vocab_size} "
            "tokens; use the tokenizer that came with the model."
        )
    return tokenizer
