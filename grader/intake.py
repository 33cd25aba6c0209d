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
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lessonlib import files
from lessonlib.course import CourseError

from . import guard
from .owners import may_be, numbered, placed, steps, student_id, whose

LARGEST = 40 * 2**20  # bytes of one member of an archive
MOST = 20_000  # members of one archive

_NUMBER = re.compile(r"submission-(\d+)")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)


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
    """Lay what was gathered into nbgrader's ``submitted``: {student: "new", "newer", "older" or "as before"}.

    What lay there is never lost: a replaced file is kept beside it, under a numbered name. So is one that is older than
    what is there, which stays. Somebody the learning platform has shown before keeps the name given then.
    """
    gathered = replace(gathered, handed=tuple(_settled(course, gathered.handed)))
    _remember(course, slug, gathered)  # first: a run that is killed must not forget whose these are
    done = {}
    for handed in gathered.handed:
        folder = course / "submitted" / handed.student / slug
        folder.mkdir(parents=True, exist_ok=True)
        wanted = dict(handed.files)
        if handed.when:
            wanted["timestamp.txt"] = _stamp(handed.when)
        there = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in wanted}
        changed = [name for name, data in wanted.items() if there.get(name) != data]
        if changed and _is_older(handed, there):
            for name in handed.files:
                if name in changed:
                    _set_aside(folder / name, wanted[name])
            done[handed.student] = "older"
            continue
        done[handed.student] = "newer" if there and changed else "new" if changed else "as before"
        for name in changed:
            if name in there and name != "timestamp.txt":
                _set_aside(folder / name, there[name])
            files.replace(folder / name, wanted[name])
    return done


def _stamp(when: datetime) -> bytes:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC").encode()


