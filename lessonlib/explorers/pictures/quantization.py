"""quantization: a real weight matrix in fewer bits, and what one large weight does to those that share its scale."""

from __future__ import annotations

import copy
import heapq
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import traitlets
from torch import Tensor, nn

from lessonlib.engine import EngineError, Tokenizer, Transformer
from lessonlib.engine.checkpoint import DTYPES
from lessonlib.engine.errors import BadParameter
from lessonlib.engine.perplexity import perplexity
from lessonlib.engine.quantize import SCHEMES, quantize_model
from lessonlib.engine.quantize.int4 import fit_int4, round_int4
from lessonlib.engine.quantize.int8 import quantize_int8
from lessonlib.engine.quantize.nf4 import LEVELS, MIDPOINTS, SMALLEST

from ..base import Explorer
from ..sources import as_model, as_tokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS, COLUMNS = 48, 256  # of each matrix, shown at most
READ = 1024  # tokens of the text, for the perplexity
NAMES = {"fp16": "FP16", "int8": "INT8", "int4": "INT4", "nf4": "NF4"}
DARKEST = 0.5  # of a typical weight: the error that is drawn darkest
OUTLIERS = (1, 2, 3, 5, 10, 20, 50, 100)
# What the engine can store a model in: label, scheme and options of quantize_model, and the setting of the picture
# that it belongs to (format; weights that share a scale, None for a whole row).
STORED: tuple[tuple[str, str, dict[str, Any], tuple[str, int | None] | None], ...] = (
    ("FP16", "float16", {}, ("fp16", None)),
    ("INT8, a scale a row", "int8", {}, ("int8", None)),
    ("INT4, groups of 128", "int4", {"group_size": 128}, ("int4", 128)),
    ("INT4, groups of 64", "int4", {"group_size": 64}, ("int4", 64)),
    ("INT4, groups of 32", "int4", {"group_size": 32}, ("int4", 32)),
    ("NF4, groups of 64", "nf4", {}, ("nf4", 64)),
    ("NF4, its scales in 8 bits too", "nf4", {"double": True}, None),
)


def stored(weights: Tensor, fmt: str, group: int) -> Tensor:
    """What is left of weights float32 (rows, columns) in a format, ``group`` neighbours sharing a scale.

    The engine's arithmetic, for groups of any size that divides the columns.
    """
    groups = weights.reshape(-1, group)
    if fmt == "fp16":
        values = groups.half().float()
    elif fmt == "int8":
        codes, scales = quantize_int8(groups)
        values = codes.float() * scales.float()[:, None]
    elif fmt == "int4":
        scale, zero = fit_int4(groups, symmetric=False)
        values = (round_int4(groups, scale, zero).float() - 8) * scale.float() + zero.float()
    else:
        largest = groups.abs().amax(1, keepdim=True)
        scaled = (groups * (1 / largest.clamp(min=SMALLEST))).clamp(-1, 1)
        values = torch.tensor(LEVELS)[torch.bucketize(scaled, torch.tensor(MIDPOINTS))] * largest
    return values.view_as(weights)


def group_sizes(columns: int) -> list[int]:
    """The groups that rows of this length can be cut into, the whole row last."""
    return [size for size in (16, 32, 64, 128) if size < columns and columns % size == 0] + [columns]


