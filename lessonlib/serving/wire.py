"""What every wire format has to say about a generation, and what it is given to say it with.

A format is a class of request bodies (pydantic, strict: a wrong type is refused, never converted) and an ``Exchange``,
which turns a body into prompts and sampling parameters, and the engine's deltas into what goes back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lessonlib.engine import LLM, ModelConfig, SamplingParams
from lessonlib.engine.chat import encode_chat
from lessonlib.engine.errors import PromptTooLong
from lessonlib.engine.tokenizer import Message
from lessonlib.security.admission import MAX_NAME, MAX_PARTS, MAX_STOP_LENGTH, MAX_STOPS

from .engine import Delta, Token, Usage
from .errors import ApiError

VERSION = version("llm-inference-course")


class Body(BaseModel):
    """A request body, or a part of one. A field we do not know is refused: it may have been meant to matter."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]


class TextPart(Body):
    """A part of a message's content; this model reads nothing but text."""

    type: Literal["text"]
    text: str


Content = str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]


def text_of(content: str | Sequence[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


@dataclass(frozen=True)
class Model:
    """The model on offer, as the wire formats see it.

    format: of its weights, for Ollama's "quantization_level". system_prompt: the server's own, before every
    conversation (not before a plain text that is to be continued); "": none.
    """

    name: str
    llm: LLM
    format: str = "F32"
    system_prompt: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def config(self) -> ModelConfig:
        return self.llm.model.config

    @property
    def context(self) -> int:
        return self.config.max_position_embeddings

    def check_name(self, name: str, alike: str = "") -> None:
        """Raise ApiError unless this model is the one asked for (``alike``: an ending that may be left out)."""
        if name.removesuffix(alike) != self.name:
            raise ApiError(
                "not_found", f"The model {name!r} is not served here; ask for {self.name!r}.", "model"
            )

    def check_length(self, max_tokens: int, param: str = "max_tokens") -> int:
        if max_tokens > self.context:
            raise ApiError(
                "invalid",
                f"{param} is {max_tokens} and this model's context is {self.context}; ask for fewer.",
                param,
            )
        return max_tokens

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. One that cannot fit is refused before the work of encoding it."""
        self._check_characters(len(text))
        return self.llm.tokenizer.encode(text, add_special_tokens)

    def _check_characters(self, count: int) -> None:
        if count > self.context * self.longest_token:
            raise PromptTooLong(
                f"The prompt has {count} characters, which is more than this model's context of {self.context} "
                "tokens can hold; shorten it."
            )

    def decode(self, ids: list[int]) -> str:
        """The text that a client spelled as token ids, special tokens and all."""
        return self.llm.tokenizer.decode(ids, skip_special_tokens=False)

    @cached_property
    def longest_token(self) -> int:
        """No token stands for more characters than this."""
        tokenizer = self.llm.tokenizer
        return max(len(tokenizer.id_to_token(i)) for i in range(tokenizer.largest_id + 1))

    def encode_chat(self, messages: list[Message]) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins to speak.

        One that cannot fit is refused as soon as that is known: however many pieces it is encoded in.
        """
        if self.system_prompt:
            messages = [{"role": "system", "content": self.system_prompt}, *messages]
        self._check_characters(sum(len(message["content"] or "") for message in messages))
        count = 0

        def encode(text: str) -> list[int]:
            nonlocal count
            ids = self.encode(text, False)
            count += len(ids)
            if count > self.context:
                raise PromptTooLong(
                    f"The prompt has more than {self.context} tokens, which is this model's context; shorten it."
                )
            return ids

        return encode_chat(self.llm.tokenizer, messages, encode)

    def texts(self, messages: list[Message]) -> list[str]:
        """What is to be judged of a conversation: a system message is the developer's, where the server has none."""
        return [
            m["content"] for m in messages if m["content"] and (m["role"] != "system" or self.system_prompt)
        ]

    def visible(self, tokens: list[Token], finish_reason: str | None) -> list[Token]:
        """Without the end-of-text token, which is no part of the answer."""
        ended = finish_reason == "stop" and tokens and tokens[-1].choice.token in self.config.eos_token_ids
        return tokens[:-1] if ended else tokens


@dataclass
class Answer:
    """One sequence, as far as it has come."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish_reason: str | None = None
    stop: str | None = None


class Exchange:
    """One request and its answer in a wire format. ``stream``: is it sent piece by piece?

    texts: once prepared, the client's own behind each prompt, for those who judge them. finish_reason "filtered" is for
    an answer that the output filter cut short.

    Order of calls: ``prepare`` (may take a while, and may raise ApiError or EngineError: called in a thread), then
    either ``begin``, ``piece`` for each delta and ``end`` (each what to send, "" for nothing), or ``whole``.
    ``broken``: what to send when an error comes while streaming.
    """

    media_type = "text/event-stream"
    stream = False

    def __init__(self, model: Model, id: str):
        self.model, self.id = model, id
        self.answers: dict[int, Answer] = {}
        self.texts: list[list[str]] = []

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        raise NotImplementedError

    def take(self, delta: Delta) -> Answer:
        """Add a delta to what has come so far."""
        answer = self.answers.setdefault(delta.index, Answer())
        answer.text += delta.text
        answer.tokens += delta.tokens
        answer.finish_reason, answer.stop = delta.finish_reason, delta.stop
        return answer

    def begin(self) -> str:
        return ""

    def piece(self, delta: Delta) -> str:
        raise NotImplementedError

    def end(self, usage: Usage) -> str:
        raise NotImplementedError

    def broken(self, error: ApiError) -> str:
        raise NotImplementedError

    def whole(self, usage: Usage) -> dict[str, Any]:
        raise NotImplementedError


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given at all: null means the default."""
    return {name: value for name, value in settings.items() if value is not None}


def top_p_of(share: float | None) -> float | None:
    """For the engine, which wants more than 0: 0 leaves the likeliest token, as in the vendors' formats."""
    return None if share is None else max(share, 1e-9)


def event(data: Any, name: str = "") -> str:
    """A server-sent event. ASCII alone: some clients take U+2028 for the end of a line."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data, separators=(',', ':'))}\n\n"
