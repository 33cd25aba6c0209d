"""What goes wrong in 01.generate, by name: the loop on plain ints, right or with one mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation

TOO_MANY = "one token too many"
TOO_FEW = "one token too few"
COUNTS_PROMPT = "max_tokens counts the prompt"
ONLY_NEW = "returns only the new tokens"
ONLY_PROMPT = "returns without the new tokens"
KEEPS_GROWING = "a finished row keeps growing"
ALL_AT_ONCE = "ends only when all rows end in the same step"
REPEATS_END = "adds end-of-text to finished rows again and again"
DROPS_END = "leaves the end-of-text token out"
STOPS_ALL = "one finished row stops the whole batch"
FIRST_ROW = "only the first row can end the loop"
END_IN_PROMPT = "end-of-text in the prompt stops the row"
READS_PADDING = "reads the logits of the padding"
ONLY_NEWEST = "feeds only the newest token"
NEWEST_LATER = "feeds the prompt once, then only the newest token"
READS_FIRST = "reads the logits of the first position"
PADS_LEFT = "pads on the left"
RETURNS_PADDING = "leaves padding in the answer"
EQUAL_LENGTHS = "needs prompts of equal length"
NO_CONTEXT = "ignores the context limit"
CONTEXT_PLUS = "goes one token past the context"
CONTEXT_MINUS = "stops one token before the context is full"
CONTEXT_ALL = "one full row stops the whole batch"
AMBIGUOUS = "compares a whole batch with one number"
EXTRA_PASSES = "runs the model more often than needed"


BATCH_ENDS: dict[str, Callable[[list[bool]], bool]] = {  # mistakes that let the newest tokens end the batch
    STOPS_ALL: any,
    ALL_AT_ONCE: all,
    FIRST_ROW: lambda ended: ended[0],
}


def next_token(tokens: Sequence[int], inputs: Inputs) -> int:
    """The toy model's rule (see toys.ToyModel) on plain ints."""
    a, b, c = inputs.get("_rule", (1, 1, 1))
    return int(a * sum(tokens) + b * len(tokens) + c * tokens[-1]) % int(inputs.get("_vocab", 10))


def context_of(inputs: Inputs) -> int:
    return int(inputs.get("_context", 16))


def grow(inputs: Inputs, mistake: str = "", pad: int = 0) -> list[list[int]]:
    """Prompt + new tokens of every row, as a loop with this mistake (and this padding token) returns them."""
    prompts, eos = inputs["prompts"], inputs["eos_id"]
    new: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    while True:
        growing = [i for i in range(len(prompts)) if not ended[i] and _has_room(inputs, i, new[i], mistake)]
        full = [i for i in range(len(prompts)) if len(prompts[i]) + len(new[i]) >= context_of(inputs)]
        if not growing or (mistake == CONTEXT_ALL and full):
            break
        views = [_view(inputs, new, i, mistake, pad) for i in range(len(prompts))]
        for i in growing:
            new[i].append(next_token(views[i], inputs))
            ended[i] = new[i][-1] == eos and mistake != KEEPS_GROWING
        if mistake in BATCH_ENDS:
            if BATCH_ENDS[mistake](ended):
                break
            ended = [False] * len(prompts)
    return _finish(inputs, new, ended, mistake, pad)


def _has_room(inputs: Inputs, row: int, new: list[int], mistake: str) -> bool:
    length, limit = len(inputs["prompts"][row]) + len(new), context_of(inputs)
    allowed = inputs["max_tokens"] + {TOO_MANY: 1, TOO_FEW: -1}.get(mistake, 0)
    used = length if mistake == COUNTS_PROMPT else len(new)
    limit += {CONTEXT_PLUS: 1, CONTEXT_MINUS: -1, NO_CONTEXT: 10**6}.get(mistake, 0)
    return used < allowed and length < limit


def _view(inputs: Inputs, new: list[list[int]], row: int, mistake: str, pad: int) -> list[int]:
    """The tokens whose last position the row's next token is read from."""
    prompts = inputs["prompts"]
    tokens = [*prompts[row], *new[row]]
    longest = max(len(prompt) + len(more) for prompt, more in zip(prompts, new, strict=True))
    if mistake == ONLY_NEWEST or (mistake == NEWEST_LATER and new[row]):
        return tokens[-1:]
    if mistake == READS_FIRST:
        return tokens[:1]
    if mistake == READS_PADDING:
        return tokens + [pad] * (longest - len(tokens))
    if mistake == PADS_LEFT:
        return [pad] * (longest - len(tokens)) + tokens
    return tokens


