"""Anthropic's wire format: /v1/messages and /v1/messages/count_tokens.

Source: Anthropic's API reference; tested with its Python client.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lessonlib.engine import SamplingParams
from lessonlib.security.admission import MAX_MESSAGES, MAX_PARTS, WHOLE

from .engine import Delta, Usage
from .errors import ApiError
from .wire import Answer, Body, Exchange, Model, Name, Stops, TextPart, event, given, text_of, top_p_of


class TextBlock(TextPart):
    """As answers have them, so that an answer can be sent back as it came; the rest is noted, without effect."""

    cache_control: dict[str, str] | None = None
    citations: Annotated[list[str], Field(max_length=0)] | None = None


Blocks = str | Annotated[list[TextBlock], Field(min_length=1, max_length=MAX_PARTS)]


class MessageParam(Body):
    role: Literal["user", "assistant"]
    content: Blocks


class Thinking(Body):
    type: Literal["disabled"]


class Metadata(Body):
    user_id: Annotated[str, Field(max_length=256)] | None = None


class Conversation(Body):
    """What both calls share."""

    model: Name
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: Blocks | None = None

    def encode(self, model: Model) -> tuple[list[int], list[str]]:
        """Token ids, and what of it is to be judged."""
        model.check_name(self.model)
        if self.messages[-1].role == "assistant":
            raise ApiError(
                "invalid", "The last message must be the user's: answers cannot be begun here.", "messages"
            )
        messages = [{"role": m.role, "content": text_of(m.content)} for m in self.messages]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": text_of(self.system)})
        return model.encode_chat(messages), model.texts(messages)


class MessagesRequest(Conversation):
    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: Stops | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=WHOLE)] | None = None
    # Noted, without effect here. Who is asking is told by the API key, never by the body.
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    thinking: Thinking | None = None


class Messages(Exchange):
    """POST /v1/messages."""

    def __init__(self, model: Model, id: str, body: MessagesRequest):
        super().__init__(model, f"msg_{id}")
        self.body, self.stream = body, bool(body.stream)
        self.prompt_tokens = 0

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        body = self.body
        params = SamplingParams(
            **given(
                temperature=body.temperature,
                top_p=top_p_of(body.top_p),
                top_k=body.top_k,
                stop=body.stop_sequences,
            ),
            max_tokens=self.model.check_length(body.max_tokens),
        )
        ids, texts = body.encode(self.model)
        self.texts = [texts]
        self.prompt_tokens = len(ids)
        return [ids], params

    def begin(self) -> str:
        message = self._message([], None, None, {"input_tokens": self.prompt_tokens, "output_tokens": 0})
        start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return _event({"type": "message_start", "message": message}) + _event(start)

    def piece(self, delta: Delta) -> str:
        self.take(delta)
        if not delta.text:
            return ""
        text = {"type": "text_delta", "text": delta.text}
        return _event({"type": "content_block_delta", "index": 0, "delta": text})

    def end(self, usage: Usage) -> str:
        reason, stop = self._why(self.answers[0])
        return (
            _event({"type": "content_block_stop", "index": 0})
            + _event(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": reason, "stop_sequence": stop},
                    "usage": _usage(usage),
                }
            )
            + _event({"type": "message_stop"})
        )

    def broken(self, error: ApiError) -> str:
        return _event(error_body(error))

    def whole(self, usage: Usage) -> dict[str, Any]:
        answer = self.answers[0]
        return self._message([{"type": "text", "text": answer.text}], *self._why(answer), _usage(usage))

    def _message(self, content: list, reason: str | None, stop: str | None, usage: dict) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model.name,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        }

    def _why(self, answer: Answer) -> tuple[str, str | None]:
        """(stop_reason, stop_sequence)."""
        if answer.finish_reason == "length":
            return "max_tokens", None
        if answer.finish_reason == "filtered":
            return "refusal", None
        return ("end_turn", None) if answer.stop is None else ("stop_sequence", answer.stop)


def count_tokens(model: Model, body: Conversation) -> dict[str, int]:
    """POST /v1/messages/count_tokens."""
    return {"input_tokens": len(body.encode(model)[0])}


def _event(data: dict[str, Any]) -> str:
    return event(data, data["type"])


def _usage(usage: Usage) -> dict[str, int]:
    """As Anthropic counts: what came from the cache is not among the input tokens."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }


_TYPES = {
    "authentication": "authentication_error",
    "not_found": "not_found_error",
    "too_large": "request_too_large",
    "timeout": "timeout_error",
    "rate_limit": "rate_limit_error",
    "internal": "api_error",
    "unavailable": "overloaded_error",
}


def error_body(error: ApiError) -> dict[str, Any]:
    kind = _TYPES.get(error.kind, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}
