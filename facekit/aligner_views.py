"""What the alignment network is trained on: faces with their points, seen at places and in light of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.aligner import SIDE, Place, View, around, look, to_view
from facekit.alignment import Points
from facekit.images import Image

PATCH = 128
"""Side of a kept picture in pixels."""

PATCH_ROOM = 0.8
"""Room around the template in a kept picture: 2.6 times the template's side."""

# Looks at a face: share of first looks, of looks beside it, and the rest second looks.
FIRST, BESIDE = 0.45, 0.2

MIRRORED = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Faces:
    """Faces with known points, small enough to be held in memory by the ten thousand.

    Attributes:
        patches: (n, PATCH, PATCH) uint8, grey, the face upright in the picture's sense, in the middle.
        points: (n, 5, 2) float32 in pixels of the patches.
    """

    patches: NDArray[np.uint8]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points)


def patch(image: Image, points: Points) -> tuple[NDArray[np.uint8], Points]:
    """The surroundings of a face, unrotated, at `PATCH` pixels a side, and its points there.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (5, 2) in pixels of `image`.

    Returns:
        (PATCH, PATCH) uint8, black where the picture ends; (5, 2) float32.
    """
    upright = around(points, PATCH_ROOM)
    half = np.hypot(upright[0, 0], upright[1, 0])
    place = np.array([[half, 0, upright[0, 2]], [0, half, upright[1, 2]]])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return look(grey, place, PATCH), (to_view(place, points) + 1) * (PATCH / 2) - 0.5


def stack(patches: Sequence[tuple[NDArray[np.uint8], Points]]) -> Faces:
    """`patch`'s answers as one set."""
    pictures = np.array([picture for picture, _ in patches], np.uint8).reshape(-1, PATCH, PATCH)
    return Faces(pictures, np.array([points for _, points in patches], np.float32).reshape(-1, 5, 2))


def moved(place: Place, size: float, shift: NDArray[np.float64], angle: float) -> Place:
    """A place made larger by `size`, shifted by a share of its half side, and turned by `angle` radians."""
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([place[:, :2] @ turn, place[:, :2] @ shift + place[:, 2]])


def first_place(points: Points, rng: np.random.Generator) -> Place:
    """A square around a face as a dataset has it: 0.95 to 2.1 times the template's side, tilted by chance."""
    upright = around(points, room=0)
    half = np.hypot(upright[0, 0], upright[1, 0])
    square = np.array([[half, 0, upright[0, 2]], [0, half, upright[1, 2]]])
    size = np.exp(rng.uniform(np.log(0.95), np.log(2.1)))
    angle = np.radians(np.clip(rng.normal(0, 10), -25, 25))
    return moved(square, size, rng.uniform(-0.3, 0.3, 2) * size, angle)


def second_place(points: Points, rng: np.random.Generator) -> Place:
    """The place that a first look gives, with its errors."""
    size = np.exp(rng.normal(0, 0.08))
    return moved(around(points), size, rng.normal(0, 0.07, 2), np.radians(rng.normal(0, 5)))


def place_beside(points: Points, rng: np.random.Generator) -> Place:
    """A place where the network should say that it sees no face in its middle.

    The face is beside the view or cut by its edge, upside down or lying, far too small or far too large.
    """
    kind, place = rng.integers(4), around(points)
    angle = np.radians(rng.normal(0, 10))
    if kind == 0:  # the middle of the face outside the view, or at its edge
        direction = rng.uniform(0, 2 * np.pi)
        far = rng.uniform(0.9, 1.8) * np.array([np.cos(direction), np.sin(direction)])
        return moved(place, np.exp(rng.uniform(-0.5, 0.2)), far, angle)
    if kind == 1:
        return moved(place, np.exp(rng.uniform(0, 0.5)), np.zeros(2), rng.uniform(np.pi / 3, np.pi * 5 / 3))
    size = rng.uniform(2.4, 4) if kind == 2 else rng.uniform(0.2, 0.45)
    return moved(place, size, rng.uniform(-0.4, 0.4, 2), angle)


def end_picture(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Let the picture end somewhere around the face: black beyond, as around a box crop."""
    reach = PATCH / (1 + 2 * PATCH_ROOM)
    left, top, right, bottom = (rng.uniform(0.45, 1.3, 4) * reach + PATCH / 2).astype(int)
    ended = np.zeros_like(picture)
    rows, columns = slice(max(0, PATCH - top), bottom), slice(max(0, PATCH - left), right)
    ended[rows, columns] = picture[rows, columns]
    return ended


def relight(view: View, rng: np.random.Generator) -> View:
    """Another camera, light and compression; sometimes something before the face."""
    values = view.astype(np.float32)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.1:
        less = int(rng.integers(20, 48))
        values = cv2.resize(cv2.resize(values, (less, less), interpolation=cv2.INTER_AREA), (SIDE, SIDE))
    values = 255 * (values / 255) ** np.exp(rng.normal(0, 0.3))
    values = (values - 127) * rng.uniform(0.5, 1.3) + 127 + rng.normal(0, 25)
    if rng.random() < 0.3:
        values += np.linspace(-1, 1, SIDE)[:, None] * rng.normal(0, 25)
        values += np.linspace(-1, 1, SIDE)[None, :] * rng.normal(0, 25)
    if rng.random() < 0.15:
        left, top = rng.integers(0, SIDE - 8, 2)
        width, height = rng.integers(6, 20, 2)
        values[top : top + height, left : left + width] = rng.uniform(0, 255)
    if rng.random() < 0.5:
        values += rng.normal(0, rng.uniform(1, 8), values.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def draw_view(picture: NDArray[np.uint8], points: Points, rng: np.random.Generator) -> tuple[View, Points, bool]:
    """One training view of a face: what is seen, its points in the unit square, whether a face should be seen."""
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
        points = (np.array([PATCH - 1, 0], np.float32) + points * np.array([-1, 1], np.float32))[MIRRORED]
    kind = rng.random()
    make = place_beside if kind < BESIDE else first_place if kind < BESIDE + FIRST else second_place
    place = make(points, rng)
    if rng.random() < 0.4:
        picture = end_picture(picture, rng)
    return relight(look(picture, place), rng), to_view(place, points), kind >= BESIDE


def draw_batch(
    sets: Sequence[Faces], shares: Sequence[float], size: int, seed: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A training batch, which depends on nothing but its arguments.

    Args:
        sets: faces to draw from, each at least one.
        shares: how much of the batch each set gets, summing to 1.
        size: views in the batch.
        seed: non-negative numbers; the same give the same batch.

    Returns:
        (size, SIDE, SIDE, 1) uint8 views, and (size, 11) float32: the points in the unit square, x then y, and 1
        where a face should be seen, else 0.
    """
    rng = np.random.default_rng(seed)
    views = np.empty((size, SIDE, SIDE, 1), np.uint8)
    truth = np.empty((size, 11), np.float32)
    chosen = rng.choice(len(sets), size, p=shares)
    for row, faces in enumerate(sets[one] for one in chosen):
        face = int(rng.integers(len(faces)))
        view, points, seen = draw_view(faces.patches[face], faces.points[face], rng)
        views[row, :, :, 0] = view
        truth[row] = [*points.ravel(), seen]
    return views, truth
