"""What was handed in is taken from anywhere, whole, once, and nothing else comes along."""

from __future__ import annotations

import io
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader import intake
from lessonlib.classroom.submission import pack
from lessonlib.course import CourseError

from ..engine.conftest import QUIET

SLUG = "02_kv_cache"
BOOK, LOG = f"{SLUG}.ipynb", f"{SLUG}.log.jsonl"


def submitted(text: str, log: str = "") -> bytes:
    """What `lesson submit` writes."""
    packed = {BOOK: text.encode()} | ({LOG: log.encode()} if log else {})
    return pack(packed, SLUG, "1", datetime(2026, 1, 1, tzinfo=UTC))


def zipped(path: Path, members: dict[str, bytes], date=(2026, 3, 1, 12, 0, 0)) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, date), data)
    return path


def taken(gathered: intake.Gathered) -> dict[str, dict[str, str]]:
    return {h.student: {name: data.decode() for name, data in h.files.items()} for h in gathered.handed}


def test_moodles_zip(tmp_path):
    place = zipped(
        tmp_path / "moodle.zip",
        {
            f"Ada Lovelace_101_assignsubmission_file_/{SLUG}.submission-1.zip": submitted("old"),
            f"Ada Lovelace_101_assignsubmission_file_/{SLUG}.submission-2.zip": submitted("new", "answers"),
            f"Émile Zola_102_assignsubmission_file_{BOOK}": b"emile",
            f"Émile Zola_102_assignsubmission_file_{LOG}": b"log",
            "Bob_103_assignsubmission_file_/essay.pdf": b"%PDF",
            "Cyd_104_assignsubmission_onlinetext_/onlinetext.html": b"<p>",
        },
    )
    found = intake.gather(place, SLUG)
    assert taken(found) == {
        "ada-lovelace": {BOOK: "new", LOG: "answers"},
        "emile-zola": {BOOK: "emile", LOG: "log"},
    }
    assert found.handed[0].origin == {"platform": "moodle", "name": "Ada Lovelace", "id": "101"}
    assert found.handed[0].when is not None
    assert [c.partition(":")[0] for c in found.complaints] == ["bob", "cyd"], "nobody is left out in silence"


def test_canvas_zip(tmp_path):
    place = zipped(
        tmp_path / "canvas.zip",
        {
            f"lovelaceada_LATE_4321_98765_{SLUG}.submission-3.zip": submitted("ada"),
            f"zolaemile_77_88_{SLUG}-1.ipynb": b"emile",
            f"group_one_79_90_{BOOK}": b"group",
            f"anon_x7Kq2_91_{BOOK}": b"nobody",
            f"LATE_anon_b3Zz9_92_{BOOK}": b"late nobody",
        },
    )
    found = intake.gather(place, SLUG)
    assert taken(found) == {
        "lovelaceada-4321": {BOOK: "ada"},
        "zolaemile-77": {BOOK: "emile"},
        "group-one-79": {BOOK: "group"},
        "anon-x7kq2": {BOOK: "nobody"},
        "anon-b3zz9": {BOOK: "late nobody"},
    }
    late = {h.student: h.origin.get("late") for h in found.handed}
    assert late["lovelaceada-4321"] == late["anon-b3zz9"] == "yes" and late["zolaemile-77"] is None
    assert {h.student: h.origin["submission"] for h in found.handed}["lovelaceada-4321"] == "98765"


def test_a_folder(tmp_path):
    for name, data in {
        f"ada/{SLUG}.submission-1.zip": submitted("ada"),
        f"bob/{BOOK}": b"bob",
        f"cyd/{SLUG}/{BOOK}": b"cyd",
        f"cyd/{SLUG}/{LOG}": b"log",
        "cyd/01_generation/01_generation.ipynb": b"other",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / BOOK).symlink_to(tmp_path / "bob" / BOOK)
    found = intake.gather(tmp_path, SLUG)
    assert taken(found) == {"ada": {BOOK: "ada"}, "bob": {BOOK: "bob"}, "cyd": {BOOK: "cyd", LOG: "log"}}


