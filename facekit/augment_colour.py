"""Changes of colour in training pictures, as matrices: however many a picture gets, its pixels are mapped once.

All act on encoded values (sRGB as stored), 0 to 255. Nothing is cut off at 0 or 255 between two of them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.augment_geometry import Draws
from facekit.images import Image

Maps = NDArray[np.float64]
"""(n, 5, 5): (red, green, blue, the picture's mean, 1) before the change to the same after it.

The mean is that of the picture's pixels and channels before any change of colour; it goes through unchanged.
"""

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luma of ITU-R BT.601; also the first row of NTSC's YIQ."""

_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB to YIQ, FCC 1953: luma and two axes of colour."""

_ALIKE = 1e-9


def contrast(draws: Draws, strength: float) -> Maps:
    """Differences from the picture's mean times 1 - strength to 1 + strength. Comes before the other maps."""
    factor = 1 + strength * (2 * draws[:, 0] - 1)
    maps = _linear(factor[:, None, None] * np.eye(3))
    maps[:, :3, 3] = (1 - factor)[:, None]
    return maps


def brightness(draws: Draws, strength: float) -> Maps:
    """Every value shifted alike, by up to `strength` of the full range either way."""
    maps = _linear(np.tile(np.eye(3), (len(draws), 1, 1)))
    maps[:, :3, 4] = 255 * strength * (2 * draws[:, :1] - 1)
    return maps


def saturation(draws: Draws, strength: float) -> Maps:
    """Differences from the pixel's luma times 1 - strength to 1 + strength (Haeberli 1993, with BT.601's luma)."""
    return _linear(_saturated(1 + strength * (2 * draws[:, 0] - 1)))


def hue(draws: Draws, strength: float) -> Maps:
    """Colours turned about the grey axis in YIQ by up to `strength` degrees either way; luma stays."""
    angle = np.radians(strength) * (2 * draws[:, 0] - 1)
    turn = np.tile(np.eye(3), (len(draws), 1, 1))
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 2, 1] = np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    return _linear(np.linalg.inv(_YIQ) @ turn @ _YIQ)


def grey(draws: Draws, strength: float) -> Maps:
    """The share `strength` of all colour is taken away: 1 leaves the luma alone."""
    return _linear(_saturated(np.full(len(draws), 1 - strength)))


class ColourMaps:
    """The colour maps of a batch: one pass over each picture.

    Args:
        maps: (n, 5, 5), the whole change of each picture.
    """

    def __init__(self, maps: Maps):
        linear, by_mean, shift = maps[:, :3, :3], maps[:, :3, 3], maps[:, :3, 4]
        scale = linear[:, 0, 0]
        same = np.abs(linear - scale[:, None, None] * np.eye(3)).max(axis=(1, 2)) < _ALIKE
        same &= (np.ptp(by_mean, axis=1) < _ALIKE) & (np.ptp(shift, axis=1) < _ALIKE)
        self._channels_alike, self._scale = same.tolist(), scale.tolist()
        self._mean_scale, self._shift = by_mean[:, 0].tolist(), shift[:, 0].tolist()
        self._maps = maps[:, :3]
        self._needs_mean = (np.abs(by_mean).max(axis=1) > _ALIKE).tolist()

    def apply(self, place: int, image: Image) -> Image:
        """Map picture number `place`, (H, W, 3) uint8, into a new array; rounded, cut off at 0 and 255."""
        mean = sum(cv2.mean(image)[:3]) / 3 if self._needs_mean[place] else 0.0
        if self._channels_alike[place]:
            shift = self._mean_scale[place] * mean + self._shift[place]
            return cv2.addWeighted(image, self._scale[place], image, 0, shift)
        whole = self._maps[place]
        return cv2.transform(image, np.column_stack([whole[:, :3], whole[:, 3] * mean + whole[:, 4]]))


def _saturated(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3, 3) maps: luma + factor (colour - luma)."""
    part = factor[:, None, None]
    return part * np.eye(3) + (1 - part) * np.tile(LUMA, (3, 1))


def _linear(matrices: NDArray[np.float64]) -> Maps:
    """Maps of colours alone."""
    maps = np.tile(np.eye(5), (len(matrices), 1, 1))
    maps[:, :3, :3] = matrices
    return maps
