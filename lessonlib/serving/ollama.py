"""Ollama's wire format: /api/generate, /api/chat, /api/tags, /api/show, /api/version; one JSON object a line.

Source: Ollama's API documentation (docs/api.md of its repository); tested with its Python client. Durations are in
nanoseconds. Without ``"stream": false`` answers are streamed.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from lessonlib.engine import SamplingParams
from lessonlib.security.admission import MAX_IDS, MAX_MESSAGES, MAX_NAME, WHOLE

from .engine import Delta, Usage
from .errors import ApiError
from .wire import VERSION, Body, Exchange, Model, Name, Stop, Stops, given, top_p_of

LATEST = ":latest"
Whole = Annotated[int, Field(ge=-WHOLE, le=WHOLE)]


class Options(Body):
    """Sampling. The last group belongs to the machine Ollama runs on: noted, without effect here."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=WHOLE)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Whole | None = None
    num_predict: Annotated[int, Field(ge=-2)] | None = None
    stop: Stop | Stops | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    num_ctx: Whole | None = None
    num_batch: Whole | None = None
    num_gpu: Whole | None = None
    num_thread: Whole | None = None
    num_keep: Whole | None = None

    def params(self, model: Model) -> SamplingParams:
        if self.num_predict == 0:
            raise ApiError(
                "invalid",
                "num_predict is 0, which asks for no answer; ask for 1 token or more, or -1 for as many as fit.",
                "num_predict",
            )
        wanted = self.num_predict if self.num_predict and self.num_predict > 0 else model.context
        return SamplingParams(
            **given(
                top_k=self.top_k,
                top_p=top_p_of(self.top_p),
                min_p=self.min_p,
                seed=self.seed,
                stop=self.stop,
                repetition_penalty=self.repeat_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
            ),
            temperature=0.8 if self.temperature is None else self.temperature,  # Ollama's default
            max_tokens=model.check_length(wanted, "num_predict"),
        )


class Common(Body):
    model: Name
    stream: bool | None = None
    options: Options | None = None
    format: Literal[""] | None = None
    think: Literal[False] | None = None
    keep_alive: Annotated[str, Field(max_length=MAX_NAME)] | float | None = None  # the model stays loaded


class GenerateRequest(Common):
    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    template: Literal[""] | None = None
    suffix: Literal[""] | None = None
    context: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_IDS)] | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None


class ChatMessage(Body):
    role: Literal["system", "user", "assistant"]
    content: str
    images: Annotated[list[str], Field(max_length=0)] | None = None


class ChatRequest(Common):
    messages: Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES)]
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


class ShowRequest(Body):
    model: Name
    verbose: bool | None = None


