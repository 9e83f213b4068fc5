"""From a face in a picture to a square crop: five points onto a standard template, or the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image

Points = NDArray[np.float32]
"""(5, 2) float32, pixels, x then y: left eye (in the picture), right eye, nose tip, mouth's left and right."""

TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""Where the five points lie in a 112 x 112 crop: the layout of SphereFace and ArcFace (Deng et al., CVPR 2019)."""

TEMPLATE_SIDE = 112

DLIB_TEMPLATE: Points = np.array(
    [[47.57, 45.28], [100.91, 45.62], [74.35, 77.42], [50.63, 104.30], [97.24, 104.52]], np.float32
)
"""Where MTCNN's five points lie in dlib's own 150 x 150 face chips: medians over 400 LFW pictures, each mapped by
dlib's alignment (which itself takes eye corners and nose, points that MTCNN does not give)."""

DLIB_CLOSE_TEMPLATE: Points = np.array(
    [[46.49, 44.11], [101.97, 44.46], [74.34, 77.54], [49.68, 105.49], [98.15, 105.72]], np.float32
)
"""`DLIB_TEMPLATE` 1.04 times as large around the crop's middle: with the weights in `LAYOUTS` the mapping onto
dlib's network that `python -m apps.mapping_study` found best (docs/pretrained.md)."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the five points go, and how much each of them counts.

    Attributes:
        points: (5, 2) float32, in pixels of a square crop.
        side: of that square, in pixels.
        weights: of the five points in the least squares.
    """

    points: Points
    side: int
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)


LAYOUTS: dict[str, Layout] = {
    "arcface": Layout(TEMPLATE, TEMPLATE_SIDE),
    "dlib": Layout(DLIB_TEMPLATE, 150),
    # Eyes keep their place in a face; the nose moves with a turn of the head, the mouth also with what it does.
    "dlib_close": Layout(DLIB_CLOSE_TEMPLATE, 150, (4.0, 4.0, 2.0, 1.0, 1.0)),
}
"""Layouts by their name in a recipe."""


