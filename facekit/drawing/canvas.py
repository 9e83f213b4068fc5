"""A canvas for soft shapes: smooth curves, a view of a head that turns, and a brush with blurred edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import ceil, cos, floor, sin

import cv2
import numpy as np

# Fixed-point bits of the coordinates that OpenCV draws: 1/16 pixel.
_SHIFT = 4

# Weights of four neighbouring points for six points of the curve between the middle two, (6, 4).
_T = np.linspace(0, 1, 6, endpoint=False)
_CATMULL_ROM = (
    np.stack(
        [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, -(_T**2) + _T**3], axis=1
    )
    / 2
)

# The head as an ellipsoid in face units: what lies nearer its middle lies deeper towards the camera, and so moves
# more when the head turns.
_HEAD_CENTRE, _HEAD_HALVES = np.array([0.0, 0.35]), np.array([1.2, 1.85])
_HEAD_DEPTH, _AXIS_DEPTH = 0.8, 0.35


def spline(points: np.ndarray | list[tuple[float, float]], closed: bool = False) -> np.ndarray:
    """A Catmull-Rom curve through points.

    Args:
        points: (N, 2), at least two.
        closed: whether the last point leads back to the first.

    Returns:
        (M, 2) float64; with the last point where the curve is open.
    """
    given = np.asarray(points, np.float64)
    ends = (given[-1:], given[:2]) if closed else (2 * given[:1] - given[1:2], 2 * given[-1:] - given[-2:-1])
    p = np.concatenate([ends[0], given, ends[1]])
    windows = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    curve = (_CATMULL_ROM @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, given[-1:]])


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, power: float = 2.0, points: int = 20
) -> np.ndarray:
    """A superellipse as a polygon, (points, 2) float64; `power` 2 is an ellipse, more is squarer."""
    return np.array([x, y]) + _unit_ellipse(power, points) * (radius_x, radius_y)


@lru_cache(maxsize=64)
def _unit_ellipse(power: float, points: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.sign(circle) * np.abs(circle) ** (2 / power)


def ribbon(line: np.ndarray, width: float, start: float = 0.2, end: float = 0.2) -> np.ndarray:
    """A line of changing thickness as a polygon.

    Args:
        line: (..., N, 2) open curve, or several of one length.
        width: thickness over the middle third.
        start: thickness at the first point, as a share of `width`.
        end: thickness at the last point, likewise.

    Returns:
        (..., 2N, 2) float64.
    """
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    along[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    across = along[..., ::-1] * (-1.0, 1.0)
    length = np.sqrt((across**2).sum(axis=-1, keepdims=True)) + 1e-9
    profile = np.interp(np.linspace(0, 1, line.shape[-2]), (0, 0.35, 0.65, 1), (start, 1, 1, end))
    half = across / length * (width / 2 * profile)[:, None]
    return np.concatenate([line + half, (line - half)[..., ::-1, :]], axis=-2)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that best moves points onto others (least squares).

    Args:
        source: (N, 2), not all the same point.
        target: (N, 2).

    Returns:
        (2, 3) float64 matrix.
    """
    # As complex numbers, a rotation with a scale is one factor: q = a p + b.
    p, q = source @ (1, 1j), target @ (1, 1j)
    centred = p - p.mean()
    a = np.vdot(centred, q) / np.vdot(centred, centred).real
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


