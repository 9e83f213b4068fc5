"""Quality of a picture: what each figure follows and ignores, the pose of known heads, limits and weights."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from facekit.drawing.canvas import View
from facekit.drawing.likeness import Appearance, Identity, Sitter
from facekit.quality import NAMES, Limit, eye_distances, keep, measure, pose, weights
from facekit.synthetic import draw_crop, draw_photo


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return draw_crop(seed=1, person=2, picture=3).image


def lit(image: np.ndarray, gain: float, offset: float = 0.0) -> np.ndarray:
    return np.clip(image * gain + offset, 0, 255).round().astype(np.uint8)


def test_sharpness_falls_with_every_step_of_blur(crop: np.ndarray):
    figures = [measure(crop).sharpness]
    figures += [measure(cv2.GaussianBlur(crop, (0, 0), deviation)).sharpness for deviation in (1, 2, 4)]
    assert figures == sorted(figures, reverse=True) and figures[-1] < figures[0] / 2


def test_sharpness_ignores_brightness_and_contrast(crop: np.ndarray):
    grey = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2).round().astype(np.uint8)
    assert measure(lit(grey, 0.5, 60)).sharpness == pytest.approx(measure(grey).sharpness, rel=0.05)


def test_sharpness_is_the_laplacian_s_deviation_over_the_grey_s():
    random = np.random.default_rng(0)
    # The middle 60 % of 106 pixels, 64 of them, are measured as they are.
    image = np.repeat(random.integers(0, 256, (106, 106, 1), np.uint8), 3, axis=2)
    part = image[21:85, 21:85, 0].astype(np.float64)
    padded = np.pad(part, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert measure(image).sharpness == pytest.approx((around - 4 * part).std() / part.std(), rel=1e-4)


def test_a_flat_picture_has_no_sharpness_and_no_contrast():
    quality = measure(np.full((50, 50, 3), 90, np.uint8))
    assert quality.sharpness == 0 and quality.contrast == 0
    assert quality.brightness == pytest.approx(90 / 255, abs=1e-6)


def test_brightness_clipping_and_the_brighter_side_are_seen():
    image = np.full((100, 100, 3), 40, np.uint8)
    image[:, :50] = 120
    quality = measure(image)
    assert quality.imbalance == pytest.approx((120 - 40) / (120 + 40), abs=0.02)
    assert measure(image[:, ::-1]).imbalance == pytest.approx(-quality.imbalance, abs=0.02)
    assert quality.clipped == 0 and measure(np.zeros((9, 9, 3), np.uint8)).clipped == 1
    half = np.full((100, 100, 3), 128, np.uint8)
    half[:50] = 255
    assert measure(half).clipped == pytest.approx(0.5, abs=0.02)


def test_without_landmarks_size_and_pose_stay_unknown(crop: np.ndarray):
    quality = measure(crop)
    assert np.isnan([quality.eye_distance, quality.yaw, quality.pitch, quality.roll]).all()


def test_with_landmarks_the_face_is_measured_and_not_what_is_around():
    photo = draw_photo(seed=1, person=0, picture=0)
    quality = measure(photo.image, photo.landmarks)
    dark = photo.image.copy()
    x, y = photo.landmarks.mean(axis=0).round().astype(int)
    reach = round(1.2 * float(eye_distances(photo.landmarks[None])[0]))
    around = np.ones(dark.shape[:2], bool)
    around[y - reach : y + reach, x - reach : x + reach] = False
    dark[around] = 0
    assert measure(dark, photo.landmarks) == quality
    assert measure(dark).brightness < measure(photo.image).brightness
    assert quality.eye_distance == pytest.approx(np.hypot(*(photo.landmarks[1] - photo.landmarks[0])))


def test_landmarks_outside_the_picture_break_nothing():
    image = np.full((20, 20, 3), 100, np.uint8)
    assert measure(image, np.full((5, 2), 500, np.float32)).brightness == pytest.approx(100 / 255, abs=1e-6)


def head(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The five points of an average head, turned in three dimensions step by step, projected in parallel."""
    points = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.62, 0.5], [-0.35, 1.155, 0.12], [0.35, 1.155, 0.12]])
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    x = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
    z = points[:, 2] * np.cos(yaw) - points[:, 0] * np.sin(yaw)
    y = points[:, 1] * np.cos(pitch) + z * np.sin(pitch)
    turned = np.stack([x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)], axis=1)
    return 40 * turned + (120, 90)


@pytest.mark.parametrize("angle", [-40, -15, 0, 15, 40])
def test_a_turn_of_an_average_head_is_found(angle: float):
    assert pose(head(angle, 0, 0)[None])[0][0] == pytest.approx(angle, abs=0.01)
    assert pose(head(0, angle, 0)[None])[1][0] == pytest.approx(angle, abs=0.01)
    assert pose(head(0, 0, angle)[None])[2][0] == pytest.approx(angle, abs=0.01)


def test_roll_does_not_change_yaw_and_pitch():
    straight, rolled = (np.array(pose(head(20, 10, roll)[None])) for roll in (0, 30))
    assert rolled[:2] == pytest.approx(straight[:2])


def test_drawn_heads_turn_the_way_that_is_said():
    rng = np.random.default_rng(0)
    truth, points = [], []
    for person in range(80):
        yaw, pitch, roll = rng.uniform(-0.5, 0.5, 3)
        look = replace(Appearance.from_seed(1, person, 0, 0.0), yaw=yaw, pitch=pitch, roll=roll)
        turn = 40 * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        matrix = tuple(map(tuple, np.column_stack([turn, [100, 100]]).tolist()))
        points.append(Sitter(Identity.from_seed(1, person), look).landmarks(View(yaw, pitch, matrix)))
        truth.append((yaw, pitch, roll))
    found = np.array(pose(np.array(points)))
    known = np.degrees(np.array(truth)).T
    assert found[2] == pytest.approx(known[2])
    assert np.corrcoef(found[0], known[0])[0, 1] > 0.9
    # Drawn noses differ in length by half, which reads as looking up or down.
    assert np.corrcoef(found[1], known[1])[0, 1] > 0.5


def test_landmarks_in_one_point_have_no_pose():
    assert np.isnan(np.array(pose(np.ones((1, 5, 2))))).all()


def table(**columns: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values, float) for name, values in columns.items()}


def test_pictures_outside_a_limit_are_not_kept_and_unknown_figures_speak_against_nobody():
    figures = table(sharpness=[0.05, 0.2, 0.2, np.nan], yaw=[0, -60, 30, np.nan])
    limits = [Limit("sharpness", least=0.1), Limit("yaw", most=50)]
    assert keep(figures, limits).tolist() == [False, False, True, True]


def test_a_weight_is_divided_by_how_far_each_limit_is_missed():
    figures = table(sharpness=[0.05, 0.2, 0.05, 0.001, np.nan], yaw=[0, -75, 100, 0, np.nan])
    limits = [Limit("sharpness", least=0.1), Limit("yaw", most=50)]
    assert weights(figures, limits, least=0.1) == pytest.approx([0.5, 1 / 1.5, 0.25, 0.1, 1.0])


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"`least` must be in \(0, 1\]. Received: least=0"):
        weights(table(yaw=[0.0]), [Limit("yaw", most=50)], least=0)


def test_the_columns_are_the_figures():
    assert NAMES[:5] == ("sharpness", "contrast", "brightness", "clipped", "imbalance") and len(NAMES) == 9
