"""sampling: temperature, top-k, top-p and min-p acting on a real next-token distribution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import traitlets

from lessonlib.engine import SamplingParams, Tokenizer, Transformer
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.sampling import distribution

from ..base import Explorer
from ..sources import as_model, as_tokenizer
from ..text import brief, pieces, printable, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20
PROMPT = "import os\nimport"


class Sampling(Explorer):
    picture = "sampling"
    logits = traitlets.Bytes().tag(sync=True)  # float32, little-endian (vocab,)

    def __init__(
        self, logits: torch.Tensor, shown: Sequence[str], prompt: str, start: dict[str, Any], seed: int
    ):
        self._logits = logits
        data = {"pieces": list(shown), "prompt": prompt, "seed": seed, "defaults": {**start, "draws": 0}}
        super().__init__(data=data, logits=logits.numpy().astype("<f4").tobytes())

    def _facts(self) -> dict[str, Any]:
        start = self.data["defaults"]
        params = SamplingParams(
            temperature=start["temperature"], top_k=start["topK"], top_p=start["topP"], min_p=start["minP"]
        )
        own, final = self._logits.softmax(-1), distribution(self._logits, params)
        tempered = distribution(self._logits, SamplingParams(temperature=params.temperature))
        order = self._logits.sort(descending=True, stable=True).indices[: len(self.data["pieces"])]
        kept = final > 0
        return {
            "own": own[order].tolist(),
            "tempered": tempered[order].tolist(),
            "final": final[order].tolist(),
            "kept": int(kept.sum()),
            "cut": max(0.0, 1 - float(tempered[kept].sum())),
        }

    def summary(self) -> str:
        facts, names = self._facts(), self.data["pieces"]
        best = ", ".join(
            f"“{brief(name)}” {share:.0%}"
            for name, share in list(zip(names, facts["final"], strict=True))[:3]
            if share > 0
        )
        start = self.data["defaults"]
        return (
            f"After “{visible(self.data['prompt'])}”, with temperature {start['temperature']:g}, "
            f"top-k {start['topK'] or 'off'}, top-p {start['topP']:g} and min-p {start['minP']:g}: "
            f"{facts['kept']:,} of {len(self._logits):,} tokens can be drawn and {facts['cut']:.0%} of the "
            f"probability is cut. Likeliest: {best}."
        )

    def figure(self) -> Figure:
        from ..figure import BLACK, FILLS, LINE, MUTED, fills_legend, new_figure

        facts, names = self._facts(), self.data["pieces"]
        title = f"{facts['kept']:,} of {len(self._logits):,} tokens can be drawn; {facts['cut']:.0%} is cut."
        figure = new_figure(9.4, 4.9, title)
        start = self.data["defaults"]
        settings = (
            f"Next token after  {printable(brief(self.data['prompt'][-60:], 60))}     "
            f"temperature {start['temperature']:g},  top-k {start['topK'] or 'off'},  "
            f"top-p {start['topP']:g},  min-p {start['minP']:g}"
        )
        figure.text(0.012, 0.9, settings, color=MUTED, fontsize=8.5, va="top")
        fills_legend(
            figure,
            [("fresh", "can be drawn"), ("cut", "cut   (black line: the model's own probability)")],
            loc="upper left",
            bbox_to_anchor=(0.0, 0.87),
        )
        ax = figure.add_axes((0.16, 0.03, 0.76, 0.72))
        ax.set(ylim=(len(names) - 0.4, -0.6))
        ax.xaxis.tick_top()
        ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.tick_params(length=0)
        ax.spines[["bottom", "left"]].set_visible(False)
        ax.spines["top"].set_visible(False)
        ax.grid(axis="x", color=LINE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_yticks(
            range(len(names)), [printable(brief(name)) for name in names], family="DejaVu Sans Mono"
        )
        for i, (own, tempered, final) in enumerate(
            zip(facts["own"], facts["tempered"], facts["final"], strict=True)
        ):
            kept = final > 0
            share = round(final if kept else tempered, 4)
            ax.barh(i, share, height=0.66, linewidth=0.7, **FILLS["fresh" if kept else "cut"])
            ax.plot([round(own, 4)] * 2, [i - 0.45, i + 0.45], color=BLACK, linewidth=1.4)
            label = f"{final:.1%}" if kept else "cut"
            ax.annotate(
                label, (1.06, i), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8
            )
        return figure


def sampling(
    model: str | Path | Transformer = "pico",
    tokenizer: str | Path | Tokenizer | None = None,
    prompt: str = PROMPT,
    *,
    logits: torch.Tensor | None = None,
    tokens: Sequence[str] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.7,
    min_p: float = 0.0,
    seed: int = 0,
) -> Sampling:
    """Explorer of sampling: what temperature, top-k, top-p and min-p do to the next-token distribution.

    The distribution is the model's own after ``prompt``, or the one given as ``logits`` (vocab,) with
    ``tokens``, the text of every token. The browser cuts and draws as ``lessonlib.engine.sampling`` does.

    Raises BadParameter for settings without meaning and for logits without tokens.
    """
    start = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    if logits is None:
        words = as_tokenizer(tokenizer or (model if isinstance(model, str | Path) else "pico"))
        with torch.inference_mode():
            logits = as_model(model)(torch.tensor([words.encode(prompt)]), last_only=True).logits[0, -1]
    elif tokens is None or len(tokens) != len(logits):
        given = "none" if tokens is None else f"{len(tokens):,}"
        raise BadParameter(
            f"sampling() got {len(logits):,} logits and {given} tokens; give the text of every token."
        )
    logits = logits.detach().float().cpu()
    top = logits.sort(descending=True, stable=True).indices[:SHOWN].tolist()
    shown = [tokens[i] for i in top] if tokens is not None else pieces(words, top)
    controls = {
        "temperature": start.temperature,
        "topK": start.top_k,
        "topP": start.top_p,
        "minP": start.min_p,
    }
    return Sampling(logits, shown, prompt, controls, seed)
