"""How faces are matched between detectors, and that the benchmark counts what its processes find."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest

from apps import bench_crop
from apps.bench_crop import Contender, CropBench, PackageMtcnn, _line, _pictures, agreement
from facekit.detection import Face, MtcnnDetector


def face(x, side=40.0, points=0.0) -> Face:
    return Face(np.array([x, 0, side, side], np.float32), 0.9, np.full((5, 2), points, np.float32))


def test_the_same_faces_agree_wholly():
    same = agreement([[face(0), face(100)], []], [[face(100), face(0)], []])
    assert (same.total, same.further) == (2, 0)
    assert same.overlap == [1, 1] and same.distance == [0, 0]


def test_a_face_is_matched_once_by_the_best_and_others_are_further():
    same = agreement([[face(4), face(1, points=3)]], [[face(0)]])
    assert same.overlap == pytest.approx([39 / 41]) and same.distance == pytest.approx([3 * 2**0.5])
    assert (same.total, same.further) == (1, 1)


def test_missed_and_half_overlapping_faces_are_not_found():
    same = agreement([[], [face(20)], [face(7)]], [[face(0)], [face(0)], []])
    assert (same.total, same.further, same.overlap) == (2, 2, [])


def test_processes_share_the_pictures_and_answer_in_order(photos):
    settings = CropBench(images=photos, pictures=5)
    with ExitStack() as stack:
        one, two = Contender("one", MtcnnDetector), Contender("two", partial(MtcnnDetector, min_face=30), 2)
        for contender in (one, two):
            contender.start(settings, stack)
            contender.run()
    same = agreement(two.found, one.found)
    assert len(one.found) == len(two.found) == 5 and len(same.overlap) == same.total >= 5
    assert 20 < one.peak < 500 and one.cpu[0] > 0 and one.wall[0] > 0
    cells = _line(two, one, 5).split(" | ")
    assert cells[0] == "| two" and cells[4] == f"{same.total} of {same.total}" and cells[5] == "0"


def test_pictures_are_evenly_spaced_in_the_folder(photos):
    paths = sorted(photos.rglob("*.jpg"))
    assert len(_pictures(CropBench(images=photos, pictures=4))) == 4
    assert len(_pictures(CropBench(images=photos, pictures=1000))) == len(paths)


@pytest.mark.parametrize("installed", [True, False])
def test_rows_are_of_several_smallest_faces_and_dlib_where_it_is_installed(installed, monkeypatch):
    monkeypatch.setattr(bench_crop, "find_spec", lambda name: object() if name == "dlib" and installed else None)
    contenders = {one.name: one.make for one in bench_crop._contenders(CropBench(min_faces=(40, 80)))}
    assert [contenders[f"ours, faces from {side} px"].keywords["min_face"] for side in (40, 80)] == [40, 80]
    assert ("dlib, boxes only" in contenders) == installed


def test_a_large_photo_has_a_table_of_its_own(monkeypatch):
    monkeypatch.setattr(bench_crop, "LARGE_SIDE", 200)
    lines = list(bench_crop._of_large_photo(CropBench(rounds=1, min_faces=(150,))))
    assert "photo of 200 x 200 pixels" in lines[0]
    ours, wide = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:])
    assert ours[0] == "ours" and int(ours[3]) >= 1 and wide[0] == "ours, faces from 150 px"
    assert 20 < float(ours[4]) < 500


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no readable picture.*--images"):
        _pictures(CropBench(images=tmp_path))


def test_the_package_is_asked_by_equal_size(monkeypatch):
    asked = []

    class Network:
        def detect_faces(self, images):
            asked.append([image.shape[1] for image in images])
            return [[] for _ in images]

    detector = PackageMtcnn.__new__(PackageMtcnn)
    detector._network, detector._batch_size = Network(), 2
    assert detector.detect([np.zeros((5, width, 3), np.uint8) for width in (7, 8, 7, 7)]) == [[], [], [], []]
    assert asked == [[7, 7], [7], [8]]
