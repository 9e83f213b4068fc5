"""What MTCNN does with boxes between its networks: suppress, shift, make square, cut out.

Boxes are (n, 4) float64, left, top, right and bottom in pixels of the picture. The rules are those of the `mtcnn`
package, 1.0.0.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image

Boxes = NDArray[np.float64]
"""(n, 4) float64: left, top, right, bottom."""

# Boxes compared with all others at once: pairs are held in memory.
_BLOCK = 256


def falling(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Positions of scores from the highest down; equal ones in the package's order."""
    return np.argsort(scores)[::-1]


def unsuppressed(boxes: Boxes, threshold: float, of_smaller: bool = False) -> NDArray[np.intp]:
    """Positions of the boxes that overlap none before them by more than the threshold.

    Unlike in greedy suppression a box that is itself suppressed still suppresses others, as in the package.

    Args:
        boxes: from the best score to the worst.
        threshold: of the overlap's area as a share of the union's.
        of_smaller: take the share of the smaller box's area.
    """
    if len(boxes) <= _BLOCK:
        return np.flatnonzero(~np.triu(overlaps(boxes, boxes, of_smaller) > threshold, 1).any(axis=0))
    kept = np.ones(len(boxes), bool)
    left, right = boxes[:, 0], boxes[:, 2]
    # Neighbours from left to right, a block at a time: only boxes that reach into its columns are compared.
    from_left = np.argsort(left)
    for start in range(0, len(boxes), _BLOCK):
        block = from_left[start : start + _BLOCK]
        others = np.flatnonzero((left <= right[block].max()) & (right >= left[block].min()))
        shares = overlaps(boxes[block], boxes[others], of_smaller)
        kept[block] = ~((shares > threshold) & (others < block[:, None])).any(axis=1)
    return np.flatnonzero(kept)


def overlaps(boxes: Boxes, others: Boxes, of_smaller: bool = False) -> NDArray[np.float64]:
    """Area of each overlap as a share of the union's (or the smaller box's), (n, m); NaN between empty boxes."""
    width, height = (_shared(boxes, others, axis) for axis in (0, 1))
    both = np.multiply(width, height, out=width)
    area, other_area = ((of[:, 2] - of[:, 0]) * (of[:, 3] - of[:, 1]) for of in (boxes, others))
    base = np.minimum(area[:, None], other_area) if of_smaller else area[:, None] + other_area - both
    with np.errstate(divide="ignore", invalid="ignore"):
        return both / base


def _shared(boxes: Boxes, others: Boxes, axis: int) -> NDArray[np.float64]:
    """Length along an axis that each two boxes share, (n, m)."""
    length = np.minimum(boxes[:, None, axis + 2], others[:, axis + 2])
    length -= np.maximum(boxes[:, None, axis], others[:, axis])
    return np.maximum(length, 0, out=length)


def shifted(boxes: Boxes, offsets: NDArray[np.float32]) -> Boxes:
    """Boxes moved by a network's offsets, in sides of the box (the package counts sides from pixel to pixel)."""
    return boxes + offsets * np.tile(sides(boxes), 2)


def sides(boxes: Boxes) -> NDArray[np.float64]:
    """Width and height, (n, 2), counting both edges' pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def squared(boxes: Boxes) -> Boxes:
    """Squares around the same centres, as large as the longer side."""
    extent = boxes[:, 2:] - boxes[:, :2]
    longest = extent.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + extent * 0.5 - longest * 0.5
    return np.concatenate([corner, corner + longest], axis=1)


def packed(image: Image) -> NDArray[np.uint32]:
    """The (H, W) pixels of an (H, W, 3) uint8 picture as whole words, which are faster to pick."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]


def cut_out(pixels: NDArray[np.uint32], boxes: Boxes, size: int) -> NDArray[np.float32]:
    """Crops of a picture, sampled linearly at the places where TensorFlow's `crop_and_resize` samples.

    Args:
        pixels: (H, W) from `packed`.
        boxes: of the crops; they may leave the picture.
        size: the crops' side.

    Returns:
        (3, size, size, n) float32, -1 to 1; 0, a middle grey, outside the picture.
    """
    height, width = pixels.shape
    top, bottom, y, inside_y = _samples(boxes[:, 1], boxes[:, 3], height, size)
    left, right, x, inside_x = _samples(boxes[:, 0], boxes[:, 2], width, size)

    def row(at: NDArray[np.intp]) -> NDArray[np.float32]:
        start = at[:, None] * width
        return _between(_colours(pixels, start + left), _colours(pixels, start + right), x)

    crops = _between(row(top), row(bottom), y[:, None])
    crops -= 127.5
    crops *= 1 / 128
    crops[:, ~(inside_y[:, None] & inside_x)] = 0
    return crops


def _colours(pixels: NDArray[np.uint32], at: NDArray[np.intp]) -> NDArray[np.float32]:
    """(3, ...) float32 of the pixels at flat positions (...)."""
    picked = np.take(pixels, at)[..., None].view(np.uint8)
    return np.stack([picked[..., channel] for channel in range(3)], dtype=np.float32)


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32], way: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`first` moved towards `second` by `way`, 0 to 1; works in their memory."""
    second -= first
    second *= way
    first += second
    return first


def _samples(
    low: NDArray[np.float64], high: NDArray[np.float64], extent: int, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32], NDArray[np.bool_]]:
    """Along one axis: the pixels on both sides of each sample, its way from one to the other, whether it's inside.

    Returns:
        Four (size, n) arrays.
    """
    # In single precision and in these steps, so that samples on the very edge fall as in TensorFlow.
    first, last = (np.float32(edge / extent) for edge in (low, high))
    step = (last - first) * np.float32(extent - 1) / np.float32(size - 1)
    at = first * np.float32(extent - 1) + np.arange(size, dtype=np.float32)[:, None] * step
    inside = (at >= 0) & (at <= extent - 1)
    at = np.clip(at, 0, extent - 1)
    before = np.floor(at)
    return before.astype(np.intp), np.ceil(at).astype(np.intp), at - before, inside
