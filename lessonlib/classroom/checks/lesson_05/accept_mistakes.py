"""What goes wrong in 05.accept, by name: each mistake as the distribution of answers it leads to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ...exercises import AnyOf, Inputs, Misconception, Observation, Skip

FROM_P = "draws the replacement from p"
FROM_OTHERS = "draws the replacement from p without the draft"
FROM_Q = "draws the replacement from q"
REVERSED = "the residual is the wrong way round"
ABSOLUTE = "takes |p - q| for the residual"
NEGATIVE = "the residual keeps negative numbers"
INVERTED = "accepts with q / p"
P_ONLY = "accepts with p, not with p / q"
ALWAYS = "accepts every draft"
NEVER = "never accepts a draft"
THRESHOLD = "decides without chance"
GREEDY = "accepts only the likeliest token"
LIKELIEST = "takes the likeliest token where it should draw"
LIKELIEST_INSTEAD = "takes it in the place of a rejected draft only"  # a way to make the mistake above
NO_BONUS = "no bonus token"
NO_REPLACEMENT = "nothing comes in the place of a rejected draft"
KEEPS_REJECTED = "keeps the rejected draft"
BONUS_TOO = "adds a bonus token after a rejection"
BONUS_ROW = "the bonus comes from the wrong row"
GOES_ON = "goes on after a rejection"
FIRST_ROW = "judges every draft by the first row"
ONE_NUMBER = "one random number for all drafts"
NO_GENERATOR = "ignores the generator"

Row = Sequence[float]
Answers = dict[Any, float]  # from the tokens of an answer to its probability


def rescaled(weights: Row) -> list[float]:
    total = sum(weights)
    return [w / total for w in weights] if total > 0 else []


def likeliest(row: Row) -> list[float]:
    top = max(row)
    return [float(i == list(row).index(top)) for i in range(len(row))]


def chance(p: Row, q: Row, draft: int, mistake: str = "") -> float:
    """How likely a draft stands."""
    if mistake == P_ONLY:
        return p[draft]
    if mistake == INVERTED:
        return min(1.0, q[draft] / p[draft]) if p[draft] else 1.0
    if mistake == THRESHOLD:
        return float(p[draft] >= q[draft])
    if mistake == GREEDY:
        return likeliest(p)[draft]
    return {ALWAYS: 1.0, NEVER: 0.0}.get(mistake, min(1.0, p[draft] / q[draft]) if q[draft] else 1.0)


def replacement(p: Row, q: Row, draft: int, mistake: str = "") -> list[float]:
    """What comes in the place of a rejected draft."""
    pairs = list(zip(p, q, strict=True))
    if mistake == FROM_OTHERS:
        return rescaled([0.0 if token == draft else share for token, share in enumerate(p)])
    if mistake in (FROM_P, NEVER):
        return list(p)
    if mistake == GREEDY:
        return likeliest(p)
    if mistake == FROM_Q:
        return list(q)
    if mistake == REVERSED:
        return rescaled([max(0.0, b - a) for a, b in pairs])
    if mistake == ABSOLUTE:
        return rescaled([abs(a - b) for a, b in pairs])
    residual = rescaled([max(0.0, a - b) for a, b in pairs])
    return likeliest(residual) if mistake in (LIKELIEST, LIKELIEST_INSTEAD) and residual else residual


def answers(inputs: Inputs, mistake: str = "") -> Answers:
    """Every possible answer with its probability, for these drafts, rightly or with one mistake."""
    drafts, p, q = inputs["drafts"], inputs["p"], inputs["q"]
    found: defaultdict[Any, float] = defaultdict(float)
    stands = [chance(*_rows(p, q, i, mistake), draft, mistake) for i, draft in enumerate(drafts)]
    alive = 1.0
    for i in range(len(drafts)):
        before = tuple(drafts[: i + (mistake == KEEPS_REJECTED)])
        here = min(stands[: i + 1]) if mistake == ONE_NUMBER else alive * stands[i]
        rejected, alive = alive - here, here
        if rejected <= 1e-12:
            continue
        instead = replacement(*_rows(p, q, i, mistake), drafts[i], mistake)
        if mistake == NO_REPLACEMENT:
            found[before] += rejected
            continue
        if not instead:
            raise Skip  # nothing to draw from: this mistake ends in an error
        for token, share in enumerate(instead):
            for behind, part in _behind(inputs, i, mistake):
                found[(*before, token, *behind)] += rejected * share * part
    for behind, part in _bonus(inputs, mistake):
        found[(*drafts, *behind)] += alive * part
    return {answer: share for answer, share in found.items() if share > 1e-12}


def _rows(p: Sequence[Row], q: Sequence[Row], i: int, mistake: str) -> tuple[Row, Row]:
    return (p[0], q[0]) if mistake == FIRST_ROW else (p[i], q[i])


def _behind(inputs: Inputs, i: int, mistake: str) -> list[tuple[tuple[int, ...], float]]:
    """What comes behind the replacement of draft i: nothing, but for two mistakes."""
    if mistake == BONUS_TOO:
        return _bonus(inputs)
    if mistake == GOES_ON:
        rest = {"drafts": inputs["drafts"][i + 1 :], "p": inputs["p"][i + 1 :], "q": inputs["q"][i + 1 :]}
        return list(answers(rest, GOES_ON).items())
    return [((), 1.0)]


def _bonus(inputs: Inputs, mistake: str = "") -> list[tuple[tuple[int, ...], float]]:
    if mistake == NO_BONUS:
        return [((), 1.0)]
    row = inputs["p"][-2 if mistake == BONUS_ROW and inputs["drafts"] else -1]
    if mistake in (LIKELIEST, GREEDY):
        row = likeliest(row)
    return [((token,), share) for token, share in enumerate(row)]


def first_token(inputs: Inputs, mistake: str = "") -> Answers:
    """The first token of the answer when the one draft is drawn from q[0] as well."""
    found: defaultdict[Any, float] = defaultdict(float)
    for draft, share in enumerate(inputs["q"][0]):
        if share:
            for answer, part in answers({**inputs, "drafts": [draft]}, mistake).items():
                found[answer[:1]] += share * part
    return dict(found)


def expected(inputs: Inputs) -> list[Answers]:
    return [spread(inputs)]


def spread(inputs: Inputs, mistake: str = "") -> Answers:
    return (first_token if inputs.get("_drawn") else answers)(inputs, mistake)


def mistaken(*names: str) -> Callable[[Inputs], AnyOf]:
    return lambda inputs: AnyOf([spread(inputs, name)] for name in names)


def _needs_draft(name: str) -> Callable[[Inputs], Any]:
    """A mistake about drafts, which says nothing where there are none."""

    def gives(inputs: Inputs) -> AnyOf:
        if not inputs["drafts"] and not inputs.get("_drawn"):
            raise Skip
        return mistaken(name)(inputs)

    return gives


def _negative(_: Inputs, seen: Observation) -> bool:
    return bool(seen.error and "probability tensor contains" in seen.error.message)


def _ignored(_: Inputs, seen: Observation) -> bool:
    return isinstance(seen.value, dict) and not all(seen.value.values())


MISCONCEPTIONS = (
    Misconception(
        NEGATIVE,
        "p - q is negative where the draft model has *more* than it should, and a probability cannot be. Those tokens "
        "get 0: max(0, p - q).",
        sees=_negative,
    ),
    Misconception(
        FROM_P,
        "A token that q likes too much has already had its share as a draft. Drawn from all of p, it gets more, and "
        "the tokens that q neglects get too little: the output is *biased*. Draw from what p has and q has not.",
        _needs_draft(FROM_P),
    ),
    Misconception(
        FROM_OTHERS,
        "Any other token of p was drawn. But those that q likes as much as p have had their share as drafts, too: draw "
        "only from what p has *more* than q.",
        _needs_draft(FROM_OTHERS),
    ),
    Misconception(
        FROM_Q,
        "The replacement came from the draft model's distribution. It has to make good what q neglects: p - q, where "
        "that is positive.",
        _needs_draft(FROM_Q),
    ),
    Misconception(
        REVERSED,
        "q - p is what the draft model has *too much* of. Missing is what p has and q has not.",
        _needs_draft(REVERSED),
    ),
    Misconception(
        ABSOLUTE,
        "|p - q| also holds the tokens that q has too much of, the rejected draft among them. Those get 0.",
        _needs_draft(ABSOLUTE),
    ),
    Misconception(
        INVERTED,
        "A draft that p likes *better* than q should always stand. With q / p it is the other way round.",
        _needs_draft(INVERTED),
    ),
    Misconception(
        P_ONLY,
        "That q proposed it with probability q is already in the draft: it comes as a draft that often. Accept it "
        "with p / q, so that q · p / q = p.",
        _needs_draft(P_ONLY),
    ),
    Misconception(
        ALWAYS,
        "All drafts stood, always. Then the output is the draft model's, not the large model's.",
        _needs_draft(ALWAYS),
    ),
    Misconception(
        NEVER,
        "No draft stood, ever. The answer follows p, but it costs as much as without drafts.",
        _needs_draft(NEVER),
    ),
    Misconception(
        GREEDY,
        "A draft stood only if it was the likeliest token of p. That is the rule for temperature 0; here every "
        "token of p must come as often as p says.",
        _needs_draft(GREEDY),
    ),
    Misconception(
        THRESHOLD,
        "Every draft with p < q was rejected, or none was. A draft with p = 0.2 and q = 0.5 has to stand in two of "
        "five cases: compare p / q with a random number.",
        _needs_draft(THRESHOLD),
    ),
    Misconception(
        LIKELIEST,
        "The last token of an answer was always the likeliest one. It has to be drawn, as the model itself would.",
        mistaken(LIKELIEST, LIKELIEST_INSTEAD),
    ),
    Misconception(
        NO_BONUS,
        "All drafts stood, and nothing came behind them. The last row of p says what does; draw from it.",
        mistaken(NO_BONUS),
    ),
    Misconception(
        NO_REPLACEMENT,
        "After a rejection the answer ends too early: a token drawn from the residual takes the draft's place.",
        _needs_draft(NO_REPLACEMENT),
    ),
    Misconception(
        KEEPS_REJECTED,
        "A draft that did not stand is in the answer, and its replacement behind it. It comes *in its place*.",
        _needs_draft(KEEPS_REJECTED),
    ),
    Misconception(
        BONUS_TOO,
        "The bonus exists only where all drafts stood. After a rejection the rows behind have read a draft that is "
        "not there any more.",
        _needs_draft(BONUS_TOO),
    ),
    Misconception(
        GOES_ON,
        "Behind a rejected draft the other drafts are worth nothing: both models have read the rejected one. The "
        "answer ends with the replacement.",
        _needs_draft(GOES_ON),
    ),
    Misconception(
        BONUS_ROW,
        "The bonus was drawn from the row that judged the last draft. What comes *behind* the last draft is in the "
        "last row of p.",
        mistaken(BONUS_ROW),
    ),
    Misconception(
        FIRST_ROW,
        "Draft i is judged by row i of p and of q: each position has a distribution of its own.",
        _needs_draft(FIRST_ROW),
    ),
    Misconception(
        ONE_NUMBER,
        "One random number decided about all drafts. Each of them needs its own: draw it inside the loop.",
        _needs_draft(ONE_NUMBER),
    ),
    Misconception(
        NO_GENERATOR,
        "The same seed must give the same answers and another seed others. Hand `generator` to `torch.rand` *and* to "
        "`torch.multinomial`; otherwise PyTorch uses a global one.",
        sees=_ignored,
    ),
)
