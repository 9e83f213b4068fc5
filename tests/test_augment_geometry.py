"""Geometric augmentations against closed forms, loops over pixels and SciPy."""

from __future__ import annotations

from math import cos, radians, sin

import cv2
import numpy as np
import pytest
import scipy.ndimage

from facekit.augment_geometry import Warps, flip, perspective, rotation, shift, zoom

LOW, MIDDLE, HIGH = 0.0, 0.5, 1.0 - 1e-12
IN = (slice(12, -12), slice(12, -12))


def draws(*rows) -> np.ndarray:
    return np.array(rows, float).reshape(len(rows), -1)


def warp(image, *matrices) -> np.ndarray:
    """The picture after the matrices, the first of them first."""
    whole = np.eye(3)
    for matrix in matrices:
        whole = matrix @ whole
    return Warps(whole[None]).apply(0, image)


@pytest.fixture
def picture(rng) -> np.ndarray:
    """A smooth pattern, 56 rows by 64."""
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=(56, 64, 3)), (3, 3, 0), mode="reflect")
    return np.clip(128 + 500 * noise, 0, 255).round().astype(np.uint8)


def sampled(image, to_source) -> np.ndarray:
    """Every pixel between its four neighbours of the source, one at a time; the border mirrored."""
    height, width = image.shape[:2]
    out = np.zeros(image.shape)

    def at(row, column):
        row, column = row % (2 * height), column % (2 * width)
        return image[min(row, 2 * height - 1 - row), min(column, 2 * width - 1 - column)].astype(float)

    for row in range(height):
        for column in range(width):
            x, y = to_source(column, row)
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            u, v = x - x0, y - y0
            top = (1 - u) * at(y0, x0) + u * at(y0, x0 + 1)
            bottom = (1 - u) * at(y0 + 1, x0) + u * at(y0 + 1, x0 + 1)
            out[row, column] = (1 - v) * top + v * bottom
    return out


def test_flip_mirrors_exactly(picture):
    np.testing.assert_array_equal(warp(picture, flip(np.empty((1, 0)), 1.0)[0]), picture[:, ::-1])


def test_flip_and_a_quarter_turn_is_a_transpose(rng):
    # Whole pixels go to whole pixels, so even noise stays as it is.
    square = rng.integers(0, 256, (33, 33, 3)).astype(np.uint8)
    quarter = rotation(draws(HIGH), 90)[0]
    turned = warp(square, flip(np.empty((1, 0)), 1.0)[0], quarter)
    np.testing.assert_allclose(turned.astype(int), np.rot90(square[:, ::-1], -1).astype(int), atol=1)


def test_rotation_is_scipys(picture):
    matrix = rotation(draws(HIGH), 25)[0]
    # SciPy turns the other way.
    expected = scipy.ndimage.rotate(picture.astype(float), -25, (0, 1), reshape=False, order=1, mode="reflect")
    assert np.abs(warp(picture, matrix) - expected).max() < 2.5


def test_zoom_is_scipys(picture):
    factor = 1.2
    matrix = zoom(draws(HIGH), 0.2)[0]
    middle = (np.array(picture.shape[:2]) - 1) / 2
    expected = np.dstack(
        [
            scipy.ndimage.affine_transform(
                channel.astype(float), [1 / factor] * 2, middle * (1 - 1 / factor), order=1, mode="reflect"
            )
            for channel in np.moveaxis(picture, 2, 0)
        ]
    )
    assert np.abs(warp(picture, matrix) - expected).max() < 2.5


def test_shift_is_scipys(picture):
    matrix = shift(draws([HIGH, LOW]), 0.1)[0]
    # The shorter side is 56: 5.6 pixels to the right and up.
    expected = scipy.ndimage.shift(picture.astype(float), (-5.6, 5.6, 0), order=1, mode="reflect")
    assert np.abs(warp(picture, matrix) - expected).max() < 2.5


def test_perspective_is_the_loop_over_pixels(picture):
    strength = 0.4
    matrix = perspective(draws([HIGH, 0.3]), strength)[0]
    side, gx, gy = 56, 0.8 / 2.4, 0.8 / 2.4 * -0.4

    def to_source(column, row):
        u, v = (column - 31.5) / side, (row - 27.5) / side
        # u = x / (1 + gx x + gy y), v = y / (same) solved for x and y.
        w = 1 / (1 - gx * u - gy * v)
        return u * w * side + 31.5, v * w * side + 27.5

    assert np.abs(warp(picture, matrix) - sampled(picture, to_source)).max() < 2.5


