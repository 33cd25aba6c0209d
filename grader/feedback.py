"""Pages of graded notebooks: what Formgrader shows an instructor, and the page that goes back to a student.

Both are made by nbconvert from the graded notebook, and both are told by `nbgrader_config.py` to use what is here.
Whatever the notebook says, nothing in it runs, loads or leads anywhere (``Harmless``, ``markup``); behind that stands
the page's own policy, which allows no script but Formgrader's.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbconvert.filters import Highlight2HTML, ansi2html
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import is_grade
from pygments.formatters import HtmlFormatter
from traitlets import Bool

from lessonlib import course
from lessonlib.classroom import cards, workbook
from lessonlib.classroom.exercises import Exercise, find
from lessonlib.course import CourseError

from . import markup
from .writing import NOTES, TAKEN, safe_picture

TEMPLATES = Path(__file__).with_name("templates")
_NBGRADER = find_spec("nbgrader")
assert _NBGRADER is not None and _NBGRADER.origin is not None
FORMGRADER = Path(_NBGRADER.origin).with_name("server_extensions") / "formgrader" / "templates"

_NAME = re.compile(r"[\w.-]+")
_NAMES = ("student", "first_name", "last_name", "notebook_path", "notebook_id", "assignment_id")
# Formgrader waits for MathJax before its keys work; formulas are MathML already, so there is nothing to wait for.
_NO_MATHJAX = (
    "<script>window.MathJax = {Hub: {Startup: {signal: {Interest: ready => ready('End')}}}};</script>"
)
_LOOKS = (
    "<style>#notebook pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere } "
    ".text_cell_render table { margin: 8px 0 } "
    ".text_cell_render :is(th, td) { padding: 2px 8px; border: 1px solid #ccc }</style>"
)


class Harmless(Preprocessor):
    """Leaves of outputs what a page may show, and of names what cannot be taken for HTML."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        nb.cells = [_harmless(cell) for cell in nb.cells if cell.cell_type in ("code", "markdown")]
        nb.metadata.pop("widgets", None)
        for name in _NAMES:
            if resources.get(name):
                resources[name] = escape(str(resources[name]))
        return nb, resources


class ForGraders(Preprocessor):
    """Tells in Formgrader what a student's page tells too: what was odd, how long it took, what ended it."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        for cell in nb.cells:
            if said := "\n".join(_facts(cell)):
                cell.outputs.append(new_output("stream", name="stdout", text=said))
        if notes := _notes(nb):
            listed = "\n".join(f"- {_as_typed(note)}" for note in notes)
            nb.cells.insert(0, new_markdown_cell(f"**About this submission**\n\n{listed}"))
        return nb, resources


class Grades(GetGrades):
    """nbgrader's own step, which also tells whether a person has yet to mark a cell."""

    def _get_score(self, cell: NotebookNode, resources: dict[str, Any]) -> None:
        super()._get_score(cell, resources)
        name = cell.metadata.nbgrader["grade_id"]
        grade = self.gradebook.find_grade(name, self.notebook_id, self.assignment_id, self.student_id)
        cell.metadata.nbgrader["open"] = grade.auto_score is None and grade.manual_score is None


@dataclass
class Section:
    """What a page says about one exercise, written answer or quiz; ``*_html`` and ``shown`` are HTML."""

    name: str
    title: str
    score: float = 0.0
    points: float = 0.0
    open: bool = False
    code_html: str = ""
    answer_html: str = ""
    shown: list[str] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    comment_html: str = ""


class Sections(Preprocessor):
    """Sorts a graded notebook into what the student's page shows. The code of checks is never among it."""

    enabled = Bool(True).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        sections: dict[str, Section] = {}
        for cell in nb.cells:
            about = cell.metadata.get("nbgrader", {})
            if about.get("grade") or about.get("solution") or about.get("task"):
                name = about["grade_id"].removesuffix("-check")
                _tell(cell, about, sections.setdefault(name, Section(name, _title(name))))
        resources["lesson"] = {
            "title": _lesson(resources["nbgrader"]["notebook"]),
            "sections": [*sections.values()],
            "waiting": sum(section.open for section in sections.values()),
            "notes": _notes(nb),
            "style": cards.style(),
            "code_style": _code_style(),
        }
        return nb, resources


class FeedbackPage(HTMLExporter):
    """The exporter of students' pages: one file, no script, no request."""


def head(_: str = "") -> str:
    """What Formgrader's page has in its head in place of MathJax: no script runs but nbgrader's own."""
    return (
        f'{_NO_MATHJAX}<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src 'self' 'unsafe-hashes' {' '.join(_own_scripts())}; connect-src 'self'; font-src 'self'; "
        f"style-src 'self' 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">{_LOOKS}"
    )


FILTERS = {
    "markdown2html": markup.markdown,
    "clean_html": lambda html: markup.clean(str(html)),
    "lesson_head": head,
}


def scripted_files() -> list[str]:
    """Globs, in any case of letters, for names of files that a server would send as something with scripts in it."""
    mimetypes.init()
    known = {end for end, kind in mimetypes.types_map.items() if re.search(r"html|xml|svg|javascript", kind)}
    endings = sorted({*known, ".htm", ".html", ".shtml", ".xht", ".xhtml", ".svg", ".xml"})
    return ["*" + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in end) for end in endings]