@dataclass(frozen=True)
class View:
    """How a head's frame lands in the picture: it turns (yaw, pitch in radians), then `matrix` places it."""

    yaw: float = 0.0
    pitch: float = 0.0
    matrix: tuple[tuple[float, float, float], tuple[float, float, float]] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    """Face units to pixels: a similarity (2, 3)."""

    @property
    def scale(self) -> float:
        """Pixels a face unit."""
        return float(np.hypot(self.matrix[0][0], self.matrix[1][0]))

    def enlarged(self, factor: float) -> View:
        """The same view in a picture of so many times the side."""
        first, second = (np.asarray(self.matrix) * factor).tolist()
        return View(self.yaw, self.pitch, (tuple(first), tuple(second)))

    def face_units(self, pixels: np.ndarray) -> np.ndarray:
        """The way back from pixels (N, 2) to face units, for points that do not turn."""
        matrix = np.asarray(self.matrix)
        return (pixels - matrix[:, 2]) @ matrix[:, :2] / self.scale**2

    def place(self, points: np.ndarray, lift: float = 0.0, turn: float = 1.0) -> np.ndarray:
        """Points of the face in the picture.

        Args:
            points: (N, 2) in face units.
            lift: height above the head's ellipsoid, in face units.
            turn: share of the turn that these points take part in: 1 a feature, 0 what does not turn.

        Returns:
            (N, 2) float64 pixels, x then y.
        """
        inside = 1 - (((points - _HEAD_CENTRE) / _HEAD_HALVES) ** 2).sum(axis=1)
        # Turned about a line behind the middle of the head, so that the whole head sways little.
        depth = _HEAD_DEPTH * np.sqrt(np.maximum(inside, 0)) + (lift - _AXIS_DEPTH)
        yaw, pitch = self.yaw * turn, self.pitch * turn
        matrix = np.asarray(self.matrix)
        across, shift = matrix[:, :2].T, matrix[:, 2]
        turned = points * (cos(yaw), cos(pitch)) + depth[:, None] * (sin(yaw), sin(pitch))
        return turned @ across + shift


class Canvas:
    """A picture to paint on, with shapes given in face units.

    Attributes:
        planes: (3, H, W) float32: red, green and blue, 0 to 255, painted in place. Whole planes blend several
            times faster than interleaved pixels.
        view: where face units land.
    """

    def __init__(self, planes: np.ndarray, view: View):
        self.planes = planes
        self.view = view

    def fill(
        self,
        shapes: np.ndarray | list[np.ndarray],
        colour: np.ndarray,
        opacity: float = 1.0,
        soft: float = 0.0,
        clip: np.ndarray | None = None,
        turn: float = 1.0,
    ) -> None:
        """Paint polygons.

        Args:
            shapes: one polygon (N, 2) in face units, or several, painted as one.
            colour: (3,) RGB, or (3, H, W) float32 to take each pixel's colour from.
            opacity: 0 to 1.
            soft: standard deviation of the blur of the edge, in face units.
            clip: polygon (N, 2) outside of which nothing is painted; or none.
            turn: as in `View.place`.
        """
        polygons = shapes if isinstance(shapes, list) else [shapes]
        placed = self.view.place(np.concatenate(polygons), turn=turn)
        sigma = soft * self.view.scale
        window = self._window(placed, 3 * sigma + 2)
        if window is None:
            return
        ends = list(accumulate(len(polygon) for polygon in polygons))
        mask = _mask([placed[start:end] for start, end in zip([0, *ends], ends, strict=False)], window)
        if sigma > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), sigma)
        alpha = mask * np.float32(opacity / 255)
        if clip is not None:
            alpha *= _mask([self.view.place(clip, turn=turn)], window) * np.float32(1 / 255)
        region = self.planes[:, *window]
        change = (colour[:, *window] if colour.ndim == 3 else colour.astype(np.float32)[:, None, None]) - region
        change *= alpha
        region += change

    def _window(self, points: np.ndarray, pad: float) -> tuple[slice, slice] | None:
        height, width = self.planes.shape[1:]
        (left, top), (right, bottom) = (points.min(axis=0) - pad).tolist(), (points.max(axis=0) + pad).tolist()
        left, right = max(floor(left), 0), min(ceil(right) + 1, width)
        top, bottom = max(floor(top), 0), min(ceil(bottom) + 1, height)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _mask(polygons: list[np.ndarray], window: tuple[slice, slice]) -> np.ndarray:
    """Coverage of a window by polygons, uint8 0 to 255, with smooth edges."""
    rows, columns = window
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    for polygon in polygons:
        fixed = np.round((polygon - (columns.start, rows.start)) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
    return mask