def test_what_is_no_ordinary_file_is_told_and_not_read(tmp_path):
    for student in ("ada", "mal"):
        (tmp_path / "in" / student).mkdir(parents=True)
    (tmp_path / "in" / "ada" / BOOK).write_text("ada")
    (tmp_path / "secret").write_text("not for mal")
    (tmp_path / "in" / "mal" / BOOK).symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "in" / "mal" / LOG)
    found = intake.gather(tmp_path / "in", SLUG)
    assert taken(found) == {"ada": {BOOK: "ada"}}
    assert [c.split(" is ")[0] for c in found.complaints] == [f"mal/{BOOK}", f"mal/{LOG}"]


def test_two_of_one_name_stay_two(tmp_path):
    members = {f"Ada L_{n}_assignsubmission_file_/{BOOK}": str(n).encode() for n in (1, 2)}
    assert taken(intake.gather(zipped(tmp_path / "m.zip", members), SLUG)) == {
        "ada-l-1": {BOOK: "1"},
        "ada-l-2": {BOOK: "2"},
    }


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(BOOK, bytes(300 * 2**20))
    return buffer.getvalue()


def test_hostile_archives_cost_themselves_only(tmp_path):
    members = {
        f"Good_1_assignsubmission_file_/{BOOK}": b"good",
        f"../../Evil_2_assignsubmission_file_/{BOOK}": b"evil",
        f"/etc/{BOOK}": b"etc",
        f"Bomb_3_assignsubmission_file_/{SLUG}.submission-1.zip": bomb(),
        f"Broken_4_assignsubmission_file_/{SLUG}.submission-1.zip": b"PK\x03\x04 nothing",
        f"Paths_5_assignsubmission_file_/{SLUG}.submission-1.zip": zipped(
            tmp_path / "in.zip", {f"../../../{BOOK}": b"in", "../x": b"out"}
        ).read_bytes(),
    }
    found = intake.gather(zipped(tmp_path / "m.zip", members), SLUG)
    assert taken(found)["good"] == {BOOK: "good"} and taken(found)["paths"] == {BOOK: "in"}
    assert all(set("/\\").isdisjoint(h.student) and h.student not in ("", ".", "..") for h in found.handed)
    assert len(found.handed[0].files[BOOK]) <= intake.LARGEST
    assert [c for c in found.complaints if "broken" in c and "damaged" in c]
    assert max(len(data) for h in found.handed for data in h.files.values()) <= 21 * 2**20
    intake.keep(tmp_path / "course", SLUG, found)
    kept = {p.resolve() for p in (tmp_path / "course").rglob("*") if p.is_file()}
    assert all((tmp_path / "course") in p.parents for p in kept)


def test_what_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"hello")
    for place in (tmp_path / "x.zip", tmp_path / "nothing"):
        with pytest.raises(CourseError, match="neither a folder nor a zip"):
            intake.gather(place, SLUG)


def test_collected_twice_is_collected_once_and_nothing_is_lost(tmp_path):
    course = tmp_path / "course"
    first = intake.Gathered((intake.Handed("ada", {BOOK: b"one"}, datetime(2026, 1, 1, tzinfo=UTC)),), ())
    assert intake.keep(course, SLUG, first) == {"ada": "new"}
    tree = {p: p.read_bytes() for p in course.rglob("*") if p.is_file()}
    assert intake.keep(course, SLUG, first) == {"ada": "as before"}
    assert {p: p.read_bytes() for p in course.rglob("*") if p.is_file()} == tree
    for text in (b"two", b"three"):
        assert intake.keep(course, SLUG, intake.Gathered((intake.Handed("ada", {BOOK: text}),), ())) == {
            "ada": "newer"
        }
    folder = course / "submitted" / "ada" / SLUG
    assert (folder / BOOK).read_bytes() == b"three"
    assert sorted(p.read_bytes() for p in folder.glob(f"{BOOK}.before-*")) == [b"one", b"two"]
    assert (folder / "timestamp.txt").read_text() == "2026-01-01 00:00:00.000000 UTC"


@QUIET
@given(st.text(max_size=90))
def test_a_students_folder_is_a_plain_name(name):
    found = intake.student_id(name)
    assert found and found not in (".", "..") and len(found) <= 60 and found == found.lower()
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789.@-") and intake.student_id(name) == found


def test_a_damaged_roster_is_no_roster(tmp_path):
    path = tmp_path / ".grading" / "roster" / f"{SLUG}.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[1]"):
        path.write_text(text)
        assert intake.origins(tmp_path, SLUG) == {}
