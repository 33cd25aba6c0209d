"""What counts as a prompt: lists, tuples, arrays and tensors of token ids come in, lists of plain ints go on."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import BadParameter, EmptyPrompt, PromptTooLong, TokenOutOfRange

if TYPE_CHECKING:
    from .config import ModelConfig
    from .model import Transformer
    from .sampling import SamplingParams


def as_ids(ids: Any) -> list[int]:
    """Token ids as plain ints. Raises BadParameter for anything else, such as text, bytes, floats or a mask."""
    listed = _plain(ids)
    try:
        if isinstance(listed, bytes | bytearray) or any(isinstance(i, bool) for i in listed):
            raise TypeError
        return [operator.index(i) for i in listed]
    except TypeError:
        raise BadParameter(
            f"Token ids must be one flat list of whole numbers, not {reprlib.repr(listed)}; "
            "a tokenizer's encode makes them from text."
        ) from None


def as_prompts(given: Any) -> tuple[list[Any], bool]:
    """A prompt or several prompts -> (list of prompts, was it a single one).

    A prompt is a text or a sequence of token ids; which one, and whether it is empty, is for the caller to judge.
    """
    listed = _plain(given)
    if isinstance(listed, str):
        return [listed], True
    if not isinstance(listed, Sequence) or isinstance(listed, bytes | bytearray):
        raise BadParameter(
            f"A prompt must be a text or a list of token ids, not {reprlib.repr(listed)}; give one, or a list of them."
        )
    prompts = [_plain(prompt) for prompt in listed]
    if prompts and not isinstance(prompts[0], Sequence):
        return [prompts], True
    return prompts, False


def check_ids(config: ModelConfig, lowest: int, highest: int) -> None:
    """Raise TokenOutOfRange unless the vocabulary has both ids."""
    if lowest < 0 or highest >= config.vocab_size:
        raise TokenOutOfRange(
            f"Token id {highest if highest >= config.vocab_size else lowest} is outside the vocabulary "
            f"(0 to {config.vocab_size - 1}); encode the text with this model's own tokenizer."
        )


def check_prompt(model: Transformer, prompt: Sequence[int], params: SamplingParams | None = None) -> None:
    """Raise EmptyPrompt, PromptTooLong or TokenOutOfRange unless a token can be generated from this prompt, so."""
    context = model.config.max_position_embeddings
    if not prompt:
        raise EmptyPrompt("The prompt has no tokens, so there is nothing to continue; give at least one.")
    if len(prompt) >= context:
        raise PromptTooLong(
            f"The prompt has {len(prompt)} tokens and this model's context is {context}, which leaves no room "
            "for an answer; shorten it."
        )
    check_ids(model.config, min(prompt), max(prompt))
    if params is not None and params.logit_bias:
        check_ids(model.config, min(params.logit_bias), max(params.logit_bias))


def _plain(ids: Any) -> Any:
    """Arrays and tensors as (nested) lists, their numbers as Python's; anything else as it is."""
    return ids.tolist() if hasattr(ids, "tolist") else ids
