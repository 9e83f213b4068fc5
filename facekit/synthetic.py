"""Faces drawn on demand, with exact labels: training data for a first run, and test data."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facekit.canvas import Canvas, View, similarity
from facekit.likeness import Appearance, Identity
from facekit.portrait import Sitter, paint_portrait

_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# Small pictures are drawn at this many pixels or more, then reduced: OpenCV's thinnest line is a pixel wide.
_SMALLEST_DRAWING = 200
_CROP_JITTER = 0.008


@dataclass(frozen=True)
class Photo:
    image: np.ndarray
    identity: int
    box: np.ndarray
    landmarks: np.ndarray


def draw_photo(seed: int, person: int, picture: int, size: int = 250) -> Photo:
    identity, look = _likeness(seed, person, picture)
    sitter = Sitter(identity, look)
    return _develop(sitter, _photo_view(sitter, size), person, size)


def draw_crop(seed: int, person: int, picture: int, size: int = 112) -> Photo:
    identity, look = _likeness(seed, person, picture)
    sitter = Sitter(identity, look)
    return _develop(sitter, _crop_view(sitter, size), person, size)


def _likeness(seed, person, picture):
    identity = Identity.from_seed(seed, person)
    return identity, Appearance.from_seed(seed, person, picture, identity.glasses_share)


def _photo_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    c, s = np.cos(look.roll), np.sin(look.roll)
    turned = View(look.yaw, look.pitch, ((c, -s, 0.0), (s, c, 0.0)))
    left, top, width, height = sitter.box(turned)
    scale = look.face_share * size / max(width, height)
    shift = (size - scale * np.array([width, height])) * (look.place_x, look.place_y) - scale * np.array([left, top])
    return View(look.yaw, look.pitch, ((scale * c, -scale * s, shift[0]), (scale * s, scale * c, shift[1])))


def _crop_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    turned = View(look.yaw, look.pitch)
    rng = np.random.default_rng([look.texture_seed, 1])
    target = (_TEMPLATE / 112 + rng.normal(0, _CROP_JITTER, (5, 2))) * size
    matrix = similarity(sitter.landmarks(turned), target)
    return View(look.yaw, look.pitch, tuple(map(tuple, matrix.tolist())))


def _develop(sitter, view, person, size):
    rng = np.random.default_rng(sitter.look.texture_seed)
    factor = -(-_SMALLEST_DRAWING // size)
    big = View(view.yaw, view.pitch, tuple(tuple(factor * np.array(row)) for row in view.matrix))
    image = _background(rng, size * factor)
    paint_portrait(Canvas(image, big), sitter, rng)
    if factor > 1:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image = _expose(image, sitter.look, rng)
    return Photo(image, person, sitter.box(view).astype(np.float32), sitter.landmarks(view).astype(np.float32))


def _background(rng, size):
    cells = int(rng.integers(2, 9))
    grid = rng.uniform(20, 235, 3) + rng.normal(0, rng.uniform(5, 45), (cells, cells, 1)) + rng.normal(0, 12, (cells, cells, 3))
    kind = cv2.INTER_CUBIC if rng.random() < 0.75 else cv2.INTER_NEAREST
    image = cv2.resize(grid.astype(np.float32), (size, size), interpolation=kind)
    return np.clip(cv2.GaussianBlur(image, (0, 0), size / 120), 0, 255)


def _expose(image, look, rng):
    size = image.shape[0]
    warm = np.array([1 + look.temperature, 1.0, 1 - look.temperature], np.float32)
    image = (image - 118) * np.float32(look.contrast) + 118
    image = image * (warm * np.float32(look.exposure))
    if look.blur * size > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), look.blur * size)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(look.noise)
    image = np.clip(image, 0, 255).astype(np.uint8)
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
