"""What was handed in, from wherever it lies: a folder, or the zip that Moodle or Canvas gives an instructor.

From an archive only the lesson's own two files are taken, by their exact names and up to a size: no paths, no links, no
surprise. What cannot be read is told by name and costs nobody else. A student's newest file counts.

    Moodle   Ada Lovelace_123456_assignsubmission_file_/02_kv_cache.submission-2.zip   (with or without the /)
    Canvas   lovelaceada_LATE_4321_98765_02_kv_cache.submission-2.zip, or anon_x7Kq2_98765_… where it hides names
    folder   ada/02_kv_cache.submission-2.zip, ada/02_kv_cache.ipynb, or nbgrader's ada/02_kv_cache/02_kv_cache.ipynb
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from lessonlib import files
from lessonlib.course import CourseError

from . import guard

LARGEST = 40 * 2**20  # bytes of one member of an archive
MOST = 20_000  # members of one archive

_MOODLE = re.compile(r"(?P<name>[^/]+)_(?P<id>\d+)_assignsubmission_file_?(?:/|_)?(?P<file>[^/]+)")
_CANVAS = re.compile(
    r"(?:(?P<name>(?!LATE_|anon_)[^/]+?)_)?(?P<late>LATE_)?(?P<id>\d+|anon_[^\W_]+)_(?P<submission>\d+)_(?P<file>[^/]+)"
)
_NUMBER = re.compile(r"submission-(\d+)")


@dataclass(frozen=True)
class Handed:
    """One student's lesson. ``origin``: what the learning platform calls it, for the way back."""

    student: str
    files: Mapping[str, bytes]
    when: datetime | None = None
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """What an archive or folder held. ``complaints``: a sentence about each thing that could not be used."""

    handed: tuple[Handed, ...]
    complaints: tuple[str, ...]


def gather(place: Path, slug: str) -> Gathered:
    """All submissions of a lesson in a zip or a folder. Raises CourseError where it is neither."""
    if place.is_dir():
        return _sorted(_from_folder(place, slug), slug)
    try:
        with zipfile.ZipFile(place) as archive:
            return _sorted(_from_archive(archive, slug), slug)
    except (OSError, zipfile.BadZipFile):
        raise CourseError(
            f"{place} is neither a folder nor a zip that can be read; download the submissions again."
        ) from None


def keep(course: Path, slug: str, gathered: Gathered) -> dict[str, str]:
    """Lay what was gathered into nbgrader's ``submitted``: {student: "new", "newer" or "as before"}.

    What lay there is never lost: a replaced file is kept beside it, under a numbered name.
    """
    done = {}
    for handed in gathered.handed:
        folder = course / "submitted" / handed.student / slug
        folder.mkdir(parents=True, exist_ok=True)
        wanted = dict(handed.files)
        if handed.when:
            wanted["timestamp.txt"] = (
                handed.when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC").encode()
            )
        there = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in wanted}
        changed = [name for name, data in wanted.items() if there.get(name) != data]
        done[handed.student] = "newer" if there and changed else "new" if changed else "as before"
        for name in changed:
            if name in there and name != "timestamp.txt":
                _set_aside(folder / name, there[name])
            files.replace(folder / name, wanted[name])
    _remember(course, slug, gathered)
    return done