class _Ollama(Exchange):
    media_type = "application/x-ndjson"

    def __init__(self, model: Model, id: str, body: Common):
        super().__init__(model, id)
        self.body, self.stream = body, body.stream is not False
        self.options = body.options or Options()
        self.start = time.perf_counter()
        self.first: float | None = None

    def said(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def take(self, delta: Delta):
        self.first = self.first or time.perf_counter()
        return super().take(delta)

    def piece(self, delta: Delta) -> str:
        self.take(delta)
        return _line(self._head(delta.text)) if delta.text else ""

    def end(self, usage: Usage) -> str:
        return _line(self._last("", usage))

    def whole(self, usage: Usage) -> dict[str, Any]:
        return self._last(self.answers[0].text, usage)

    def broken(self, error: ApiError) -> str:
        return _line(error_body(error))

    def _head(self, text: str, done: bool = False) -> dict[str, Any]:
        head = {"model": self.body.model, "created_at": _now(), "done": done}
        return head | self.said(text)

    def _last(self, text: str, usage: Usage) -> dict[str, Any]:
        now = time.perf_counter()
        first = self.first or now
        return self._head(text, done=True) | {
            "done_reason": _finish(self.answers[0].finish_reason),
            "total_duration": int((now - self.start) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": int((first - self.start) * 1e9),
            "eval_count": usage.completion_tokens,
            "eval_duration": int((now - first) * 1e9),
        }


class Generate(_Ollama):
    """POST /api/generate. Unless ``raw``, the prompt is put to the model as a user's message, as Ollama does."""

    def __init__(self, model: Model, id: str, body: GenerateRequest):
        super().__init__(model, id, body)
        self.body: GenerateRequest = body
        self.prompt: list[int] = []
        self.prefix = self._prefix()

    def _prefix(self) -> str | None:
        """For ``Guards.salt``. A context stands before the server's system prompt, and may begin as that does."""
        if self._is_plain():
            return "plain"
        return None if self.body.context else "chat"

    def _is_plain(self) -> bool:
        return bool(self.body.raw) or self.model.llm.tokenizer.chat_template is None

    def said(self, text: str) -> dict[str, Any]:
        return {"response": text}

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        body, model = self.body, self.model
        model.check_name(body.model, LATEST)
        params = self.options.params(model)
        before = body.context or []
        if self._is_plain():
            texts = [(body.system or "") + (body.prompt or "")]
            ids = model.encode(texts[0])
        else:
            messages = [{"role": "system", "content": body.system}] if body.system else []
            messages.append({"role": "user", "content": body.prompt or ""})
            ids, texts = model.encode_chat(messages), model.texts(messages)
        self.prompt = [*before, *ids]
        self.texts = [[model.decode(before), *texts] if before else texts]
        return [self.prompt], params

    def _last(self, text: str, usage: Usage) -> dict[str, Any]:
        last = super()._last(text, usage)
        # What the next call's context can go on from; but it would spell out the server's system prompt.
        if not (self.body.raw or self.model.system_prompt):
            answer = self.answers[0]
            told = [] if answer.stop else [token.choice.token for token in answer.tokens]
            last["context"] = self.prompt + (told or self.model.encode(answer.text, False))
        return last


class Chat(_Ollama):
    """POST /api/chat."""

    def __init__(self, model: Model, id: str, body: ChatRequest):
        super().__init__(model, id, body)
        self.body: ChatRequest = body

    def said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def prepare(self) -> tuple[list[list[int]], SamplingParams]:
        self.model.check_name(self.body.model, LATEST)
        params = self.options.params(self.model)
        messages = [{"role": m.role, "content": m.content} for m in self.body.messages]
        self.texts = [self.model.texts(messages)]
        return [self.model.encode_chat(messages)], params


def loaded(body: GenerateRequest | ChatRequest, model: Model) -> dict[str, Any] | None:
    """The answer to a call without a prompt, which asks Ollama to load the model; None when there is one."""
    if body.messages if isinstance(body, ChatRequest) else body.prompt:
        return None
    model.check_name(body.model, LATEST)
    said = (
        {"response": ""}
        if isinstance(body, GenerateRequest)
        else {"message": {"role": "assistant", "content": ""}}
    )
    return {"model": body.model, "created_at": _now(), "done": True, "done_reason": "load", **said}


def _finish(reason: str | None) -> str | None:
    return "content_filter" if reason == "filtered" else reason


def tags(model: Model) -> dict[str, Any]:
    """GET /api/tags."""
    return {
        "models": [
            {
                "name": model.name + LATEST,
                "model": model.name + LATEST,
                "modified_at": _time(model.created),
                "size": model.config.num_parameters * model.llm.model.dtype.itemsize,  # before quantization
                "digest": hashlib.sha256(f"{model.name} {model.config}".encode()).hexdigest(),
                "details": _details(model),
            }
        ]
    }


def show(model: Model, body: ShowRequest) -> dict[str, Any]:
    """POST /api/show."""
    model.check_name(body.model, LATEST)
    config = model.config
    return {
        "modified_at": _time(model.created),
        "template": model.llm.tokenizer.chat_template or "",
        "details": _details(model),
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": model.config.num_parameters,
            "llama.context_length": config.max_position_embeddings,
            "llama.embedding_length": config.hidden_size,
            "llama.block_count": config.num_hidden_layers,
            "llama.attention.head_count": config.num_attention_heads,
            "llama.attention.head_count_kv": config.num_key_value_heads,
            "llama.vocab_size": config.vocab_size,
        },
        "capabilities": ["completion"],
    }


def error_body(error: ApiError) -> dict[str, Any]:
    return {"error": error.message}


def version() -> dict[str, str]:
    """GET /api/version."""
    return {"version": VERSION}


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": f"{model.config.num_parameters / 1e6:.1f}M",
        "quantization_level": model.format,
    }


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":")) + "\n"


def _now() -> str:
    return _time(time.time())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
