"""What light, lens, sensor and storage do to a picture: each a function of one training picture.

All take a picture, (H, W, 3) uint8 RGB, a strength and their own random numbers in [0, 1), and give a new picture,
or the same one. Lengths are shares of the shorter side, so that a strength means the same at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, cos, floor, pi, sin
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image

Numbers = Sequence[float]

_DISPLAY_GAMMA = 2.2
_LIGHT_GRID = 24  # places a side at which a light is worked out; between them it is smooth enough to interpolate
_COLOURED = 0.8  # how many times more or fewer stops red and blue change by than green, at most
_MID_GREY = 128


def mixed_light(image: Image, strength: float, draws: Numbers) -> Image:
    """A soft light from one side, often of another colour than the shade opposite.

    `strength` is the largest ratio of light between the two sides, in photographic stops: 1 is twice the light.
    The light falls off as tanh along a direction. Red changes by up to 0.8 times more stops than green and blue by
    as many fewer, or the other way round: lamp against daylight. A gain of light g multiplies stored values by
    g ** (1 / 2.2).

    Args:
        image: (H, W, 3) uint8.
        strength: stops.
        draws: 5: direction, size, place of the border, its softness, colour.
    """
    direction, size, place, softness, colour = draws
    angle, stops = 2 * pi * direction, strength * size
    grid = (np.arange(_LIGHT_GRID, dtype=np.float32) + 0.5) / _LIGHT_GRID - 0.5
    along = cos(angle) * grid[None, :] + sin(angle) * grid[:, None] - 0.5 * (place - 0.5)
    side = np.tanh((2 + 4 * softness) * along)
    # Shares of red, green and blue: brightness is even, only their balance differs.
    warmth = _COLOURED * (2 * colour - 1)
    balance = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    gain = np.exp2(stops / 2 / _DISPLAY_GAMMA * side[:, :, None] * balance)
    whole = cv2.resize(gain.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, whole, dtype=cv2.CV_8U)


def blur(image: Image, strength: float, draws: Numbers) -> Image:
    """Out of focus: a Gaussian with a standard deviation of up to `strength` of the shorter side. One draw."""
    deviation = strength * draws[0] * min(image.shape[:2])
    return cv2.GaussianBlur(image, (0, 0), deviation, borderType=cv2.BORDER_REFLECT) if deviation > 0 else image


def motion_blur(image: Image, strength: float, draws: Numbers) -> Image:
    """The camera moved: a mean along a straight path of up to `strength` of the shorter side. Two draws."""
    length = strength * draws[0] * min(image.shape[:2])
    return cv2.filter2D(image, -1, path_kernel(length, pi * draws[1]), borderType=cv2.BORDER_REFLECT)


def path_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """A straight path as weights of pixels: points along it, each shared among its four neighbours.

    Args:
        length: pixels, at least 0.
        angle: radians from the x axis, clockwise as rows go down.

    Returns:
        (k, k) float32, k odd, sum 1.
    """
    reach = ceil(length / 2)
    along = np.linspace(-length / 2, length / 2, 4 * ceil(length) + 1)
    places = np.arange(-reach, reach + 1)
    # The share of a point that a pixel gets falls off linearly along each axis, to nothing one pixel away.
    columns, rows = (
        np.maximum(1 - np.abs(places - (along * part)[:, None]), 0) for part in (cos(angle), sin(angle))
    )
    return (rows.T @ columns / len(along)).astype(np.float32)


def low_resolution(image: Image, strength: float, draws: Numbers) -> Image:
    """Taken small and enlarged: 1 to `strength` times fewer pixels a side (area mean), then bilinear. One draw."""
    height, width = image.shape[:2]
    factor = strength ** draws[0]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def noise(image: Image, strength: float, draws: Numbers) -> Image:
    """The sensor's noise: Gaussian, independent in each value. Two draws.

    `strength` is the largest standard deviation as a share of the full range. Values come from 256 equally likely
    ones of the Gaussian, up to 2.9 deviations: ten times as fast as drawing each, and rounded to 8 bits anyway.
    """
    sizes = np.rint(_normal_values() * (255 * strength * draws[0])).astype(np.int16)
    words = np.random.Philox(key=int(draws[1] * 2**53)).random_raw(ceil(image.size / 8))
    field = cv2.LUT(words.view(np.uint8)[: image.size].reshape(image.shape), sizes)
    return cv2.add(image, field, dtype=cv2.CV_8U)


def jpeg(image: Image, strength: float, draws: Numbers) -> Image:
    """Stored as JPEG with a quality between 100 and 100 - strength, colours at half the resolution. One draw."""
    quality = max(1, round(100 - strength * draws[0]))
    stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]


def cutout(image: Image, strength: float, draws: Numbers) -> Image:
    """A grey square hides a part (DeVries & Taylor 2017): `strength` of each side, its middle anywhere. Two draws.

    A pixel is hidden where its middle lies inside the square; the square may reach over the picture's edge.
    """
    slices = []
    for length, draw in zip(image.shape[:2], draws, strict=True):
        middle, half = draw * length, strength * length / 2
        slices.append(slice(max(0, floor(middle - half - 0.5) + 1), max(0, ceil(middle + half - 0.5))))
    image = image.copy()
    image[slices[0], slices[1]] = _MID_GREY
    return image


@lru_cache(maxsize=1)
def _normal_values() -> NDArray[np.float64]:
    """(256,) equally likely values of a standard normal, scaled to variance 1."""
    values = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)])
    return values / values.std()
