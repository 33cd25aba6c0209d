"""security: a request on its way through the guards of a server, and two attacks that need no forbidden word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonlib.engine import LLM, EngineError
from lessonlib.security.attacks import ModelOracle, Oracle, attack_hidden_size
from lessonlib.security.logit_surface import LogitSurfacePolicy
from lessonlib.security.tenants import TenantSalt, seconds, timing_audit

from ..base import Explorer
from ..gates import GATES, HEADER, REDACTS, REQUESTS, STOPS, UNREACHED, Gates, Request, steps, stopped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.5  # where InputValidator draws it by default
BLOCKS = 256  # of the KV cache: 4,096 tokens
MATCHING, TRIALS = 15, 40  # KV blocks that a probe has in common with what was asked; probes of each kind
OWN = "Your own request"


class Security(Explorer):
    picture = "security"

    def __init__(self, llm: LLM, probed: str | Path | LLM):
        self._gates, self._probed = Gates(llm), probed
        data = {"gates": list(GATES), "header": HEADER, "line": LINE, "requests": self._gates.send(REQUESTS)}
        super().__init__(data=data | {"own": None, "size": None, "timing": None})
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """The browser asks: send a text, steal the size, or time the cache. Answers {what: result} or an error."""
        work: dict[str, Callable[[], Any]] = {
            "own": lambda: self._gates.send([Request(OWN, str(message.get("text", "")))], user="you")[0],
            "size": lambda: steal(self._gates.llm, self._progress),
            "timing": lambda: probe(self._probed, self._progress),
        }
        what = message.get("do")
        if what not in work:
            return
        try:
            result = work[what]()
        except EngineError as error:
            self.send({"error": str(error)})
            return
        self.data[what] = result  # in place: only this travels, and a reloaded page still gets it
        self.send({what: result})

    def _progress(self, words: str) -> None:
        self.send({"progress": words})

    def _title(self) -> str:
        requests = self.data["requests"]
        bad = [stopped(one, LINE) for one in requests if one["harmful"]]
        good = [stopped(one, LINE) for one in requests if not one["harmful"]]
        return (
            f"Validator's line at {LINE:.2f}: {sum(bad)} of {len(bad)} harmful requests are stopped or redacted, "
            f"{sum(good)} of {len(good)} harmless ones."
        )

    def summary(self) -> str:
        ends = "; ".join(f"{one['name']}: {_end(one)}" for one in self.data["requests"])
        return f"{self._title()} Gates in order: {', '.join(GATES).lower()}. {ends}."

    def figure(self) -> Figure:
        from matplotlib.patches import Rectangle

        from ..figure import FILLS, INK, MUTED, new_figure
        from ..figure import LINE as RULE

        requests = self.data["requests"]
        figure = new_figure(9.4, 0.75 + 0.3 * len(requests), self._title())
        ax = figure.add_axes((0.012, 0.02, 0.976, 0.84))
        ax.set(xlim=(0, 100), ylim=(len(requests), -0.9))
        ax.axis("off")
        for column, gate in enumerate(GATES):
            ax.text(43 + 15 * column, -0.45, gate, va="center", fontweight="bold", color=INK)
        for row, one in enumerate(requests):
            ax.plot([0, 100], [row, row], color=RULE, linewidth=0.6)
            ax.text(0, row + 0.5, one["name"], va="center", color=INK)
            for column, step in enumerate(steps(one, LINE)):
                if step == UNREACHED:
                    continue
                fill = {STOPS: "again", REDACTS: "cut"}.get(step, "none")
                x = 43 + 15 * column
                ax.add_patch(Rectangle((x, row + 0.24), 2.6, 0.52, linewidth=0.8, **FILLS[fill]))
                plain = fill == "none"
                ax.text(x + 3.6, row + 0.5, step, va="center", color=MUTED if plain else INK)
        return figure


def _end(told: Mapping[str, Any]) -> str:
    """Where a request ends, in words."""
    for gate, step in zip(GATES, steps(dict(told), LINE), strict=True):
        if step in (STOPS, REDACTS):
            return f"{gate.lower()} {step}"
    return "passes all"


class Heard:
    """An oracle that remembers all it was told, as differences to the first token asked for, and asks no twice."""

    def __init__(self, oracle: Oracle, told: Callable[[int], None]):
        self.oracle, self.told, self.asked = oracle, told, 0
        self._rows: dict[tuple[int, ...], dict[int, float]] = {}

    def __call__(
        self, prompt: Sequence[int], logit_bias: Mapping[int, float], top_k: int
    ) -> Mapping[int, float]:
        reference, *wanted = logit_bias
        known = self._rows.setdefault(tuple(prompt), {reference: 0.0})
        if not known.keys() >= {*wanted}:
            self.asked += 1
            self.told(self.asked)
            shown = self.oracle(prompt, logit_bias, top_k)
            if not shown.keys() >= logit_bias.keys():
                return shown
            known.update({token: shown[token] - shown[reference] for token in wanted})
        return {token: known[token] for token in logit_bias}


def steal(llm: LLM, told: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    """Carlini's attack on the model's hidden size, policy off and default; the singular values of every stage.

    spectra: one {size, values, hidden, gap} for each matrix (size prompts x size tokens) the attack looks at, the last
    with the cliff; the values are those of ``attack_hidden_size``, to four digits.
    """
    vocab = llm.model.config.vocab_size

    def count(asked: int) -> None:
        if asked % 250 == 0:
            told(f"{asked:,} questions asked")

    heard = Heard(ModelOracle(llm.model, LogitSurfacePolicy.off()), count)
    last = attack_hidden_size(heard, vocab)
    assert last.singular_values is not None  # with the policy off everything is shown
    spectra, size = [], 64
    while True:  # the stages before, from the same answers
        stage = attack_hidden_size(heard, vocab, start=size, limit=size)
        values = [float(f"{value:.4g}") for value in stage.singular_values]  # type: ignore[union-attr]
        spectra.append({"size": size, "values": values, "hidden": stage.hidden_size, "gap": stage.gap})
        if size >= len(last.singular_values):
            break
        size = min(size + size // 2, len(last.singular_values))
    refused = attack_hidden_size(ModelOracle(llm.model, LogitSurfacePolicy()), vocab)
    return {
        "spectra": spectra,
        "asked": heard.asked,
        "hidden": llm.model.config.hidden_size,
        "refused": {"asked": refused.queries, "reason": refused.reason, "hidden": refused.hidden_size},
    }


def probe(model: str | Path | LLM, told: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    """``timing_audit`` on the clock, in ms: once with one cache for all, once with a salt for each tenant."""
    llm = model if isinstance(model, LLM) else LLM(model)
    found: dict[str, Any] = {"blocks": MATCHING}
    for name, salts in (("shared", None), ("salted", TenantSalt())):
        told(f"timing {2 * TRIALS} answers, salts {'on' if salts else 'off'}")
        audit = timing_audit(llm, salts, blocks=MATCHING, trials=TRIALS, observe=seconds)
        milliseconds = {
            kind: [float(f"{1000 * second:.4g}") for second in getattr(audit, kind)]
            for kind in ("hits", "misses")
        }
        found[name] = {"auc": audit.auc, "error": audit.error, "reused": audit.reused} | milliseconds
    return found


def security(llm: str | Path | LLM = "pico", probed: str | Path | LLM = "pico-draft") -> Security:
    """Explorer of a server's guards: ready-made requests, and your own, through admission, validator, engine, filter.

    Two more views are measured when asked for, in the kernel: how the hidden size of ``llm`` is read through its API
    (about ten seconds for pico), and what the time of an answer tells of ``probed``'s cache (the smaller the model, the
    sooner measured). Raises the engine's errors for a model that cannot be loaded.
    """
    return Security(llm if isinstance(llm, LLM) else LLM(llm, num_kv_blocks=BLOCKS), probed)
