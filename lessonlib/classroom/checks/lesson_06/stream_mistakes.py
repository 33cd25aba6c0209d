"""06.read_stream: the right summary of a stream, and what known mistakes make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation, Skip
from .wire import chunks, end_time, role_time

FIRST_BYTES = "takes the first bytes for the first token"
PIECES = "counts pieces as tokens"
DIVIDES_BY_N = "divides by the tokens, not by the gaps between them"
FROM_SENT = "time per output token includes the wait for the first"
UNTIL_END = "the last token is taken to come with the goodbye"
LAST_PIECE = "keeps only the last piece of text"
STRIPS = "strips spaces that belong to the text"
DONE = "reads [DONE] as JSON"
DONE_ANYWHERE = "takes [DONE] inside a text for the end"
ONE_EACH = "takes a chunk for an event"
CUT = "believes that chunks end where events end"
LETTERS = "decodes each chunk by itself"
NO_CHOICE = "expects a choice in every event"
NO_TEXT = "expects text in every event"
COMMENTS = "takes every line for data"
SPACE = "insists on a space after data:"
ENDS = "knows only one kind of line end"

NOTHING = {"text": "", "ttft": None, "tpot": None}


def right(inputs: Inputs) -> dict[str, Any]:
    """{"text", "ttft", "tpot"}: times in ms since the request was sent, None where there is none."""
    return told(inputs)


def told(
    inputs: Inputs,
    first: int | None = None,
    last: int | None = None,
    tokens: int | None = None,
    gaps: int | None = None,
    text: str | None = None,
) -> dict[str, Any]:
    """The summary, with some of what it is made from replaced."""
    pieces = [(time, said) for time, said in inputs["pieces"] if said]
    tokens = inputs["tokens"] if tokens is None else tokens
    text = "".join(said for _, said in pieces) if text is None else text
    if not pieces:
        return {**NOTHING, "ttft": first}
    ttft = pieces[0][0] if first is None else first
    last = pieces[-1][0] if last is None else last
    gaps = tokens - 1 if gaps is None else gaps
    return {"text": text, "ttft": ttft, "tpot": (last - ttft) / gaps if tokens > 1 and gaps else None}


def plain(inputs: Inputs) -> bool:
    """Whether chunks are whole events, one each, with nothing unusual about them."""
    odd = any(map(inputs.get, ("_cut", "_comments"))) or inputs.get("_ends", "\n") != "\n"
    return not odd and inputs.get("_space", True) and not together(inputs)


def together(inputs: Inputs) -> bool:
    """Whether several texts come in one chunk."""
    times = [time for time, _ in inputs["pieces"]]
    return len({*times}) < len(times)


def _first_bytes(inputs: Inputs) -> AnyOf:
    starts = (
        {role_time(inputs), chunks(inputs)[0][0]} if inputs.get("_role", True) else {chunks(inputs)[0][0]}
    )
    pieces = inputs["pieces"]
    ways = [told(inputs, first=start) for start in starts]
    if pieces:  # the time per token may have been done right
        ways += [{**right(inputs), "ttft": start} for start in starts]
    return AnyOf(ways)


def _pieces(inputs: Inputs) -> AnyOf:
    count = len(inputs["pieces"])
    more = count + 1 + bool(inputs.get("_role", True))  # with the events that hold no text
    return AnyOf(told(inputs, tokens=n, gaps=n - 1) for n in (count, count + 1, more, more + 1, more + 2))


def _strips(inputs: Inputs) -> AnyOf:
    whole = right(inputs)
    each = "".join(said.strip() for _, said in inputs["pieces"])
    left = "".join(said.lstrip() for _, said in inputs["pieces"])
    spaced = " ".join(said.strip() for _, said in inputs["pieces"])
    return AnyOf({**whole, "text": text} for text in (each, left, spaced, whole["text"].strip()))


def _one_each(inputs: Inputs) -> AnyOf:
    """Of several texts at a time only the first, or only the last, is seen."""
    if not together(inputs):
        raise Skip  # then one sees no difference, but for the goodbye, where the count of tokens may be lost
    by_time: dict[int, list[str]] = {}
    for time, said in inputs["pieces"]:
        by_time.setdefault(time, []).append(said)
    ways = []
    for place in (0, -1):
        text = "".join(said[place] for said in by_time.values())
        ways += [told(inputs, text=text), {**told(inputs, text=text), "tpot": None}]
    return AnyOf(ways)


def _no_tokens(inputs: Inputs) -> list[dict[str, Any]]:
    """Nothing found at all, or all but the number of tokens."""
    return [NOTHING, {**right(inputs), "tpot": None}]


def _done_anywhere(inputs: Inputs) -> AnyOf:
    """That event is passed over, or everything from there on."""
    pieces = inputs["pieces"]
    place = next((i for i, (_, said) in enumerate(pieces) if "[DONE]" in said), None)
    if place is None:
        raise Skip
    over = right({**inputs, "pieces": [piece for piece in pieces if "[DONE]" not in piece[1]]})
    return AnyOf((over, {**right({**inputs, "pieces": pieces[:place]}), "tpot": None}))


def _cut(inputs: Inputs) -> AnyOf:
    if not inputs.get("_cut"):
        raise Skip
    return AnyOf(_no_tokens(inputs))


def _space(inputs: Inputs) -> AnyOf:
    if inputs.get("_space", True):
        return AnyOf([right(inputs)])
    return AnyOf(_no_tokens(inputs))


def _ends(inputs: Inputs) -> AnyOf:
    if inputs.get("_ends", "\n") == "\n":
        return AnyOf([right(inputs)])
    return AnyOf(_no_tokens(inputs))


def _decoding(seen: Observation) -> bool:
    return seen.error is not None and seen.error.type == "JSONDecodeError"


def _raises(*types: str) -> Callable[[Inputs, Observation], bool]:
    return lambda _, seen: seen.error is not None and seen.error.type in types


def _in(condition: Callable[[Inputs], Any]) -> Callable[[Inputs, Observation], bool]:
    """Sees JSON that cannot be read, on inputs like these."""
    return lambda inputs, seen: _decoding(seen) and bool(condition(inputs))


def _broken_letters(inputs: Inputs, seen: Observation) -> bool:
    lost = isinstance(seen.value, dict) and seen.value["text"] != right(inputs)["text"]
    return inputs.get("_cut") == "letter" and (_raises("UnicodeDecodeError")(inputs, seen) or lost)


MISCONCEPTIONS = (
    Misconception(
        FIRST_BYTES,
        "The first event often holds no text, only the role, and the first bytes may be half an event. Nobody can "
        "read those: the time to first token ends when the first *text* is there.",
        _first_bytes,
    ),
    Misconception(
        PIECES,
        "A piece may hold several tokens, and some events hold none. How many tokens there were only the server "
        "knows: it says so in `usage`.",
        _pieces,
    ),
    Misconception(
        DIVIDES_BY_N,
        "Five tokens have four gaps between them, and the time per output token is the mean gap.",
        lambda inputs: told(inputs, gaps=inputs["tokens"]),
    ),
    Misconception(
        FROM_SENT,
        "The wait for the first token is the TTFT. The time per output token begins when the first text has come.",
        lambda inputs: AnyOf(
            {
                **right(inputs),
                "tpot": inputs["pieces"][-1][0] / n if inputs["pieces"] and inputs["tokens"] > 1 else None,
            }
            for n in (inputs["tokens"], max(1, inputs["tokens"] - 1))
        ),
    ),
    Misconception(
        UNTIL_END,
        "The events behind the last text (the reason, the usage, `[DONE]`) hold no text. The last token came with "
        "the last *text*.",
        lambda inputs: AnyOf(told(inputs, last=end_time(inputs) + later) for later in range(3)),
    ),
    Misconception(
        LAST_PIECE,
        "Each event brings only what is new. The answer is all of it, joined.",
        lambda inputs: told(inputs, text=inputs["pieces"][-1][1] if inputs["pieces"] else ""),
    ),
    Misconception(
        STRIPS,
        "Spaces and line ends inside the text are part of the answer: in Python code they decide what it means. "
        "Strip the *line*, if anything, never the text in it.",
        _strips,
    ),
    Misconception(
        DONE,
        "The last event is `data: [DONE]`. It only *looks* like JSON: stop there before you parse it.",
        sees=_in(plain),
    ),
    Misconception(
        DONE_ANYWHERE,
        "A model may write `[DONE]` too. The stream ends where `[DONE]` is *all* that a line holds behind `data:`.",
        _done_anywhere,
    ),
    Misconception(
        NO_CHOICE,
        "The event with the `usage` has an empty list of choices: look whether there is one before you take the first.",
        sees=_raises("IndexError"),
    ),
    Misconception(
        NO_TEXT,
        'A `delta` need not have a `content`, and it may be null: `delta.get("content")`, and go on only if that is '
        "a text.",
        sees=_raises("KeyError", "TypeError"),
    ),
    Misconception(
        ONE_EACH,
        "One chunk may hold several events: the network hands over what has arrived. Split it into "
        "lines, and look at each.",
        _one_each,
        _in(together),
    ),
    Misconception(
        LETTERS,
        "A letter such as é takes two bytes or more, and a chunk may end in between. Put *bytes* together, and "
        "decode whole lines.",
        sees=_broken_letters,
    ),
    Misconception(
        CUT,
        "The network cuts where it likes, also in the middle of a line. Keep the rest behind the last line end, "
        "and put the next chunk behind it.",
        _cut,
        _in(lambda inputs: inputs.get("_cut")),
    ),
    Misconception(
        COMMENTS,
        "Lines that begin with a colon are comments: servers send them so that the connection does not fall "
        "asleep. Look only at lines that begin with `data:`.",
        sees=_in(lambda inputs: inputs.get("_comments")),
    ),
    Misconception(
        SPACE,
        "The space after `data:` is optional: take the five letters off, and then strip.",
        _space,
        _in(lambda inputs: not inputs.get("_space", True)),
    ),
    Misconception(
        ENDS,
        "Some servers end lines with `\\r\\n`. Split at `\\n` and strip the rest, and both are fine.",
        _ends,
        _in(lambda inputs: inputs.get("_ends", "\n") != "\n"),
    ),
)
