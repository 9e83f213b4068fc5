"""One look at a file: every kind of file and what it gives, and a record that survives a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from facekit.examination import (
    Examined,
    append_rows,
    examine,
    examine_pictures,
    is_current,
    read_rows,
    rewrite,
    stamp,
    thumbnails_of,
)
from facekit.findings import DEFECTS, KINDS
from facekit.images import read_image
from facekit.perceptual_hash import thumbnail
from facekit.quality import PIXELS, measure
from facekit.synthetic import draw_crop


@pytest.fixture(scope="module")
def face() -> PilImage.Image:
    return PilImage.fromarray(draw_crop(seed=2, person=1, picture=0, size=96).image[:, :80])


def test_a_picture_s_row_says_what_is_in_it(tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / "a.jpg")
    row = examine(tmp_path, "a.jpg")
    image = read_image(tmp_path / "a.jpg")
    assert (row.path, row.problem, row.width, row.height) == ("a.jpg", "", 80, 96)
    assert (row.size, row.modified_ns) == stamp(tmp_path / "a.jpg")
    assert row.digest == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()[:32]
    assert row.pixels == tuple(getattr(measure(image), name) for name in PIXELS)
    assert np.array_equal(thumbnails_of([row])[0], thumbnail(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_s_turn_is_applied(orientation: int, tmp_path: Path, face: PilImage.Image):
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    face.save(tmp_path / "a.jpg", exif=exif)
    row = examine(tmp_path, "a.jpg")
    assert (row.width, row.height) == ((80, 96) if orientation <= 4 else (96, 80)) and not row.problem


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("grey.jpg", "L"),
        ("cmyk.jpg", "CMYK"),
        ("alpha.png", "RGBA"),
        ("palette.png", "P"),
        ("sixteen.png", "I;16"),
        ("a.webp", "RGB"),
        ("a.bmp", "RGB"),
        ("a.tif", "RGB"),
        ("Grüße aus 東京.jpg", "RGB"),
        ("with space.JPG", "RGB"),
    ],
)
def test_every_kind_of_picture_is_whole(name: str, mode: str, tmp_path: Path, face: PilImage.Image):
    if mode == "I;16":
        grey = np.asarray(face.convert("L")).astype(np.uint16) * 257
        PilImage.fromarray(grey).save(tmp_path / name)
    else:
        face.convert(mode).save(tmp_path / name)
    row = examine(tmp_path, name)
    assert (row.problem, row.width, row.height) == ("", 80, 96)
    expected = measure(np.asarray(face)).brightness
    assert row.pixels[PIXELS.index("brightness")] == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_cut_file_is_truncated(suffix: str, tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    assert examine(tmp_path, f"a.{suffix}").problem == "truncated"


def png_that_declares(side: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (png_that_declares(60_000), "too_large"),
        (png_that_declares(60), "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "heic"),
        (b"\0\0\0\x18ftypavif" + bytes(100), "heic"),
        (b"RIFF\x10\0\0\0WAVEfmt " + bytes(100), "not_a_picture"),
        (b"P6 2 2 255\n" + bytes(12), "not_a_picture"),
    ],
)
def test_a_defect_has_the_name_of_its_reason(data: bytes, problem: str, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(data)
    assert examine(tmp_path, "a.jpg").problem == problem and problem in DEFECTS and problem in KINDS


def test_a_gif_is_a_picture_as_it_is_in_training(tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.jpg")
    row = examine(tmp_path, "a.jpg")
    assert (row.problem, row.width, row.height) == ("", 80, 96)
    assert np.array_equal(thumbnails_of([row])[0], thumbnail(read_image(tmp_path / "a.jpg")))


def test_a_file_too_large_to_be_read_is_named_so(tmp_path: Path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**29 + 1)
    assert examine(tmp_path, "a.jpg").problem == "too_large"


def test_what_is_no_picture_says_what_it_is(tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["empty.jpg", "text.jpg", "link.jpg", "folder.jpg", "pipe.jpg", "never.jpg"]
    problems = [row.problem for row in examine_pictures(names, tmp_path)]
    assert problems == ["empty", "not_a_picture", *["unreadable"] * 4]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named_so(tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").chmod(0)
    assert examine(tmp_path, "a.jpg").problem == "not_permitted"


def test_permission_denied_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def deny(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert examine(tmp_path, "a.jpg").problem == "not_permitted"


def test_a_link_to_a_picture_is_a_picture(tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    one, two = examine_pictures(["a.jpg", "b.jpg"], tmp_path)
    assert not two.problem and one.digest == two.digest


def rows_of(folder: Path, face: PilImage.Image) -> list[Examined]:
    face.save(folder / 'Zoë, "Z".png')
    shutil.copy(folder / 'Zoë, "Z".png', folder / "b.png")
    (folder / "c.jpg").touch()
    return examine_pictures(['Zoë, "Z".png', "b.png", "c.jpg"], folder)


def test_rows_come_back_as_they_went(tmp_path: Path, face: PilImage.Image):
    rows = rows_of(tmp_path, face)
    append_rows(tmp_path / "files.csv", rows[:1])
    append_rows(tmp_path / "files.csv", rows[1:])
    back = read_rows(tmp_path / "files.csv")
    assert list(back) == [row.path for row in rows]
    for row in rows:
        assert back[row.path].pixels == pytest.approx(row.pixels, abs=1e-5)
        same = (row.size, row.modified_ns, row.problem, row.width, row.height, row.digest, row.thumbnail)
        again = back[row.path]
        assert same == (again.size, again.modified_ns, again.problem, again.width, again.height,
                        again.digest, again.thumbnail)  # fmt: skip


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", "a\r\nb.jpg"])
def test_ends_of_lines_in_names_come_back(name: str, tmp_path: Path):
    rows = [Examined(name, 1, 2, "empty"), Examined("z.jpg", 1, 2, "empty")]
    append_rows(tmp_path / "files.csv", rows)
    assert list(read_rows(tmp_path / "files.csv").values()) == rows


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path: Path):
    name = b"J\xf6rg.jpg".decode("utf-8", "surrogateescape")
    append_rows(tmp_path / "files.csv", [Examined(name, 1, 2, "empty")])
    assert list(read_rows(tmp_path / "files.csv")) == [name]


@pytest.mark.parametrize("lost", [1, 40, 200, 400])
def test_a_row_cut_by_a_kill_is_passed_over(lost: int, tmp_path: Path, face: PilImage.Image):
    rows = rows_of(tmp_path, face)[:2]
    record = tmp_path / "files.csv"
    append_rows(record, rows)
    record.write_bytes(record.read_bytes()[:-lost])
    # The end of line alone may be lost: then the row is whole.
    assert list(read_rows(record)) == [row.path for row in rows[: 2 if lost == 1 else 1]]


def test_of_two_rows_the_later_counts_and_a_rewritten_record_is_sorted(tmp_path: Path):
    record = tmp_path / "files.csv"
    append_rows(record, [Examined("b", 1, 1, "empty"), Examined("a", 1, 1, "empty"), Examined("b", 2, 2, "empty")])
    rows = read_rows(record)
    assert rows["b"].size == 2
    rewrite(record, rows.values())
    assert list(read_rows(record)) == ["a", "b"] and len(record.read_text().splitlines()) == 3


def test_a_changed_file_is_no_longer_current(tmp_path: Path, face: PilImage.Image):
    face.save(tmp_path / "a.jpg")
    row = examine(tmp_path, "a.jpg")
    assert is_current(row, tmp_path, "a.jpg") and not is_current(None, tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    assert not is_current(row, tmp_path, "a.jpg")
