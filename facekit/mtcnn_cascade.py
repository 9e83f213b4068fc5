"""The cascade of MTCNN's networks on one picture: the answer of the `mtcnn` package, many times faster.

Zhang et al., "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks", SPL 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image
from facekit.mtcnn_boxes import Boxes, cut_out, falling, packed, shifted, sides, squared, unsuppressed
from facekit.mtcnn_networks import CELL, STRIDE, Cells, OutputNetwork, ProposalNetwork, RefinementNetwork

# The package's numbers.
USUAL_FACE = 20
_SCALE_STEP = 0.709
_PROPOSED, _REFINED, _SURE = 0.6, 0.7, 0.8
_OVERLAP_IN_LEVEL, _OVERLAP = 0.5, 0.7

# Larger pieces of work leave the caches, and their arrays are taken from and given back to the system each time.
TILE = 72
"""Squares of P-Net's a side that are computed at once."""

CROPS_AT_ONCE = {RefinementNetwork.side: 16, OutputNetwork.side: 4}
"""Crops that are computed at once, by their side."""


class Faces(NamedTuple):
    """All faces of a picture, in falling order of score."""

    boxes: Boxes
    """(n, 4) float64: left, top, right, bottom; inside the picture."""

    scores: NDArray[np.float64]
    """(n,) 0 to 1."""

    landmarks: NDArray[np.float64]
    """(n, 5, 2) float64, x then y: left eye in the picture, right eye, nose, left and right corner of the mouth."""


class Cascade:
    """The three networks and what happens between them.

    Args:
        min_face: side of the smallest face to look for, in pixels of the picture, at least 12.

    Raises:
        ValueError: `min_face` is below 12, P-Net's own size, or the weights are missing.
    """

    def __init__(self, min_face: float = USUAL_FACE):
        if not min_face >= CELL:
            raise ValueError(
                f"`min_face` must be at least {CELL} pixels: enlarge the picture for smaller faces. "
                f"Received: {min_face}."
            )
        self._min_face = min_face
        self._propose, self._refine, self._output = ProposalNetwork(), RefinementNetwork(), OutputNetwork()

    def __call__(self, image: Image) -> Faces:
        """All faces of an (H, W, 3) uint8 RGB picture."""
        image = np.ascontiguousarray(image)
        boxes = self._refined(image, self._proposals(image))
        if not len(boxes):
            return Faces(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))
        answers = [self._output(crops) for crops in _crops(image, boxes, OutputNetwork.side)]
        scores, offsets, points = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        scores = scores.astype(np.float64)
        landmarks = points.transpose(0, 2, 1) * sides(boxes)[:, None] + boxes[:, None, :2] - 1
        boxes, landmarks, scores = (of[scores > _SURE] for of in (shifted(boxes, offsets), landmarks, scores))
        order = falling(scores)
        kept = order[unsuppressed(boxes[order], _OVERLAP, of_smaller=True)]
        height, width = image.shape[:2]
        inside = np.clip(boxes[kept], 0, [width - 1, height - 1] * 2)
        return Faces(inside, scores[kept], landmarks[kept])

    def _proposals(self, image: Image) -> Boxes:
        """Squares from P-Net on all levels of the pyramid."""
        boxes, scores = [np.empty((0, 4))], [np.empty(0)]
        for scale, level in pyramid(image, self._min_face):
            cells = propose(self._propose, level)
            found = cell_boxes(cells) / scale
            order = falling(cells.scores)
            order = order[unsuppressed(found[order], _OVERLAP_IN_LEVEL)]
            boxes.append(found[order])
            scores.append(cells.scores[order].astype(np.float64))
        every = np.concatenate(boxes)
        order = falling(np.concatenate(scores))
        return squared(every[order[unsuppressed(every[order], _OVERLAP)]])

    def _refined(self, image: Image, boxes: Boxes) -> Boxes:
        """The squares that R-Net takes for faces, moved."""
        if not len(boxes):
            return boxes
        answers = [self._refine(crops) for crops in _crops(image, boxes, RefinementNetwork.side)]
        scores, offsets = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        sure = scores > _REFINED
        boxes, order = shifted(boxes, offsets)[sure], falling(scores[sure])
        return squared(boxes[order[unsuppressed(boxes[order], _OVERLAP)]])


def _crops(image: Image, boxes: Boxes, size: int) -> Iterator[NDArray[np.float32]]:
    pixels = packed(image)
    count = CROPS_AT_ONCE[size]
    for start in range(0, len(boxes), count):
        yield cut_out(pixels, boxes[start : start + count], size)


def scales(height: int, width: int, min_face: float) -> NDArray[np.float64]:
    """Factors that the picture is scaled by for P-Net.

    For 20 pixels these are the package's. It counts levels as for 20 whatever the smallest face is: for larger ones
    its last levels are too small for P-Net, and it finds nothing at all. Here the last level stays the same.
    """
    shorter = min(height, width) * USUAL_FACE / min_face
    count = round(-(math.log(shorter / CELL) / math.log(_SCALE_STEP) + 1))
    return CELL / min_face * np.power(_SCALE_STEP, np.arange(max(0, count)))


def pyramid(image: Image, min_face: float) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Each scale with the picture at it, (h, w, 3) float32, -1 to 1, averaged over areas."""
    height, width = image.shape[:2]
    normal = image.astype(np.float32)
    normal -= 127.5
    normal *= 1 / 128
    for scale in scales(height, width, min_face):
        size = (int(width * scale), int(height * scale))
        yield scale, cv2.resize(normal, size, interpolation=cv2.INTER_AREA)


def propose(network: ProposalNetwork, level: NDArray[np.float32], tile: int = TILE) -> Cells:
    """P-Net on an (h, w, 3) picture, in tiles: memory stays bounded, and caches hold what is worked on."""
    rows, columns = ((-(-(side - 2) // 2) - 4) for side in level.shape[:2])
    margin = CELL - STRIDE
    found = []
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            y, x = STRIDE * top, STRIDE * left
            part = level[y : y + STRIDE * tile + margin, x : x + STRIDE * tile + margin]
            cells = network(np.ascontiguousarray(part.transpose(2, 0, 1)), _PROPOSED)
            found.append(cells._replace(rows=cells.rows + top, columns=cells.columns + left))
    if len(found) == 1:
        return found[0]
    rows, columns, scores, offsets = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((columns, rows))
    return Cells(rows[order], columns[order], scores[order], offsets[order])


def cell_boxes(cells: Cells) -> Boxes:
    """Boxes of P-Net's squares, moved by their offsets, in pixels of the level.

    The package takes a square's second to its last pixel, 11 of 12, and so must we.
    """
    corners = np.stack([cells.columns, cells.rows], axis=1) * STRIDE
    return np.concatenate([corners + 1, corners + CELL], axis=1) + cells.offsets * (CELL - 1)
