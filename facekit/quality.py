"""How good a picture of a face is to learn from: sharpness, size, pose and light, and what follows from them.

Pixels are measured on the face's middle, at one size for all pictures, so that photos and crops of any size
compare. Sources: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000 (variance of the
Laplacian); Pertuz et al., "Analysis of focus measure operators", Pattern Recognition 46, 2013 (why it is divided by
the contrast: operators that are not follow the light as much as the focus).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.alignment import Points
from facekit.images import Image

SIDE = 64
"""Pixels a side at which pixels are measured."""

_MIDDLE = 0.6  # of a picture without landmarks: hair, clothes and background stay out
_AROUND = 2.0  # side of the square measured, in eye distances; about the same part of an aligned crop
_DARKEST, _BRIGHTEST = 5, 250  # grey levels at and beyond which a pixel says nothing any more

# An average face's points in eye distances, so that the median of LFW's pictures looks straight ahead: how far nose
# and mouth are below the eyes, and before them.
_NOSE_DOWN, _MOUTH_DOWN = 0.62, 1.155
_NOSE_OUT, _MOUTH_OUT = 0.50, 0.12

PIXELS = ("sharpness", "contrast", "brightness", "clipped", "imbalance")
POSE = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class Quality:
    """What was measured on a picture; NaN where landmarks were needed and are unknown.

    Attributes:
        sharpness: standard deviation of the Laplacian over that of the grey picture, at `SIDE` pixels; 0 and up.
            Independent of brightness and contrast. LFW's crops: 0.15 (1 %) to 0.53 (99 %).
        contrast: standard deviation of grey, 0 to 0.5 of its range.
        brightness: mean grey, 0 to 1.
        clipped: share of pixels that are black or white, 0 to 1.
        imbalance: (left - right) / (left + right) of the mean grey of the two halves, -1 to 1.
        eye_distance: pixels between the eyes in the picture that the landmarks are of.
        yaw: degrees; above 0 the nose points to the picture's right.
        pitch: degrees; above 0 the face looks down.
        roll: degrees; above 0 the head is turned clockwise as we see it.
    """

    sharpness: float
    contrast: float
    brightness: float
    clipped: float
    imbalance: float
    eye_distance: float = math.nan
    yaw: float = math.nan
    pitch: float = math.nan
    roll: float = math.nan


NAMES = tuple(field.name for field in fields(Quality))
Table = Mapping[str, NDArray[np.float64]]
"""A column of n values for each name of `Quality` (those that are needed)."""


def measure(image: Image, landmarks: Points | None = None) -> Quality:
    """Measure a picture.

    Args:
        image: (H, W, 3) uint8 RGB: a face crop, or a photo.
        landmarks: (5, 2) its five points in pixels; None: the picture's middle is taken for the face's, and size
            and pose stay unknown.
    """
    grey = cv2.cvtColor(_face(image, landmarks), cv2.COLOR_RGB2GRAY)
    shrink = min(grey.shape) >= SIDE
    grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    contrast, left, right = (
        float(grey.std()),
        float(grey[:, : SIDE // 2].mean()),
        float(grey[:, SIDE // 2 :].mean()),
    )
    laplacian = cv2.Laplacian(grey, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)
    pixels = {
        # Below one grey level there is only rounding.
        "sharpness": float(laplacian.std()) / contrast if contrast >= 1 else 0.0,
        "contrast": contrast / 255,
        "brightness": float(grey.mean()) / 255,
        "clipped": float(((grey <= _DARKEST) | (grey >= _BRIGHTEST)).mean()),
        "imbalance": (left - right) / max(left + right, 1.0),
    }
    if landmarks is None:
        return Quality(**pixels)
    yaw, pitch, roll = (float(angle[0]) for angle in pose(landmarks[None]))
    return Quality(**pixels, eye_distance=float(eye_distances(landmarks[None])[0]), yaw=yaw, pitch=pitch, roll=roll)


def _face(image: Image, landmarks: Points | None) -> Image:
    """The part that is measured: a square around the landmarks, or the middle; never empty."""
    height, width = image.shape[:2]
    if landmarks is None:
        half_x, half_y = width * _MIDDLE / 2, height * _MIDDLE / 2
        x, y = width / 2, height / 2
    else:
        x, y = (float(value) for value in landmarks.mean(axis=0))
        half_x = half_y = _AROUND / 2 * max(1.0, float(eye_distances(landmarks[None])[0]))
    left, top = max(0, round(x - half_x)), max(0, round(y - half_y))
    part = image[top : max(top + 1, round(y + half_y)), left : max(left + 1, round(x + half_x))]
    return part if part.size else image


def eye_distances(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pixels between the eyes: (n, 5, 2) to (n,)."""
    return np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1).astype(np.float64)


