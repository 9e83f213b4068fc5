"""A second opinion: dlib's face detector, which gives boxes only, with five points from a network of landmarks.

King, "Max-Margin Object Detection", arXiv 1502.00046, on histograms of oriented gradients, for five poses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.detection import Face
from facekit.images import Image

Landmarks = Callable[[Sequence[Image], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Of pictures and squares (n, 4) around their faces: points (n, 5, 2) and how sure they are (n,), 0 to 1. See
`facekit.aligner.FastAligner.landmarks`."""

WINDOW = 80
"""Side of the smallest face that dlib's detector knows, in pixels."""

# Median over LFW: MTCNN's box, x, y, width and height in sides of dlib's square, and the square 1.4 times as large
# as an aligned crop around the same middle.
_FACE_BOX = (0.015, -0.18, 0.876, 1.18)
_ROOMY_SQUARE = (-0.404, -0.577, 1.742, 1.742)
# Logistic fit, over LFW, of which of dlib's squares hold a face of MTCNN's: above 0.9 from its threshold, 0, on.
_SLOPE, _OFFSET = 9.0, 2.4


class DlibDetector:
    """dlib's frontal face detector with points from `landmarks`.

    Args:
        landmarks: finds the five points in a square around a face.
        min_face: side of the smallest face to look for, in pixels of the picture. Below 80 the picture is doubled
            as often as needed, at four times the cost each.

    Raises:
        ValueError: `dlib` is not installed, or `min_face` is not above 0.
    """

    def __init__(self, landmarks: Landmarks, min_face: float = WINDOW):
        if not min_face > 0:
            raise ValueError(f"`min_face` must be above 0 pixels. Received: {min_face}.")
        self._detector = _dlib().get_frontal_face_detector()
        self._landmarks = landmarks
        self._doublings = max(0, math.ceil(math.log2(WINDOW / min_face)))

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """All faces of each picture.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.

        Returns:
            A list of faces for each picture, in the given order, each in falling order of dlib's score. The box is
            as MTCNN would draw it; the confidence is the lower one of the box's and the points'.
        """
        squares = [self._squares(image) for image in images]
        owners = [image for image, found in zip(images, squares, strict=True) for _ in found]
        if not owners:
            return [[] for _ in images]
        every = np.concatenate(squares)
        points, sure = self._landmarks(owners, _placed(every, _ROOMY_SQUARE))
        boxes, scores = _placed(every, _FACE_BOX), np.minimum(_confidence(every[:, 3]), sure)
        parts = zip(boxes, scores, points, strict=True)
        faces = iter([Face(box, float(score), np.asarray(face, np.float32)) for box, score, face in parts])
        return [[next(faces) for _ in found] for found in squares]

    def _squares(self, image: Image) -> NDArray[np.float64]:
        """What dlib answers: (n, 4) left, top, side and score."""
        found, scores, _ = self._detector.run(np.ascontiguousarray(image), self._doublings, 0.0)
        rows = [(box.left(), box.top(), box.width(), score) for box, score in zip(found, scores, strict=True)]
        return np.array(rows, np.float64).reshape(-1, 4)


def _placed(squares: NDArray[np.float64], place: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Boxes (n, 4), x, y, width, height, that lie in each square as `place` does in the unit square."""
    boxes = squares[:, 2:3] * np.array(place)
    boxes[:, :2] += squares[:, :2]
    return boxes.astype(np.float32)


def _confidence(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.reciprocal(1 + np.exp(-(_OFFSET + _SLOPE * scores)))


def _dlib() -> Any:
    try:
        import dlib
    except ImportError:
        raise ValueError("dlib's detector needs the package `dlib`. Run: pip install dlib-bin") from None
    return dlib
