"""dlib's squares become faces with points; a stand-in for dlib where it isn't installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from facekit.detection import MtcnnDetector
from facekit.dlib_detector import DlibDetector
from facekit.images import read_image


class Square(SimpleNamespace):
    """One of dlib's rectangles."""

    def left(self):
        return self.x

    def top(self):
        return self.y

    def width(self):
        return self.side


class Finder:
    """Finds a square of 50 pixels for every 100 of the picture's width, and notes how often to double."""

    def __init__(self):
        self.doublings = []

    def run(self, image, doublings, threshold):
        assert threshold == 0.0 and image.flags.c_contiguous
        self.doublings.append(doublings)
        count = image.shape[1] // 100
        return (
            [Square(x=100 * n, y=10, side=50) for n in range(count)],
            [2.0 - n for n in range(count)],
            [0] * count,
        )


@pytest.fixture
def finder(monkeypatch):
    finder = Finder()
    monkeypatch.setitem(sys.modules, "dlib", SimpleNamespace(get_frontal_face_detector=lambda: finder))
    return finder


def middle(images, boxes):
    """All five points in the middle of the box."""
    assert len(images) == len(boxes) and boxes.dtype == np.float32
    points = np.repeat((boxes[:, :2] + boxes[:, 2:] / 2)[:, None], 5, axis=1)
    return points, np.array([0.95 - 0.1 * n for n in range(len(boxes))], np.float32)


def test_each_picture_gets_its_own_faces(finder):
    images = [np.zeros((80, width, 3), np.uint8) for width in (250, 50, 120)]
    found = DlibDetector(middle).detect(images)
    assert [len(faces) for faces in found] == [2, 0, 1]
    assert [face.box[0] for face in found[0]] == pytest.approx([0.75, 100.75])
    assert found[2][0].box == pytest.approx([0.75, 1.0, 43.8, 59.0])
    # The points lie in a square around the face that is larger than dlib's, and above its middle.
    assert found[0][1].landmarks.shape == (5, 2) and found[0][1].landmarks.dtype == np.float32
    assert found[0][1].landmarks[0] == pytest.approx([100 + 50 * 0.467, 10 + 50 * 0.294], abs=0.1)


def test_confidence_is_the_lower_of_box_and_points(finder):
    faces = DlibDetector(middle).detect([np.zeros((80, 300, 3), np.uint8)])[0]
    assert [face.confidence for face in faces] == pytest.approx([0.95, 0.85, 0.75])
    certain = DlibDetector(lambda images, boxes: (middle(images, boxes)[0], np.ones(len(boxes))))
    assert [face.confidence for face in certain.detect([np.zeros((80, 300, 3), np.uint8)])[0]] == pytest.approx(
        [1, 1 / (1 + np.exp(-11.4)), 1 / (1 + np.exp(-2.4))]
    )


def test_no_face_asks_for_no_points(finder):
    def never(images, boxes):
        raise AssertionError

    assert DlibDetector(never).detect([np.zeros((9, 9, 3), np.uint8)]) == [[]]
    assert DlibDetector(never).detect([]) == []


@pytest.mark.parametrize(("min_face", "doublings"), [(200, 0), (80, 0), (79, 1), (40, 1), (20, 2)])
def test_small_faces_are_found_by_doubling(finder, min_face, doublings):
    DlibDetector(middle, min_face).detect([np.zeros((50, 50, 3), np.uint8)[:, ::-1]])
    assert finder.doublings == [doublings]


@pytest.mark.parametrize("min_face", [0, -1, float("nan")])
def test_a_min_face_of_nothing_is_refused(finder, min_face):
    with pytest.raises(ValueError, match="`min_face` must be above 0 pixels"):
        DlibDetector(middle, min_face)


def test_without_dlib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ValueError, match="Run: pip install dlib-bin"):
        DlibDetector(middle)


def test_the_real_one_agrees_with_mtcnn(photos):
    pytest.importorskip("dlib", reason="dlib is not installed (pip install dlib-bin)")
    images = [read_image(path) for path in sorted(photos.glob("*/*.jpg"))]
    agreed = 0
    for ours, theirs in zip(DlibDetector(middle).detect(images), MtcnnDetector().detect(images), strict=True):
        if ours and theirs:
            low = np.maximum(ours[0].box[:2], theirs[0].box[:2])
            high = np.minimum(ours[0].box[:2] + ours[0].box[2:], theirs[0].box[:2] + theirs[0].box[2:])
            both = float(np.maximum(high - low, 0).prod())
            agreed += both / (float(ours[0].box[2:].prod() + theirs[0].box[2:].prod()) - both) > 0.5
    assert agreed >= len(images) // 2
