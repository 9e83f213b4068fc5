"""Augmentation: each step does what it says, per picture, the same in eager and graph for one seed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from facekit.augment import Augmentation

NOTHING = {
    "flip_probability": 0.0,
    "rotation_probability": 0.0,
    "brightness_probability": 0.0,
    "contrast_probability": 0.0,
    "cutout_probability": 0.0,
}
SEED = (0, 5)


def only(**settings) -> Augmentation:
    return Augmentation(**{**NOTHING, **settings})


@pytest.fixture
def pictures(rng) -> np.ndarray:
    """Forty smooth pictures, 24 by 32."""
    noise = rng.uniform(60, 190, (40, 24, 32, 3))
    return scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="nearest").round().astype(np.uint8)


def test_no_step_leaves_pixels_as_they_are(pictures):
    out = only()(pictures, SEED)
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out, pictures.astype(np.float32))


def test_flip_mirrors_about_half_of_the_pictures_exactly(pictures):
    out = only(flip_probability=0.5)(pictures, SEED).numpy()
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, pictures, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, pictures, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 10 <= sum(mirrored) <= 30
    np.testing.assert_array_equal(only(flip_probability=1.0)(pictures, SEED), pictures[:, :, ::-1])


def test_rotation_turns_by_at_most_its_degrees():
    # A spot 12 pixels right of the centre: where it goes tells the angle.
    picture = np.zeros((64, 41, 41, 3), np.uint8)
    picture[:, 19:22, 31:34] = 255
    out = only(rotation_probability=1.0, rotation_degrees=30.0)(picture, SEED).numpy()[..., 0]
    y, x = np.mgrid[:41, :41] - 20
    angles = np.degrees(np.arctan2((out * y).sum((1, 2)), (out * x).sum((1, 2))))
    assert np.abs(angles).max() < 30.5 and np.ptp(angles) > 40 and abs(angles.mean()) < 8


def test_rotation_equals_scipys(pictures):
    out = only(rotation_probability=1.0, rotation_degrees=20.0)(pictures[:1], SEED).numpy()[0, :, :, 0]
    source = pictures[0, :, :, 0].astype(float)
    errors = [
        np.abs(out - scipy.ndimage.rotate(source, a, reshape=False, order=1, mode="reflect"))[6:-6, 6:-6].max()
        for a in np.arange(-20, 20, 0.05)
    ]
    assert min(errors) < 0.5 and np.median(errors) > 5


def test_brightness_shifts_a_whole_picture(pictures):
    shift = only(brightness_probability=1.0, brightness_delta=0.2)(pictures, SEED).numpy() - pictures
    assert np.ptp(shift, axis=(1, 2, 3)).max() < 1e-3
    shifts = shift[:, 0, 0, 0]
    assert np.abs(shifts).max() <= 51 and np.ptp(shifts) > 60


def test_contrast_stretches_about_the_mean(pictures):
    out = only(contrast_probability=1.0, contrast_delta=0.2)(pictures, SEED).numpy()
    source = pictures.astype(float)
    factors = out.std((1, 2, 3)) / source.std((1, 2, 3))
    assert factors.min() >= 0.799 and factors.max() <= 1.201 and np.ptp(factors) > 0.25
    np.testing.assert_allclose(out.mean((1, 2, 3)), source.mean((1, 2, 3)), atol=0.01)


def test_cutout_greys_a_square_of_its_size():
    picture = np.zeros((200, 20, 20, 3), np.uint8)
    out = only(cutout_probability=0.5, cutout_size=0.3)(picture, SEED).numpy()
    assert set(np.unique(out)) == {0.0, 127.5}
    areas = (out[..., 0] > 0).sum((1, 2))
    assert areas.max() == 36 and 60 <= (areas > 0).sum() <= 140
    assert (out.max((1, 2)) == out.max((1, 2))[:, :1]).all()


def test_results_stay_in_range():
    pictures = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3)).astype(np.uint8)
    out = Augmentation(brightness_delta=1.0, contrast_delta=0.9)(pictures, SEED).numpy()
    assert out.min() >= 0 and out.max() <= 255 and np.isfinite(out).all()


def test_the_same_seed_gives_the_same_eager_and_in_a_map(pictures):
    augmentation = Augmentation()
    eager = augmentation(pictures, SEED).numpy()
    stream = tf.data.Dataset.from_tensors(pictures).map(lambda x: augmentation(x, tf.constant(SEED, tf.int64)))
    np.testing.assert_allclose(next(iter(stream)), eager, atol=1e-3)
    assert np.abs(augmentation(pictures, (0, 6)).numpy() - eager).mean() > 1
    assert np.abs(augmentation(pictures, (1, 5)).numpy() - eager).mean() > 1


def test_each_picture_has_its_own_draw():
    same = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8), 20, axis=0)
    out = Augmentation()(same, SEED).numpy()
    assert len({image.tobytes() for image in out}) > 15