class Quantization(Explorer):
    picture = "quantization"
    weights = traitlets.Bytes().tag(sync=True)  # float32, little-endian: one (rows, columns) after the other

    def __init__(self, model: Transformer, tokenizer: Tokenizer, text: str, start: dict[str, Any]):
        self._model, self._ids = model, tokenizer.encode(text)[:READ]
        matrices = _matrices(model)
        columns = next(iter(matrices.values())).shape[1]
        self._shown = {name: w[:ROWS, :COLUMNS].contiguous() for name, w in matrices.items()}
        sizes = group_sizes(min(columns, COLUMNS))
        group = sizes[-1] if start["group"] is None else start["group"]
        if group not in sizes or start["format"] not in NAMES or start["outlier"] not in OUTLIERS:
            raise BadParameter(
                f"quantization() starts with a group of {', '.join(map(str, sizes))} (or None, a whole row), a format "
                f"of {', '.join(NAMES)} and an outlier of {', '.join(map(str, OUTLIERS))}."
            )
        data = {
            "matrices": [
                {"name": name, "shape": list(w.shape), "rows": len(self._shown[name])}
                for name, w in matrices.items()
            ],
            "columns": min(columns, COLUMNS),
            "marked": [_ordinary(w) for w in self._shown.values()],
            "sizes": sizes,
            "outliers": list(OUTLIERS),
            "stored": _table(model),
            "tokens": len(self._ids),
            "defaults": {**start, "group": group, "matrix": "0"},
        }
        raw = b"".join(w.numpy().astype("<f4").tobytes() for w in self._shown.values())
        super().__init__(data=data, weights=raw)
        self.on_msg(self._answer)

    def measure(self, row: int) -> float:
        """Perplexity of the model on the text, stored as row ``row`` of the table says; measured once, then known."""
        entry = self.data["stored"][row]
        if entry["perplexity"] is None:
            _, scheme, options, _ = STORED[row]
            model = quantize_model(copy.deepcopy(self._model), scheme, **options)
            if scheme in DTYPES:
                model.float()  # the format is for storing; products of float16 are slow on a CPU
            entry["perplexity"] = perplexity(model, self._ids).perplexity
        return entry["perplexity"]

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """The browser asks for the perplexities: one message each, as soon as it is known."""
        if message.get("do") != "measure":
            return
        try:
            for row in range(len(STORED)):
                self.send({"row": row, "perplexity": self.measure(row)})
            self.send({"done": True})
        except EngineError as error:
            self.send({"error": str(error)})

    def _facts(self) -> dict[str, Any]:
        at, name = self.data["defaults"], next(iter(self._shown))
        before = self._shown[name]
        row, column = divmod(self.data["marked"][0], self.data["columns"])
        after = before.clone()
        after[row, column] *= at["outlier"]
        left = [stored(w, at["format"], at["group"]) for w in (before, after)]
        first = column // at["group"] * at["group"]
        others = torch.arange(first, first + at["group"]) != column
        damage = [
            float((w - kept)[row, first : first + at["group"]][others].square().mean().sqrt())
            for w, kept in zip((before, after), left, strict=True)
        ]
        return {
            "name": name,
            "after": after,
            "errors": (after - left[1]).abs(),
            "all": float((after - left[1]).square().mean().sqrt()),
            "typical": float(before.square().mean().sqrt()),
            "damage": damage,
            "place": (row, slice(first, first + at["group"])),
            "kept": left[1],
        }

    def _title(self, facts: dict[str, Any]) -> str:
        at = self.data["defaults"]
        if at["format"] == "fp16":
            return "FP16: 16 bits a weight and no scale to share; a large weight costs the others nothing."
        how = f"{NAMES[at['format']]}, one scale for {at['group']} weights"
        if at["outlier"] == 1:
            bits = {"int8": 8 + 16 / at["group"]}.get(at["format"], 4 + 32 / at["group"])
            return f"{how}: {bits:.2f} bits a weight, errors of {facts['all'] / facts['typical']:.1%} of a weight."
        before, after = facts["damage"]
        return f"{how}: one weight ×{at['outlier']} gives the others {after / (before or 1):.1f} times the error."

    def summary(self) -> str:
        facts = self._facts()
        rows = ", ".join(f"{entry['label']} {entry['bits']:.2f}" for entry in self.data["stored"])
        return (
            f"{self._title(facts)} Shown: {len(self._shown[facts['name']])} rows of {facts['name']}. "
            f"Bits a weight, scales included: {rows}."
        )

    def figure(self) -> Figure:
        from ..figure import INK, MUTED, new_figure

        facts = self._facts()
        figure = new_figure(9.4, 4.2, self._title(facts))
        _draw_weights(figure.add_axes((0.05, 0.52, 0.42, 0.31)), facts)
        _draw_grid(figure.add_axes((0.05, 0.33, 0.42, 0.12)), facts)
        entries = [
            (e["label"], f"{e['bits']:.2f}", f"{e['bytes'] / 1e6:.1f} MB") for e in self.data["stored"]
        ]
        for x, head, align in (
            (0.53, "The whole model stored as", "left"),
            (0.85, "bits a weight", "right"),
            (0.98, "size", "right"),
        ):
            figure.text(x, 0.85, head, ha=align, va="top", fontsize=8.5, color=MUTED)
        for i, entry in enumerate(entries):
            for x, words, align in zip((0.53, 0.85, 0.98), entry, ("left", "right", "right"), strict=True):
                figure.text(x, 0.785 - 0.062 * i, words, ha=align, va="top")
        _draw_errors(figure.add_axes((0.05, 0.035, 0.93, 0.2)), facts)
        row, column = divmod(self.data["marked"][0], self.data["columns"])
        figure.axes[-1].plot([column], [row - 2.5], "v", color=INK, markersize=4)
        return figure


def _draw_weights(ax: Axes, facts: dict[str, Any]) -> None:
    from ..figure import FILLS, LINE

    reach = 4.5 * facts["typical"]
    ax.hist(facts["after"].flatten().numpy(), bins=61, range=(-reach, reach), linewidth=0, **FILLS["fresh"])
    ax.set(xlim=(-reach, reach), yticks=[])
    ax.set_title(f"Weights of {facts['name']}")
    ax.spines["left"].set_visible(False)
    ax.tick_params(length=2, color=LINE)


