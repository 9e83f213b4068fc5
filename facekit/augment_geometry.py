"""Geometric changes of training pictures, as matrices: however many a picture gets, it is warped once.

A matrix moves the points of a picture. Points are measured from its middle, in units of its shorter side, x to the
right, y down, so that a matrix fits pictures of any size.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image

Draws = NDArray[np.float64]
"""(n, k) uniform in [0, 1): a row of random numbers for each picture."""

Matrices = NDArray[np.float64]
"""(n, 3, 3), homogeneous: points before the change to points after it."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])


def flip(draws: Draws, strength: float) -> Matrices:
    """Left and right change places; there is no more or less of it."""
    return np.broadcast_to(_MIRROR, (len(draws), 3, 3))


def rotation(draws: Draws, strength: float) -> Matrices:
    """About the middle, by up to `strength` degrees either way."""
    angle = np.radians(strength) * _both_ways(draws[:, 0])
    matrices = _identities(len(draws))
    matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angle)
    matrices[:, 1, 0] = np.sin(angle)
    matrices[:, 0, 1] = -matrices[:, 1, 0]
    return matrices


def zoom(draws: Draws, strength: float) -> Matrices:
    """About the middle, by 1 / (1 + strength) to 1 + strength; smaller is as likely as larger."""
    matrices = _identities(len(draws))
    matrices[:, 0, 0] = matrices[:, 1, 1] = (1 + strength) ** _both_ways(draws[:, 0])
    return matrices


def shift(draws: Draws, strength: float) -> Matrices:
    """Along each axis by up to `strength` of the shorter side either way."""
    matrices = _identities(len(draws))
    matrices[:, :2, 2] = strength * _both_ways(draws[:, :2])
    return matrices


def perspective(draws: Draws, strength: float) -> Matrices:
    """As seen from the side and from above or below; the middle stays.

    `strength` is how much larger, at most, one side of a square picture looks than the opposite one: with
    w = 1 + g x, the sides at x = -1/2 and 1/2 are scaled by 1 / w, so the ratio is (1 + g/2) / (1 - g/2).
    """
    largest = 2 * strength / (2 + strength)
    matrices = _identities(len(draws))
    matrices[:, 2, :2] = largest * _both_ways(draws[:, :2])
    return matrices


class Warps:
    """The warps of a batch.

    Pixels come from between pixels (bilinear); what comes in from outside mirrors the border. A mere mirror image
    is exact.

    Args:
        matrices: (n, 3, 3), the whole change of each picture.
    """

    def __init__(self, matrices: Matrices):
        self._matrices = matrices
        self._mirrors: list[bool] = np.all(matrices == _MIRROR, axis=(1, 2)).tolist()
        self._flat: list[bool] = np.logical_not(matrices[:, 2, :2].any(axis=1)).tolist()
        self._of_size: dict[tuple[int, int], Matrices] = {}

    def apply(self, place: int, image: Image) -> Image:
        """Warp picture number `place`, (H, W, 3) uint8, into a new array of its size."""
        if self._mirrors[place]:
            return cv2.flip(image, 1)
        height, width = image.shape[:2]
        matrix = self._to_source(height, width)[place]
        # OpenCV 5.0 warps four channels in two thirds of the time of three, conversions included; same pixels.
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if self._flat[place]:
            image = cv2.warpAffine(image, matrix[:2], (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        else:
            image = cv2.warpPerspective(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)

    def _to_source(self, height: int, width: int) -> Matrices:
        """(n, 3, 3): pixels of the result to pixels of the source, for pictures of one size; worked out once.

        Two threads may both work it out: they get the same.
        """
        found = self._of_size.get((height, width))
        if found is None:
            side = min(height, width)
            x, y = (width - 1) / 2, (height - 1) / 2
            to_pixels = np.array([[side, 0, x], [0, side, y], [0, 0, 1]], np.float64)
            found = to_pixels @ np.linalg.inv(self._matrices) @ np.linalg.inv(to_pixels)
            self._of_size[height, width] = found
        return found


def _both_ways(draws: Draws) -> Draws:
    """[0, 1) to [-1, 1)."""
    return 2 * draws - 1


def _identities(count: int) -> Matrices:
    return np.tile(np.eye(3), (count, 1, 1))