def origins(course: Path, slug: str) -> dict[str, dict[str, str]]:
    """What the learning platform calls each student's submission, as it was when it was collected."""
    try:
        found = json.loads(_roster(course, slug).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- folders and archives


@dataclass(frozen=True)
class _File:
    """Something that may be a submission: whose, called what, and how to read it."""

    student: str
    name: str
    data: bytes
    when: datetime | None
    origin: Mapping[str, str]


def _from_folder(place: Path, slug: str) -> Iterator[_File | str]:
    for path in sorted(place.rglob("*")):
        if path.is_symlink() or not path.is_file() or not _may_be(path.name, slug):
            continue
        parts = path.relative_to(place).parts
        if len(parts) < 2:
            yield from _named(path.name, path, slug)
            continue
        try:
            yield _File(student_id(parts[0]), path.name, _limited(path), None, {})
        except ValueError as error:
            yield f"{'/'.join(parts)} {error}."


def _named(name: str, path: Path, slug: str) -> Iterator[_File | str]:
    """A file that lies in the folder itself: it must say whose it is, as a learning platform's does."""
    if (whose := _whose(name)) is None:
        yield f"{name} does not say whose it is; put it into a folder with the student's name."
        return
    student, file, origin = whose
    if _may_be(file, slug):
        yield _File(student, file, _limited(path), None, origin)


def _from_archive(archive: zipfile.ZipFile, slug: str) -> Iterator[_File | str]:
    members = archive.infolist()
    if len(members) > MOST:
        raise CourseError(f"The zip has {len(members):,} entries, more than the {MOST:,} that are read.")
    for member in members:
        if member.is_dir():
            continue
        if (whose := _whose(member.filename)) is None:
            parts = PurePosixPath(member.filename).parts
            if len(parts) < 2 or not _may_be(parts[-1], slug):
                continue
            whose = student_id(parts[0]), parts[-1], {}
        student, file, origin = whose
        if not _may_be(file, slug):
            continue
        try:
            yield _File(student, file, _member(archive, member), _dated(member), origin)
        except (
            ValueError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
        ) as error:
            yield f"{member.filename} cannot be read ({error})."


def _whose(name: str) -> tuple[str, str, dict[str, str]] | None:
    """(student, file, origin) of a name that a learning platform gave."""
    if found := _MOODLE.fullmatch(name):
        origin = {"platform": "moodle", "name": found["name"], "id": found["id"]}
        return student_id(found["name"]), found["file"], origin
    if found := _CANVAS.fullmatch(name):
        origin = {
            "platform": "canvas",
            "name": found["name"] or "",
            "id": found["id"],
            "submission": found["submission"],
        }
        return (
            student_id(f"{found['name'] or ''}-{found['id']}"),
            found["file"],
            origin | ({"late": "yes"} if found["late"] else {}),
        )
    return None


def _may_be(name: str, slug: str) -> bool:
    """Whether a file's name may be a submission of this lesson: what `lesson submit` writes, or the two files."""
    stem = re.escape(slug)
    return (
        re.fullmatch(rf"{stem}(\.submission-\d+|[-\w ()]*)?\.(zip|ipynb)|{stem}[-\w ()]*\.log\.jsonl", name)
        is not None
    )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    return data


def _limited(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"is larger than {LARGEST // 2**20} MiB")
    return data


def _dated(member: zipfile.ZipInfo) -> datetime | None:
    """When the entry says it was written: Moodle puts the time of submission there (local time, no zone)."""
    try:
        return datetime(*member.date_time).astimezone(UTC) if member.date_time[0] > 1980 else None
    except (ValueError, OverflowError, OSError):
        return None


# ---------------------------------------------------------------- from files to submissions


def _sorted(found: Iterable[_File | str], slug: str) -> Gathered:
    found = list(found)
    complaints: list[str] = []
    namesakes = _namesakes(item for item in found if isinstance(item, _File))
    best: dict[str, tuple[tuple[int, int], Handed]] = {}
    for item in found:
        if isinstance(item, str):
            complaints.append(item)
            continue
        try:
            contents = _opened(item, slug)
        except ValueError as error:
            complaints.append(f"{item.student}: {item.name} cannot be used ({error}).")
            continue
        if item.student in namesakes:
            item = replace(item, student=f"{item.student}-{item.origin['id']}")
        if not contents:
            continue
        number = int(found_number[1]) if (found_number := _NUMBER.search(item.name)) else 0
        moment = int(item.when.timestamp()) if item.when else 0
        before = best.get(item.student)
        if before and number == 0 and before[0][0] == 0:  # notebook and log as two files belong together
            contents = {**before[1].files, **contents}
        rank = (number, moment)
        if before is None or rank >= before[0]:
            best[item.student] = rank, Handed(item.student, contents, item.when, item.origin)
    handed = tuple(best[name][1] for name in sorted(best))
    without = [h.student for h in handed if f"{slug}.ipynb" not in h.files]
    complaints += [f"{name}: there is no {slug}.ipynb." for name in without]
    return Gathered(handed, tuple(complaints))


def _namesakes(found: Iterable[_File]) -> set[str]:
    """Names that two different people of the platform have."""
    ids: dict[str, set[str]] = {}
    for item in found:
        if "id" in item.origin:
            ids.setdefault(item.student, set()).add(item.origin["id"])
    return {student for student, several in ids.items() if len(several) > 1}


def _opened(item: _File, slug: str) -> dict[str, bytes]:
    """The lesson's files in what was handed in. Raises ValueError, half a sentence."""
    if item.name.endswith(".log.jsonl"):
        return {f"{slug}.log.jsonl": item.data}
    if item.name.endswith(".ipynb"):
        return {f"{slug}.ipynb": item.data}
    wanted = {f"{slug}.ipynb", f"{slug}.log.jsonl"}
    contents = {}
    try:
        with zipfile.ZipFile(io.BytesIO(item.data)) as archive:
            for member in archive.infolist()[:MOST]:
                name = PurePosixPath(member.filename).name
                if name in wanted and name not in contents and not member.is_dir():
                    with archive.open(member) as file:
                        contents[name] = file.read(guard.LIMIT + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"the zip is damaged: {error}") from None
    return contents


def student_id(name: str) -> str:
    """A folder's name for a student: letters, digits, ``-`` and ``.``; never empty, never a path."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^A-Za-z0-9.@-]+", "-", plain).strip("-.")[:60]
    return cleaned.lower() or f"student-{zlib.crc32(name.encode()):08x}"


def _set_aside(path: Path, data: bytes) -> None:
    number = 1
    while True:
        try:
            files.create(path.with_name(f"{path.name}.before-{number}"), data)
            return
        except FileExistsError:
            number += 1


def _remember(course: Path, slug: str, gathered: Gathered) -> None:
    known = origins(course, slug) | {h.student: dict(h.origin) for h in gathered.handed if h.origin}
    path = _roster(course, slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False).encode())


def _roster(course: Path, slug: str) -> Path:
    return course / ".grading" / "roster" / f"{slug}.json"
