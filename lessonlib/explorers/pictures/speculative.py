"""speculative: the rounds of a real run, and when drafting pays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lessonlib.engine import SamplingParams, Tokenizer, Transformer
from lessonlib.engine.acceptance import Costs, speedup
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.errors import BadParameter, PromptTooLong
from lessonlib.engine.paged_cache import PagedCache
from lessonlib.engine.sampling import Choice, distribution, uniform
from lessonlib.engine.scheduler import Request, Scheduler
from lessonlib.engine.speculative import DraftModelSpeculator

from ..base import Explorer
from ..sources import as_model, as_tokenizer
from ..text import brief, percent, pieces, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8  # drafts a round, at most
ROUNDS = 8  # of each prompt, for each number of drafts
SHOWN = 7  # tokens of the place where a round is decided
PROMPT = "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
MORE_PROMPTS = (
    "import argparse\n\ndef main():\n    parser = argparse.ArgumentParser(",
    "def read_lines(path):\n    with open(path) as file:\n",
)


class Round(NamedTuple):
    """One pass of the target over k drafts. p (k + 1, vocab), q (k, vocab): what both models gave to every token.

    luck: the random number by which each judged draft was judged. tokens: what came of it, the last one the target's.
    before: the text so far, as token ids.
    """

    before: list[int]
    drafts: list[int]
    p: Tensor
    q: Tensor
    luck: list[float]
    tokens: list[int]

    @property
    def stood(self) -> int:
        return len(self.tokens) - 1


class NoteTaker(DraftModelSpeculator):
    """The engine's speculation, which writes down each round of each request."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rounds: dict[Request, list[Round]] = {}

    def verify(
        self, request: Request, drafts: Sequence[int], logits: Tensor, likeliest: Sequence[int]
    ) -> list[Choice]:
        assert request.generator is not None
        q, again = self._q[request], request.generator.clone_state()
        before = [*request.prompt, *request.output]
        choices = super().verify(request, drafts, logits, likeliest)
        tokens = [choice.token for choice in choices]
        luck = [uniform(again) for _ in range(min(len(tokens), len(drafts)))]
        found = Round(before, list(drafts), distribution(logits, request.params), q, luck, tokens)
        self.rounds.setdefault(request, []).append(found)
        return choices


