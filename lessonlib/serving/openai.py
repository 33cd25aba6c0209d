"""OpenAI's wire format: /v1/completions and /v1/chat/completions, with the sampling fields vLLM adds to them.

Source: OpenAI's API reference; tested with its Python client.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from lessonlib.engine import SamplingParams
from lessonlib.security.admission import (
    MAX_BIAS,
    MAX_BIASES,
    MAX_IDS,
    MAX_LOGPROBS,
    MAX_MESSAGES,
    MAX_N,
    MAX_PROMPTS,
    WHOLE,
)

from .engine import Delta, Token, Usage
from .errors import ApiError
from .tokens import as_chat, as_completion
from .wire import Answer, Body, Content, Exchange, Model, Name, Stop, Stops, event, given, text_of, top_p_of

TokenId = Annotated[int, Field(ge=0)]
Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS)]
Empty = Annotated[list[str], Field(max_length=0)]


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(Body):
    """What both calls share."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    stop: Stop | Stops | None = None
    seed: Annotated[int, Field(ge=-WHOLE, le=WHOLE)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,9})$")],
                Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)],
            ],
            Field(max_length=MAX_BIASES),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # vLLM's own
    top_k: Annotated[int, Field(ge=-1, le=WHOLE)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_BIASES)] | None = None
    ignore_eos: bool | None = None
    # Noted, without effect here. Who is asking is told by the API key, never by the body.
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None

    def params(self, max_tokens: int, logprobs: int | None) -> SamplingParams:
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return SamplingParams(
            **given(
                temperature=self.temperature,
                top_p=top_p_of(self.top_p),
                top_k=self.top_k and max(self.top_k, 0),
                min_p=self.min_p,
                stop=self.stop,
                seed=self.seed,
                n=self.n,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                repetition_penalty=self.repetition_penalty,
                stop_token_ids=self.stop_token_ids,
                ignore_eos=self.ignore_eos,
                logit_bias=bias or None,
            ),
            max_tokens=max_tokens,
            logprobs=logprobs,
        )


class CompletionRequest(Sampling):
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Annotated[str, Field(max_length=64)] | None = None
    # Empty in every answer, and so in every answer that is sent back ("parsed": by the client's parse and stream).
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    parsed: None = None
    annotations: Empty | None = None


class ResponseFormat(Body):
    type: Literal["text"]


class ChatRequest(Sampling):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None


class _OpenAI(Exchange):
    """Chunks, usage and the end of the stream are alike in both calls."""

    object = chunk_object = ""

    def __init__(self, model: Model, id: str, body: Sampling):
        super().__init__(model, id)
        self.body, self.stream = body, bool(body.stream)
        self.created = int(time.time())
        self.wants_usage = bool(body.stream_options and body.stream_options.include_usage)

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        raise NotImplementedError

    def chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> str:
        payload = self._head(self.chunk_object) | {"choices": choices}
        if self.wants_usage:
            payload["usage"] = usage and _usage(usage)
        return event(payload)

    def end(self, usage: Usage) -> str:
        return (self.chunk([], usage) if self.wants_usage else "") + event("[DONE]")

    def broken(self, error: ApiError) -> str:
        return event(error_body(error))

    def whole(self, usage: Usage) -> dict[str, Any]:
        choices = [self.choice(index, answer) for index, answer in sorted(self.answers.items())]
        return self._head(self.object) | {"choices": choices, "usage": _usage(usage)}

    def _head(self, object: str) -> dict[str, Any]:
        return {"id": self.id, "object": object, "created": self.created, "model": self.model.name}