def pose(
    landmarks: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Yaw, pitch and roll from the five points, in degrees, as in `Quality`.

    A head far from the camera is projected in parallel. In the frame of the eyes (origin between them, x along
    them, their distance e) a point (x, y, z), z towards the camera, is seen at x cos(yaw) + z sin(yaw) and
    y cos(pitch) + z sin(pitch). So roll is the angle of the line through the eyes; the nose, z_n before them, is
    seen z_n tan(yaw) beside their middle in seen eye distances; and with r, how far down from eyes to mouth it is
    seen, tan(pitch) = (r y_m - y_n) / (z_n - r z_m). The lengths are those of an average face: a long nose reads as
    a turned head, so a single picture's angle is good to about 10 degrees.

    Args:
        landmarks: (n, 5, 2): eyes, tip of the nose, corners of the mouth, the left in the picture first.

    Returns:
        Three (n,) arrays; NaN where the eyes meet in one point, or the mouth is level with them.
    """
    points = landmarks.astype(np.float64)
    along = points[:, 1] - points[:, 0]
    distance = np.linalg.norm(along, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        across = along / distance[:, None]
        down = np.stack([-across[:, 1], across[:, 0]], axis=1)
        middle = (points[:, 0] + points[:, 1]) / 2
        nose, mouth = points[:, 2] - middle, (points[:, 3] + points[:, 4]) / 2 - middle
        beside = (nose * across).sum(axis=1) / distance
        level = (nose * down).sum(axis=1) / (mouth * down).sum(axis=1)
        yaw = np.arctan(beside / _NOSE_OUT)
        # Beyond the nose and the mouth no face is left to measure: the angle is at its end there.
        lever = np.maximum(_NOSE_OUT - level * _MOUTH_OUT, 0.1)
        pitch = np.arctan((level * _MOUTH_DOWN - _NOSE_DOWN) / lever)
    roll = np.where(distance > 0, np.arctan2(along[:, 1], along[:, 0]), np.nan)
    return np.degrees(yaw), np.degrees(pitch), np.degrees(roll)


@dataclass(frozen=True)
class Limit:
    """What a figure of `Quality` must be: its size, without the sign, within two ends.

    Attributes:
        name: of the figure.
        least: it is too small below.
        most: it is too large above.
    """

    name: str
    least: float = -math.inf
    most: float = math.inf

    def misses(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each value is outside, as a factor above 1; 1 inside, and where the value is unknown.

        Args:
            values: (n,).
        """
        size = np.abs(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            low = np.where(size < self.least, self.least / np.maximum(size, 1e-9), 1.0)
            high = np.where(size > self.most, size / max(self.most, 1e-9), 1.0)
        return np.maximum(low, high)


def keep(table: Table, limits: Sequence[Limit]) -> NDArray[np.bool_]:
    """Which pictures are within every limit: (n,) bool. An unknown figure (NaN) speaks against nobody."""
    kept = np.ones(_length(table), bool)
    for limit in limits:
        kept &= limit.misses(table[limit.name]) == 1
    return kept


def weights(table: Table, limits: Sequence[Limit], least: float = 0.1) -> NDArray[np.float64]:
    """How much each picture is worth, in [least, 1]: 1 within every limit, less the farther it is outside.

    The factors by which the limits are missed divide 1, one after the other: half as sharp as asked is worth half.

    Args:
        table: the figures of n pictures.
        limits: as for `keep`.
        least: what a picture is worth at least, above 0: who is never drawn is better left out.

    Returns:
        (n,) float64.
    """
    if not 0 < least <= 1:
        raise ValueError(f"`least` must be in (0, 1]. Received: least={least!r}")
    worth = np.ones(_length(table))
    for limit in limits:
        worth /= limit.misses(table[limit.name])
    return np.maximum(worth, least)


def _length(table: Table) -> int:
    return len(next(iter(table.values())))
