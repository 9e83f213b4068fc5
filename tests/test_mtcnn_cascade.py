"""The whole cascade against the `mtcnn` package, one picture at a time, and what it does beyond the package."""

from __future__ import annotations

import numpy as np
import pytest

from apps.bench_crop import PackageMtcnn, agreement
from facekit.detection import MtcnnDetector
from facekit.images import read_image
from facekit.mtcnn_cascade import Cascade, Faces, scales
from facekit.mtcnn_networks import ProposalNetwork


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade()


@pytest.fixture(scope="module")
def package():
    from mtcnn import MTCNN

    return MTCNN()


@pytest.fixture(scope="module")
def pictures(photos):
    return [read_image(path) for path in sorted(photos.glob("*/*.jpg"))]


def assert_same(found: Faces, image, package) -> None:
    """Same faces in the same order; boxes, scores and landmarks before rounding."""
    wanted = package.detect_faces(image, output_type="numpy", box_format="xyxy")
    assert len(found.boxes) == len(wanted)
    if len(wanted):
        np.testing.assert_allclose(found.boxes, wanted[:, 1:5], atol=0.01)
        np.testing.assert_allclose(found.scores, wanted[:, 5], atol=1e-4)
        np.testing.assert_allclose(found.landmarks, wanted[:, 6:].reshape(-1, 2, 5).transpose(0, 2, 1), atol=0.01)


def test_drawn_photos_give_the_packages_faces(cascade, package, pictures):
    for image in pictures[::2]:
        found = cascade(image)
        assert len(found.boxes) >= 1
        assert_same(found, image, package)


def test_any_size_gives_the_packages_faces(cascade, package, pictures):
    one, two, three = pictures[0], pictures[5], pictures[9]
    side_by_side = np.concatenate([one, two], axis=1)
    assert len(cascade(side_by_side).boxes) >= 2
    cut = three[30:181, 17:230]
    doubled = np.kron(two, np.ones((2, 2, 1), np.uint8))
    for image in (side_by_side, cut, doubled, one[:, 100:], np.concatenate([one, two, three, one], axis=1)[40:220]):
        assert_same(cascade(image), image, package)


def test_faces_cut_by_the_edge_and_upside_down_are_the_packages(cascade, package, pictures):
    image = pictures[2]
    left, top, right, bottom = cascade(image).boxes[0].astype(int)
    across, down = (right - left) // 5, (bottom - top) // 5
    parts = [image[:, left + across :], image[:, : right - across], image[top + down :], image[: bottom - down]]
    assert sum(len(cascade(part).boxes) for part in parts) >= 3
    for part in (*parts, image[::-1]):
        assert_same(cascade(part), part, package)


def test_noise_and_flat_pictures_are_answered_as_by_the_package(cascade, package, rng):
    grey = np.repeat(rng.integers(0, 256, (200, 240, 1), dtype=np.uint8), 3, axis=2)
    colour = rng.integers(0, 256, (120, 90, 3), dtype=np.uint8)
    for image in (grey, colour, np.full((150, 150, 3), 255, np.uint8), np.full((99, 180, 3), 77, np.uint8)):
        assert_same(cascade(image), image, package)


