"""Writes a result into the rebuilt notebook, where nbgrader reads points and people read reasons."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from nbformat import from_dict

from lessonlib.classroom import feedback
from lessonlib.classroom.bank import Question, load
from lessonlib.classroom.cards import Block, Card, Code, Foot, Prose

from .grading import Graded, hidden_checks
from .guard import Rebuilt, Release, workbook
from .keys import Scored
from .store import Record

NOTES, TAKEN = "lesson_notes", "lesson_taken"  # keys in the metadata of a graded notebook, and of its checks
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
SHOWN = 20_000  # characters kept of one output


def record(graded: Graded) -> Record:
    """A result as plain data, fit to be kept: the gradebook, the feedback page and the report are made from it."""
    return {
        "exercise": graded.task.exercise,
        "cell": graded.task.cell,
        "check": graded.task.check,
        "points": graded.points,
        "out_of": graded.task.points,
        "mistake": graded.report.name,
        "why": graded.why,
        "seconds": round(graded.seconds, 3),
        "shown": list(safe(graded.outputs)),
        "verdict": check_outputs(graded),
    }


def fill(
    book: dict[str, Any],
    records: Iterable[Record],
    quiz: Iterable[Scored],
    rebuilt: Rebuilt,
    release: Release,
) -> None:
    """Put outputs into `book` in place: what each solution cell showed, and the card of each check.

    A failed check ends in an error, as nbgrader expects; the quiz cell's value is its points. Metadata of a check say
    how long it took and what ended it.
    """
    outputs: dict[str | None, list[dict[str, Any]]] = {}
    taken: dict[str | None, dict[str, Any]] = {}
    for found in records:
        outputs[found["cell"]], outputs[found["check"]] = found["shown"], found["verdict"]
        taken[found["check"]] = {"seconds": found["seconds"], "ended": found["why"]}
    if release.quiz:
        outputs[workbook.grade_id(release.quiz)] = quiz_outputs(quiz, release.slug)
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            name = workbook.grade_id(cell)
            cell["outputs"], cell["execution_count"] = from_dict(outputs.get(name, [])), None
            if name in taken:
                cell["metadata"][TAKEN] = from_dict(taken[name])
    notes = [*([rebuilt.unreadable] if rebuilt.unreadable else []), *rebuilt.notes]
    book["metadata"][NOTES] = notes


def check_outputs(graded: Graded) -> list[dict[str, Any]]:
    """The card, and below a failed one the error that costs the points."""
    secret = hidden_checks(graded.task.exercise).secret
    shown = [_display(feedback.card(graded.report, hidden=True, secret=secret))]
    if not graded.report.passed:
        line = feedback.headline(graded.report, secret)
        shown.append({"output_type": "error", "ename": "CheckFailed", "evalue": line, "traceback": [line]})
    return shown


def quiz_outputs(scored: Iterable[Scored], name: str) -> list[dict[str, Any]]:
    """Each graded question of a quiz with its reason, and the points as the cell's value."""
    scored, questions = list(scored), {question.id: question for question in load(name).questions}
    points, most = sum(s.points for s in scored), sum(s.out_of for s in scored)
    blocks: list[Block] = []
    for s in scored:
        if s.answer is None:
            blocks.append(Foot(f"{s.question}: not answered."))
            continue
        question = questions[s.question]
        blocks.append(Prose(f"**{s.question}.** {question.text.strip()}"))
        blocks.append(Code(f"{s.points:g} of {s.out_of:g}, your answer", _given(question, s.answer)))
        if s.why:
            blocks.append(Prose(s.why))
    card = Card("good" if points == most else "info", f"Quiz: {points:g} of {most:g}", blocks)
    value: dict[str, Any] = {"output_type": "execute_result", "execution_count": None, "metadata": {}}
    return [_display(card), {**value, "data": {"text/plain": f"{points:g}"}}]


def _given(question: Question, answer: Any) -> str:
    """An answer in the question's own words."""
    texts = {choice.id: " ".join(choice.text.split()) for choice in question.choices}
    if isinstance(answer, float):
        return f"{answer:g} {question.unit}".strip()
    return "\n".join(
        texts.get(part, str(part)) for part in (answer if isinstance(answer, list) else [answer])
    )


def safe(outputs: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Outputs reduced to text and pictures: nothing of a stranger's that a browser would run."""
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            yield {"output_type": "stream", "name": output["name"], "text": _short(output["text"])}
        elif kind == "error":
            text = _short(f"{output['ename']}: {output['evalue']}")
            yield {"output_type": "stream", "name": "stderr", "text": text + "\n"}
        elif data := {mime: kept for mime, value in output["data"].items() if (kept := _kept(mime, value))}:
            yield {"output_type": "display_data", "metadata": {}, "data": data}


def _kept(mime: str, value: Any) -> str | None:
    if mime == "text/plain" and isinstance(value, str):
        return _short(value)
    return safe_picture(mime, value)


def safe_picture(mime: str, value: Any) -> str | None:
    """The base64 of a picture, written anew; None for what is none that a browser only draws."""
    if mime not in PICTURES or not isinstance(value, str):
        return None
    try:
        raw = base64.b64decode(value, validate=False)
    except ValueError:
        return None
    return base64.b64encode(raw).decode() if raw.startswith(PICTURES[mime]) else None


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "… (cut)"


def _display(card: Card) -> dict[str, Any]:
    data = {"text/html": card.html(), "text/plain": card.text()}
    return {"output_type": "display_data", "metadata": {}, "data": data}
