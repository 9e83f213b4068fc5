"""A face's embedding averaged with that of its mirror image: both sides of the face are seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def with_mirror(embed: Embed) -> Embed:
    """An embedding that is the mean of a picture's and its mirror image's, scaled to length 1 again.

    Args:
        embed: (n, S, S, 3) uint8 pictures to (n, D) float32 unit rows.

    Returns:
        A function of the same kind that takes twice the time. Rows that cancel out become zero.
    """

    def both(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return averaged(embed(images), embed(mirrored(images)))

    return both


def mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (n, H, W, 3) with left and right exchanged."""
    return np.ascontiguousarray(images[:, :, ::-1])


def averaged(rows: NDArray[np.float32], mirror_rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of two (n, D) arrays of unit rows, scaled to length 1; rows that cancel out become zero."""
    total = rows + mirror_rows
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = total / np.maximum(lengths, np.float32(1e-6))
    return scaled


def mirror_words(flip: bool) -> str:
    """How reports say it."""
    return "each face's embedding averaged with its mirror image's" if flip else "faces as they are, without flips"