def _finish(
    inputs: Inputs, new: list[list[int]], ended: list[bool], mistake: str, pad: int
) -> list[list[int]]:
    prompts = inputs["prompts"]
    if mistake == ONLY_NEW:
        return new
    if mistake == ONLY_PROMPT:
        return [list(prompt) for prompt in prompts]
    if mistake == DROPS_END:
        new = [more[:-1] if end else more for more, end in zip(new, ended, strict=True)]
    if mistake == REPEATS_END:
        steps = max(map(len, new))
        new = [more + [inputs["eos_id"]] * (steps - len(more)) for more in new]
    rows = [[*prompt, *more] for prompt, more in zip(prompts, new, strict=True)]
    if mistake == RETURNS_PADDING:
        rows = [row + [pad] * (max(map(len, rows)) - len(row)) for row in rows]
    return rows


def _appended_after_padding(inputs: Inputs, pad: int, keep: bool) -> list[list[int]]:
    """A padded tensor that new tokens are stuck on to the right of: the padding stays inside the text."""
    width = max(map(len, inputs["prompts"]))
    padded = [prompt + [pad] * (width - len(prompt)) for prompt in inputs["prompts"]]
    grown = grow({**inputs, "prompts": padded})
    if keep:
        return grown
    return [
        prompt + row[width:] for prompt, row in zip(inputs["prompts"], grown, strict=True)
    ]  # the padding is cut out of the answer, but the model has read it


def _ended_by_prompt(inputs: Inputs, late: bool) -> list[list[int]]:
    """Rows whose prompt holds end-of-text stop at once, or (late) after their first new token."""
    rows = grow(inputs)
    return [
        row[: len(prompt) + late] if inputs["eos_id"] in prompt else row
        for row, prompt in zip(rows, inputs["prompts"], strict=True)
    ]


def _padding(inputs: Inputs) -> Iterable[int]:
    """The tokens people pad with."""
    return dict.fromkeys((0, inputs["eos_id"], 1, int(inputs.get("_vocab", 10)) - 1))


def _with(mistake: str) -> Callable[[Inputs], Any]:
    return lambda inputs: grow(inputs, mistake)


def _with_padding(mistake: str, *more: Callable[[Inputs, int], list[list[int]]]) -> Callable[[Inputs], Any]:
    def gives(inputs: Inputs) -> AnyOf:
        return AnyOf(
            f(inputs, pad) for pad in _padding(inputs) for f in (lambda i, p: grow(i, mistake, p), *more)
        )

    return gives


def _message(seen: Observation, *parts: str) -> bool:
    return bool(seen.error and any(part in seen.error.message for part in parts))


def _overran(_: Inputs, seen: Observation) -> bool:
    return _message(seen, "its context holds only")


