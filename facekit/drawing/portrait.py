"""A whole picture: a background, a person in front of it under a lamp, and the camera that takes it."""

from __future__ import annotations

import cv2
import numpy as np

from facekit.drawing.canvas import Canvas, View, ellipse
from facekit.drawing.face import paint_face
from facekit.drawing.likeness import MIRROR, OUTLINE_TURN, Appearance, Sitter
from facekit.drawing.wardrobe import (
    paint_body,
    paint_glasses,
    paint_hair,
    paint_hair_behind,
    paint_occlusion,
)

# Small pictures are drawn at this many pixels or more, then reduced: OpenCV's thinnest line is a pixel wide.
_SMALLEST_DRAWING = 100
# How much of a shadow reaches red, green and blue: skin lets red through.
_SHADE_SHARES = np.array([0.85, 1.05, 1.15], np.float32)[:, None, None]
# No edge in the picture is sharper than this, in face units (standard deviation of a blur).
_SHARPEST = 0.02
# Cells a side of the grid on which light is computed: shading is smooth.
_LIGHT_CELLS = 40


def take_picture(sitter: Sitter, view: View, size: int) -> np.ndarray:
    """Draw a person.

    Args:
        sitter: who, and how.
        view: where the face lands, in pixels of the picture.
        size: side of the picture in pixels, at least 1.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    rng = np.random.default_rng(sitter.look.texture_seed)
    factor = -(-_SMALLEST_DRAWING // size)
    image = _background(size * factor, rng)
    canvas = Canvas(np.ascontiguousarray(image.transpose(2, 0, 1)), view.enlarged(factor))
    _paint_sitter(canvas, sitter, rng)
    _expose(canvas.planes, sitter.look)
    image = cv2.merge(list(canvas.planes[::-1]))
    if factor > 1:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return _record(image, sitter.look, _SHARPEST * view.scale, rng)


def _paint_sitter(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    paint_hair_behind(canvas, sitter)
    paint_body(canvas, sitter)
    paint_face(canvas, sitter)
    hair = paint_hair(canvas, sitter, rng)
    _light(canvas, sitter, hair)
    if sitter.look.glasses:
        paint_glasses(canvas, sitter)
    paint_occlusion(canvas, sitter)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Blurred patches around one colour, (size, size, 3) float32, 0 to 255."""
    cells = int(rng.integers(2, 9))
    colour = rng.uniform(30, 225) + rng.uniform(-45, 45, 3)
    grid = colour + rng.normal(0, rng.uniform(4, 40), (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
    sharp = rng.random() < 0.25
    image = cv2.resize(
        grid.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST if sharp else cv2.INTER_CUBIC
    )
    if sharp:
        image = cv2.GaussianBlur(image, (0, 0), size / 60)
    return np.clip(image, 0, 255)


def _light(canvas: Canvas, sitter: Sitter, hair: np.ndarray | None) -> None:
    """Shade the head as an ellipsoid under one lamp and an even light."""
    look, view = sitter.look, canvas.view
    size = canvas.planes.shape[1]
    grid = np.linspace(0, size, _LIGHT_CELLS)
    x, y = view.face_units(np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)).T
    x = np.clip(x / (sitter.person.face_width + 0.12), -1, 1)
    y = np.clip((y - 0.2) / 2.0, -1, 1)
    lamp = np.array([look.light_x, look.light_y, 0.9])
    normal = np.stack([x, y, np.sqrt(np.maximum(1 - x**2 - y**2, 0))])
    facing = np.maximum(lamp @ normal / np.linalg.norm(lamp), 0)
    # What faces the camera keeps about its colour, whatever the lamp's strength.
    shade = 1 + look.light_strength * (facing - 0.85)
    shade = shade.astype(np.float32).reshape(_LIGHT_CELLS, _LIGHT_CELLS)
    lit = canvas.planes * (1 + _SHADE_SHARES * (cv2.resize(shade, (size, size)) - 1))
    ear = ellipse(sitter.person.face_width + 0.03, 0.22, 0.15, 0.3)
    head = [sitter.outline, ear, ear * MIRROR] + ([] if hair is None else [hair])
    canvas.fill(head, lit, soft=0.02, turn=OUTLINE_TURN)


def _expose(planes: np.ndarray, look: Appearance) -> None:
    """Exposure, contrast and colour cast, in place on (3, H, W)."""
    cast = np.array([1 + look.temperature, 1.0, 1 - look.temperature]) * look.exposure
    planes *= (cast * look.contrast).astype(np.float32)[:, None, None]
    planes += (118 * (1 - look.contrast) * cast).astype(np.float32)[:, None, None]


def _record(bgr: np.ndarray, look: Appearance, lens: float, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise and JPEG of a camera: float32 (H, W, 3) to uint8 RGB; `lens` is its least blur in pixels."""
    size = len(bgr)
    bgr = cv2.GaussianBlur(bgr, (0, 0), max(look.blur * size, lens))
    bgr += rng.standard_normal((size, size, 1), np.float32) * np.float32(look.noise)
    pixels = np.clip(bgr, 0, 255, out=bgr).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality])
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
