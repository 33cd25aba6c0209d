"""``quiz``: a lesson's questions in the notebook. Practice answers are explained at once, graded ones only
saved."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from .bank import BadAnswer, Bank, Question, load, near
from .cards import Block, Card, Code, Foot, Prose, in_ipython, markdown
from .store import Log, StoreError, log_for, student_seed

ANSWER = "quiz"
Answer = str | float | list[str]


def quiz(name: str, answers: Mapping[str, Any] | None = None) -> None:
    """Show the quiz of a lesson: ``quiz("01_generation")``.

    answers: {question id: answer} answers without the controls: ``quiz("01_generation", {"first-step":
    "b"})``. Raises BankError where there is no quiz, BadAnswer for an answer that a question cannot take.
    """
    bank = load(name)
    log = log_for(bank.name)
    if answers is not None:
        _answered_card(bank, log, answers).show()
    elif in_ipython():
        from IPython.display import display

        display(form(bank, log))
    else:
        print(printed(bank).text())


def answered(log: Log, bank: Bank) -> dict[str, Answer]:
    """The answers that count, the last of each question; those a question can no longer take are left out."""
    kept: dict[str, Answer] = {}
    for event in log.events(ANSWER):
        for question in bank.questions:
            if event.id == f"{bank.name}.{question.id}":
                try:
                    kept[question.id] = question.read(event.data.get("answer"))
                except BadAnswer:
                    kept.pop(question.id, None)
    return kept


def save(bank: Bank, log: Log, question_id: str, answer: Any) -> Answer:
    """Keep one answer and return it in its kept form. Raises BadAnswer, StoreError."""
    question = bank.question(question_id)
    value = question.read(answer)
    right = {"right": question.is_right(value)} if question.practice else {}
    log.append(ANSWER, f"{bank.name}.{question.id}", answer=value, mode=question.mode, **right)
    return value


def explain(question: Question, answer: Answer) -> tuple[bool, str, dict[str, tuple[bool, str]]]:
    """For a practice question: right or not, a message, and the reason of each choice (both Markdown)."""
    right = question.is_right(answer)
    reasons = (
        {c.id: (c.correct, c.reason) for c in question.choices}
        if question.kind in ("single", "multiple")
        else {}
    )
    message = "**Right.**" if right else "**Not yet.**"
    if question.kind == "multiple" and not right:
        message += " Some of your ticks are missing or too many: the reasons say which."
    if question.kind == "ordering" and not right and isinstance(answer, list):
        placed = sum(choice.id == item for choice, item in zip(question.choices, answer, strict=True))
        message += f" {placed} of {len(answer)} stand in their place."
    if question.kind == "numeric":
        known = [w.reason for w in question.wrong if isinstance(answer, float) and near(answer, w.answer, 0)]
        if known and not right:
            message += f" {known[0]}"
    return right, f"{message} {question.reason}".strip(), reasons


def printed(bank: Bank) -> Card:
    """The quiz on paper: every question and choice, in the same order for everybody, and no answers."""
    blocks: list[Block] = [Prose(bank.intro)] if bank.intro else []
    for number, question in enumerate(bank.questions, 1):
        lines = [f"**{_legend(bank, number, question)}** (`{question.id}`)", question.text.strip()]
        if question.choices:
            lines.append("\n".join(f"- `{c.id}`: {_one_item(c.text)}" for c in question.arranged(None)))
        if question.kind == "numeric":
            lines.append(f"Answer: a number{f' of {question.unit}' if question.unit else ''}.")
        blocks.append(Prose("\n\n".join(lines)))
    first = bank.questions[0].id
    blocks.append(
        Foot(f'In a running notebook you answer here, or with `quiz("{bank.name}", {{"{first}": …}})`.')
    )
    return Card("info", bank.title, blocks, spaced=True)


def form(bank: Bank, log: Log) -> Any:
    """The widget, with the answers of earlier sessions in place."""
    from .form import Form

    seed = student_seed(log)
    questions = [
        {
            "id": question.id,
            "kind": question.kind,
            "legend": _legend(bank, number, question),
            "text": markdown(question.text),
            "choices": [{"id": c.id, "html": markdown(c.text)} for c in question.arranged(seed)],
            "unit": question.unit,
            "button": "Check my answer" if question.practice else "Save my answer",
        }
        for number, question in enumerate(bank.questions, 1)
    ]
    intro = markdown(bank.intro) + (f"<p>{escape(complaint)}</p>" if (complaint := log.complaint()) else "")
    state = {name: _state(bank.question(name), answer) for name, answer in answered(log, bank).items()}

    def receive(question_id: str, answer: Any) -> dict[str, Any]:
        try:
            return _state(bank.question(question_id), save(bank, log, question_id, answer))
        except (BadAnswer, StoreError) as error:
            return {"answer": answer, "tone": "retry", "message": f"<p>{escape(str(error))}</p>"}

    spec = {"title": bank.title, "intro": intro, "questions": questions}
    return Form(spec, state, receive, printed(bank).bundle())


def _state(question: Question, answer: Answer) -> dict[str, Any]:
    shown = f"{answer:g}" if isinstance(answer, float) and abs(answer) < 1e6 else answer
    if isinstance(shown, float):
        shown = f"{shown:.0f}" if shown.is_integer() else repr(shown)
    if not question.practice:
        return {"answer": shown, "tone": "info", "message": f"<p>{_SAVED}</p>"}
    right, message, reasons = explain(question, answer)
    return {
        "answer": shown,
        "tone": "good" if right else "retry",
        "message": markdown(message),
        "reasons": {name: {"right": ok, "html": markdown(why)} for name, (ok, why) in reasons.items()},
    }


_SAVED = "Saved. You can change it until you submit."


def _answered_card(bank: Bank, log: Log, answers: Mapping[str, Any]) -> Card:
    blocks: list[Block] = []
    for question_id, answer in answers.items():
        question = bank.question(question_id)
        value = save(bank, log, question_id, answer)
        shown = ", ".join(value) if isinstance(value, list) else f"{value}"
        blocks.append(Code(f"{question_id}: your answer", shown))
        if not question.practice:
            blocks.append(Prose(_SAVED))
            continue
        _, message, reasons = explain(question, value)
        blocks.append(Prose(message))
        if reasons:
            marks = {True: "right", False: "not right"}
            blocks.append(
                Prose(
                    "\n".join(f"- `{i}`, {marks[ok]}: {_one_item(why)}" for i, (ok, why) in reasons.items())
                )
            )
    return Card("info", bank.title, blocks)


def _legend(bank: Bank, number: int, question: Question) -> str:
    what = {"multiple": ", several answers possible", "ordering": ", put in order"}.get(question.kind, "")
    return f"Question {number} of {len(bank.questions)} · {question.mode}{what}"


def _one_item(text: str) -> str:
    """Markdown that stays inside its list item, fenced code included."""
    return text.strip().replace("\n", "\n  ")