def record(
    model: Transformer,
    draft: Transformer,
    prompts: Sequence[Sequence[int]],
    k: int,
    temperature: float,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> list[list[Round]]:
    """Run the engine's speculative decoding, k drafts at a time; the first ``rounds`` rounds of each prompt."""
    params = SamplingParams(temperature=temperature, max_tokens=(rounds + 1) * (k + 1) + 1, ignore_eos=True)
    requests = [
        Request(list(ids), params, generator=torch.Generator().manual_seed(seed + i))
        for i, ids in enumerate(prompts)
    ]
    # One block more for each: the scheduler admits nobody whom the others' next tokens could turn out again.
    pool = BlockPool(sum(1 - (-(len(ids) + params.max_tokens) // 16) for ids in prompts), 16)
    cache = PagedCache(model.config, pool.num_blocks, 16, model.dtype, model.device)
    notes = NoteTaker(draft, model, pool.num_blocks, 16, k)
    room = sum(map(len, prompts)) + len(prompts) * (k + 1)
    batcher = ContinuousBatcher(model, cache, Scheduler(pool, len(prompts), room), notes)
    for request in requests:
        batcher.add(request)
    for _ in range(rounds + 1):  # the first step runs the prompts
        batcher.step()
    return [notes.rounds[request] for request in requests]


def counters(rounds: Sequence[Round]) -> dict[str, int]:
    """Passes of the target, tokens they brought, and drafts made, judged and accepted.

    What comes behind the first rejected draft is never judged.
    """
    return {
        "passes": len(rounds),
        "tokens": sum(len(round.tokens) for round in rounds),
        "drafted": sum(len(round.drafts) for round in rounds),
        "judged": sum(len(round.luck) for round in rounds),
        "accepted": sum(round.stood for round in rounds),
    }


def described(round: Round, tokenizer: Tokenizer) -> dict[str, Any]:
    """A round for the browser: every draft with q, p and its random number, and the place that decided it."""
    names = pieces(tokenizer, [*round.drafts, round.tokens[-1]])
    drafts: list[dict[str, Any]] = []
    for i, token in enumerate(round.drafts):
        judged = i < len(round.luck)
        draft = {
            "piece": names[i],
            "q": _short(round.q[i, token]),
            "p": _short(round.p[i, token]) if judged else None,
            "luck": _short(round.luck[i]) if judged else None,
        }
        drafts.append(draft)
    at = round.stood
    p, q = round.p[at], round.q[at] if at < len(round.drafts) else torch.zeros_like(round.p[at])
    wanted = dict.fromkeys([round.tokens[-1], *round.drafts[at : at + 1]])
    wanted.update(dict.fromkeys(torch.maximum(p, q).topk(min(SHOWN, len(p))).indices.tolist()))
    ids = sorted(list(wanted)[:SHOWN], key=lambda token: -max(p[token], q[token]))
    return {
        "before": tokenizer.decode(round.before[-40:])[-70:],
        "drafts": drafts,
        "stood": at,
        "last": names[-1],
        "overlap": _short(torch.minimum(p, q).sum()),
        "place": [
            {"piece": name, "p": _short(p[token]), "q": _short(q[token])}
            for token, name in zip(ids, pieces(tokenizer, ids), strict=True)
        ],
    }


def _short(number: Tensor | float) -> float:
    return float(f"{float(number):.5g}")


def title_of_round(number: int, drafts: int, stood: int) -> str:
    """The sentence above the rounds."""
    most = f"all {drafts} drafts stand" if stood == drafts else f"{stood} of {drafts} drafts stand"
    if drafts == 1:
        most = "the draft stands" if stood else "the draft is rejected"
    elif not stood:
        most = f"none of {drafts} drafts stands"
    tokens = "1 token, as without drafts" if stood == 0 else f"{stood + 1} tokens instead of 1"
    return f"Round {number}: {most}; one pass of the large model brings {tokens}."


class Speculative(Explorer):
    picture = "speculative"

    def summary(self) -> str:
        start = self.data["defaults"]
        run = self.data["runs"][start["k"] - 1]
        c = start["cost"]
        speeds = [speedup(start["acceptance"], k, c) for k in range(1, MOST + 1)]
        best = max(range(MOST), key=speeds.__getitem__)
        advice = (
            f"k = {best + 1} is best, {speeds[best]:.2f} times the speed"
            if speeds[best] > 1
            else "no number of drafts pays"
        )
        return (
            f"{self._title()} In {run['passes']} passes with {start['k']} drafts each, {run['accepted']} of "
            f"{run['judged']} judged drafts stood: {run['tokens'] / run['passes']:.2f} tokens a pass. At "
            f"{start['acceptance']:.0%} acceptance (that of all runs, 1 to {MOST} drafts) and a draft that costs "
            f"{c:.0%} of a pass, {advice}."
        )

    def _title(self) -> str:
        start = self.data["defaults"]
        found = self.data["runs"][start["k"] - 1]["rounds"][start["round"] - 1]
        return title_of_round(start["round"], len(found["drafts"]), found["stood"])

    def figure(self) -> Figure:
        from ..figure import MUTED, fills_legend, new_figure

        start = self.data["defaults"]
        found = self.data["runs"][start["k"] - 1]["rounds"][start["round"] - 1]
        figure = new_figure(9.4, 4.4, self._title())
        figure.text(
            0.012,
            0.895,
            f"after  {printable(brief(found['before'][-44:], 60))}",
            color=MUTED,
            fontsize=8.5,
            family="DejaVu Sans Mono",
            va="top",
        )
        entries = [
            ("reused", "common to p and q; in the rows: the chance to stand"),
            ("again", "q (the draft model) has more"),
            ("fresh", "p (the large model) has more"),
        ]
        fills_legend(figure, entries, loc="upper left", bbox_to_anchor=(0.0, 0.87))
        _draw_rows(figure.add_axes((0.012, 0.37, 0.5, 0.42)), found)
        _draw_place(figure.add_axes((0.1, 0.03, 0.31, 0.27)), found)
        pays = figure.add_axes((0.6, 0.12, 0.385, 0.62))
        _draw_speedup(pays, self.data["runs"], start)
        return figure


def _draw_rows(ax: Axes, found: dict[str, Any]) -> None:
    from ..figure import BLACK, FILLS, INK, MUTED

    ax.set(xlim=(0, 100), ylim=(len(found["drafts"]) + 0.6, -1.2))
    ax.axis("off")
    mono: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 8.5, "va": "center"}
    for x, words in ((0, "draft"), (34, "q"), (44, "p"), (47, "chance to stand, and the number drawn (◆)")):
        ax.text(x, -0.75, words, color=MUTED, fontsize=8, ha="left" if x in (0, 47) else "right")
    for i, draft in enumerate(found["drafts"]):
        judged = draft["p"] is not None
        colour = INK if judged else MUTED
        ax.text(0, i, printable(brief(draft["piece"], 12)), color=colour, **mono)
        for x, share in ((34, draft["q"]), (44, draft["p"])):
            ax.text(x, i, percent(share) if share is not None else "", ha="right", va="center", fontsize=8)
        stands = i < found["stood"]
        if judged:
            chance = min(1.0, draft["p"] / draft["q"]) if draft["q"] else 1.0
            ax.barh(i, 30, left=47, height=0.5, linewidth=0.7, **FILLS["none"])
            ax.barh(i, 30 * chance, left=47, height=0.5, linewidth=0.7, **FILLS["reused"])
            ax.plot(47 + 30 * draft["luck"], i, "D", color=BLACK, markersize=4, markeredgecolor="white")
        verdict = "stands" if stands else "rejected" if judged else "not judged"
        ax.text(80, i, verdict, va="center", color=colour, fontweight="bold" if judged else None)
    row = len(found["drafts"])
    ax.text(0, row, f"+ {printable(brief(found['last'], 12))}", color=INK, fontweight="bold", **mono)
    bonus = found["stood"] == len(found["drafts"])
    ax.text(
        47, row, "bonus token, drawn from p" if bonus else "resampled where p has more than q", va="center"
    )


def _draw_place(ax: Axes, found: dict[str, Any]) -> None:
    from ..figure import FILLS, INK, MUTED

    place, at = found["place"], found["stood"]
    bonus = at == len(found["drafts"])
    head = f"Behind draft {at}: p alone decides" if bonus else f"At draft {at + 1}, which was rejected"
    ax.set_title(head, x=-0.26)
    ax.set(xlim=(0, max(max(t["p"], t["q"]) for t in place)), ylim=(len(place) - 0.4, -0.6))
    ax.axis("off")
    for i, token in enumerate(place):
        p, q = token["p"], token["q"]
        common = min(p, q)
        name = printable(brief(token["piece"], 12))
        ax.annotate(
            name,
            (-0.02, i),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            family="DejaVu Sans Mono",
            fontsize=8,
            color=INK if token["piece"] == found["last"] else MUTED,
        )
        for width, left, fill in (
            (common, 0, "reused"),
            (p - common, common, "fresh"),
            (q - common, common, "again"),
        ):
            if width > 0:
                ax.barh(i, width, left=left, height=0.62, linewidth=0.7, **FILLS[fill])
        for x, share in ((1.15, None if bonus else q), (1.3, p)):
            words = "" if share is None else percent(share)
            ax.annotate(
                words, (x, i), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8
            )
    for x, words in ((1.15, "" if bonus else "q"), (1.3, "p")):
        ax.annotate(words, (x, 1.06), xycoords="axes fraction", ha="right", color=MUTED, fontsize=8)


def _draw_speedup(ax: Axes, runs: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
    from ..figure import BLUE, FILLS, LINE, MUTED, PURPLE

    a, c = start["acceptance"], start["cost"]
    ks = [run["k"] for run in runs]
    curve = [speedup(a, k, c) for k in ks]
    points = [run["tokens"] / run["passes"] / (1 + k * c) for k, run in zip(ks, runs, strict=True)]
    ax.set_title("Speed, against decoding without drafts")
    ax.axhspan(0, 1, linewidth=0, facecolor="#f6f7f8", edgecolor="#c9d0d6", hatch="xxx")
    ax.text(ks[-1], 0.06, "slower than without drafts", color=MUTED, ha="right", fontsize=8).set_bbox(
        {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    )
    ax.grid(axis="y", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.plot(ks, curve, color=BLUE, linewidth=1.6, label=f"formula, {a:.0%} accepted, draft costs {c:.0%}")
    ax.plot(ks, points, "D", color=PURPLE, markersize=5, label="tokens counted in this run", zorder=3)
    if max(curve) > 1:
        best = max(range(len(ks)), key=curve.__getitem__)
        ax.plot(ks[best], curve[best], "o", markersize=11, markerfacecolor="none", markeredgecolor=BLUE)
        ax.annotate(
            "best", (ks[best], curve[best]), (0, 9), textcoords="offset points", ha="center", color=BLUE
        )
    ax.set(xlim=(0.6, ks[-1] + 0.4), ylim=(0, max(1.5, *curve, *points) * 1.3), xlabel="drafts a round, k")
    ax.set_xticks(ks)
    ax.locator_params(axis="y", nbins=5)
    ax.yaxis.set_major_formatter(lambda value, _: f"×{value:g}")
    ax.legend(loc="upper right", borderaxespad=0)
    ax.patch.set_facecolor(FILLS["none"]["facecolor"])


def speculative(
    model: str | Path | Transformer = "pico",
    draft: str | Path | Transformer = "pico-draft",
    prompt: str = PROMPT,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    more_prompts: Sequence[str] = MORE_PROMPTS,
    temperature: float = 0.8,
    k: int = 4,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Speculative:
    """Explorer of speculative decoding: its rounds, token by token, and how many drafts pay.

    Runs the engine's own draft-model speculation with 1 to 8 drafts a round, ``rounds`` rounds after each prompt, and
    counts: no clock. The rounds after ``prompt`` are shown; ``more_prompts`` are only counted. ``k``: where the slider
    starts. The cost of a draft is at first the bytes of weights that it reads, as a part of the target's.

    The rule: Leviathan et al. 2023 (arXiv:2211.17192 §2.3); tokens a pass: equation 1; speed-up: theorem 3.8.

    Raises BadParameter, PromptTooLong, TokenizerMismatch.
    """
    if SamplingParams(temperature=temperature).greedy:
        raise BadParameter("speculative() shows chances, and temperature 0 leaves none; give one above 0.")
    if not (isinstance(k, int) and 1 <= k <= MOST):
        raise BadParameter(f"k={k!r} drafts cannot be shown; give a whole number from 1 to {MOST}.")
    if not (isinstance(rounds, int) and rounds >= 1):
        raise BadParameter(f"rounds={rounds!r} has no meaning; give a whole number from 1 on.")
    words = as_tokenizer(tokenizer or (model if isinstance(model, str | Path) else "pico"))
    target, small = as_model(model), as_model(draft)
    prompts = [words.encode(text) for text in (prompt, *more_prompts)]
    context = min(target.config.max_position_embeddings, small.config.max_position_embeddings)
    longest = max(map(len, prompts)) + (rounds + 1) * (MOST + 1) + 1
    if longest > context:
        raise PromptTooLong(
            f"{rounds} rounds after the longest prompt can come to {longest} tokens, and the models see {context}; "
            "give shorter prompts or fewer rounds."
        )
    runs: list[dict[str, Any]] = []
    for drafts in range(1, MOST + 1):
        recorded = record(target, small, prompts, drafts, temperature, rounds, seed)
        every = [round for rounds_of_one in recorded for round in rounds_of_one]
        shown = [described(round, words) for round in recorded[0]]
        runs.append({"k": drafts, **counters(every), "rounds": shown})
    judged, accepted = (sum(run[name] for run in runs) for name in ("judged", "accepted"))
    # The first round in which some drafts stand and one does not; it shows most.
    telling = (i for i, r in enumerate(runs[k - 1]["rounds"], 1) if i > 1 and 0 < r["stood"] < k)
    defaults = {
        "view": "rounds",
        "k": k,
        "round": next(telling, min(2, rounds)),
        "acceptance": round_to_percent(accepted / judged),
        "cost": round_to_percent(Costs.of(target, small).draft),
    }
    measured = {"prompts": len(prompts), "temperature": temperature}
    return Speculative(data={"runs": runs, "defaults": defaults, "measured": measured})


def round_to_percent(share: float) -> float:
    """A share as the sliders have it, from 0 to 1 in hundredths."""
    return min(1.0, round(share, 2))