class Completion(_OpenAI):
    """POST /v1/completions."""

    object = chunk_object = "text_completion"

    def __init__(self, model: Model, id: str, body: CompletionRequest):
        super().__init__(model, f"cmpl-{id}", body)
        self.body: CompletionRequest = body
        self.prompts: list[str] = []  # for echo

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        body = self.body
        self.model.check_name(body.model)
        if body.best_of not in (None, body.n or 1):
            raise ApiError("invalid", "best_of has to be n here; ask for n and choose yourself.", "best_of")
        if body.echo and body.logprobs is not None:
            raise ApiError("invalid", "Prompts have no logprobs here; ask without echo.", "logprobs")
        prompts: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if isinstance(prompts[0], int):
            prompts = [prompts]
        params = body.params(self.model.check_length(body.max_tokens or 16), body.logprobs)
        ids = [self.model.encode(p) if isinstance(p, str) else list(p) for p in prompts]
        texts = [p if isinstance(p, str) else self.model.decode(p) for p in prompts]
        self.texts = [[text] for text in texts]
        self.prompts = texts if body.echo else []
        return ids, params

    def begin(self) -> str:
        every = enumerate(self.prompts)
        n = self.body.n or 1
        return "".join(
            self.chunk([self._choice(i * n + j, text, [], None)]) for i, text in every for j in range(n)
        )

    def piece(self, delta: Delta) -> str:
        if not (delta.text or delta.finish_reason or (delta.tokens and self.body.logprobs is not None)):
            return ""
        return self.chunk([self._choice(delta.index, delta.text, delta.tokens, delta.finish_reason)])

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        prompt = self.prompts[index // (self.body.n or 1)] if self.prompts else ""
        return self._choice(index, prompt + answer.text, answer.tokens, answer.finish_reason)

    def _choice(
        self, index: int, text: str, tokens: list[Token], finish_reason: str | None
    ) -> dict[str, Any]:
        logprobs = None
        if self.body.logprobs is not None and tokens:
            logprobs = as_completion(self.model.llm.tokenizer, self.model.visible(tokens, finish_reason))
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": _finish(finish_reason)}


class Chat(_OpenAI):
    """POST /v1/chat/completions."""

    object, chunk_object = "chat.completion", "chat.completion.chunk"

    def __init__(self, model: Model, id: str, body: ChatRequest):
        super().__init__(model, f"chatcmpl-{id}", body)
        self.body: ChatRequest = body

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        body = self.body
        self.model.check_name(body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError("invalid", "top_logprobs needs logprobs: true beside it.", "top_logprobs")
        wanted = body.max_completion_tokens or body.max_tokens or self.model.context
        top = (body.top_logprobs or 0) if body.logprobs else None
        params = body.params(self.model.check_length(wanted, "max_completion_tokens"), top)
        messages = [
            {"role": "system" if m.role == "developer" else m.role, "content": text_of(m.content)}
            for m in body.messages
        ]
        self.texts = [self.model.texts(messages)]
        return [self.model.encode_chat(messages)], params

    def begin(self) -> str:
        role = {"role": "assistant", "content": ""}
        return "".join(
            self.chunk([self._choice(i, "delta", role, [], None)]) for i in range(self.body.n or 1)
        )

    def piece(self, delta: Delta) -> str:
        if not (delta.text or delta.finish_reason or (delta.tokens and self.body.logprobs)):
            return ""
        content = {"content": delta.text} if delta.text else {}
        return self.chunk([self._choice(delta.index, "delta", content, delta.tokens, delta.finish_reason)])

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return self._choice(index, "message", message, answer.tokens, answer.finish_reason)

    def _choice(
        self, index: int, name: str, message: dict, tokens: list[Token], finish_reason: str | None
    ) -> dict[str, Any]:
        logprobs = None
        if self.body.logprobs and tokens:
            logprobs = as_chat(self.model.llm.tokenizer, self.model.visible(tokens, finish_reason))
        return {"index": index, name: message, "logprobs": logprobs, "finish_reason": _finish(finish_reason)}


def _finish(reason: str | None) -> str | None:
    return "content_filter" if reason == "filtered" else reason


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def models(model: Model) -> dict[str, Any]:
    """GET /v1/models."""
    return {"object": "list", "data": [one_model(model)]}


def one_model(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "lessonlib",
        "max_model_len": model.context,
    }


_TYPES = {"rate_limit": "rate_limit_error", "internal": "server_error", "unavailable": "server_error"}
_CODES = {"authentication": "invalid_api_key", "rate_limit": "rate_limit_exceeded"}


def error_body(error: ApiError) -> dict[str, Any]:
    code = _CODES.get(error.kind) or (error.reason if error.reason != error.kind else None)
    if (error.kind, error.param) == ("not_found", "model"):
        code = "model_not_found"
    kind = _TYPES.get(error.kind, "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}
