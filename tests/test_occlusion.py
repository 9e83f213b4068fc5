"""Masks, sunglasses and hands lie where the template says that the parts of a face are."""

from __future__ import annotations

import numpy as np
import pytest

from facekit import occlusion
from facekit.alignment import LAYOUTS, template

MIDDLE = 0.5
PARTS = {"mask": (occlusion.mask, 9), "sunglasses": (occlusion.sunglasses, 8), "hand": (occlusion.hand, 8)}
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = range(5)


def covered(name, strength, draws, margin=0.0, size=112, layout="arcface") -> np.ndarray:
    """(size, size) bool, where a picture of a strange colour is changed by more than a shadow's share."""
    function, _ = PARTS[name]
    image = np.full((size, size, 3), (60, 255, 60), np.uint8)
    out = function(image, strength, draws, margin, layout)
    assert out.shape == image.shape and out.dtype == np.uint8 and (image == (60, 255, 60)).all()
    return np.abs(out[..., 1].astype(int) - 255) + np.abs(out[..., 0].astype(int) - 60) > 40


def at(hidden, point) -> bool:
    """Whether a point, x then y in pixels, is hidden."""
    x, y = np.rint(point).astype(int)
    return bool(hidden[y, x])


def many(name, strength, margin=0.0, size=112, count=60, layout="arcface"):
    draws = np.random.default_rng(5).random((count, PARTS[name][1])).tolist()
    return [covered(name, strength, row, margin, size, layout) for row in draws]


