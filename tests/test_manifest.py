"""The record of a folder of crops: what is written comes back, whatever the names and whoever was killed."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from facekit import manifest
from facekit.detection import Face, Finding
from facekit.manifest import COLUMNS, Row

BOX = np.array([89.25, 63, 1088.5, 131], np.float32)
POINTS = np.arange(10, dtype=np.float32).reshape(5, 2) + 0.5
NAMES = [
    "a/1.jpg",
    'a/comma, quote".jpg',
    "a/new\nline.jpg",
    "a/re\rturn.jpg",
    "人/é ☕.jpg",
    "a/caf\udce9.jpg",
    "-x.jpg",
    "=1+1.jpg",
]


def found(path: str, size: int = 7) -> Row:
    return Row.of(path, path, Finding(Face(BOX, 0.998444, POINTS), 2), size, 1795365419903573046)


def test_a_row_comes_back_whole(tmp_path):
    failed = Row.of("b/2.jpg", "", Finding(None, 0, "no_face"), 5, 6)
    manifest.append_rows(tmp_path, [found("a/1.jpg")])
    manifest.append_rows(tmp_path, [failed])
    rows = manifest.read(tmp_path)
    assert rows == {"a/1.jpg": found("a/1.jpg"), "b/2.jpg": failed}
    face = rows["a/1.jpg"].face
    assert face is not None and face.confidence == 0.998444
    np.testing.assert_array_equal(face.box, BOX)
    np.testing.assert_array_equal(face.landmarks, POINTS)
    assert failed.face is None and rows["b/2.jpg"].reason == "no_face"


def test_the_file_is_plain_csv(tmp_path):
    manifest.rewrite(tmp_path, [found("b.jpg"), found("a.jpg")])
    with (tmp_path / "manifest.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    assert tuple(header) == COLUMNS and [first[0], second[0]] == ["a.jpg", "b.jpg"]
    named = dict(zip(header, first, strict=True))
    assert (named["faces"], named["confidence"], named["x"], named["width"]) == (
        "2",
        "0.998444",
        "89.25",
        "1088.50",
    )
    assert (named["left_eye_x"], named["mouth_right_y"], named["modified_ns"]) == (
        "0.50",
        "9.50",
        "1795365419903573046",
    )


def test_any_name_comes_back(tmp_path):
    rows = [found(name) for name in NAMES]
    manifest.append_rows(tmp_path, rows)
    assert list(manifest.read(tmp_path)) == NAMES
    manifest.rewrite(tmp_path, rows)
    assert set(manifest.read(tmp_path)) == set(NAMES)


def test_many_rows_are_written_in_parts_and_in_order(tmp_path):
    names = [f"{number:05d}.jpg" for number in range(20_001)]
    manifest.rewrite(tmp_path, [found(name) for name in reversed(names)])
    assert list(manifest.read(tmp_path)) == names


def test_the_last_row_of_a_picture_counts(tmp_path):
    manifest.append_rows(tmp_path, [found("a.jpg", 1), found("b.jpg"), found("a.jpg", 2)])
    assert manifest.read(tmp_path)["a.jpg"].bytes == 2


@pytest.mark.parametrize("left", [1, 30, 80])
def test_a_cut_row_is_passed_over_and_known(tmp_path, left):
    manifest.append_rows(tmp_path, [found("a.jpg")])
    assert not manifest.is_cut(tmp_path)
    whole = (tmp_path / "manifest.csv").read_bytes()
    manifest.append_rows(tmp_path, [found("b.jpg")])
    (tmp_path / "manifest.csv").write_bytes((tmp_path / "manifest.csv").read_bytes()[: len(whole) + left])
    assert list(manifest.read(tmp_path)) == ["a.jpg"]
    assert manifest.is_cut(tmp_path)


def test_no_manifest_and_an_empty_one_hold_nothing(tmp_path):
    assert manifest.read(tmp_path) == {} and not manifest.is_cut(tmp_path)
    (tmp_path / "manifest.csv").touch()
    assert manifest.read(tmp_path) == {} and not manifest.is_cut(tmp_path)


def test_rows_are_small():
    import tracemalloc

    lines = [found(f"{number:07d}/0001.jpg").cells() for number in range(2000)]
    tracemalloc.start()
    rows = [Row.from_cells(line) for line in lines]
    size = tracemalloc.get_traced_memory()[0] / len(rows)
    tracemalloc.stop()
    assert size < 600  # with two arrays a face it is 1,100
