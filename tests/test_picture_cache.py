"""Decoded pictures that are kept: what comes back is what was put, or nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from facekit import picture_cache
from facekit.images import encode_jpeg, read_square
from facekit.index import index_people
from facekit.loading import PictureLoader, read_below
from facekit.picture_cache import PICTURES, SUMS, FileCache, MemoryCache, file_stamps, free_memory


@pytest.fixture
def index(crops, tmp_path):
    return index_people(shutil.copytree(crops, tmp_path / "people"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def opened(folder, index, size=32, limit_gb=1.0):
    return FileCache(folder, index, size, limit_gb, file_stamps(index))


def picture(number: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3)).astype(np.uint8)


def test_memory_gives_back_what_was_put():
    cache = MemoryCache(5, 32, 1.0)
    cache.put(3, picture(3))
    np.testing.assert_array_equal(cache.get(3), picture(3))
    assert all(cache.get(other) is None for other in (0, 1, 2, 4))


def test_a_file_gives_back_what_an_earlier_run_put(index, folder):
    first = opened(folder, index)
    for number in (0, 7, 95):
        first.put(number, picture(number))
        np.testing.assert_array_equal(first.get(number), picture(number))
    second = opened(folder, index)
    for number in range(len(index)):
        if number in (0, 7, 95):
            np.testing.assert_array_equal(second.get(number), picture(number))
        else:
            assert second.get(number) is None


def test_black_pictures_are_pictures(index, folder):
    opened(folder, index).put(4, np.zeros((32, 32, 3), np.uint8))
    assert not opened(folder, index).get(4).any()


@pytest.mark.parametrize("part", ["the picture", "its checksum"])
def test_a_write_that_a_crash_cut_short_is_no_picture(index, folder, part):
    cache = opened(folder, index)
    cache.put(2, picture(2))
    cache.put(3, picture(3))
    del cache
    path, place = (folder / PICTURES, 2 * 32 * 32 * 3 + 900) if part == "the picture" else (folder / SUMS, 8)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\0\0\0\0")
    again = opened(folder, index)
    assert again.get(2) is None
    np.testing.assert_array_equal(again.get(3), picture(3))


def test_a_changed_file_is_read_anew(index, folder):
    cache = opened(folder, index)
    cache.put(2, picture(2))
    cache.put(3, picture(3))
    changed = index.root / index.paths[2]
    os.utime(changed, ns=(1, 1))
    again = opened(folder, index)
    assert again.get(2) is None
    np.testing.assert_array_equal(again.get(3), picture(3))


def test_another_index_or_size_begins_anew(index, folder):
    old = opened(folder, index)
    old.put(2, picture(2))
    assert opened(folder, index, size=16).get(2) is None
    np.testing.assert_array_equal(old.get(2), picture(2))  # who had the old file keeps it
    fewer = index.without([index.people[0]])
    cache = opened(folder, fewer)
    assert (folder / PICTURES).stat().st_size == len(fewer) * 32 * 32 * 3
    cache.put(2, picture(2))
    assert opened(folder, index).get(2) is None, "position 2 is another picture now"


def test_as_many_other_pictures_begin_anew(index, folder):
    stamps = np.zeros((len(index), 2), np.int64)
    FileCache(folder, index, 32, 1.0, stamps).put(2, picture(2))
    (index.root / index.paths[0]).rename(index.root / index.people[0] / "z.jpg")
    assert FileCache(folder, index_people(index.root), 32, 1.0, stamps).get(2) is None


def test_a_checksum_of_zero_is_one_too(index, folder, monkeypatch):
    monkeypatch.setattr(picture_cache.zlib, "crc32", lambda data, start=0: 0)
    opened(folder, index).put(2, picture(2))
    np.testing.assert_array_equal(opened(folder, index).get(2), picture(2))
    assert opened(folder, index).get(3) is None


@pytest.mark.parametrize("damage", ["no marker", "marker cut", "pictures cut"])
def test_a_damaged_folder_begins_anew(index, folder, damage):
    opened(folder, index).put(2, picture(2))
    if damage == "no marker":
        (folder / picture_cache.MARKER).unlink()
    elif damage == "marker cut":
        (folder / picture_cache.MARKER).write_text('{"version"')
    else:
        with (folder / PICTURES).open("r+b") as file:
            file.truncate(1000)
    assert opened(folder, index).get(2) is None
    assert json.loads((folder / picture_cache.MARKER).read_text())["pictures"] == len(index)


def test_what_does_not_fit_is_refused_before_anything_is_written(index, folder, monkeypatch):
    with pytest.raises(ValueError, match=r"96 decoded pictures of 32 px take 0\.000295 GB, more than `cache_gb` 0"):
        MemoryCache(96, 32, 0.0001)
    with pytest.raises(ValueError, match="more than `cache_gb` 0.0002"):
        opened(folder, index, limit_gb=0.0002)
    monkeypatch.setattr(picture_cache, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r'memory has 1e-06 GB free. Set `cache` to "file" or "none"'):
        MemoryCache(96, 32, 1.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r'the disk of `cache_dir` has .* GB free. Set `cache` to "none"'):
        opened(folder, index)
    assert not (folder / PICTURES).exists()


def test_free_memory_is_a_part_of_the_machines():
    free = free_memory()
    assert free is None or 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_stamps_tell_files_apart_and_lost_ones(index):
    before = file_stamps(index)
    path = index.root / index.paths[1]
    path.write_bytes(encode_jpeg(picture(0)))
    (index.root / index.paths[5]).unlink()
    after = file_stamps(index)
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [1, 5]
    assert after[5].tolist() == [-1, -1] and after[1, 0] == path.stat().st_size


def test_a_second_run_reads_no_file_and_gives_the_same(index, folder):
    positions = np.random.default_rng(0).integers(len(index), size=(6, 7))
    first = PictureLoader(index, 32, cache=opened(folder, index)).load(positions)

    def nothing(path):
        raise AssertionError("read again")

    second = PictureLoader(index, 32, read=nothing, cache=opened(folder, index)).load(positions)
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(first[0, 0], read_square(index.root / index.paths[positions[0, 0]], 32))


def test_pictures_that_fail_are_not_kept(index, folder):
    path, whole = index.root / index.paths[0], read_below(index.root, index.paths[0])
    path.write_bytes(b"broken")
    cache = opened(folder, index)
    PictureLoader(index, 32, cache=cache).load(np.array([0]))
    assert cache.get(0) is None
    path.write_bytes(whole)
    images = PictureLoader(index, 32, cache=opened(folder, index)).load(np.array([0]))
    np.testing.assert_array_equal(images[0], read_square(path, 32))


def test_files_that_are_mapped_are_never_cut(index, tmp_path, monkeypatch):
    """A second run that does not see the cache yet makes another one; the first goes on with its own."""
    stamps = file_stamps(index)
    first = FileCache(tmp_path / "cache", index, 32, 1.0, stamps)
    picture = np.full((32, 32, 3), 7, np.uint8)
    first.put(0, picture)
    monkeypatch.setattr(picture_cache, "_is_ours", lambda folder, marker: False)
    second = FileCache(tmp_path / "cache", index, 32, 1.0, stamps)
    assert second.get(0) is None
    np.testing.assert_array_equal(first.get(0), picture)
