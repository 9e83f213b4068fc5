"""Light, lens, sensor and storage against SciPy, PIL and closed forms."""

from __future__ import annotations

import io
from math import atan2, cos, degrees, radians, sin

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from facekit import augment_camera as camera

HIGH = 1.0 - 1e-12


@pytest.fixture
def picture(rng) -> np.ndarray:
    """A pattern with fine and coarse parts, 48 rows by 64."""
    fine, coarse = rng.normal(size=(48, 64, 3)), rng.normal(size=(48, 64, 3))
    coarse = scipy.ndimage.gaussian_filter(coarse, (4, 4, 0), mode="reflect")
    return np.clip(128 + 12 * fine + 500 * coarse, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("draw", [0.3, HIGH])
def test_blur_is_scipys_gaussian(picture, draw):
    deviation = 0.05 * draw * 48
    expected = scipy.ndimage.gaussian_filter(picture.astype(float), (deviation, deviation, 0), mode="reflect")
    # OpenCV cuts the kernel off at three deviations, SciPy at four.
    assert np.abs(camera.blur(picture, 0.05, [draw]) - expected).max() < 2.5


def test_blur_of_nothing_is_nothing(picture):
    assert camera.blur(picture, 0.05, [0.0]) is picture


def test_motion_blur_is_scipys_correlation(picture):
    out = camera.motion_blur(picture, 0.2, [0.7, 0.3])
    kernel = camera.path_kernel(0.2 * 0.7 * 48, np.pi * 0.3).astype(float)
    expected = scipy.ndimage.correlate(picture.astype(float), kernel[:, :, None], mode="reflect")
    assert np.abs(out - expected).max() < 1.5


@pytest.mark.parametrize("angle", [0, 30, 90, 135, 170])
@pytest.mark.parametrize("length", [0.0, 1.0, 5.5, 12.0])
def test_a_path_is_straight_and_as_long_as_asked(length, angle):
    kernel = camera.path_kernel(length, radians(angle)).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.min() >= 0 and kernel.shape[0] % 2
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[0]] - kernel.shape[0] // 2
    assert abs((kernel * x).sum()) < 1e-6 and abs((kernel * y).sum()) < 1e-6
    spread = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    along = np.array([cos(radians(angle)), sin(radians(angle))])
    # A uniform stretch has variance length^2 / 12; sharing points among pixels adds at most 1/4 along each axis.
    assert length**2 / 12 - 0.05 <= along @ spread @ along <= (length + 1) ** 2 / 12 + 0.3
    across = np.array([-along[1], along[0]])
    assert across @ spread @ across <= 0.26
    if length > 5:
        axis = np.linalg.eigh(spread)[1][:, -1]
        assert abs((degrees(atan2(axis[1], axis[0])) - angle + 90) % 180 - 90) < 3


