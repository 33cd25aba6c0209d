"""Marks and feedback on their way back: as a plain table, or as Moodle and Canvas take them.

What they insist on was read in their importers: Moodle's `mod/assign/feedback/offline/importgradeslib.php` and
`feedback/file/importziplib.php`, Canvas's `lib/gradebook_importer.rb`.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonlib.course import CourseError

from . import intake

PLATFORMS = ("csv", "moodle", "canvas")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Mark:
    """One student's marks of a lesson. ``open``: cells that a person has yet to mark."""

    student: str
    points: float
    out_of: float
    penalty: float
    open: int

    @property
    def final(self) -> float:
        return max(0.0, self.points - self.penalty)


def marks(course: Path, slug: str) -> list[Mark]:
    """What the gradebook says, by student. Raises CourseError where the lesson is not in it."""
    from nbgrader.api import Gradebook

    from . import desk

    if not desk.is_released(course, slug):
        raise CourseError(f"{slug} is not in the gradebook; put it there: lesson release {slug[:2]}")
    with Gradebook(desk.database(course)) as book:
        found = [
            Mark(
                submission.student_id,
                sum(n.score for n in submission.notebooks),
                submission.max_score,
                sum(n.late_submission_penalty or 0.0 for n in submission.notebooks),
                sum(grade.needs_manual_grade for n in submission.notebooks for grade in n.grades),
            )
            for submission in book.assignment_submissions(slug)
        ]
    return sorted(found, key=lambda mark: mark.student)


def table(
    course: Path, slug: str, platform: str, worksheet: bytes | None = None
) -> tuple[str, tuple[str, ...]]:
    """The marks as CSV, and the students whose marks are not in it: their platform's row was not found.

    worksheet: the platform's own export, whose rows are filled in and otherwise left alone. Raises CourseError for a
    worksheet that is not the platform's.
    """
    found = {mark.student: mark for mark in marks(course, slug)}
    if platform == "csv":
        rows = [["student", "points", "late penalty", "final", "out of", "to be marked by hand"]]
        rows += [
            [
                plain(m.student),
                f"{m.points:g}",
                f"{m.penalty:g}",
                f"{m.final:g}",
                f"{m.out_of:g}",
                str(m.open),
            ]
            for m in found.values()
        ]
        return _csv(rows), ()
    origins = {
        student: about
        for student, about in intake.origins(course, slug).items()
        if about.get("platform") == platform and student in found
    }
    if not origins:
        raise CourseError(
            f"None of these submissions came from {platform.title()}; collect its zip with lesson class collect, or "
            "export with --for csv."
        )
    by_id = {about["id"]: found[student] for student, about in origins.items()}
    comma = ","
    if worksheet is None:
        rows, filled = _fresh(by_id, origins, slug, platform), set(by_id)
    else:
        rows, comma = _read(worksheet)
        filled = _filled(rows, by_id, slug, platform)
    kept = {by_id[number].student for number in filled}
    return _csv(rows, comma), tuple(student for student in found if student not in kept)


def _fresh(
    by_id: Mapping[str, Mark], origins: Mapping[str, Mapping[str, str]], slug: str, platform: str
) -> list[list[str]]:
    """A table that the platform takes without an export of its own: with the columns it asks for, empty or not."""
    about = [(plain(a["name"]), a["id"], f"{by_id[a['id']].final:g}") for a in origins.values()]
    if platform == "moodle":  # "-": never marked before, so nothing newer is overwritten
        heading = ["Identifier", "Full name", "Grade", "Last modified (grade)"]
        return [heading, *([f"Participant {number}", name, mark, "-"] for name, number, mark in about)]
    return [["Student", "ID", "Section", slug], *([name, number, "", mark] for name, number, mark in about)]


def _filled(rows: list[list[str]], by_id: Mapping[str, Mark], slug: str, platform: str) -> set[str]:
    """Marks written into the platform's rows, where they stand; returns the ids that were found."""
    if platform == "moodle":
        number, mark = _columns(rows, ("Identifier", "Grade"), "Moodle's grading worksheet (in English)")
    else:
        (number,) = _columns(rows, ("ID",), "Canvas's gradebook export")
        mark = _lesson_column(rows[0], slug)
    filled = set()
    for row in rows[1:]:
        if len(row) <= max(number, mark):
            continue
        wanted = re.search(r"(\d+)\s*$", row[number])  # Participant 123456
        if wanted and wanted[1] in by_id:
            row[mark] = f"{by_id[wanted[1]].final:g}"
            filled.add(wanted[1])
    return filled


def _lesson_column(heading: list[str], slug: str) -> int:
    """Where Canvas has the lesson: "02_kv_cache (48213)" or "02 KV cache (48213)"."""
    named = [n for n, title in enumerate(heading) if slug in title.replace(" ", "_").lower()]
    if len(named) != 1:
        raise CourseError(
            f"{len(named)} columns of the worksheet have {slug} in their heading; there must be one."
        )
    return named[0]


def feedback_zip(course: Path, slug: str, platform: str) -> tuple[bytes, int]:
    """All feedback pages, named as the platform wants them back, and how many.

    Raises CourseError where there are none.
    """
    pages = {
        page.parent.parent.name: page for page in sorted((course / "feedback").glob(f"*/{slug}/{slug}.html"))
    }
    if not pages:
        raise CourseError(
            f"There is no feedback for {slug} yet; make it with: lesson class feedback {slug[:2]}"
        )
    origins = intake.origins(course, slug)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for student, page in pages.items():
            entry = zipfile.ZipInfo(
                _returned(student, origins.get(student, {}), platform, f"{slug}-feedback.html")
            )
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, page.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue(), len(pages)


def _returned(student: str, origin: Mapping[str, str], platform: str, name: str) -> str:
    """What a page is called on its way back: as the submission was called on its way here."""
    if platform == "moodle" and origin.get("platform") == "moodle":
        return f"{origin['name']}_{origin['id']}_assignsubmission_file_/{name}"
    if platform == "canvas" and origin.get("platform") == "canvas":
        who = [origin["name"], "LATE" if origin.get("late") else "", origin["id"], origin["submission"], name]
        return "_".join(filter(None, who))
    return f"{student}/{name}"


def plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _read(worksheet: bytes) -> tuple[list[list[str]], str]:
    """The rows, and what stands between columns: spreadsheets of many countries write a semicolon."""
    try:
        text = worksheet.decode("utf-8-sig")
        first = text.partition("\n")[0]
        comma = max(",;\t", key=first.count)
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=comma)), comma
    except UnicodeDecodeError:
        raise CourseError("The worksheet is not UTF-8 text; export it again as CSV (UTF-8).") from None
    except csv.Error as error:
        raise CourseError(
            f"The worksheet is no CSV table ({error}); export it again as CSV (UTF-8)."
        ) from None


def _columns(rows: list[list[str]], names: Iterable[str], what: str) -> list[int]:
    heading = rows[0] if rows else []
    missing = [name for name in names if name not in heading]
    if missing:
        raise CourseError(f"The worksheet has no column {missing[0]!r}; {what} has one: export it again.")
    return [heading.index(name) for name in names]


def _csv(rows: Iterable[Iterable[Any]], comma: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=comma, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
