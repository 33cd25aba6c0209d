"""Tokenizer: text <-> token ids, a thin face over the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from .checkpoint import resolve
from .errors import BrokenCheckpoint, TokenizerMismatch

Message = dict[str, Any]


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
        self.settings: dict[str, Any] = json.loads(settings.read_text()) if settings.is_file() else {}
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

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. ``add_special_tokens`` prepends what the model expects (pico: nothing)."""
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids. Bytes that form no character yet come out as U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself, printable: what the model really sees between one id and the next."""
        return [self.decode([i], skip_special_tokens=False) for i in ids]

    def apply_chat_template(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt a chat becomes. Raises TokenizerMismatch when the model was not made for chatting."""
        if self.chat_template is None:
            raise TokenizerMismatch(
                "This model has no chat template; use generate with a plain prompt instead."
            )
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # a template is data from strangers

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = raise_exception
        special = {name: self.settings.get(name) or "" for name in ("bos_token", "eos_token")}
        try:
            return environment.from_string(self.chat_template).render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **special
            )
        except TemplateError as error:
            raise TokenizerMismatch(f"The chat template refused these messages: {error}.") from None

    def _special(self, name: str) -> int | None:
        token = self.settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return None if token is None else self._tokenizer.token_to_id(token)


class Detokenizer:
    """Turns a growing list of ids into text as it comes, never emitting half a character.

    Work per token is constant: only the ids after the last emitted text are decoded again.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # ids from here on are decoded together, since a token's text can depend on its left
        self._emitted = 0  # ids up to here have been emitted

    def add(self, token: int, final: bool = False) -> str:
        """The text that this token completes; "" while a character is still in pieces (unless ``final``)."""
        self._ids.append(token)
        before = self._tokenizer.decode(self._ids[self._start : self._emitted])
        now = self._tokenizer.decode(self._ids[self._start :])
        if now.endswith("\ufffd") and not final:
            return ""
        self._start, self._emitted = self._emitted, len(self._ids)
        return now[len(before) :]


def load_tokenizer(name: str | Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a model by name or folder.

    Raises TokenizerMismatch when it can produce ids that a model with ``vocab_size`` does not know.
    """
    tokenizer = Tokenizer(resolve(name))
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise TokenizerMismatch(
            f"The tokenizer of {name} has {tokenizer.vocab_size} tokens but the model knows only {vocab_size}; "
            "use the tokenizer that came with the model."
        )
    return tokenizer