def test_perspective_makes_one_side_larger_by_its_strength():
    matrix = perspective(draws([HIGH, MIDDLE]), 0.3)[0]
    corners = np.array([[-0.5, -0.5, 1], [-0.5, 0.5, 1], [0.5, -0.5, 1], [0.5, 0.5, 1]]) @ matrix.T
    points = corners[:, :2] / corners[:, 2:]
    left, right = points[1, 1] - points[0, 1], points[3, 1] - points[2, 1]
    assert left / right == pytest.approx(1.3)


def test_all_at_once_is_one_loop_over_pixels(picture):
    parts = [
        flip(np.empty((1, 0)), 1.0)[0],
        rotation(draws(0.9), 20)[0],
        zoom(draws(0.1), 0.2)[0],
        shift(draws([0.8, 0.1]), 0.1)[0],
        perspective(draws([0.2, 0.9]), 0.2)[0],
    ]

    def to_source(column, row):
        point = np.array([(column - 31.5) / 56, (row - 27.5) / 56, 1])
        for part in reversed(parts):
            point = np.linalg.solve(part, point)
        return point[0] / point[2] * 56 + 31.5, point[1] / point[2] * 56 + 27.5

    once = warp(picture, *parts)
    assert np.abs(once - sampled(picture, to_source)).max() < 2.5
    separately = picture
    for part in parts:
        separately = warp(separately, part)
    # Sampling four times blurs a little and mirrors other borders: alike in the middle, not the same.
    assert 0 < np.abs(once[IN].astype(int) - separately[IN]).max() < 12


def test_one_warp_of_four_channels_has_the_pixels_of_three(rng):
    noise = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    for matrix in (rotation(draws(0.8), 30)[0], perspective(draws([0.9, 0.2]), 0.3)[0]):
        to_pixels = np.array([[40, 0, 19.5], [0, 40, 19.5], [0, 0, 1]])
        back = to_pixels @ np.linalg.inv(matrix) @ np.linalg.inv(to_pixels)
        plain = cv2.warpPerspective if matrix[2, :2].any() else cv2.warpAffine
        rows = 3 if matrix[2, :2].any() else 2
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        expected = plain(noise, back[:rows], (40, 40), flags=flags, borderMode=cv2.BORDER_REFLECT)
        np.testing.assert_allclose(warp(noise, matrix).astype(int), expected.astype(int), atol=1)


def test_a_batch_may_mix_mirrors_turns_and_perspective(picture):
    parts = [rotation(draws(0.9), 20), perspective(draws([0.1, 0.8]), 0.3), flip(np.empty((1, 0)), 1.0)]
    batch = Warps(np.concatenate(parts))
    for place, part in enumerate(parts):
        np.testing.assert_array_equal(batch.apply(place, picture), warp(picture, part[0]))


def test_strengths_bound_the_draws(rng):
    many = rng.random((1000, 2))
    angles = np.degrees(np.arctan2(*rotation(many, 15)[:, [1, 0], 0].T))
    assert np.abs(angles).max() <= 15 and np.ptp(angles) > 28
    factors = zoom(many, 0.25)[:, 0, 0]
    assert factors.min() >= 0.8 and factors.max() <= 1.25 and 0.46 < (factors < 1).mean() < 0.54
    moves = shift(many, 0.1)[:, :2, 2]
    assert np.abs(moves).max() <= 0.1 and np.ptp(moves, axis=0).min() > 0.18
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.1
    tilts = perspective(many, 0.2)[:, 2, :2]
    assert np.abs(tilts).max() <= 0.4 / 2.2 and np.ptp(tilts, axis=0).min() > 0.34


@pytest.mark.parametrize("size", [(20, 30), (31, 17)])
def test_one_plan_fits_pictures_of_several_sizes(size, rng):
    warps = Warps(rotation(draws(HIGH), 180))
    for shape in (size, size[::-1], size):
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        np.testing.assert_allclose(warps.apply(0, image).astype(int), image[::-1, ::-1].astype(int), atol=1)


def test_rotation_turns_clockwise_for_draws_above_the_middle():
    matrix = rotation(draws(0.75), 40)[0]
    np.testing.assert_allclose(
        matrix[:2, :2], [[cos(radians(20)), -sin(radians(20))], [sin(radians(20)), cos(radians(20))]]
    )
