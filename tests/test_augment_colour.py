"""Colour augmentations against formulas in floats, a pixel at a time."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from facekit.augment_colour import ColourMaps, brightness, contrast, grey, hue, saturation

HIGH = 1.0 - 1e-12


@pytest.fixture
def picture(rng) -> np.ndarray:
    """Noise of all values, 20 rows by 30."""
    return rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)


def changed(image, *maps) -> np.ndarray:
    """The picture after the maps, the first of them first, as int."""
    whole = np.eye(5)
    for part in maps:
        whole = part[0] @ whole
    return ColourMaps(whole[None]).apply(0, image).astype(int)


def row(*values) -> np.ndarray:
    return np.array([values], float)


def by_pixel(image, function) -> np.ndarray:
    """A function of (r, g, b) in floats on every pixel, cut off at 0 and 255."""
    out = [[np.clip(function(*map(float, pixel)), 0, 255) for pixel in line] for line in image]
    return np.array(out)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.6), (0.75, 1.2), (HIGH, 1.4)])
def test_contrast_stretches_about_the_mean_of_pixels_and_channels(picture, draw, factor):
    mean = picture.mean()
    expected = by_pixel(picture, lambda *rgb: [mean + factor * (v - mean) for v in rgb])
    assert np.abs(changed(picture, contrast(row(draw), 0.4)) - expected).max() <= 1


@pytest.mark.parametrize(("draw", "shift"), [(0.0, -51), (0.25, -25.5), (HIGH, 51)])
def test_brightness_shifts(picture, draw, shift):
    expected = by_pixel(picture, lambda *rgb: [v + shift for v in rgb])
    assert np.abs(changed(picture, brightness(row(draw), 0.2)) - expected).max() <= 1


def luma(r, g, b):
    return 0.299 * r + 0.587 * g + 0.114 * b


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (HIGH, 1.5)])
def test_saturation_stretches_about_each_pixels_luma(picture, draw, factor):
    expected = by_pixel(picture, lambda *rgb: [luma(*rgb) + factor * (v - luma(*rgb)) for v in rgb])
    assert np.abs(changed(picture, saturation(row(draw), 0.5)) - expected).max() <= 1


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_grey_takes_colour_away(picture, share):
    expected = by_pixel(picture, lambda *rgb: [luma(*rgb) * share + v * (1 - share) for v in rgb])
    assert np.abs(changed(picture, grey(np.empty((1, 0)), share)) - expected).max() <= 1


def test_hue_turns_the_colours_of_yiq(picture):
    angle = np.radians(30)

    def turned(*rgb):
        # Python's own YIQ, whose numbers are rounded to two digits: hence the wider tolerance.
        y, i, q = colorsys.rgb_to_yiq(*(v / 255 for v in rgb))
        i, q = i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle)
        red = y + 0.9468822170900693 * i + 0.6235565819861433 * q
        green = y - 0.27478764629897834 * i - 0.6356910791873801 * q
        blue = y - 1.1085450346420322 * i + 1.7090069284064666 * q
        return [255 * red, 255 * green, 255 * blue]

    assert np.abs(changed(picture, hue(row(HIGH), 30)) - by_pixel(picture, turned)).max() <= 4


def test_hue_keeps_grey_and_luma_and_comes_back_after_a_whole_turn(picture):
    pastel = (picture // 4 + 96).astype(np.uint8)
    out = changed(pastel, hue(row(HIGH), 25))
    assert np.abs(luma(*np.moveaxis(out, 2, 0)) - luma(*np.moveaxis(pastel.astype(float), 2, 0))).max() <= 1
    assert np.abs(out - pastel).max() > 10
    even = np.repeat(picture[..., :1], 3, axis=2)
    assert np.abs(changed(even, hue(row(HIGH), 140)) - even).max() <= 1
    assert np.abs(changed(picture, hue(row(HIGH), 180), hue(row(HIGH), 180)) - picture).max() <= 1


def test_all_at_once_cuts_off_only_at_the_end(picture):
    parts = (
        contrast(row(0.9), 0.5),
        brightness(row(0.95), 0.5),
        saturation(row(0.1), 0.5),
        grey(np.empty((1, 0)), 0.5),
    )
    mean = picture.mean()
    values = mean + 1.4 * (picture - mean) + 0.45 * 255
    for factor in (0.6, 0.5):
        middle = (values @ [0.299, 0.587, 0.114])[..., None]
        values = middle + factor * (values - middle)
    assert np.abs(changed(picture, *parts) - np.clip(values, 0, 255)).max() <= 1


def test_several_pictures_get_their_own_maps(picture):
    maps = brightness(np.array([[0.0], [0.5], [HIGH]]), 0.1)
    batch = ColourMaps(maps)
    means = [batch.apply(place, (picture // 2 + 60).astype(np.uint8)).mean() for place in range(3)]
    np.testing.assert_allclose(np.diff(means), 25.5, atol=1)
    stretched = ColourMaps(contrast(np.array([[0.0], [0.5], [HIGH]]), 0.4))
    spreads = [stretched.apply(place, (picture // 2 + 60).astype(np.uint8)).std() for place in range(3)]
    np.testing.assert_allclose(spreads, np.array([0.6, 1.0, 1.4]) * (picture / 2).std(), rtol=0.01)


def test_a_batch_may_mix_pictures_with_and_without_contrast_and_colour(picture):
    parts = [brightness(row(0.6), 0.2), contrast(row(0.1), 0.4), saturation(row(0.9), 0.5)]
    batch = ColourMaps(np.concatenate(parts))
    for place, part in enumerate(parts):
        np.testing.assert_array_equal(batch.apply(place, picture), changed(picture, part))


def test_strengths_bound_the_draws(rng):
    many = rng.random((1000, 1))
    factors = contrast(many, 0.3)[:, 0, 0]
    assert factors.min() >= 0.7 and factors.max() <= 1.3 and np.ptp(factors) > 0.55
    shifts = brightness(many, 0.2)[:, :3, 4]
    assert np.abs(shifts).max() <= 51 and np.ptp(shifts) > 95 and (np.ptp(shifts, axis=1) == 0).all()