def _is_older(handed: Handed, there: Mapping[str, bytes]) -> bool:
    """Whether what lies there was handed in after this."""
    before = there.get("timestamp.txt", b"").decode("ascii", "replace").strip()
    if handed.when is None or not before:
        return False
    try:
        moment = datetime.strptime(before, "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=UTC)
    except ValueError:
        return False
    return handed.when < moment


def _settled(course: Path, handed: Iterable[Handed]) -> Iterator[Handed]:
    """Everybody under one name for the whole course, whoever else is in this zip."""
    names: dict[tuple[str, str], str] = {}
    for path in sorted((course / ".grading" / "roster").glob("*.json")):
        for student, about in origins(course, path.stem).items():
            names.setdefault(_person(about), student)
    owners = {student: person for person, student in names.items()}
    for one in handed:
        person = _person(one.origin)
        if not all(person):
            yield one
            continue
        student = names.get(person, one.student)
        if owners.get(student, person) != person:
            student = f"{student}-{person[1]}"
        names[person], owners[student] = student, person
        yield replace(one, student=student)


def _person(about: Mapping[str, str]) -> tuple[str, str]:
    return about.get("platform", ""), about.get("id", "")


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
    """Something that was handed in: whose (``folder``: as it was called), named what, and how to read it."""

    student: str
    folder: str
    name: str
    read: Callable[[], bytes]
    when: datetime | None
    origin: Mapping[str, str]


def _from_folder(place: Path, slug: str) -> Iterator[_File | str]:
    found = []
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found.append((path.relative_to(place).parts, path))
        elif path.is_symlink() or not path.is_dir():
            yield f"{path.relative_to(place)} is a link or no ordinary file, so it was not read."
    for parts, path in placed(found, slug):
        yield _owned(parts, slug, partial(_limited, path), None)


def _from_archive(archive: zipfile.ZipFile, slug: str) -> Iterator[_File | str]:
    members = archive.infolist()
    if len(members) > MOST:
        raise CourseError(f"The zip has {len(members):,} entries, more than the {MOST:,} that are read.")
    found = [(steps(member.filename), member) for member in members if not member.is_dir()]
    for parts, member in placed(found, slug):
        yield _owned(parts, slug, partial(_member, archive, member), _dated(member))


def _owned(
    parts: tuple[str, ...], slug: str, read: Callable[[], bytes], when: datetime | None
) -> _File | str:
    for start in range(len(parts)):  # the platform's own name, in whatever folder it was unpacked
        if found := whose("/".join(parts[start:])):
            student, file, origin = found
            if origin["platform"] == "moodle" or may_be(file, slug):
                return _File(student, student, file, read, when, origin)
    if len(parts) < 2:
        return f"{parts[0]} does not say whose it is; put it into a folder with the student's name."
    return _File(student_id(parts[0]), parts[0], parts[-1], read, when, {})


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
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
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
    complaints = [item for item in found if isinstance(item, str)]
    handed_in = _told_apart([item for item in found if isinstance(item, _File)], complaints)
    best: dict[str, tuple[tuple[int, int], Handed]] = {}
    unused: dict[str, list[str]] = {}
    for item in handed_in:
        if not may_be(item.name, slug):
            unused.setdefault(item.student, []).append(item.name)
            continue
        try:
            contents = _opened(item, slug)
        except (ValueError, *_DAMAGED) as error:
            complaints.append(f"{item.student}: {item.name} cannot be used ({_reason(error)}).")
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
    complaints += [
        f"{name}: nothing is called {slug}, so nothing was taken (there: {', '.join(names[:3])})."
        for name, names in sorted(unused.items())
        if name not in best and not any(c.startswith(f"{name}: ") for c in complaints)
    ]
    return Gathered(handed, tuple(complaints))


def _told_apart(items: list[_File], complaints: list[str]) -> Iterator[_File]:
    """Two people stay two, whether the platform has them by one name or their folders differ by little."""
    namesakes = _namesakes(items)
    folders: dict[str, set[str]] = {}
    for item in items:
        if not item.origin:
            folders.setdefault(item.student, set()).add(item.folder)
    for student, names in sorted(folders.items()):
        if len(names) > 1:
            told = ", ".join(sorted(names))
            complaints.append(
                f"{student}: the folders {told} are taken for different students; see submitted/."
            )
    for item in items:
        if item.student in namesakes and item.origin:
            item = replace(item, student=f"{item.student}-{item.origin['id']}")
        elif len(folders.get(item.student, ())) > 1 and item.folder != item.student:
            item = replace(item, student=numbered(item.student, item.folder))
        yield item


def _reason(error: Exception) -> str:
    if "encrypted" in str(error):
        return "it is locked with a password"
    return str(error) if isinstance(error, ValueError) else f"it is damaged: {error}"


def _namesakes(found: Iterable[_File]) -> set[str]:
    """Names that two different people of the platform have."""
    ids: dict[str, set[str]] = {}
    for item in found:
        if "id" in item.origin:
            ids.setdefault(item.student, set()).add(item.origin["id"])
    return {student for student, several in ids.items() if len(several) > 1}


def _opened(item: _File, slug: str) -> dict[str, bytes]:
    """The lesson's files in what was handed in. Raises ValueError, half a sentence, or one of _DAMAGED."""
    data = item.read()
    if item.name.endswith(".log.jsonl"):
        return {f"{slug}.log.jsonl": data}
    if item.name.endswith(".ipynb"):
        return {f"{slug}.ipynb": data}
    wanted = {f"{slug}.ipynb", f"{slug}.log.jsonl"}
    contents = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist()[:MOST]:
            name = next(reversed(steps(member.filename)), "")
            if name in wanted and name not in contents and not member.is_dir():
                with archive.open(member) as file:
                    contents[name] = file.read(guard.LIMIT + 1)
    if not contents:
        raise ValueError(f"there is no {slug}.ipynb in it")
    return contents


def _set_aside(path: Path, data: bytes) -> None:
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.before-{number}")
        try:
            files.create(aside, data)
            return
        except FileExistsError:
            if aside.is_file() and aside.read_bytes() == data:  # kept already
                return
            number += 1


def _remember(course: Path, slug: str, gathered: Gathered) -> None:
    known = origins(course, slug) | {h.student: dict(h.origin) for h in gathered.handed if h.origin}
    path = _roster(course, slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False).encode())


def _roster(course: Path, slug: str) -> Path:
    return course / ".grading" / "roster" / f"{slug}.json"