@pytest.mark.parametrize("size", [64, 112, 200])
@pytest.mark.parametrize("margin", [0.0, 0.4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_hides_mouth_and_nose_and_no_eye(layout, margin, size):
    points = template(size, margin, layout)
    for hidden in many("mask", 0.9, margin, size, layout=layout):
        assert at(hidden, points[LEFT_MOUTH]) and at(hidden, points[RIGHT_MOUTH]) and at(hidden, points[NOSE])
        assert not at(hidden, points[LEFT_EYE]) and not at(hidden, points[RIGHT_EYE])
        # It lies about the nose, not about the picture's middle or corner.
        assert abs(np.flatnonzero(hidden.any(axis=0)).mean() - points[NOSE, 0]) < 0.08 * size / (1 + 2 * margin)


@pytest.mark.parametrize("size", [64, 112, 200])
@pytest.mark.parametrize("margin", [0.0, 0.4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sunglasses_hide_both_eyes_and_neither_nose_nor_mouth(layout, margin, size):
    points = template(size, margin, layout)
    for hidden in many("sunglasses", 1.0, margin, size, layout=layout):
        assert at(hidden, points[LEFT_EYE]) and at(hidden, points[RIGHT_EYE])
        assert not at(hidden, points[NOSE]) and not at(hidden, points[LEFT_MOUTH])
        assert 0.2 < hidden.sum() / np.sum((points[RIGHT_EYE] - points[LEFT_EYE]) ** 2) < 2.5


def test_a_hand_reaches_as_far_as_its_strength():
    nose = template(112)[NOSE]
    for strength, low, high in ((1.5, 0.9, 1.0), (0.2, 0.0, 0.0)):
        # Fingers may point beside the nose: a small patch about it counts.
        x, y = np.rint(nose).astype(int)
        hits = np.mean([hidden[y - 6 : y + 7, x - 6 : x + 7].any() for hidden in many("hand", strength)])
        assert low <= hits <= high, strength
    shares = [np.mean([hidden.mean() for hidden in many("hand", strength)]) for strength in (0.4, 0.8, 1.2)]
    assert shares == sorted(shares) and shares[0] < 0.5 * shares[2]


def test_a_hand_comes_from_the_sides_and_from_below_never_from_above():
    edges = np.array(
        [[h[0].any(), h[:, 0].any(), h[:, -1].any(), h[-1].any()] for h in many("hand", 1.0, count=200)]
    )
    top, left, right, bottom = edges.mean(axis=0)
    assert min(left, right, bottom) > 0.2 and edges.any(axis=1).all() and top < 0.12


def test_there_are_left_and_right_hands():
    # Straight from below, so that one is the mirror image of the other about the middle between the eyes.
    left, right = (
        covered("hand", 1.2, [MIDDLE, MIDDLE, MIDDLE, MIDDLE, side, MIDDLE, MIDDLE, MIDDLE], 0.4, 224)
        for side in (0, 0.9)
    )
    middle = template(224, 0.4)[:2, 0].mean()
    columns = np.arange(60, 160)
    mirrored = np.rint(2 * middle - columns).astype(int)
    assert (left[:, columns] != right[:, mirrored]).mean() < 0.02
    assert (left[:, columns] != right[:, columns]).mean() > 0.04


def test_a_mask_reaches_higher_with_its_strength():
    draws = [MIDDLE] * 9
    tops = [np.flatnonzero(covered("mask", s, draws)[:, 56])[0] for s in (0.0, 0.3, 0.6, 0.9)]
    eyes, mouth = template(112)[0, 1], template(112)[3, 1]
    assert tops == sorted(tops, reverse=True)
    assert tops[0] == pytest.approx(mouth, abs=2)
    assert tops[3] == pytest.approx(mouth - 0.9 * 0.85 * (mouth - eyes), abs=2)


def test_sunglasses_take_light_by_their_strength():
    points = template(112)
    x, y = np.rint(points[LEFT_EYE] + [0, 8]).astype(int)
    image = np.full((112, 112, 3), 200, np.uint8)
    values = [int(occlusion.sunglasses(image, s, [1 - 1e-9, *[MIDDLE] * 7], 0.0)[y, x].mean()) for s in (0, 0.5, 1)]
    assert values[0] == 200 and 100 < values[1] < 140 and values[2] < 60


@pytest.mark.parametrize("name", PARTS)
def test_every_draw_of_the_range_paints(name):
    function, count = PARTS[name]
    image = np.full((64, 64, 3), 120, np.uint8)
    for row in (np.zeros(count), np.full(count, 1 - 1e-12)):
        out = function(image, 0.9, row.tolist(), 0.0)
        assert (out != image).any()


@pytest.mark.parametrize("name", PARTS)
def test_places_and_looks_differ_from_picture_to_picture(name):
    function, count = PARTS[name]
    image = np.full((64, 64, 3), 120, np.uint8)
    draws = np.random.default_rng(2).random((30, count)).tolist()
    pictures = [function(image, 0.9, row, 0.0) for row in draws]
    assert len({picture.tobytes() for picture in pictures}) == 30
    colours = [picture[(picture != image).any(axis=2)].mean(axis=0) for picture in pictures]
    assert np.std(colours, axis=0).min() > 8


@pytest.mark.parametrize("name", ["mask", "sunglasses"])
def test_things_are_a_little_off_their_place(name):
    def middle(across, down):
        draws = [MIDDLE, across, down, *[MIDDLE] * (PARTS[name][1] - 3)]
        return np.argwhere(covered(name, 0.9, draws, 0.4, 224)).mean(axis=0)

    eyes = np.ptp(template(224, 0.4)[:2, 0])
    np.testing.assert_allclose(middle(0.9, 0.5) - middle(0.1, 0.5), [0, 0.08 * eyes], atol=1)
    np.testing.assert_allclose(middle(0.5, 0.9) - middle(0.5, 0.1), [0.08 * eyes, 0], atol=1)


@pytest.mark.parametrize("name", PARTS)
def test_things_are_lit_as_the_face_is(name):
    function, count = PARTS[name]
    draws = [MIDDLE] * count
    half = np.full((112, 112, 3), 170, np.uint8)
    half[:, 56:] = 50
    out, even = function(half, 1.0, draws, 0.0).astype(int), function(np.full_like(half, 170), 1.0, draws, 0.0)
    changed = (np.abs(even.astype(int) - 170) > 40).any(axis=2) & (np.abs(out - half) > 5).any(axis=2)
    left, right = out[:, :40][changed[:, :40]].mean(), out[:, 72:][changed[:, 72:]].mean()
    even_left, even_right = even[:, :40][changed[:, :40]].mean(), even[:, 72:][changed[:, 72:]].mean()
    assert right / even_right < 0.85 * left / even_left


def test_a_wide_picture_gets_its_things_at_the_same_shares():
    square, wide = np.full((100, 100, 3), 120, np.uint8), np.full((100, 150, 3), 120, np.uint8)
    rows = [occlusion.sunglasses(image, 1.0, [MIDDLE] * 8, 0.0) != 120 for image in (square, wide)]
    middles = [np.argwhere(changed.any(axis=2)).mean(axis=0) / changed.shape[:2] for changed in rows]
    np.testing.assert_allclose(*middles, atol=0.03)
