"""Five points of a face that is already cropped, by a small network of our own: no search, two looks.

A face that lies roughly in the middle of a picture needs no detector. The network looks at a square of the
picture, small and grey, and answers where the five points lie. The second look is at the square that the first
answer sets upright: there the face fills the view, and the answer is finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from facekit.alignment import TEMPLATE_SIDE, Points, similarity_transform, template
from facekit.detection import Face
from facekit.images import Image

if TYPE_CHECKING:
    import keras

SIDE = 64
"""Side of what the network sees, in pixels."""

ROOM = 0.2
"""Room around the template in the second look, as a share of its side."""

NETWORK_NAME = "tupletface_aligner_1"
"""Name inside a weights file; another number where the views or the answers mean something else."""

# Pictures per call of the network: always as many, so that it is compiled once.
BATCH = 32

# Where the two looks differ by this share of the face's size, the confidence is halved.
DOUBTFUL = 0.5

EYES_PER_HEIGHT = 0.87
"""The template's eye distance as a share of the way from the eyes to the mouth."""

Place = NDArray[np.float64]
"""(2, 3) float64: from a view's unit square, -1 to 1 across its sides, to pixels of the picture."""

View = NDArray[np.uint8]
"""(SIDE, SIDE) uint8, grey: what the network sees."""


def unit_template(room: float = ROOM) -> NDArray[np.float64]:
    """The template's points in the unit square of a view with `room` around: (5, 2) float64."""
    # A crop's pixel p covers p to p + 1: its middle lies half a pixel further.
    return (template(TEMPLATE_SIDE, room).astype(np.float64) + 0.5) / TEMPLATE_SIDE * 2 - 1


def around(points: NDArray[Any], room: float = ROOM) -> Place:
    """The upright place around a face, from its (5, 2) points in pixels.

    Raises:
        ValueError: the points all coincide.
    """
    return similarity_transform(unit_template(room), points)


