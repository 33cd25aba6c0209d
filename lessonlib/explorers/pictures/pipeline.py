"""pipeline: prompt → token ids → logits → sampling → text, live, one token a click."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lessonlib.engine import LLM, DenseCache, EngineError, SamplingParams, Tokenizer, Transformer
from lessonlib.engine.errors import PromptTooLong
from lessonlib.engine.generate import check_prompt
from lessonlib.engine.sampling import distribution, draw
from lessonlib.engine.tokenizer import Detokenizer

from ..base import Explorer
from ..sources import as_model, as_tokenizer
from ..text import brief, percent, pieces, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 200  # new tokens
TOP = 5


class Pipeline(Explorer):
    picture = "pipeline"

    def __init__(self, model: Transformer, tokenizer: Tokenizer, prompt: str, temperature: float, seed: int):
        SamplingParams(temperature=temperature)  # raises for a temperature without meaning
        self._model, self._tokenizer, self._seed = model, tokenizer, seed
        self._prompt = tokenizer.encode(prompt)
        check_prompt(model, self._prompt)
        self._start()
        data = {"prompt": prompt, "vocab": model.config.vocab_size, "temperature": temperature}
        super().__init__(data=data | {"steps": [self._step(temperature)]})
        self.on_msg(self._answer)

    def _start(self) -> None:
        room = min(self._model.config.max_position_embeddings, len(self._prompt) + MOST)
        self._cache = DenseCache(self._model.config, 1, room, self._model.dtype, self._model.device)
        self._pending = self._prompt
        self._detokenizer = Detokenizer(self._tokenizer)
        self._generator = torch.Generator().manual_seed(self._seed)

    def _step(self, temperature: float) -> dict[str, Any]:
        """Run the model on what is new, choose a token, and tell all of it."""
        fed, held = self._pending, self._cache.lengths[0]
        if held + len(fed) >= self._cache.max_length:
            raise PromptTooLong(f"After {held} tokens there is no room for more; press Reset to start again.")
        if held and fed[-1] in self._model.config.eos_token_ids:
            raise EngineError("The model has ended its text; press Reset to start again.")
        with torch.inference_mode():
            ids = torch.tensor([fed], device=self._model.device)
            logits = self._model(ids, cache=self._cache, last_only=True).logits[0].cpu()
        probabilities = distribution(logits[0], SamplingParams(temperature=temperature))
        token = draw(probabilities, self._generator)
        own = logits[0].softmax(-1) if temperature == 0 else probabilities
        share, best = own.topk(min(TOP, len(own)))
        names = pieces(self._tokenizer, [*best.tolist(), token])
        self._pending = [token]
        return {
            "fed": {"ids": fed[-4:], "pieces": pieces(self._tokenizer, fed[-4:])},
            "processed": len(fed),
            "held": held,
            "shape": list(logits.shape),
            "best": round(float(logits.max()), 3),
            "worst": round(float(logits.min()), 3),
            "temperature": round(temperature, 2),
            "top": [
                (name, i, round(p, 5))
                for name, i, p in zip(names, best.tolist(), share.tolist(), strict=False)
            ],
            "chosen": (names[-1], token, round(float(own[token]), 5)),
            "added": self._detokenizer.add(token),
            "ends": token in self._model.config.eos_token_ids,
        }

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """The browser asks: the next token, or all over again."""
        try:
            temperature = float(message.get("temperature", 0))
            if message.get("do") == "reset":
                self._start()
                self.data["steps"][:] = [self._step(temperature)]
                self.send({"steps": self.data["steps"]})
            elif message.get("do") == "next":
                # Appended in place: only the new step travels, and a reloaded page still gets them all.
                self.data["steps"].append(self._step(temperature))
                self.send({"step": self.data["steps"][-1]})
        except EngineError as error:
            self.send({"error": str(error)})

    def _title(self) -> str:
        count = len(self.data["steps"])
        piece, _, share = self.data["steps"][-1]["chosen"]
        return f"New token {count} is “{brief(piece)}”: the model gave it {percent(share)}."

    def _stages(self) -> list[tuple[str, str, str]]:
        step = self.data["steps"][-1]
        written = self.data["prompt"] + "".join(earlier["added"] for earlier in self.data["steps"][:-1])
        ids = ("… " if step["processed"] > 4 else "") + " ".join(map(str, step["fed"]["ids"]))
        best = "\n".join(f"{brief(piece, 9):<9} {percent(share):>6}" for piece, _, share in step["top"])
        how = "greedy" if step["temperature"] == 0 else f"temperature {step['temperature']:g}"
        return [
            ("1  Prompt", "prompt and answer so far", brief(written[-40:], 40)),
            ("2  Token ids", _reading(step["processed"], step["held"]), ids),
            (
                "3  Model → logits",
                f"{self.data['vocab']:,} scores, last position only",
                str(tuple(step["shape"])),
            ),
            ("4  Sampling", how, best),
            (
                "5  Detokenize",
                "the chosen id as text",
                f"{step['chosen'][1]}\n“{brief(step['chosen'][0])}”",
            ),
        ]

    def summary(self) -> str:
        stages = "; ".join(f"{name[3:]}: {' '.join(text.split())}" for name, _, text in self._stages())
        return f"{self._title()} {stages}."

    def figure(self) -> Figure:
        from ..figure import draw_stages, new_figure

        figure = new_figure(9.4, 2.15, printable(self._title()))
        stages = [(name, detail, _wrapped(inside)) for name, detail, inside in self._stages()]
        draw_stages(figure.add_axes((0.012, 0.04, 0.976, 0.76)), stages)
        return figure


def _reading(processed: int, held: int) -> str:
    """What the model has to read; of the cache nothing is said before there is something in it."""
    words = f"{processed} token{'s' * (processed != 1)} to read"
    return f"{words}, {held} in the cache" if held else words


def _wrapped(text: str) -> str:
    lines = text.split("\n") if "\n" in text else textwrap.wrap(text, 17)
    return "\n".join(map(printable, lines))


def pipeline(
    llm: str | Path | LLM = "pico",
    prompt: str = "def read_json(path):\n    return",
    temperature: float = 0.0,
    seed: int = 0,
) -> Pipeline:
    """The five stages of generating a token, with the model's actual data; a button asks for the next token.

    ``llm``: a model's name or folder, or an LLM. Raises EmptyPrompt, PromptTooLong, BadParameter.
    """
    if isinstance(llm, LLM):
        return Pipeline(llm.model, llm.tokenizer, prompt, temperature, seed)
    return Pipeline(as_model(llm), as_tokenizer(llm), prompt, temperature, seed)