@dataclass(frozen=True)
class CropRecipe:
    """Everything that decides which pixels a crop holds; saved with crops and with each model.

    Attributes:
        method: "align" (five points, similarity transform) or "box" (the box, squared, no rotation).
        size: side of the crop in pixels.
        margin: room added on every side, as a share of the template (align) or of the box (box).
        choose: which of several faces (`facekit.detection.choose_face`).
        min_confidence: faces that the detector scores lower are not used, 0 to 1.
        max_side: pictures are scaled down to this longer side, in pixels, before detection.
        quality: JPEG quality that the crop is stored at, 1 to 100; networks see it as stored.
        detector: which detector, and what decides what it finds; see `facekit.detectors.detector_name`.
        template: where the five points go (align), a key of `LAYOUTS`.
    """

    method: Literal["align", "box"] = "align"
    size: int = 112
    margin: float = 0.0
    choose: str = "largest_centred"
    min_confidence: float = 0.9
    max_side: int = 1024
    quality: int = 95
    detector: str = "mtcnn"
    template: str = "arcface"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)

    def difference(self, other: CropRecipe) -> str:
        """Where another recipe differs, in words: "size 112 there, 160 here"."""
        mine, theirs = self.to_dict(), other.to_dict()
        return ", ".join(
            f"{name} {mine[name]} there, {theirs[name]} here" for name in mine if mine[name] != theirs[name]
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CropRecipe:
        """A recipe from `to_dict`'s values.

        Raises:
            ValueError: a name that this version doesn't know: the recipe can't be followed.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"The crop recipe has unknown entries {unknown}; it is from another version.")
        if values.get("template", "arcface") not in LAYOUTS:
            raise ValueError(f"The crop recipe's template {values['template']!r} is from another version.")
        return cls(**values)


def template(size: int, margin: float = 0.0, layout: str = "arcface") -> Points:
    """The five points of a layout in a crop of `size` pixels a side with `margin` more room around."""
    frame = LAYOUTS[layout]
    return ((frame.points / frame.side + margin) * (size / (1 + 2 * margin))).astype(np.float32)


def similarity_transform(
    source: NDArray[Any], target: NDArray[Any], weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """The rotation, uniform scale and shift that bring `source` nearest to `target` in (weighted) least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    in its closed form for the plane, without reflection.

    Args:
        source: (n, 2) points, n at least 2, not all equal.
        target: (n, 2) points.
        weights: (n) of the points' squared distances, positive; None: all alike.

    Returns:
        (2, 3) float64 matrix M with target ~ M[:, :2] @ point + M[:, 2].

    Raises:
        ValueError: all source points coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    share = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    centre, goal = share @ source, share @ target
    (x, y), (u, v) = (source - centre).T, (target - goal).T
    spread = float(share @ (x * x + y * y))
    if not np.ptp(source, axis=0).any():
        raise ValueError("The landmarks all lie in one point: no alignment can be found.")
    cosine = float(share @ (x * u + y * v)) / spread
    sine = float(share @ (x * v - y * u)) / spread
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([rotation, goal - rotation @ centre])


def align(
    image: Image, landmarks: Points, size: int = TEMPLATE_SIDE, margin: float = 0.0, layout: str = "arcface"
) -> Image:
    """Warp a picture so that its five landmarks come to lie on the template.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) in pixels of `image`.
        size: side of the crop in pixels.
        margin: room around, as a share of the template's side.
        layout: which template, a key of `LAYOUTS`.

    Returns:
        (size, size, 3) uint8; black where the picture ends.
    """
    return warp(image, landmarks, template(size, margin, layout), LAYOUTS[layout].weights, size)


def warp(image: Image, landmarks: Points, target: Points, weights: Sequence[float], size: int) -> Image:
    """Warp a picture so that its landmarks come as near to `target` as a similarity brings them.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) in pixels of `image`.
        target: (5, 2) in pixels of the crop.
        weights: of the five points in the least squares.
        size: side of the crop in pixels.

    Returns:
        (size, size, 3) uint8; black where the picture ends.
    """
    matrix = similarity_transform(landmarks, target, weights)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        # Bilinear sampling would skip pixels: shrink by area first, then warp the rest of the way.
        height, width = image.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        factor = np.array([small[0] / width, small[1] / height])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # Pixel centres lie at half-integers of the area: (p + 0.5) * factor - 0.5.
        landmarks = ((landmarks + 0.5) * factor - 0.5).astype(np.float32)
        matrix = similarity_transform(landmarks, target, weights)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def crop_box(image: Image, box: NDArray[Any], size: int = TEMPLATE_SIDE, margin: float = 0.0) -> Image:
    """Cut the square around a box, `margin` of its side wider on every side, and resize it.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) x, y, width, height in pixels.
        size: side of the crop in pixels.
        margin: room around, as a share of the box's longer side.

    Returns:
        (size, size, 3) uint8; black where the picture ends.
    """
    x, y, width, height = (float(value) for value in box)
    side = max(1, round(max(width, height) * (1 + 2 * margin)))
    left, top = round(x + width / 2 - side / 2), round(y + height / 2 - side / 2)
    rows, columns = image.shape[:2]
    before = (max(0, -top), max(0, -left))
    after = (max(0, top + side - rows), max(0, left + side - columns))
    padded = np.pad(image, ((before[0], after[0]), (before[1], after[1]), (0, 0)))
    square = padded[top + before[0] :, left + before[1] :][:side, :side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR)


def crop_face(image: Image, box: NDArray[Any], landmarks: Points, recipe: CropRecipe) -> Image:
    """The crop that `recipe` makes of a face, before it is stored: (recipe.size, recipe.size, 3) uint8."""
    if recipe.method == "align":
        return align(image, landmarks, recipe.size, recipe.margin, recipe.template)
    return crop_box(image, box, recipe.size, recipe.margin)
