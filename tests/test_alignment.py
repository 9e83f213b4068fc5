"""Alignment against geometry worked out by hand and an independent least-squares solver."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facekit.alignment import LAYOUTS, TEMPLATE, CropRecipe, align, crop_box, similarity_transform, template, warp


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_an_exact_similarity_is_found(rng):
    for _ in range(20):
        matrix = similarity(rng.uniform(-3, 3), rng.uniform(0.2, 5), tuple(rng.uniform(-99, 99, 2)))
        points = rng.uniform(0, 100, (5, 2))
        np.testing.assert_allclose(similarity_transform(points, moved(points, matrix)), matrix, atol=1e-9)


def test_noisy_points_give_the_least_squares_solution(rng):
    source, target = rng.uniform(0, 100, (5, 2)), rng.uniform(0, 100, (5, 2))
    # x' = a x - b y + c, y' = b x + a y + d: a plain linear least-squares problem in (a, b, c, d).
    rows = [[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.r_[target[:, 0], target[:, 1]], rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, c], [b, a, d]], atol=1e-9)


def test_weights_count_squared_distances(rng):
    source, target, weights = rng.uniform(0, 100, (5, 2)), rng.uniform(0, 100, (5, 2)), rng.uniform(0.1, 5, 5)
    rows = np.array([[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source])
    root = np.sqrt(np.tile(weights, 2))
    a, b, c, d = np.linalg.lstsq(rows * root[:, None], root * target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target, weights), [[a, -b, c], [b, a, d]], atol=1e-9)


def test_the_close_layout_is_dlibs_made_larger_around_the_middle():
    near, far = LAYOUTS["dlib_close"], LAYOUTS["dlib"]
    np.testing.assert_allclose(near.points - 74.5, 1.04 * (far.points - 74.5), atol=0.01)
    assert (near.side, near.weights[:2], near.weights[3:]) == (far.side, (4, 4), (1, 1))


def test_a_mouth_that_opens_moves_the_eyes_less_where_they_count_more():
    near = LAYOUTS["dlib_close"]
    points = near.points.copy()
    points[3:, 1] += 12  # pixels: the jaw drops
    crops = (
        align(dotted(points, 150), points, 150, layout="dlib_close"),
        warp(dotted(points, 150), points, near.points, (1, 1, 1, 1, 1), 150),
    )
    weighted, alike = (np.linalg.norm(spots(crop)[:2] - near.points[:2], axis=1).mean() for crop in crops)
    assert 0 < weighted < 0.75 * alike


def test_points_in_one_place_are_refused():
    with pytest.raises(ValueError, match="all lie in one point"):
        similarity_transform(np.ones((5, 2)), TEMPLATE)


def dotted(points: np.ndarray, side: int) -> np.ndarray:
    """A black picture with a soft white spot on each point."""
    image = np.zeros((side, side, 3), np.uint8)
    for x, y in points:
        cv2.circle(
            image, (round(x * 16), round(y * 16)), round(side / 60 * 16), (255, 255, 255), -1, cv2.LINE_AA, 4
        )
    return image


def spots(image: np.ndarray) -> np.ndarray:
    """Centres of the white spots, from top to bottom and left to right."""
    _, _, _, centres = cv2.connectedComponentsWithStats((image[:, :, 0] > 100).astype(np.uint8))
    return np.array(sorted(centres[1:].tolist(), key=lambda p: (round(p[1] / 12), p[0])))


@pytest.mark.parametrize("scale", [0.7, 1.5, 6.0])
@pytest.mark.parametrize(("size", "margin"), [(112, 0.0), (160, 0.0), (112, 0.25)])
def test_landmarks_land_on_the_template(scale, size, margin):
    side = int(260 * scale)
    points = moved(TEMPLATE, similarity(0.3, scale, (60 * scale, 30 * scale)))
    crop = align(dotted(points, side), points.astype(np.float32), size, margin)
    assert crop.shape == (size, size, 3)
    np.testing.assert_allclose(spots(crop), template(size, margin), atol=1.0)


def test_a_large_face_is_shrunk_without_aliasing():
    side = 1120
    stripes = np.zeros((side, side, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = align(stripes, (TEMPLATE * 10).astype(np.float32))
    assert np.ptp(crop[20:-20, 20:-20]) <= 4


def test_weights_count_after_shrinking_too():
    near = LAYOUTS["dlib_close"].points
    points = (near * 8).astype(np.float32)
    points[3:, 1] += 100
    crop = align(dotted(points, 1200), points, 150, layout="dlib_close")
    small = align(dotted(points / 4, 300), points / 4, 150, layout="dlib_close")
    np.testing.assert_allclose(spots(crop), spots(small), atol=0.8)
    alike = warp(dotted(points, 1200), points, near, (1, 1, 1, 1, 1), 150)
    assert np.abs(spots(crop) - spots(alike)).max() > 1.5


def test_the_template_scales_and_takes_margin():
    np.testing.assert_allclose(template(224), TEMPLATE * 2, rtol=1e-6)
    centre = np.array([56, 56])
    np.testing.assert_allclose(template(112, 0.5) - centre, (TEMPLATE - centre) / 2, atol=1e-4)


def test_a_box_becomes_a_square_around_its_centre():
    image = np.arange(100 * 100, dtype=np.uint32).reshape(100, 100, 1).repeat(3, axis=2) % 251
    image = image.astype(np.uint8)
    np.testing.assert_array_equal(crop_box(image, np.array([30, 20, 40, 40]), 40), image[20:60, 30:70])
    np.testing.assert_array_equal(crop_box(image, np.array([40, 20, 20, 40]), 40), image[20:60, 30:70])
    np.testing.assert_array_equal(crop_box(image, np.array([40, 30, 20, 20]), 40, 0.5), image[20:60, 30:70])


def test_a_box_beyond_the_edge_is_filled_with_black():
    crop = crop_box(np.full((50, 50, 3), 9, np.uint8), np.array([-10, -10, 20, 20]), 20)
    assert (crop[:10] == 0).all() and (crop[:, :10] == 0).all() and (crop[10:, 10:] == 9).all()


def test_a_recipe_survives_json_and_refuses_unknown_entries():
    recipe = CropRecipe(size=160, margin=0.1)
    assert CropRecipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="unknown entries"):
        CropRecipe.from_dict({"sise": 3})