def test_low_resolution_is_pils_box_and_bilinear(picture):
    out = camera.low_resolution(picture, 4, [0.5])
    small = PIL.Image.fromarray(picture).resize((32, 24), PIL.Image.Resampling.BOX)
    expected = np.asarray(small.resize((64, 48), PIL.Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(out - expected).max() <= 2
    assert camera.low_resolution(picture[:3, :3], 32, [HIGH]).shape == (3, 3, 3)


def test_low_resolution_of_factor_1_is_nothing(picture):
    np.testing.assert_array_equal(camera.low_resolution(picture, 4, [0.0]), picture)


def test_noise_is_gaussian_of_its_deviation():
    flat = np.full((200, 200, 3), 128, np.uint8)
    field = camera.noise(flat, 0.08, [0.5, 0.123]).astype(float) - 128
    assert field.std() == pytest.approx(0.04 * 255, rel=0.02) and abs(field.mean()) < 0.1
    # Kurtosis of a Gaussian is 3; of an even distribution 1.8.
    assert 2.7 < (field**4).mean() / field.var() ** 2 < 3.1
    channels = np.corrcoef(field.reshape(-1, 3).T) - np.eye(3)
    assert (
        np.abs(channels).max() < 0.02 and abs(np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]) < 0.02
    )


def test_noise_is_cut_off_and_of_its_own_draw():
    for value in (0, 255):
        flat = np.full((40, 40, 3), value, np.uint8)
        out = camera.noise(flat, 0.5, [1.0, 0.5]).astype(int)
        assert (out == value).mean() > 0.4 and np.abs(out - value).max() > 200
    one, two, again = (camera.noise(np.full((40, 40, 3), 128, np.uint8), 0.1, [1.0, d]) for d in (0.1, 0.2, 0.1))
    assert (one == again).all() and (one != two).mean() > 0.9


@pytest.mark.parametrize(("draw", "quality"), [(0.5, 60), (HIGH, 20)])
def test_jpeg_is_pils_at_that_quality(picture, draw, quality):
    stored = io.BytesIO()
    PIL.Image.fromarray(picture).save(stored, "JPEG", quality=quality)
    expected = np.asarray(PIL.Image.open(stored)).astype(int)
    out = camera.jpeg(picture, 80, [draw]).astype(int)
    assert np.abs(out - expected).max() <= 2
    assert np.abs(out - picture).mean() > 2


def test_jpeg_keeps_red_red():
    red = np.zeros((16, 16, 3), np.uint8) + np.array([200, 20, 20], np.uint8)
    assert np.abs(camera.jpeg(red, 50, [0.5]).astype(int) - red).max() < 8


@pytest.mark.parametrize("draws", [(0.5, 0.5), (0.0, 0.99), (0.31, 0.77)])
@pytest.mark.parametrize("size", [0.3, 1.0])
def test_cutout_is_the_loop_over_pixels(draws, size):
    image = np.zeros((20, 30, 3), np.uint8)
    out = camera.cutout(image, size, draws)
    for row in range(20):
        for column in range(30):
            inside = abs(row + 0.5 - draws[0] * 20) < size * 10 and abs(column + 0.5 - draws[1] * 30) < size * 15
            assert (out[row, column] == (128 if inside else 0)).all()
    assert not image.any()


def gains(strength, draws) -> np.ndarray:
    """The factors that a light multiplies each channel by, (100, 100, 3)."""
    flat = np.full((100, 100, 3), 100, np.uint8)
    return camera.mixed_light(flat, strength, draws) / 100


def test_a_mixed_light_is_lighter_on_one_side_by_at_most_its_stops():
    field = gains(1.0, [0.0, HIGH, 0.5, 0.5, 0.5])
    assert np.ptp(field, axis=2).max() < 0.03  # colour 0.5 is white
    columns = field[:, :, 1].mean(axis=0)
    assert (np.diff(columns) >= -0.006).all() and np.ptp(field, axis=0).max() < 0.03
    ratio = columns[-1] / columns[0]
    assert 0.9 * 2 ** (1 / 2.2) < ratio <= 2 ** (1 / 2.2) + 0.02
    assert columns[0] == pytest.approx(2 ** (np.tanh(4 * -0.495) / 2 / 2.2), abs=0.02)


def test_a_mixed_light_comes_from_anywhere_and_is_coloured():
    from_below = gains(1.0, [0.25, HIGH, 0.5, 0.5, 0.5])
    assert from_below[-1, 50, 1] > 1.1 > 0.9 > from_below[0, 50, 1]
    warm = gains(1.0, [0.0, HIGH, 0.5, 0.5, HIGH])
    assert warm[50, -1, 0] > warm[50, -1, 1] + 0.1 > warm[50, -1, 2] + 0.2
    assert warm[50, 0, 0] < warm[50, 0, 1] - 0.05 < warm[50, 0, 2] - 0.1
    for place, low, high in ((0.0, 1.05, 1.2), (0.5, 0.99, 1.01), (HIGH, 0.8, 0.95)):
        assert low < gains(1.0, [0.0, HIGH, place, 0.5, 0.5])[50, 50, 1] < high


def test_a_mixed_light_is_smooth():
    field = gains(3.0, [0.1, HIGH, 0.4, HIGH, 0.9])
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.12
    np.testing.assert_array_equal(gains(3.0, [0.1, 0.0, 0.4, HIGH, 0.9]), 1)


@pytest.mark.parametrize(
    ("function", "strength", "draws"),
    [
        (camera.mixed_light, 2, (0.1, 0.9, 0.5, 0.5, 0.5)),
        (camera.blur, 0.05, (0.5,)),
        (camera.motion_blur, 0.1, (0.9, 0.4)),
        (camera.low_resolution, 4, (0.5,)),
        (camera.noise, 0.1, (0.5, 0.5)),
        (camera.jpeg, 50, (0.5,)),
        (camera.cutout, 0.3, (0.5, 0.5)),
    ],
)
def test_the_picture_given_stays(picture, function, strength, draws):
    before = picture.copy()
    out = function(picture, strength, draws)
    assert out.dtype == np.uint8 and out.shape == picture.shape and (out != before).any()
    np.testing.assert_array_equal(picture, before)
