"""Downloads as they really come: repacked, half broken, out of order, from people whose names are alike."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grader import intake

from .test_intake import BOOK, LOG, SLUG, submitted, taken, zipped

FILE = "assignsubmission_file_"


def gathered(tmp_path: Path, members: dict[str, bytes], **date) -> intake.Gathered:
    return intake.gather(zipped(tmp_path / "download.zip", members, **date), SLUG)


@pytest.mark.parametrize("around", ["", "download/", "a/b/"])
def test_a_folder_around_everything_is_nobody(tmp_path, around):
    members = {f"{around}Ada_1_{FILE}/{BOOK}": b"ada", f"{around}Bob_2_{FILE}/{BOOK}": b"bob"}
    assert taken(gathered(tmp_path, members)) == {"ada": {BOOK: "ada"}, "bob": {BOOK: "bob"}}


def test_a_mac_packs_a_class(tmp_path):
    members = {
        f"class/ada/{BOOK}": b"ada",
        f"class/bob/{SLUG}/{BOOK}": b"bob",
        f"class/bob/{SLUG}/{LOG}": b"log",
        f"__MACOSX/class/ada/._{BOOK}": b"fork",
        "class/.DS_Store": b"x",
    }
    found = gathered(tmp_path, members)
    assert taken(found) == {"ada": {BOOK: "ada"}, "bob": {BOOK: "bob", LOG: "log"}} and not found.complaints


def test_windows_writes_its_own_slashes(tmp_path):
    inside = zipped(tmp_path / "in.zip", {f"x\\{BOOK}": b"cyd"}).read_bytes()
    members = {
        f"Ada_1_{FILE}\\{BOOK}": b"ada",
        f"bob\\{BOOK}": b"bob",
        f"cyd\\{SLUG}.submission-1.zip": inside,
    }
    assert taken(gathered(tmp_path, members)) == {name: {BOOK: name} for name in ("ada", "bob", "cyd")}


def test_a_download_that_the_browser_unpacked(tmp_path):
    folder = tmp_path / f"Ada Lovelace_12_{FILE}"
    folder.mkdir()
    (folder / BOOK).write_bytes(b"ada")
    (tmp_path / f"zola_77_88_{BOOK}").write_bytes(b"zola")
    found = intake.gather(tmp_path, SLUG)
    assert taken(found) == {"ada-lovelace": {BOOK: "ada"}, "zola-77": {BOOK: "zola"}}
    assert {h.origin["id"] for h in found.handed} == {"12", "77"}


def test_a_checkpoint_is_not_what_was_handed_in(tmp_path):
    members = {
        f"ada/{BOOK}": b"real",
        f"ada/.ipynb_checkpoints/{SLUG}-checkpoint.ipynb": b"an hour ago",
    }
    assert taken(gathered(tmp_path, members)) == {"ada": {BOOK: "real"}}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("homework.ipynb", b"x", "nothing is called 02_kv_cache"),
        (f"{SLUG}.zip", "nested", f"there is no {BOOK} in it"),
        (f"{SLUG}.zip", "garbled", "it is damaged"),
        (f"{SLUG}.zip", "locked", "it is locked with a password"),
        (BOOK, bytes(intake.LARGEST + 1), "it is larger than 40 MiB"),
    ],
)
def test_what_cannot_be_used_is_told_by_name(tmp_path, name, data, told):
    if isinstance(data, str):
        data = spoilt(tmp_path, data)
    found = gathered(tmp_path, {f"Bob_2_{FILE}/{name}": data, f"Ada_1_{FILE}/{BOOK}": b"ada"})
    assert taken(found) == {"ada": {BOOK: "ada"}}
    assert [c for c in found.complaints if c.startswith("bob: ") and told in c]


def spoilt(tmp_path: Path, how: str) -> bytes:
    path = tmp_path / "spoilt.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if how == "nested":
            archive.writestr(f"{SLUG}.zip", submitted("x"))
        else:
            archive.writestr(BOOK, b"hello world " * 500)
    data = bytearray(path.read_bytes())
    start = data.find(BOOK.encode()) + len(BOOK)
    if how == "garbled":
        data[start + 5 : start + 25] = b"\xff" * 20
    if how == "locked":
        data[6] |= 1
        data[data.find(b"PK\1\2") + 8] |= 1
    return bytes(data)


def test_a_garbled_entry_costs_itself_only(tmp_path):
    place = tmp_path / "outer.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"bob/{BOOK}", b"hello world " * 500)
        archive.writestr(f"ada/{BOOK}", b"ada")
    data = bytearray(place.read_bytes())
    start = data.find(BOOK.encode()) + len(BOOK)
    data[start + 5 : start + 25] = b"\xff" * 20
    place.write_bytes(data)
    found = intake.gather(place, SLUG)
    assert taken(found) == {"ada": {BOOK: "ada"}} and "bob" in found.complaints[0]


def test_names_that_are_nearly_alike_are_different_students(tmp_path):
    names = ["王-1", "李-1", "محمد", "😀", "Ada", "ada", "x" * 200 + "1", "x" * 200 + "2"]
    found = gathered(tmp_path, {f"{name}/{BOOK}": name.encode() for name in names})
    assert sorted(files[BOOK] for files in taken(found).values()) == sorted(names)
    assert any("Ada, ada are taken for different students" in c for c in found.complaints)


DAY = datetime(2026, 3, 5, tzinfo=UTC)


def moodle(number: str, text: str, when: datetime = DAY) -> intake.Handed:
    origin = {"platform": "moodle", "name": "Ada", "id": number}
    return intake.Handed("ada", {BOOK: text.encode()}, when, origin)


def test_an_older_download_does_not_replace_a_newer_one(tmp_path):
    new, old = moodle("1", "new"), moodle("1", "old", DAY - timedelta(days=1))
    assert intake.keep(tmp_path, SLUG, intake.Gathered((new,), ())) == {"ada": "new"}
    for _ in range(2):
        assert intake.keep(tmp_path, SLUG, intake.Gathered((old,), ())) == {"ada": "older"}
    folder = tmp_path / "submitted" / "ada" / SLUG
    assert (folder / BOOK).read_text() == "new" and "03-05" in (folder / "timestamp.txt").read_text()
    assert [p.read_text() for p in folder.glob(f"{BOOK}.before-*")] == ["old"]


def test_a_namesake_who_comes_later_takes_nobodys_place(tmp_path):
    """Each alone in a zip, then both, then another lesson: everybody under one name."""
    for hand in ("1", "2"):
        intake.keep(tmp_path, SLUG, intake.Gathered((moodle(hand, hand),), ()))
    members = {f"Ada_{n}_{FILE}/{BOOK}": f"{n} again".encode() for n in (1, 2)}
    intake.keep(tmp_path, SLUG, gathered(tmp_path, members, date=(2026, 4, 1, 12, 0, 0)))
    there = {p.parts[-3]: p.read_text() for p in tmp_path.glob(f"submitted/*/{SLUG}/{BOOK}")}
    assert there == {"ada": "1 again", "ada-2": "2 again"}
    assert {s: a["id"] for s, a in intake.origins(tmp_path, SLUG).items()} == {"ada": "1", "ada-2": "2"}
    other = intake.Gathered((moodle("2", "other lesson"),), ())
    assert intake.keep(tmp_path, "03_other", other) == {"ada-2": "new"}
