"""next_token: one forward pass opened up, from token ids to the likeliest next tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lessonlib.engine import Tokenizer, Transformer
from lessonlib.engine.errors import EmptyPrompt, PromptTooLong

from ..base import Explorer
from ..sources import as_model, as_tokenizer
from ..text import brief, percent, pieces, printable, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 64  # tokens of a prompt that can be looked at one by one


class NextToken(Explorer):
    picture = "next_token"

    def __init__(self, model: Transformer, tokenizer: Tokenizer, prompt: str, k: int):
        ids = tokenizer.encode(prompt)
        if not ids:
            raise EmptyPrompt("The prompt has no tokens; give next_token at least one character.")
        if len(ids) > LONGEST:
            raise PromptTooLong(
                f"next_token shows prompts of up to {LONGEST} tokens and this one has {len(ids)}; shorten it."
            )
        shapes, logits = _shapes(model, torch.tensor([ids]))
        probabilities, best = logits[0].softmax(-1).topk(min(k, logits.shape[-1]))
        names = {
            token: name
            for row in best.tolist()
            for token, name in zip(row, pieces(tokenizer, row), strict=True)
        }
        config = model.config
        super().__init__(
            data={
                "tokens": list(zip(pieces(tokenizer, ids), ids, strict=True)),
                "predictions": [
                    [(names[token], round(p, 5), token) for p, token in zip(row, tokens, strict=True)]
                    for row, tokens in zip(probabilities.tolist(), best.tolist(), strict=True)
                ],
                "shapes": shapes,
                "vocab": config.vocab_size,
                "hidden": config.hidden_size,
                "layers": config.num_hidden_layers,
            }
        )

    def _title(self) -> str:
        piece, share, _ = self.data["predictions"][-1][0]
        last = self.data["tokens"][-1][0]
        count = len(self.data["tokens"])
        guess = f"the model's first guess is “{brief(piece)}” ({percent(share)})."
        return f"After token {count}, “{brief(last)}”, {guess}"

    def summary(self) -> str:
        prompt = "".join(visible(piece) for piece, _ in self.data["tokens"])
        shapes = " → ".join(f"{name} {tuple(shape)}" for name, shape in self.data["shapes"].items())
        best = ", ".join(
            f"“{brief(piece)}” {percent(share)}" for piece, share, _ in self.data["predictions"][-1]
        )
        return f"One forward pass over “{prompt}”: {shapes}. Likeliest next tokens: {best}."

    def figure(self) -> Figure:
        from ..figure import FILLS, draw_stages, new_figure

        best = self.data["predictions"][-1]
        bars = 0.2 * len(best)
        height = 1.95 + bars
        figure = new_figure(9.4, height, printable(self._title()))
        draw_stages(figure.add_axes((0.012, 1 - 1.37 / height, 0.976, 0.95 / height)), _stages(self.data))
        figure.text(
            0.012, (bars + 0.25) / height, f"The {len(best)} likeliest next tokens", fontweight="bold"
        )
        ax = figure.add_axes((0.16, 0.03, 0.74, bars / height))
        ax.axis("off")
        ax.set(ylim=(len(best) - 0.4, -0.6), xlim=(0, max(share for _, share, _ in best)))
        across = ax.get_yaxis_transform()
        for i, (piece, share, _) in enumerate(best):
            ax.barh(i, round(share, 4), height=0.66, **FILLS["fresh"])
            name = printable(brief(piece))
            ax.text(-0.012, i, name, transform=across, ha="right", va="center", family="DejaVu Sans Mono")
            ax.text(1.09, i, percent(share), transform=across, ha="right", va="center", fontsize=8.5)
        return figure


def _shapes(model: Transformer, ids: torch.Tensor) -> tuple[dict[str, list[int]], torch.Tensor]:
    """Run ``ids`` (1, length) once: the shapes on the way, and the logits (1, length, vocab) on the CPU."""
    seen: dict[str, list[int]] = {"ids": list(ids.shape)}

    def note(name: str) -> Any:
        return lambda _module, _args, output: seen.__setitem__(name, list(output.shape))

    watched = {"embeddings": model.embed_tokens, "layers": model.layers[-1]}
    hooks = [module.register_forward_hook(note(name)) for name, module in watched.items()]
    try:
        with torch.inference_mode():
            logits = model(ids.to(model.device)).logits.cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return seen | {"logits": list(logits.shape)}, logits


def _stages(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    shapes, vocab = data["shapes"], data["vocab"]
    return [
        ("Token ids", "one number a token", str(tuple(shapes["ids"]))),
        ("Embeddings", f"rows of a {vocab:,} × {data['hidden']} table", str(tuple(shapes["embeddings"]))),
        (f"{data['layers']} layers", "attention, then MLP", str(tuple(shapes["layers"]))),
        ("Logits", "a score for every token", str(tuple(shapes["logits"]))),
        ("Softmax", "the last row sums to 1", f"({vocab},)"),
    ]


def next_token(
    model: str | Path | Transformer = "pico",
    tokenizer: str | Path | Tokenizer | None = None,
    prompt: str = "def read_json(path):\n    return",
    k: int = 10,
) -> NextToken:
    """Explorer of one forward pass: the shapes on the way, and the ``k`` likeliest tokens after each token.

    Raises EmptyPrompt, and PromptTooLong beyond 64 tokens.
    """
    words = as_tokenizer(tokenizer or (model if isinstance(model, str | Path) else "pico"))
    return NextToken(as_model(model), words, prompt, k)
