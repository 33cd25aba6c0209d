"""The autoregressive loop: run the model, choose a token, append it, again.

Without a cache every step runs the whole sequence; with one, only the token that is new. Both give the same
tokens. Rows of a batch may have different lengths, and each stops on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import BadParameter
from .kv_cache import DenseCache
from .model import Transformer
from .prompts import as_ids, as_prompts, check_prompt
from .sampling import GREEDY, Choice, SamplingParams, choose


@dataclass(eq=False)  # itself and no other: two rows with the same prompt are two rows
class Row:
    """One growing row: its prompt, what it has produced so far, and why it stopped ("stop" | "length").

    processed: how many of its tokens went through the model, each counted as often as it did.
    """

    prompt: list[int]
    params: SamplingParams = GREEDY
    output: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    finish_reason: str | None = None
    generator: torch.Generator | None = None
    processed: int = 0

    def __post_init__(self) -> None:
        if self.params.seed is not None and self.generator is None:
            self.generator = torch.Generator("cpu").manual_seed(int(self.params.seed) % 2**64)

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.output


AnyRow = TypeVar("AnyRow", bound=Row)


def advance(row: Row, choice: Choice, eos: Sequence[int], context: int) -> None:
    """Append the chosen token to a row and decide whether the row is finished."""
    row.output.append(choice.token)
    row.choices.append(choice)
    ended = not row.params.ignore_eos and choice.token in eos
    if ended or choice.token in row.params.stop_token_ids:
        row.finish_reason = "stop"
    elif len(row.output) >= row.params.max_tokens or len(row.prompt) + len(row.output) >= context:
        row.finish_reason = "length"


@torch.inference_mode()
def run(
    model: Transformer,
    rows: Sequence[AnyRow],
    use_cache: bool = True,
    on_token: Callable[[AnyRow], str | None] | None = None,
) -> Iterator[list[AnyRow]]:
    """Generate for all rows at once; after each forward pass, yield the rows that got a token.

    ``on_token`` sees every row that got a token and may end it by returning a reason (a stop text, say).
    A finished row stays in the batch as an idle slot until the last one is done (static batching).
    """
    for row in rows:
        check_prompt(model, row.prompt, row.params)
    if not rows:
        return
    context = model.config.max_position_embeddings
    cache = None
    if use_cache:
        longest = max(len(row.prompt) + row.params.max_tokens for row in rows)
        cache = DenseCache(model.config, len(rows), min(longest, context), model.dtype, model.device)
    pending = [row.ids for row in rows]  # the tokens of each row that the cache does not hold yet
    while any(row.finish_reason is None for row in rows):
        lengths = [len(tokens) for tokens in pending]
        logits = model(pad(pending, model.device), cache=cache, lengths=lengths, last_only=True).logits
        served = []
        for i, row in enumerate(rows):
            if row.finish_reason is not None:  # perhaps by the on_token of another row
                continue
            served.append(row)
            row.processed += lengths[i]
            choice = choose(logits[i, -1], row.params, row.generator, row.prompt, row.output)
            advance(row, choice, model.config.eos_token_ids, context)
            if on_token is not None:
                row.finish_reason = on_token(row) or row.finish_reason
        yield served
        if cache is None:
            pending = [row.ids for row in rows]
        else:
            pending = [row.output[-1:] if row.finish_reason is None else [] for row in rows]


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tensor:
    """Rows of ids as one int64 tensor (batch, longest), short rows filled with 0 on the right."""
    width = max(1, *(len(row) for row in rows)) if rows else 1
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


def generate(
    model: Transformer,
    prompt_ids: Sequence[int] | Sequence[Sequence[int]] | Tensor,
    max_tokens: int = 100,
    use_cache: bool = True,
    params: SamplingParams | None = None,
) -> list[Any]:
    """Continue a prompt, or a batch of prompts of any lengths; greedy unless ``params`` says otherwise.

    prompt_ids: one sequence of ids, several, or an integer tensor or array, (length,) or (batch, length).
    max_tokens: new tokens at most, whatever ``params`` says.
    Returns prompt + new tokens: one list for one prompt, a list of lists for a batch. A row ends at the
    model's end-of-text token (included), after ``max_tokens`` new tokens, or at the end of the context.

    Raises EmptyPrompt, PromptTooLong, TokenOutOfRange, BadParameter.
    """
    prompts, single = as_prompts(prompt_ids)
    params = _for_ids(params or GREEDY, max_tokens)
    rows = [Row(as_ids(prompt), params) for prompt in prompts or [[]]]
    for _ in run(model, rows, use_cache):
        pass
    return rows[0].ids if single else [row.ids for row in rows]


def _for_ids(params: SamplingParams, max_tokens: int) -> SamplingParams:
    """The settings, with this limit, unless they ask for what only texts and requests can have."""
    if not isinstance(params, SamplingParams):
        raise BadParameter(
            f"params must be one SamplingParams for all rows, not a {type(params).__name__}; "
            "LLM.generate takes one for each prompt."
        )
    if params.stop or params.n > 1:
        raise BadParameter(
            "generate works on token ids and gives one answer a prompt; use LLM.generate for stop texts and n."
        )
    return replace(params, max_tokens=max_tokens)