def _own_scripts() -> Iterator[str]:
    """The hashes of the scripts that stand in Formgrader's page itself, below its head."""
    page = (FORMGRADER / "formgrade" / "formgrade_macros.html.j2").read_text(encoding="utf-8")
    for script in re.findall(r'onclick="([^"]*)"|<script[^>]*>([^<]+)</script>', page):
        digest = hashlib.sha256("".join(script).encode()).digest()
        yield f"'sha256-{base64.b64encode(digest).decode()}'"


def _harmless(cell: NotebookNode) -> NotebookNode:
    cell.pop("attachments", None)
    if not _NAME.fullmatch(str(workbook.grade_id(cell) or "x")):
        del cell.metadata["nbgrader"]
    if cell.cell_type == "code":
        cell.outputs = [kept for output in cell.outputs if (kept := _shown(output))]
    return cell


def _shown(output: NotebookNode) -> NotebookNode | None:
    """An output with its text, its picture or its card, and no metadata."""
    kind = output.output_type
    if kind == "stream":
        name = "stderr" if output.name == "stderr" else "stdout"
        return new_output("stream", name=name, text=output.text)
    if kind == "error":
        return new_output("error", ename=output.ename, evalue=output.evalue, traceback=output.traceback)
    data = {mime: output.data[mime] for mime in ("text/html", "text/plain") if mime in output.data}
    for mime in ("image/png", "image/jpeg"):
        if picture := safe_picture(mime, output.data.get(mime)):
            data[mime] = picture
    return new_output("display_data", data=data) if data else None


def _notes(nb: NotebookNode) -> list[str]:
    notes = nb.metadata.get(NOTES)
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _as_typed(text: str) -> str:
    """Markdown that shows this text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~$&-])", r"\\\1", " ".join(text.split()))


def _facts(cell: NotebookNode) -> list[str]:
    """Sentences about how a check went: seconds, and what ended it."""
    if not is_grade(cell) or TAKEN not in cell.metadata:
        return []
    ended, seconds = cell.metadata[TAKEN].get("ended"), float(cell.metadata[TAKEN].get("seconds") or 0)
    return [*([f"Ended early: {ended}."] if ended else []), *([f"Took {seconds:.2f} s."] if seconds else [])]


def _tell(cell: NotebookNode, about: dict[str, Any], section: Section) -> None:
    if about.get("grade") or about.get("task"):
        section.score, section.points = float(about["score"]), float(about["points"])
        section.open = bool(about["open"])
    if about.get("comment"):
        section.comment_html = markup.markdown(about["comment"])
    if cell.cell_type == "markdown":
        section.answer_html = markup.markdown(cell.source)
        return
    if about.get("solution"):
        section.code_html = str(Highlight2HTML(pygments_lexer="python")(cell.source)) if cell.source else ""
        section.shown = [*_rendered(cell.outputs)]
        return
    section.verdict = [*_rendered(cell.outputs)]
    section.facts = _facts(cell)
    if (exercise := _exercise(section.name)) and section.score < section.points:
        section.hints = [markup.clean(cards.markdown(hint), style=False) for hint in exercise.hints]


def _rendered(outputs: list[NotebookNode]) -> Iterator[str]:
    """Outputs as HTML. Where there is a card, it says what the error and the value below it say."""
    carded = any("text/html" in output.get("data", {}) for output in outputs)
    for output in outputs:
        if output.output_type == "stream":
            told = '<p class="label">to stderr</p>' if output.name == "stderr" else ""
            yield f'{told}<pre class="{output.name}">{ansi2html(output.text)}</pre>'
        elif output.output_type == "error":
            if not carded:  # the last line only: the others would quote the tests
                yield f'<pre class="stderr">{ansi2html(output.traceback[-1] if output.traceback else "")}</pre>'
        elif "text/html" in output.data:
            yield markup.clean(output.data["text/html"], style=False)
        elif picture := next((mime for mime in output.data if mime.startswith("image/")), None):
            yield f'<img alt="output" src="data:{picture};base64,{escape(output.data[picture])}">'
        elif not carded:
            yield f"<pre>{ansi2html(output.data['text/plain'])}</pre>"


def _lesson(slug: str) -> str:
    with suppress(CourseError):
        lesson = course.lesson(slug)
        return f"Lesson {lesson.number} · {lesson.title}"
    return slug


def _code_style() -> str:
    """Colours of code on light and on dark pages."""
    light, dark = (
        "\n".join(HtmlFormatter(style=name).get_token_style_defs(".highlight"))
        for name in ("default", "github-dark")
    )
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _exercise(name: str) -> Exercise | None:
    with suppress(CourseError):
        return find(workbook.spoken(name))
    return None


def _title(name: str) -> str:
    if exercise := _exercise(name):
        return f"{exercise.id} · {exercise.title}"
    return "Quiz" if name.endswith("-quiz") else f"{workbook.spoken(name)} · your answer"
