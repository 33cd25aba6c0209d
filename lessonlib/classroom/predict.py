"""``predict``: say what you expect before you measure. A prediction is locked once and then stays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any

from .bank import BadAnswer, read_number
from .cards import Block, Card, Foot, Pair, Prose, in_ipython, markdown
from .store import Log, StoreError, log_for

PREDICTION, COMPARED = "predict", "compare"


class Predict:
    """Lock a prediction, then compare it: the notebook's ``predict``.

    >>> predict("01.doubling", "How many tokens are processed for 100 new ones?", unit="tokens")
    >>> predict("01.doubling", answer=5050)                      # the same without the controls
    >>> predict.compare("01.doubling", measured=work.tokens)     # in the cell that measures
    """

    def __call__(
        self,
        prediction_id: str,
        question: str = "",
        *,
        choices: Sequence[str] | None = None,
        unit: str = "",
        answer: str | float | None = None,
    ) -> None:
        """Ask for a prediction, or lock ``answer`` at once.

        question: Markdown. choices: answers to choose from; without them the answer is a number of ``unit``.
        Raises BadAnswer for an answer that is neither.
        """
        asked = _Asked(prediction_id, question, tuple(choices or ()), unit)
        if answer is not None:
            asked.lock(answer).show()
        elif in_ipython():
            from IPython.display import display

            display(asked.form())
        else:
            print(asked.card().text())

    def compare(self, prediction_id: str, measured: Any, note: str = "", unit: str = "") -> None:
        """Show the locked prediction beside what was measured; without a prediction, the measurement alone.

        note: Markdown under both, what the difference means.
        """
        log = log_for(prediction_id)
        kept = locked(log, prediction_id)
        _remember_comparison(log, prediction_id)
        unit = unit or str((kept or {}).get("unit", ""))
        blocks: list[Block]
        if kept is None:
            blocks = [
                Pair(("you predicted", "nothing this time"), ("measured", written(measured, unit))),
                Foot(
                    "A guess before the measurement, even a wild one, is what makes it stick: try it next "
                    "time."
                ),
            ]
        else:
            blocks = [
                Pair(("you predicted", written(kept["answer"], unit)), ("measured", written(measured, unit))),
                Prose(verdict(kept["answer"], measured)),
            ]
        Card(
            "guess",
            f"Prediction and measurement · {prediction_id}",
            [*blocks, *([Prose(note)] if note else [])],
        ).show()


predict = Predict()


def locked(log: Log, prediction_id: str) -> dict[str, Any] | None:
    """The prediction that counts, the first one: {"answer", "unit", "question"}; None before it is locked."""
    events = [e for e in log.events(PREDICTION, prediction_id) if "answer" in e.data]
    return events[0].data if events else None


def predictions_made(log: Log) -> int:
    """How many predictions are locked in this lesson."""
    return len({e.id for e in log.events(PREDICTION)})


def written(value: Any, unit: str = "") -> str:
    """A value for people: thousands separated, four significant digits, the unit behind."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    whole = float(value).is_integer() and abs(value) < 1e15
    number = f"{int(value):,}" if whole else f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} {unit}".rstrip()


def verdict(predicted: Any, measured: Any) -> str:
    """One sentence that sets the two side by side."""
    numbers = (int, float)
    if not isinstance(predicted, numbers) or not isinstance(measured, numbers):
        return "As you predicted." if str(predicted) == str(measured) else "It came out differently. Why?"
    if predicted == measured:
        return "Exactly as you predicted."
    if abs(predicted - measured) <= 0.1 * abs(measured):
        return "You were within 10 %."
    if predicted <= 0 or measured <= 0:
        return "They differ. Why?"
    ratio = max(predicted, measured) / min(predicted, measured)
    side = "above" if predicted > measured else "below"
    return f"Your prediction is {side} the measurement by a factor of {ratio:,.1f}. What explains it?"


class _Asked:
    """One question for a prediction, with the student's log."""

    def __init__(self, prediction_id: str, question: str, choices: tuple[str, ...], unit: str):
        self.id, self.question, self.choices, self.unit = prediction_id, question, choices, unit
        self.log = log_for(prediction_id)

    @property
    def title(self) -> str:
        return f"Predict first · {self.id}"

    def read(self, answer: Any) -> str | float:
        if not self.choices:
            number = read_number(answer, self.unit)
            return int(number) if number.is_integer() else number
        if answer not in self.choices:
            raise BadAnswer(f"{answer!r} is none of the choices: {', '.join(map(repr, self.choices))}.")
        return str(answer)

    def lock(self, answer: Any) -> Card:
        """Lock an answer and say so; refuse kindly if one is locked already. Raises BadAnswer, StoreError."""
        value, before = self.read(answer), locked(self.log, self.id)
        if before is None or before["answer"] != value:
            late = bool(self.log.events(COMPARED, self.id))
            self.log.append(
                PREDICTION, self.id, answer=value, unit=self.unit, question=self.question, late=late
            )
        return Card("guess", self.title, [Prose(self._outcome(value))])

    def state(self) -> dict[str, Any]:
        """The form's state: closed once a prediction is locked."""
        kept = locked(self.log, self.id)
        if kept is None:
            return {}
        position = self.choices.index(kept["answer"]) if kept["answer"] in self.choices else None
        shown = str(kept["answer"]) if position is None else str(position)
        return {
            "answer": shown,
            "tone": "good",
            "message": f"<p>{escape(self._outcome(kept['answer']))}</p>",
            "closed": True,
        }

    def _outcome(self, value: Any) -> str:
        kept = locked(self.log, self.id) or {"answer": value}
        text = written(kept["answer"], self.unit)
        if kept["answer"] != value:
            return f"Your prediction is already locked: {text}. A first guess is worth keeping, so it stays."
        return f"Locked: {text}. Now run the measurement."

    def card(self) -> Card:
        """What a notebook without a kernel shows: the same for everybody."""
        blocks: list[Block] = [Prose(self.question)] if self.question else []
        if self.choices:
            blocks.append(Prose("\n".join(f"- {choice}" for choice in self.choices)))
        example = repr(self.choices[0]) if self.choices else "…"
        blocks.append(
            Foot(f'In a running notebook you answer here, or with `predict("{self.id}", answer={example})`.')
        )
        return Card("guess", self.title, blocks)

    def form(self) -> Any:
        from .form import Form

        question = {
            "id": self.id,
            "kind": "single" if self.choices else "numeric",
            "legend": "Your prediction",
            "text": markdown(self.question),
            "choices": [{"id": str(i), "html": markdown(c)} for i, c in enumerate(self.choices)],
            "unit": self.unit,
            "button": "Lock my prediction",
        }
        state = self.state()
        return Form(
            {"title": self.title, "questions": [question]},
            {self.id: state} if state else {},
            self._answered,
            self.card().bundle(),
        )

    def _answered(self, _: str, answer: Any) -> dict[str, Any]:
        try:
            if self.choices and str(answer).isdigit() and int(answer) < len(self.choices):
                answer = self.choices[int(answer)]
            self.lock(answer)
        except (BadAnswer, StoreError) as error:
            return {"answer": answer, "tone": "retry", "message": f"<p>{escape(str(error))}</p>"}
        return self.state()


def _remember_comparison(log: Log, prediction_id: str) -> None:
    with suppress(StoreError):  # the comparison is shown all the same
        if not log.events(COMPARED, prediction_id):
            log.append(COMPARED, prediction_id)