def central_square(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The largest square in the middle of a picture of this shape (height first): x, y, width, height."""
    height, width = shape[:2]
    side = min(height, width)
    return np.array([(width - side) / 2, (height - side) / 2, side, side], np.float64)


def square_place(box: NDArray[Any]) -> Place:
    """The place that is the square around a box: its middle, its longer side.

    Args:
        box: (4,) x, y, width, height in pixels; a box that covers a picture is 0, 0, its width, its height.

    Raises:
        ValueError: the box has no area.
    """
    x, y, width, height = (float(value) for value in box)
    if not (width > 0 and height > 0 and np.isfinite([x, y, width, height]).all()):
        raise ValueError(f"A box must have finite numbers, and width and height above 0. Received: {box}.")
    half = max(width, height) / 2
    # Pixel 0 covers 0 to 1 of the box's coordinates, and its middle is point 0.
    return np.array([[half, 0, x + width / 2 - 0.5], [0, half, y + height / 2 - 0.5]])


def to_picture(place: Place, points: NDArray[Any]) -> Points:
    """Points of a view's unit square in pixels of the picture: (n, 2) to (n, 2) float32."""
    return (points @ place[:, :2].T + place[:, 2]).astype(np.float32)


def to_view(place: Place, points: NDArray[Any]) -> Points:
    """The way back from `to_picture`: pixels of the picture to the unit square."""
    return np.linalg.solve(place[:, :2], (np.asarray(points, np.float64) - place[:, 2]).T).T.astype(np.float32)


def look(grey: NDArray[np.uint8], place: Place, side: int = SIDE) -> View:
    """What the network sees at a place; black where the picture ends.

    Args:
        grey: (H, W) uint8.
        place: see `Place`.
        side: side of the view in pixels.

    Returns:
        (side, side) uint8.
    """
    # Pixel j of the view has its middle at (2 j + 1) / side - 1.
    matrix = np.column_stack([place[:, :2] * (2 / side), place[:, 2] + place[:, :2].sum(axis=1) * (1 / side - 1)])
    # Bilinear sampling skips pixels on the way down: average whole blocks of them first.
    block = min(int(np.hypot(matrix[0, 0], matrix[1, 0])), *grey.shape)
    if block > 1:
        rows, columns = (length // block for length in grey.shape)
        whole = grey[: rows * block, : columns * block]
        grey = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
        matrix = matrix / block
        matrix[:, 2] += 0.5 / block - 0.5
    return cv2.warpAffine(grey, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def eye_distance(points: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Distance between the eyes: (..., 5, 2) points to (...)."""
    return np.linalg.norm(points[..., 0, :] - points[..., 1, :], axis=-1)


def face_size(points: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """The eye distance that a face has from the front, where a profile's own is near 0: (..., 5, 2) to (...)."""
    height = np.linalg.norm((points[..., :2, :] - points[..., 3:, :]).mean(axis=-2), axis=-1)
    return np.maximum(eye_distance(points), EYES_PER_HEIGHT * height)


def read_aligner(path: Path) -> keras.Model:
    """Load a network that apps/train_aligner.py wrote.

    Raises:
        ValueError: the file is missing, damaged, or holds another network; it names the command that makes one.
    """
    command = "`python -m apps.train_aligner --output aligner.keras --teacher CROPS` makes one from your own crops"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of alignment weights; {command}.")
    import keras

    try:
        network = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be loaded as alignment weights ({reason}); {command}.") from None
    if network.name != NETWORK_NAME or network.input_shape != (None, SIDE, SIDE, 1):
        raise ValueError(f"{path}: holds another network than {NETWORK_NAME}; {command}.")
    return network


class FastAligner:
    """Finds the five points of one face in each picture, where that face is roughly in the middle.

    Made for LFW's and CASIA-WebFace's pictures and for boxes with some margin: the square's side 1 to 2 times
    that of an aligned crop, the face's middle within 15 % of it, a head tilted by up to 25 degrees.

    Args:
        path: weights that apps/train_aligner.py wrote.

    Raises:
        ValueError: see `read_aligner`.
    """

    def __init__(self, path: Path):
        import tensorflow as tf

        network = read_aligner(path)
        signature = [tf.TensorSpec((BATCH, SIDE, SIDE, 1), tf.uint8)]
        self._network = tf.function(lambda views: network(views, training=False), input_signature=signature)

    def landmarks(
        self, images: Sequence[Image], boxes: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The points of the face in each picture, and how sure they are.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
            boxes: (n, 4) x, y, width, height of a square around each face, some margin included; others are
                squared. None: the central square of each picture.

        Returns:
            (n, 5, 2) float32 in pixels of the pictures, in the order of `facekit.alignment.Points`; and (n,)
            float32, 0 to 1: the two looks' probability that a face is where one should be, by their geometric
            mean, less what they disagree on its points. `CropRecipe.min_confidence`, 0.9, is meant to keep nearly
            all faces and to refuse nearly all else; it does not tell good points from slightly wrong ones.

        Raises:
            ValueError: as many boxes as pictures are needed, each with an area.
        """
        if boxes is None:
            boxes = np.array([central_square(image.shape) for image in images]).reshape(-1, 4)
        if np.shape(boxes) != (len(images), 4):
            raise ValueError(f"`boxes` must be ({len(images)}, 4), one a picture. Received: {np.shape(boxes)}.")
        greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        first, seen = self._look(greys, [square_place(box) for box in boxes])
        points, seen_again = self._look(greys, [around(face) for face in first])
        apart = np.linalg.norm(points - first, axis=2).mean(axis=1) / face_size(points)
        sure = np.sqrt(seen * seen_again) * 0.5 ** ((apart / DOUBTFUL) ** 2)
        return points, sure.astype(np.float32)

    def _look(
        self, greys: Sequence[NDArray[np.uint8]], places: Sequence[Place]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One look at each picture: (n, 5, 2) points in its pixels, (n,) probability of a face."""
        points = np.empty((len(greys), 5, 2), np.float32)
        answers = np.empty((len(greys), 11), np.float32)
        views = np.zeros((BATCH, SIDE, SIDE, 1), np.uint8)
        for start in range(0, len(greys), BATCH):
            here = range(start, min(start + BATCH, len(greys)))
            for row, picture in enumerate(here):
                views[row, :, :, 0] = look(greys[picture], places[picture])
            answers[here.start : here.stop] = self._network(views).numpy()[: len(here)]
        for row, place in enumerate(places):
            points[row] = to_picture(place, answers[row, :10].reshape(5, 2))
        return points, expit(answers[:, 10])


class FastDetector:
    """`FastAligner` as a `facekit.detection.Detector`: exactly one face a picture, the one in its middle.

    Args:
        aligner: the network.
    """

    def __init__(self, aligner: FastAligner):
        self._aligner = aligner

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """One face for each picture, with the confidence of `FastAligner.landmarks`.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.

        Returns:
            A list of one face for each picture; its box is the square that an aligned crop covers, unrotated.
        """
        points, sure = self._aligner.landmarks(images)
        return [[Face(face_box(face), float(score), face)] for face, score in zip(points, sure, strict=True)]


def face_box(points: NDArray[Any]) -> NDArray[np.float32]:
    """The square with an aligned crop's middle and side, unrotated: (4,) float32 x, y, width, height."""
    place = around(points, room=0)
    half = float(np.hypot(place[0, 0], place[1, 0]))
    return np.array([*(place[:, 2] + 0.5 - half), 2 * half, 2 * half], np.float32)
