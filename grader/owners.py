"""What files are called on their way from a student to an instructor, and whose they are by that."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from typing import TypeVar

Thing = TypeVar("Thing")

_MOODLE = re.compile(
    r"(?P<name>[^/]+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext|comments)_?(?:/|_)?(?P<file>[^/]+)"
)
_CANVAS = re.compile(
    r"(?:(?P<name>(?!LATE_|anon_)[^/]+?)_)?(?P<late>LATE_)?(?P<id>\d+|anon_[^\W_]+)_(?P<submission>\d+)_(?P<file>[^/]+)"
)


def student_id(name: str) -> str:
    """A folder's name for a student: letters, digits, ``-`` and ``.``; never empty, never a path.

    Where letters had to go (another script, a very long name), a number made from the whole name tells people apart.
    """
    spelled = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in spelled if not unicodedata.combining(letter))
    cleaned = re.sub(r"[^A-Za-z0-9.@-]+", "-", plain.encode("ascii", "ignore").decode()).strip("-.").lower()
    if not cleaned:
        return f"student-{zlib.crc32(name.encode()):08x}"
    return cleaned if plain.isascii() and len(cleaned) <= 60 else numbered(cleaned, name)


def numbered(plain: str, name: str) -> str:
    """A student's plain name, told apart from others by the name it was made from."""
    return f"{plain[:51].rstrip('-.')}-{zlib.crc32(name.encode()):08x}"


def whose(name: str) -> tuple[str, str, dict[str, str]] | None:
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


def may_be(name: str, slug: str) -> bool:
    """Whether a file's name may be a submission of this lesson: what `lesson submit` writes, or the two files."""
    stem = re.escape(slug)
    return (
        re.fullmatch(rf"{stem}(\.submission-\d+|[-\w ()]*)?\.(zip|ipynb)|{stem}[-\w ()]*\.log\.jsonl", name)
        is not None
    )


def steps(name: str) -> tuple[str, ...]:
    """The names of a path, as Windows or anybody else writes it; nothing that leads elsewhere."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def placed(found: Iterable[tuple[tuple[str, ...], Thing]], slug: str) -> list[tuple[tuple[str, ...], Thing]]:
    """What counts of a download, without the folder that a packing program put around everything."""
    seen = [
        (parts, thing)
        for parts, thing in found
        if parts and "__MACOSX" not in parts and not any(part.startswith(".") for part in parts)
    ]
    mine = [_without(parts, slug) for parts, _ in seen if may_be(parts[-1], slug)]
    around = {parts[0] for parts in mine}
    deep = all(len(parts) > 2 for parts in mine)
    if deep and len(around) == 1 and len({parts[1] for parts in mine}) > 1:
        seen = [(parts[len(parts) > 1 and parts[0] in around :], thing) for parts, thing in seen]
    return seen


def _without(parts: tuple[str, ...], slug: str) -> tuple[str, ...]:
    """nbgrader's ada/02_kv_cache/02_kv_cache.ipynb is ada/02_kv_cache.ipynb."""
    return (*parts[:-2], parts[-1]) if len(parts) > 1 and parts[-2] == slug else parts