MISCONCEPTIONS = (
    Misconception(
        AMBIGUOUS,
        "A batch has one next token *for each row*, so `next_token == eos_id` has several answers and `if` "
        "does not know which one to take. Decide for each row by itself.",
        sees=lambda inputs, seen: _message(seen, "is ambiguous", "cannot be converted to Scalar"),
    ),
    Misconception(
        EQUAL_LENGTHS,
        "Prompts of a batch may have different lengths, and a tensor is a rectangle: fill the short rows up "
        "on the right, or run the rows one by one.",
        sees=lambda inputs, seen: _message(
            seen, "expected sequence of length", "Sizes of tensors must match"
        ),
    ),
    Misconception(
        NO_CONTEXT,
        "`model.config.max_position_embeddings` is the longest text the model can read. A row that has "
        "reached it must stop, prompt and new tokens together.",
        _with(NO_CONTEXT),
        sees=_overran,
    ),
    Misconception(
        ONLY_PROMPT,
        "The rows came back as they went in. Append each new token to its row.",
        _with(ONLY_PROMPT),
    ),
    Misconception(
        ONLY_NEW, "Each returned row starts with its prompt, followed by the new tokens.", _with(ONLY_NEW)
    ),
    Misconception(
        ONLY_NEWEST,
        "The model remembers nothing between two calls: what it does not get in *this* call, it does not know. "
        "Without a cache each step needs the whole text so far, prompt and new tokens.",
        lambda inputs: AnyOf((grow(inputs, ONLY_NEWEST), grow(inputs, NEWEST_LATER))),
    ),
    Misconception(
        READS_FIRST,
        "The logits at position 0 say what comes after the *first* token. What comes after the whole text "
        "stands at its last position.",
        _with(READS_FIRST),
    ),
    Misconception(
        TOO_MANY,
        "`max_tokens` new tokens are allowed, and one more came. Check the loop's end.",
        _with(TOO_MANY),
    ),
    Misconception(
        TOO_FEW, "One more token was allowed. Check where the loop starts and ends.", _with(TOO_FEW)
    ),
    Misconception(
        COUNTS_PROMPT,
        "`max_tokens` limits the *new* tokens; the prompt does not use any of it up.",
        _with(COUNTS_PROMPT),
    ),
    Misconception(
        DROPS_END,
        "The end-of-text token is a token like any other: the row ends *with* it.",
        _with(DROPS_END),
    ),
    Misconception(
        KEEPS_GROWING,
        "A row that has produced end-of-text is finished: nothing more is appended to it.",
        _with(KEEPS_GROWING),
    ),
    Misconception(
        ALL_AT_ONCE,
        "Rows end at different times. Remember for each row that it ended: the newest tokens alone forget "
        "it again.",
        _with(ALL_AT_ONCE),
    ),
    Misconception(
        REPEATS_END,
        "A finished row was filled up with end-of-text while the others went on. It ends with *one*.",
        _with(REPEATS_END),
    ),
    Misconception(
        STOPS_ALL,
        "The loop ended as soon as *any* row produced end-of-text. The others still have something to say.",
        _with(STOPS_ALL),
    ),
    Misconception(
        FIRST_ROW,
        "Only row 0 was asked whether it ended. Every row ends on its own.",
        _with(FIRST_ROW),
    ),
    Misconception(
        END_IN_PROMPT,
        "An end-of-text token inside the prompt (between two documents, say) ends nothing. Only one that "
        "the model has just produced does.",
        lambda inputs: AnyOf((_ended_by_prompt(inputs, False), _ended_by_prompt(inputs, True))),
    ),
    Misconception(
        CONTEXT_ALL,
        "The longest row filled the context and everything stopped. Shorter rows still have room.",
        _with(CONTEXT_ALL),
    ),
    Misconception(
        CONTEXT_PLUS,
        "The row is one token longer than the context. Prompt + new tokens may fill it exactly, no more.",
        _with(CONTEXT_PLUS),
        sees=_overran,
    ),
    Misconception(
        CONTEXT_MINUS,
        "There was room for one more token: prompt + new tokens may fill the context completely.",
        _with(CONTEXT_MINUS),
    ),
    Misconception(
        RETURNS_PADDING,
        "The tokens that filled up the short rows are still in the answer. They were never part of the text.",
        _with_padding(RETURNS_PADDING, lambda inputs, pad: _appended_after_padding(inputs, pad, keep=True)),
    ),
    Misconception(
        READS_PADDING,
        "In a short row the last column is padding, so the logits there continue the wrong text. Read each "
        "row at *its own* last real token: index `len(row) - 1`.",
        _with_padding(READS_PADDING, lambda inputs, pad: _appended_after_padding(inputs, pad, keep=False)),
    ),
    Misconception(
        PADS_LEFT,
        "Padding in front becomes part of what the model reads, and moves every token to another position. "
        "Fill up on the right: what comes later cannot be seen by earlier positions.",
        _with_padding(PADS_LEFT),
    ),
    Misconception(
        EXTRA_PASSES,
        "Each new token needs one forward pass, and after the last token nothing is needed any more. Check "
        "the reasons to stop before you run the model again.",
        sees=lambda inputs, seen: (
            isinstance(seen.value, dict)
            and seen.value["forward passes"]
            > max(map(len, (row[len(p) :] for row, p in zip(grow(inputs), inputs["prompts"], strict=True))))
        ),
    ),
)
