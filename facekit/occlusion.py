"""Things that hide a part of a face, painted where an aligned crop's template says that the part is.

Coordinates of the face: the middle between the eyes is (0, 0), the distance between them 1, y goes down. The mouth
is then at y = 1.16, the chin near 1.9, the cheeks' edges near x = -1.1 and 1.1. Each thing is painted into a new
picture, a little off its place and size, lit as the face is. Crops that are not aligned (method "box") get the same
shapes at the same places of the crop, which then hide other parts than meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.alignment import template
from facekit.images import Image

Numbers = Sequence[float]
Field = NDArray[np.floating]
"""(H, W) float32."""

_NOSE = 0.57
MOUTH = 1.16
"""How far the mouth lies below the eyes in the template, in distances between the eyes."""

_CHIN = 1.95
_OFF_PLACE = 0.05  # eye distances either way: detectors and wearers are that exact
_OFF_ANGLE = 4.0  # degrees either way

# The right half of a mask from the bridge of the nose to the chin: x, and y as the drop below the edge's top, then
# as the share of the way from the edge at the cheek down to the chin.
_MASK_EDGE = np.array([[0, 0], [0.14, 0.01], [0.32, 0.12], [0.58, 0.24], [0.84, 0.27], [1.06, 0.22]])
_MASK_BELOW = np.array([[1.07, 0.15], [0.99, 0.42], [0.81, 0.68], [0.55, 0.88], [0.28, 0.98], [0, 1.0]])
_MASK_COLOURS = ((132, 182, 212), (236, 238, 240), (42, 43, 47), (205, 214, 222), (150, 60, 70), (60, 80, 120))
_PLEATED = 2  # the first colours are those of pleated masks

_LENS = 0.55  # x of the middle of the right lens: a little outside of the pupil
_FRAME_COLOURS = ((22, 20, 20), (70, 42, 24), (150, 120, 70), (120, 122, 126))
_LENS_COLOURS = ((16, 16, 20), (48, 32, 20), (22, 34, 28), (30, 34, 52))

# A hand with its fingertips at the top: from (x, y) to (x, y) and the half width at both ends, as shares of the
# length from wrist to middle fingertip. Little finger to index, thumb, palm, forearm.
_HAND = np.array(
    [
        [0.170, 0.190, 0.150, 0.52, 0.040, 0.052],
        [0.068, 0.060, 0.058, 0.50, 0.046, 0.056],
        [-0.030, 0.050, -0.033, 0.50, 0.048, 0.058],
        [-0.130, 0.100, -0.122, 0.50, 0.046, 0.057],
        [-0.320, 0.470, -0.150, 0.74, 0.052, 0.085],
        [0.075, 0.620, 0.050, 0.88, 0.145, 0.130],
        [-0.060, 0.620, -0.035, 0.88, 0.145, 0.130],
        [0.0, 0.950, 0.0, 2.6, 0.135, 0.20],
    ]
)
_FINGERS = 5
_HAND_GRID = 72  # places a side at which a hand is worked out: it has no finer detail
_HAND_LENGTH = 2.9  # eye distances: a hand is about as long as a face
_SKINS = ((236, 196, 172), (214, 164, 132), (180, 126, 92), (128, 84, 58), (84, 54, 40))


@dataclass(frozen=True)
class _Frame:
    """Where the face's coordinates lie in a part of a picture.

    Attributes:
        part: (H, W, 3) uint8, the part that is painted on: a view.
        matrix: (2, 3) float64, the face's coordinates to the part's pixels.
    """

    part: Image
    matrix: NDArray[np.float64]

    @property
    def unit(self) -> float:
        """Pixels of an eye distance."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def window(self, low: tuple[float, float], high: tuple[float, float]) -> _Frame:
        """The part of it from one corner to the opposite one, in the face's coordinates: less to paint."""
        limit = np.array(self.part.shape[1::-1])
        corners = np.array([low, high]) @ self.matrix[:, :2].T + self.matrix[:, 2]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, limit - 1).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), [x0 + 1, y0 + 1], limit).astype(int).tolist()
        return _Frame(self.part[y0:y1, x0:x1], self.matrix - [[0, 0, x0], [0, 0, y0]])

    def grid(self, most: int = 10_000) -> tuple[Field, Field]:
        """The face's x and y at every pixel, each (H, W) float32, or at `most` places along each axis."""
        back = np.linalg.inv(self.matrix[:, :2])
        rows, columns = (
            (np.arange(min(most, length)) + 0.5) * (length / min(most, length)) - 0.5 - start
            for length, start in zip(self.part.shape[:2], self.matrix[::-1, 2], strict=True)
        )
        x, y = (np.add.outer(row[1] * rows, row[0] * columns, dtype=np.float32) for row in back)
        return x, y

    def cover(self, outline: NDArray[np.float64]) -> Field:
        """How much of each pixel a polygon (n, 2) covers, 0 to 1."""
        points = outline @ self.matrix[:, :2].T + self.matrix[:, 2]
        canvas = np.zeros(self.part.shape[:2], np.uint8)
        cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return canvas * np.float32(1 / 255)

    def light(self) -> Field:
        """How the face is lit there, about 0.3 to 1.4: the luma in the large, relative to mid-grey."""
        luma = cv2.resize(cv2.cvtColor(self.part, cv2.COLOR_RGB2GRAY), (6, 6), interpolation=cv2.INTER_AREA)
        smooth = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), 1.2, borderType=cv2.BORDER_REPLICATE)
        mean = max(float(smooth.mean()), 1.0)
        relative = (0.45 + 0.55 * smooth / mean) * min(max(mean / 125, 0.45), 1.1)
        return cv2.resize(relative, self.part.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def paint(self, colour: Numbers, shade: Field | float, alpha: Field) -> None:
        """Lay a colour times a shade over the part, in place.

        Args:
            colour: red, green, blue.
            shade: (H, W) factor.
            alpha: (H, W), 0 nothing to 1 all.
        """
        field = np.broadcast_to(np.float32(shade), alpha.shape)
        layer = cv2.transform(np.clip(field, 0, 2), np.array(colour, np.float32)[:, None])
        layer = cv2.convertScaleAbs(layer)
        cv2.blendLinear(self.part, layer, 1 - alpha, alpha, dst=self.part)


def mask(image: Image, strength: float, draws: Numbers, margin: float, layout: str = "arcface") -> Image:
    """A face mask from the cheeks to the chin.

    Args:
        image: (H, W, 3) uint8, an aligned crop.
        strength: how far up it reaches, as a share of the way from the mouth (0) to the eyes (1): 70 % of that to
            all of it.
        draws: 9 random numbers.
        margin: of the crop.
        layout: of the crop, a key of `facekit.alignment.LAYOUTS`.
    """
    up, across, down, tilt, kind, red, green, blue, light = draws
    image = image.copy()
    top = MOUTH * (1 - strength * (0.7 + 0.3 * up))
    frame = _frame(image, margin, layout, (across, down, tilt)).window((-1.4, top - 0.2), (1.4, _CHIN + 0.2))
    choice = int(kind * len(_MASK_COLOURS))
    dye = zip(_MASK_COLOURS[choice], (red, green, blue), strict=True)
    colour = [part + 30 * (draw - 0.5) for part, draw in dye]
    x, y = frame.grid()
    lit = frame.light() * (0.9 + 0.2 * light)
    cheek = top + float(_MASK_EDGE[-1, 1])
    bands = ((1.04, cheek + 0.05, 1.3, cheek - 0.08), (1.0, cheek + 0.4, 1.3, cheek + 0.2))
    frame.paint(colour, lit, 0.85 * _line(np.abs(x), y, bands, 0.02, frame.unit))
    alpha = cv2.GaussianBlur(frame.cover(_mask_outline(top)), (0, 0), 0.012 * frame.unit + 0.3)
    # The cloth is round as the face is, and turns from the light towards the chin and at its edge.
    inner = cv2.boxFilter(alpha, -1, (2 * int(0.07 * frame.unit) + 1,) * 2)
    shade = 0.8 - 0.2 * x * x - 0.3 * np.maximum(y - 1.3, 0) + 0.28 * inner
    if choice < _PLEATED:
        shade += _pleats((y - top - 0.12 * x * x) / (_CHIN - top))
    frame.paint(colour, shade * lit, alpha)
    return image


def sunglasses(image: Image, strength: float, draws: Numbers, margin: float, layout: str = "arcface") -> Image:
    """Sunglasses: two lenses, a rim, a bridge, temples.

    Args:
        image: (H, W, 3) uint8, an aligned crop.
        strength: share of light that the lenses take: 75 % of that to all of it.
        draws: 8 random numbers.
        margin: of the crop.
        layout: of the crop, a key of `facekit.alignment.LAYOUTS`.
    """
    opacity, across, down, tilt, width, height, form, colour = draws
    image = image.copy()
    frame = _frame(image, margin, layout, (across, down, tilt)).window((-1.45, -0.6), (1.45, 0.75))
    x, y = frame.grid()
    x = np.abs(x)
    half = 0.39 + 0.07 * width, 0.29 + 0.14 * height
    rim = 0.03 + 0.035 * ((width + height) % 1)
    outside = (_lens(x, y, half, 2.2 + 2.5 * form) - 1) * (half[1] * frame.unit)  # pixels
    inside = np.clip(0.5 - outside, 0, 1)
    lines = ((0.0, -0.1, _LENS - half[0], -0.1), (_LENS + half[0] * 0.9, -0.12, 1.36, -0.16))
    whole = np.clip(rim * frame.unit + 0.5 - outside, 0, 1)
    whole = np.maximum(whole, _line(x, y, lines, rim * 0.8, frame.unit))
    choice = int(colour * 16)
    light = frame.light()
    frame.paint(_FRAME_COLOURS[choice % 4], light * (1 + 0.5 * _bump(y + 0.16, 0.08)), whole * (1 - inside))
    # Lenses are darker above, and mirror something bright along a slanting band.
    shade = light * (1 + 0.9 * np.clip(y + 0.25, 0, 1))
    frame.paint(_LENS_COLOURS[choice // 4], shade, inside * (strength * (0.75 + 0.25 * opacity)))
    frame.paint((235, 240, 250), light, inside * _bump(x - 0.67 + 0.6 * y, 0.12) * np.clip(0.2 - y, 0, 0.3))
    return image


def hand(image: Image, strength: float, draws: Numbers, margin: float, layout: str = "arcface") -> Image:
    """A hand that comes in from a side or from below, in the colour of a skin.

    Args:
        image: (H, W, 3) uint8, an aligned crop.
        strength: how far its fingertips reach, as a share of the way from the face's edge to the nose (1): 60 % of
            that to all of it.
        draws: 8 random numbers.
        margin: of the crop.
        layout: of the crop, a key of `facekit.alignment.LAYOUTS`.
    """
    far, direction, turn, size, side, skin, red, spread = draws
    image = image.copy()
    # From -20 degrees (above the horizontal, right) over 90 (below) to 200 (left).
    angle = radians(-20 + 220 * direction)
    from_edge = 1 - strength * (0.6 + 0.4 * far)
    tip = 1.25 * from_edge * cos(angle), _NOSE + 1.4 * from_edge * sin(angle)
    away = angle + radians(50 * (turn - 0.5))
    length = _HAND_LENGTH * (0.85 + 0.3 * size)
    frame = _frame(image, margin, layout, (0.5, 0.5, 0.5))
    x, y = ((axis - start) / length for axis, start in zip(frame.grid(_HAND_GRID), tip, strict=True))
    # The hand's own axes: from the fingertips to the arm, and across; a left or a right hand.
    along = x * cos(away) + y * sin(away)
    over = (x * sin(away) - y * cos(away)) * (1 if side < 0.5 else -1)
    height = _hand_height(over, along, 0.9 + 0.45 * spread)
    height = cv2.resize(height, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    alpha = np.clip(height * (0.05 * length * frame.unit) + 0.5, 0, 1)
    shadow = cv2.boxFilter(alpha, -1, (2 * int(0.15 * frame.unit) + 1,) * 2)
    light = frame.light()
    frame.paint((0, 0, 0), 1.0, 0.4 * shadow * (1 - alpha))
    skin_colour = _SKINS[int(skin * len(_SKINS))]
    # Round: lighter in the middle of each finger.
    edge = 1 - np.clip(height, 0, 1)
    colour = (skin_colour[0], *(part * (0.94 + 0.08 * red) for part in skin_colour[1:]))
    frame.paint(colour, (0.62 + 0.38 * np.sqrt(1 - edge * edge)) * light, alpha)
    return image


def _frame(image: Image, margin: float, layout: str, off: tuple[float, float, float]) -> _Frame:
    """The face's place by its layout, moved and turned by random numbers (0.5: not at all)."""
    eyes = template(1, margin, layout)[:2].astype(np.float64) * image.shape[1::-1]
    unit = float(np.hypot(*(eyes[1] - eyes[0])))
    angle = radians(2 * _OFF_ANGLE * (off[2] - 0.5))
    turned = unit * np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    place = eyes.mean(axis=0) + 2 * _OFF_PLACE * unit * (np.array(off[:2]) - 0.5)
    return _Frame(image, np.column_stack([turned, place]))


def _mask_outline(top: float) -> NDArray[np.float64]:
    """The outline of a mask whose edge begins at y = top on the nose, (n, 2), smooth."""
    cheek = top + _MASK_EDGE[-1, 1]
    edge = _MASK_EDGE + [0, top]
    below = np.column_stack([_MASK_BELOW[:, 0], cheek + _MASK_BELOW[:, 1] * (_CHIN - cheek)])
    half = np.concatenate([edge, below])
    return _smooth(np.concatenate([half, half[-2:0:-1] * [-1, 1]]))


def _smooth(points: NDArray[np.float64], pieces: int = 6) -> NDArray[np.float64]:
    """A closed Catmull-Rom curve through the points, each stretch in `pieces`."""
    around = np.concatenate([points[-1:], points, points[:2]])[:, None]
    p = [around[first : first + len(points)] for first in range(4)]
    t = np.linspace(0, 1, pieces, endpoint=False)[None, :, None]
    curve = p[1] + t / 2 * (
        p[2] - p[0] + t * (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3] + t * (3 * (p[1] - p[2]) + p[3] - p[0]))
    )
    return curve.reshape(-1, 2)


def _pleats(share: Field) -> Field:
    """Light and shadow of three folds across; `share` is 0 at the upper edge and 1 at the chin."""
    folds = (share - 0.28) / 0.16
    place = folds - np.floor(folds)
    within = (folds > 0) & (folds < 3)
    return np.where(within, 0.07 * place - 0.14 * _bump(place - 0.97, 0.09), 0)


def _bump(distance: Field, width: float) -> Field:
    """1 at distance 0, falling to 0 at `width` either way, smoothly."""
    near = np.maximum(1 - (distance * (1 / width)) ** 2, 0)
    return near * near


def _lens(x: Field, y: Field, half: tuple[float, float], power: float) -> Field:
    """Below 1 inside the right lens, 1 on its rim: a rounded box, narrower below."""
    across = np.abs(x - _LENS) / (half[0] * (1 - 0.25 * np.clip(y, 0, 1)))
    down = np.abs(y - 0.06) * (1 / half[1])
    larger = np.maximum(across, down)
    # The same as (across ** power + down ** power) ** (1 / power), with one power less and no overflow.
    return larger * (1 + (np.minimum(across, down) / np.maximum(larger, 1e-6)) ** power) ** (1 / power)


def _line(x: Field, y: Field, lines: Sequence[Numbers], half_width: float, unit: float) -> Field:
    """How much of each pixel straight lines, each (x, y, x, y), cover, 0 to 1."""
    near = [_capsule(x, y, (*line, half_width, half_width)) for line in lines]
    return np.clip(np.maximum.reduce(near) * (half_width * unit) + 0.5, 0, 1)


def _hand_height(over: Field, along: Field, spread: float) -> Field:
    """1 in the middle of fingers, palm and arm, 0 on their edge, negative outside.

    Args:
        over: across the hand, 0 in its middle, in lengths of the hand.
        along: from the fingertips to the arm.
        spread: how far apart the fingertips are, 1: as in `_HAND`.
    """
    parts = _HAND.copy()
    parts[:_FINGERS, 0] *= spread
    return np.maximum.reduce([_capsule(over, along, part) for part in parts.tolist()])


def _capsule(x: Field, y: Field, part: Numbers) -> Field:
    """1 on the line between two points, 0 at the half width, negative outside; the width goes from end to end."""
    x0, y0, x1, y1, start, end = part
    dx, dy = x1 - x0, y1 - y0
    squared = dx * dx + dy * dy
    x, y = x - x0, y - y0
    share = np.clip(x * (dx / squared) + y * (dy / squared), 0, 1)
    distance = cv2.magnitude(x - share * dx, y - share * dy)
    return 1 - distance / (start + share * (end - start))