@pytest.mark.parametrize("shape", [(1, 1), (12, 12), (20, 20), (1, 500), (11, 400), (30, 1500), (1500, 21)])
def test_tiny_and_very_wide_pictures_pass(cascade, rng, shape):
    found = cascade(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    assert found.boxes.shape == (0, 4) and found.landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize("side", [20, 21, 22, 25, 33, 64, 250, 251, 1000, 3000])
def test_scales_are_the_packages(side):
    from mtcnn.utils.images import build_scale_pyramid

    wanted = build_scale_pyramid(side + 40, side, min_face_size=20, scale_factor=0.709)
    np.testing.assert_allclose(scales(side, side + 40, 20), wanted, rtol=1e-12)


@pytest.mark.parametrize("min_face", [12, 15, 20, 27.5, 40, 80, 200])
def test_every_level_fits_the_first_network_and_the_last_is_almost_as_small(min_face):
    for side in range(12, 2000, 7):
        levels = [int(side * scale) for scale in scales(side, 3000, min_face)]
        assert all(level >= 12 for level in levels)
        if levels:
            assert levels[0] == int(side * 12 / min_face) and levels[-1] <= 17
        else:
            assert side < 1.7 * min_face


def test_of_nested_faces_the_surer_stays_inside_the_picture(monkeypatch):
    nested = np.array([[10.0, 10, 70, 70], [20, 20, 50, 50], [75, 60, 110, 95]])
    cascade = Cascade()
    monkeypatch.setattr(cascade, "_proposals", lambda image: nested)
    monkeypatch.setattr(cascade, "_refined", lambda image, boxes: boxes)
    scores, points = np.array([0.85, 0.95, 0.9], np.float32), np.full((3, 2, 5), 0.5, np.float32)
    monkeypatch.setattr(cascade, "_output", lambda crops: (scores, np.zeros((3, 4), np.float32), points))
    found = cascade(np.zeros((90, 100, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[20, 20, 50, 50], [75, 60, 99, 89]])
    np.testing.assert_allclose(found.scores, [0.95, 0.9])
    np.testing.assert_allclose(found.landmarks[0], np.full((5, 2), 20 + 31 / 2 - 1))


def test_min_face_finds_the_large_and_leaves_the_small(pictures):
    large = pictures[0]
    small = large[::4, ::4]
    image = np.concatenate([large, np.pad(small, ((0, len(large) - len(small)), (0, 20), (0, 0)))], axis=1)
    usual, coarse = Cascade()(image), Cascade(min_face=60)(image)
    assert len(usual.boxes) == 2 and len(coarse.boxes) == 1
    wanted = usual.boxes[np.argmax(usual.boxes[:, 2] - usual.boxes[:, 0])]
    np.testing.assert_allclose(coarse.boxes[0], wanted, atol=5)


def test_min_face_of_the_package_finds_nothing_where_ours_does(package, pictures):
    assert package.detect_faces(pictures[0], min_face_size=60) == []
    assert len(Cascade(min_face=60)(pictures[0]).boxes) == 1


def test_less_is_computed_with_a_larger_min_face(pictures, monkeypatch):
    pixels = []
    original = ProposalNetwork.__call__

    def counted(self, picture, threshold):
        pixels.append(picture[0].size)
        return original(self, picture, threshold)

    monkeypatch.setattr(ProposalNetwork, "__call__", counted)
    Cascade()(pictures[0])
    usual = sum(pixels)
    pixels.clear()
    Cascade(min_face=40)(pictures[0])
    assert sum(pixels) < usual / 3


@pytest.mark.parametrize("min_face", [11.9, 0, -20, float("nan")])
def test_a_min_face_below_the_networks_size_is_refused(min_face):
    with pytest.raises(ValueError, match=r"`min_face` must be at least 12 pixels.*Received"):
        Cascade(min_face)


def test_the_packages_rounding_is_ours(pictures):
    ours, theirs = (detector.detect(pictures[:8]) for detector in (MtcnnDetector(), PackageMtcnn()))
    same = agreement(ours, theirs)
    assert same.further == 0 and len(same.overlap) == same.total >= 8
    # A coordinate may lie on the border between two whole pixels.
    assert min(same.overlap) > 0.97 and max(same.distance) <= 0.5


@pytest.mark.lfw
def test_500_lfw_pictures_give_the_packages_faces(cascade, package, lfw):
    paths = sorted((lfw / "images").glob("*/*.jpg"))
    paths = paths[:: len(paths) // 500][:500]
    for path in paths:
        image = read_image(path)
        assert_same(cascade(image), image, package)