def _draw_grid(ax: Axes, facts: dict[str, Any]) -> None:
    from ..figure import BLUE, MUTED, VERMILLION

    reach = 4.5 * facts["typical"]
    weights, kept = (w[facts["place"]].tolist() for w in (facts["after"], facts["kept"]))
    for weight, value in zip(weights, kept, strict=True):
        if abs(weight) <= reach:
            ax.plot([weight, value], [1, 0], color=MUTED, linewidth=0.35)
    inside = [w for w in weights if abs(w) <= reach]
    ax.plot(inside, [1] * len(inside), "|", color=BLUE, markersize=6, markeredgewidth=0.8, clip_on=False)
    values = sorted({v for v in kept if abs(v) <= reach})
    ax.plot(values, [0] * len(values), "^", color=VERMILLION, markersize=6, clip_on=False)
    ax.set(xlim=(-reach, reach), ylim=(-0.6, 1.2))
    ax.axis("off")
    ax.text(
        -reach,
        -0.75,
        "Top: the weights that share the marked one's scale. Below: what is stored for them.",
        va="top",
        fontsize=7.5,
        color=MUTED,
    )


def _draw_errors(ax: Axes, facts: dict[str, Any]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    from ..figure import VERMILLION

    shades = LinearSegmentedColormap.from_list("error", ["#ffffff", VERMILLION, "#5a2700"])
    level = (facts["errors"] / facts["typical"]).numpy()
    ax.imshow(level, cmap=shades, vmin=0, vmax=DARKEST, aspect="auto", interpolation="nearest")
    ax.set_title(f"Error of each weight (white: none; darkest: {DARKEST:.0%} of a typical weight or more)")
    ax.set(xticks=[], yticks=[])


def _matrices(model: Transformer) -> dict[str, Tensor]:
    """A few weight matrices, float32 (out, in) on the CPU, all of the same ``in``, by what they make."""
    if model.quantization:
        raise BadParameter(
            f"This model is quantized already ({model.quantization}); load it as it is to watch it happen."
        )
    last = len(model.layers) - 1
    middle = last // 2
    places = {
        f"layer {middle + 1}, gate": f"layers.{middle}.mlp.gate_proj",
        "layer 1, queries": "layers.0.self_attn.q_proj",
        f"layer {middle + 1}, keys": f"layers.{middle}.self_attn.k_proj",
        f"layer {last + 1}, values": f"layers.{last}.self_attn.v_proj",
    }
    return {
        name: model.get_parameter(f"{path}.weight").detach().float().cpu() for name, path in places.items()
    }


def _ordinary(weights: Tensor) -> int:
    """Where, in row-major order, a positive weight as large as is usual stands, somewhere in the middle."""
    rows, columns = weights.shape
    row, first = rows * 3 // 8, columns // 4
    usual = weights.square().mean().sqrt()
    return row * columns + first + int((weights[row, first : first + columns // 2] - usual).abs().argmin())


def _table(model: Transformer) -> list[dict[str, Any]]:
    """For each format of STORED: label, setting, bits a weight of the layers, bytes of all matrices."""
    linears = [m for m in model.layers.modules() if isinstance(m, nn.Linear)]
    head = model.lm_head.weight
    weights = sum(linear.weight.numel() for linear in linears)
    rows = []
    for label, scheme, options, setting in STORED:

        @cache
        def size(
            shape: torch.Size, place: int, scheme: str = scheme, options: dict[str, Any] = options
        ) -> int:
            if scheme in DTYPES:
                return shape.numel() * DTYPES[scheme].itemsize
            return (
                SCHEMES[scheme][place]
                .from_weight(torch.zeros(shape), **(options if place == 0 else {}))
                .nbytes
            )

        layers = sum(size(linear.weight.shape, 0) for linear in linears)
        rows.append(
            {
                "label": label,
                "setting": setting,
                "bits": 8 * layers / weights,
                "bytes": layers + size(head.shape, 1),
                "perplexity": None,
            }
        )
    return rows


def quantization(
    model: str | Path | Transformer = "pico",
    tokenizer: str | Path | Tokenizer | None = None,
    *,
    format: str = "int4",
    group: int | None = None,
    outlier: int = 20,
    text: str | None = None,
) -> Quantization:
    """Explorer of number formats: a real weight matrix in FP16, INT8, INT4 and NF4, with groups of any size.

    One ordinary weight can be made ``outlier`` times larger. ``format`` ("fp16", "int8", "int4", "nf4") and ``group``
    (weights that share a scale; None: a whole row) say where the controls start. A button measures the perplexity of
    the whole model in every format of the engine, on ``text`` (default: a module of the standard library on which pico
    was not trained).

    Raises BadParameter.
    """
    words = as_tokenizer(tokenizer or (model if isinstance(model, str | Path) else "pico"))
    read = Path(heapq.__file__).read_text(encoding="utf-8") if text is None else text
    return Quantization(as_model(model), words, read, {"format": format, "group": group, "outlier": outlier})
