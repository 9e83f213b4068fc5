"""The benchmark of a folder's index: its folders are like CASIA-WebFace, and are gone afterwards."""

from __future__ import annotations

import os

import numpy as np
import pytest

from apps import bench_index
from apps.bench_index import IndexBench, counts_like_casia, make_tree
from facekit.images import read_image
from facekit.index import index_people


@pytest.mark.parametrize("pictures", [3740, 5000, 10_000, 494_414])
def test_people_have_unequal_numbers_of_pictures(pictures):
    counts = counts_like_casia(pictures)
    assert counts.sum() == pictures and len(counts) == round(pictures / 46.7531)
    assert counts.min() >= 2 and counts.max() <= 800 and counts.max() > 4 * np.median(counts)
    np.testing.assert_array_equal(counts, counts_like_casia(pictures))


def test_too_small_a_folder_is_refused():
    with pytest.raises(ValueError, match="`pictures` must be at least 3740, for 80 people. Received: 3000"):
        next(bench_index.bench_index(IndexBench(pictures=(10_000, 3000))))


def test_what_the_system_forbids_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_index, "CACHES", tmp_path / "none")
    with pytest.raises(ValueError, match="`cold` must write .*none, which this system or user does not allow"):
        next(bench_index.bench_index(IndexBench(cold=True)))


def test_a_tree_is_of_readable_pictures(tmp_path):
    make_tree(tmp_path, np.array([2, 3]))
    index = index_people(tmp_path)
    assert index.counts.tolist() == [2, 3]
    assert all(read_image(tmp_path / path).shape == (8, 8, 3) for path in index.paths)


def test_a_table_has_a_column_a_folder_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_index, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(bench_index, "PEOPLE_A_BATCH", 4)
    before = dict(os.environ)
    lines = list(bench_index.bench_index(IndexBench(pictures=(400, 500), folder=tmp_path, batches=2)))
    assert lines[1] == "| pictures | 400 | 500 |" and lines[3] == "| people | 9 | 11 |"
    assert len(lines) == 22 and all(line.count("|") == 4 for line in lines[1:])
    assert not list(tmp_path.iterdir()) and dict(os.environ) == before
